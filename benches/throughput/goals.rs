//! What Trefoil wants to reach, as ratios within one run.

use crate::metric::Metric;
use crate::product::Kind;
use crate::results::Results;

pub struct Goal {
    pub what: String,
    pub against: &'static str,
    pub wanted: String,
    /// The ratio that was reached, or what stands for it; `None` when one of the two is missing.
    pub reached: Option<String>,
    pub met: Option<bool>,
}

/// The user-space WireGuards.
const WIREGUARDS: [Kind; 3] = [Kind::WireguardGo, Kind::Boringtun, Kind::Gotatun];
/// Everybody who encrypts besides us.
const PEERS: [Kind; 4] = [Kind::Strongswan, Kind::WireguardGo, Kind::Boringtun, Kind::Gotatun];

pub fn judge(results: &Results) -> Vec<Goal> {
    let ours = |metric| results.ours().and_then(|column| column.median(metric));
    let of = |kinds: &[Kind], metric| {
        let columns = kinds.iter().filter_map(|kind| results.of(*kind));
        columns.filter_map(|column| column.median(metric)).collect::<Vec<f64>>()
    };
    let highest = |kinds: &[Kind], metric| of(kinds, metric).into_iter().max_by(f64::total_cmp);
    let lowest = |kinds: &[Kind], metric| of(kinds, metric).into_iter().min_by(f64::total_cmp);
    let at_least = |metric: Metric, against, theirs: Option<f64>, wanted: f64| {
        let ratio = ours(metric).zip(theirs.filter(|theirs| *theirs > 0.0)).map(|(ours, theirs)| ours / theirs);
        goal(metric.label(), against, format!("at least {}", times(wanted)), ratio, |ratio| ratio >= wanted)
    };
    let at_most = |metric: Metric, against, theirs: Option<f64>, wanted: f64| {
        let ratio = ours(metric).zip(theirs.filter(|theirs| *theirs > 0.0)).map(|(ours, theirs)| ours / theirs);
        goal(metric.label(), against, format!("at most {}", times(wanted)), ratio, |ratio| ratio <= wanted)
    };
    let veth = |metric| highest(&[Kind::Veth], metric);
    let (fastest, best) = ("the fastest peer", "the best peer");
    let mut goals = vec![
        at_least(Metric::Tcp1, "plain veth", veth(Metric::Tcp1), 0.4),
        at_least(Metric::Tcp1, "the fastest WireGuard", highest(&WIREGUARDS, Metric::Tcp1), 7.0),
        at_least(Metric::Tcp1, "strongSwan", highest(&[Kind::Strongswan], Metric::Tcp1), 12.0),
        at_least(Metric::Udp1300, fastest, highest(&PEERS, Metric::Udp1300), 3.0),
        at_least(Metric::Udp64, fastest, highest(&PEERS, Metric::Udp64), 3.0),
        at_least(Metric::Udp64, "plain veth", veth(Metric::Udp64), 0.5),
        at_least(Metric::Udp64Mixed, fastest, highest(&PEERS, Metric::Udp64Mixed), 3.0),
        at_least(Metric::Udp64Mixed, "plain veth", veth(Metric::Udp64Mixed), 0.5),
        at_most(Metric::SteadyCpu, best, lowest(&PEERS, Metric::SteadyCpu), 0.5),
        at_most(Metric::SteadyMixedCpu, best, lowest(&PEERS, Metric::SteadyMixedCpu), 0.5),
        at_most(Metric::TcpCpuPerGigabyte, best, lowest(&PEERS, Metric::TcpCpuPerGigabyte), 0.25),
        at_least(Metric::Tcp8ThreeTunnels, "one tunnel", ours(Metric::Tcp8), 1.0),
        at_most(Metric::Memory, "gotatun", highest(&[Kind::Gotatun], Metric::Memory), 1.0),
    ];
    let added = ours(Metric::AddedMedian);
    goals.push(Goal {
        what: Metric::AddedMedian.label().to_owned(),
        against: "plain veth",
        wanted: "under 50 µs".to_owned(),
        reached: added.map(|added| format!("{added:.1} µs")),
        met: added.map(|added| added < 50.0),
    });
    goals
}

fn goal(what: &str, against: &'static str, wanted: String, ratio: Option<f64>, met: impl Fn(f64) -> bool) -> Goal {
    Goal { what: what.to_owned(), against, wanted, reached: ratio.map(times), met: ratio.map(met) }
}

fn times(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2} x") } else { format!("{ratio:.1} x") }
}
