//! TCP and UDP through the lab, Trefoil beside strongSwan, in the same run and in turns. The PoP
//! is the same strongSwan for both; the router forwards by itself, without the emulator.
//!
//! ```text
//! cargo build --release && cargo test --test lab throughput -- --ignored
//! ```

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bench::{start_edge, start_pop};
use super::daemon::Trefoil;
use super::groundwork::strongswan_pair;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{FIBRE, SERVER, Topology};
use super::traffic::{IperfServer, Load};

const ROUNDS: usize = 3;

/// What is asked of each edge: the rate of one TCP flow, or the highest rate of UDP datagrams of
/// so many bytes of which at most one in a hundred is lost.
const LOADS: [(&str, Question, bool); 6] = [
    ("TCP up", Question::Tcp, false),
    ("TCP down", Question::Tcp, true),
    ("UDP 1300 up", Question::Udp(1300), false),
    ("UDP 1300 down", Question::Udp(1300), true),
    ("UDP 64 up", Question::Udp(64), false),
    ("UDP 64 down", Question::Udp(64), true),
];

#[derive(Clone, Copy)]
enum Question {
    Tcp,
    Udp(u32),
}

#[test]
#[ignore = "a measurement of minutes that wants a release build and a quiet machine"]
fn throughput_beside_strongswan() {
    if !lab_is_possible() {
        return;
    }
    let binary = release_binary();
    let lab = Topology::new();
    lab.wan.bypass();
    let server = IperfServer::start(&lab.server, SERVER, lab.directory());
    let mut results: [Vec<Vec<f64>>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let pair = strongswan_pair(&lab);
        results[0].push(measure(&lab, &server));
        drop(pair);
        let (trefoil, pop) = trefoil_pair(&lab, &binary);
        results[1].push(measure(&lab, &server));
        drop((trefoil, pop));
    }
    let mut table = format!("{:<16} {:>16} {:>16}\n", "Mbit/s", "strongSwan edge", "Trefoil edge");
    for (index, (name, ..)) in LOADS.iter().enumerate() {
        let [theirs, ours] = results.each_ref().map(|rounds| median(rounds.iter().map(|round| round[index]).collect()));
        let _ = writeln!(table, "{name:<16} {theirs:>16.1} {ours:>16.1}");
    }
    say(&format!("one tunnel to a strongSwan PoP, medians of {ROUNDS} alternating rounds, UDP at 1 % loss:\n{table}"));
}

fn trefoil_pair(lab: &Topology, binary: &Path) -> (Trefoil, super::strongswan::StrongSwan) {
    let mut site = Site::new();
    site.roles[0].links = vec![FIBRE];
    site.roles[1].links = Vec::new();
    let pop = start_pop(lab, &site, 0, |_| {});
    let trefoil = start_edge(binary, lab, &site, &[]);
    trefoil.wait_for_tunnels(site.tunnels(), Duration::from_secs(10));
    (trefoil, pop)
}

fn measure(lab: &Topology, server: &IperfServer) -> Vec<f64> {
    let ask = |load, reverse, seconds| {
        server.measure(&lab.lan, load, reverse, seconds).unwrap_or_else(|error| panic!("{load:?}: {error}"))
    };
    let answer = |question, reverse| match question {
        Question::Tcp => ask(Load::Tcp, reverse, 5).mbps,
        Question::Udp(bytes) => {
            // The geometric middle each time: seven steps narrow 1 to 1,024 down to 6 %.
            let (mut carried, mut low, mut high) = (0.0, 1.0f64, 1024.0f64);
            for _ in 0..7 {
                let middle = (low * high).sqrt();
                let rate = ask(Load::Udp((middle * 1000.0) as u32, bytes), reverse, 1);
                if rate.lost_percent <= 1.0 {
                    (carried, low) = (rate.mbps.max(carried), middle);
                } else {
                    high = middle;
                }
            }
            carried
        }
    };
    LOADS.iter().map(|(_, question, reverse)| answer(*question, *reverse)).collect()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn release_binary() -> PathBuf {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/trefoil");
    assert!(binary.exists(), "{} is missing: cargo build --release", binary.display());
    binary
}
