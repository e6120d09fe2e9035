//! What a running stream notices when a WAN or a whole PoP goes.

use std::time::{Duration, Instant};

use trefoil::edge::SiteStatus;

use super::bench::Bench;
use super::daemon::{active_role, tunnel, tunnels, usable_of};
use super::emulator::{Direction, Model};
use super::process::wait_for;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::stream::{Report, Stream};
use super::topology::{LINKS, POPS, SERVER, WanLink};

#[test]
fn a_stream_moves_to_another_link_when_its_wan_is_cut() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site::new());
    let stream = steady_stream(&bench);
    let link = carrier(&bench, |tunnel| tunnel.packets_out);
    let cut = Instant::now();
    bench.lab.wan.cut(link.address);
    let status = bench.trefoil.wait("the cut tunnel is down", Duration::from_secs(30), |status| {
        !tunnel(status, "primary", link.name).usable && !tunnel(status, "secondary", link.name).usable
    });
    assert_eq!(active_role(&status), "primary", "one tunnel of three is no reason to fail over");
    assert_eq!(usable_of(&status, "primary"), 2);
    flows_again(&stream);
    let restored = Instant::now();
    let report = stream.finish();
    say(&format!("{} cut under a stream: {}", link.name, gaps(&report, cut, restored)));
    let gap = report.there.longest_gap(cut, restored);
    assert!(gap < DETECTION, "{gap:?}");
    explained(&bench, &status, "primary", link.name);

    bench.lab.wan.mend(link.address);
    bench.wait_for_all();
}

#[test]
fn two_cuts_are_over_within_milliseconds_both_ways() {
    cut_again_and_again(2);
}

#[test]
#[ignore = "30 cuts take minutes; the short form is above"]
fn thirty_cuts_are_over_within_milliseconds_both_ways() {
    cut_again_and_again(30);
}

/// Cuts in turn a link that packets leave by, and the one that all come in by, since strongSwan
/// returns a site's traffic through its newest tunnel.
fn cut_again_and_again(count: usize) {
    if !lab_is_possible() {
        return;
    }
    // The PoP would find its dead tunnels by itself only after 20 s and more.
    let bench = Bench::start_with(Site::new(), |connection| connection.dpd_delay = Duration::from_secs(20), &[]);
    bench.wait_for_all();
    for link in &LINKS {
        let model = Model { delay: Duration::from_millis(10), ..Model::CLEAN };
        bench.lab.wan.set(link.address, Direction::From, model);
        bench.lab.wan.set(link.address, Direction::To, model);
    }
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for number in 0..count {
        let stream = steady_stream(&bench);
        let link = if number % 2 == 0 {
            carrier(&bench, |tunnel| tunnel.packets_out)
        } else {
            carrier(&bench, |tunnel| tunnel.packets_in)
        };
        std::thread::sleep(Duration::from_millis(300 + 61 * number as u64 % 400));
        let cut = Instant::now();
        bench.lab.wan.cut(link.address);
        std::thread::sleep(Duration::from_millis(500));
        flows_again(&stream);
        let restored = Instant::now();
        let report = stream.finish();
        say(&format!("cut {number}, {}: {}", link.name, gaps(&report, cut, restored)));
        if number % 2 == 0 {
            there.push(report.there.longest_gap(cut, restored));
        } else {
            back.push(report.back.longest_gap(cut, restored));
        }
        // A link that is back at once had a hole, and is watched more calmly from then on.
        std::thread::sleep(AN_OUTAGE.saturating_sub(cut.elapsed()));
        bench.lab.wan.mend(link.address);
        bench.wait_for_all();
    }
    for (what, gaps, worst) in [
        ("that packets left by, until they flow", &mut there, DETECTION),
        ("that answers came by, until they flow", &mut back, TOLD),
    ] {
        gaps.sort_unstable();
        let of = |percent: usize| gaps[(gaps.len() - 1) * percent / 100].as_millis();
        let most = gaps[gaps.len() - 1];
        say(&format!(
            "{} cuts of a link {what} again, at a round trip of 20 ms: least {} ms, median {} ms, 90 % {} ms, worst {} ms; in order: {:?}",
            gaps.len(),
            of(0),
            of(50),
            of(90),
            of(100),
            gaps.iter().map(Duration::as_millis).collect::<Vec<_>>()
        ));
        assert!(most < worst, "{what}: {gaps:?}");
    }
}

#[test]
fn a_daemon_that_stood_still_blames_no_path_for_it() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::start_with(Site::new(), |connection| connection.dpd_delay = Duration::from_secs(60), &[]);
    bench.wait_for_all();
    let before = bench.trefoil.wait("all tunnels are healthy", Duration::from_secs(30), |status| {
        tunnels(status).all(|tunnel| tunnel.verdict == "healthy")
    });
    let stream = steady_stream(&bench);
    bench.trefoil.stand_still();
    std::thread::sleep(Duration::from_secs(6));
    bench.trefoil.go_on();
    flows_again(&stream);
    let flowing = Instant::now();
    // Long enough for a verdict on what was measured before and after.
    std::thread::sleep(Duration::from_secs(4));
    let report = stream.finish();
    let gap = report.there.longest_gap(flowing, Instant::now());
    say(&format!("after a pause of 6 s: {} ms without a packet at most", gap.as_millis()));
    let after = bench.trefoil.status().expect("its status");
    for (was, is) in tunnels(&before).zip(tunnels(&after)) {
        assert!(is.usable && is.verdict != "down", "{is:?}");
        assert_eq!(is.last_failure.is_some(), was.last_failure.is_some(), "{is:?}");
        let changed = |status: &trefoil::edge::TunnelStatus| status.last_change.as_ref().map(|change| change.at_ms);
        assert_eq!(changed(is), changed(was), "{is:?}");
    }
}

#[test]
fn a_link_that_is_cut_in_one_direction_only_carries_nothing_either() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site::new());
    for direction in [Direction::From, Direction::To] {
        let stream = steady_stream(&bench);
        let link = carrier(&bench, |tunnel| tunnel.packets_out);
        let cut = Instant::now();
        bench.lab.wan.cut_one_way(link.address, direction);
        let status = bench.trefoil.wait("the half dead tunnel is down", Duration::from_secs(30), |status| {
            !tunnel(status, "primary", link.name).usable
        });
        assert_eq!(active_role(&status), "primary");
        // What the PoP sends comes back when it has found its dead tunnel too.
        arrives_again(&stream);
        let restored = Instant::now();
        let report = stream.finish();
        say(&format!("{} cut in direction {direction:?}: {}", link.name, gaps(&report, cut, restored)));
        assert!(report.there.longest_gap(cut, restored) < DETECTION);
        bench.lab.wan.mend(link.address);
        bench.wait_for_all();
    }
}

#[test]
fn the_secondary_pop_takes_over_when_all_primary_tunnels_die_and_gives_back_later() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site::new());
    let stream = steady_stream(&bench);
    let cut = Instant::now();
    bench.lab.wan.cut(POPS[0]);
    let status = bench
        .trefoil
        .wait("the secondary role is active", Duration::from_secs(30), |status| active_role(status) == "secondary");
    assert_eq!(usable_of(&status, "primary"), 0);
    flows_again(&stream);
    let failed_over = Instant::now();
    let report = stream.finish();
    say(&format!("failover to the other PoP: {}", gaps(&report, cut, failed_over)));
    assert!(report.there.longest_gap(cut, failed_over) < DETECTION);
    explained(&bench, &status, "primary", "fibre");

    let stream = steady_stream(&bench);
    bench.lab.wan.mend(POPS[0]);
    let mended = Instant::now();
    let status = bench
        .trefoil
        .wait("the primary role is active again", Duration::from_secs(60), |status| active_role(status) == "primary");
    let took = mended.elapsed();
    flows_again(&stream);
    let failed_back = Instant::now();
    let report = stream.finish();
    say(&format!(
        "failback {:.1} s after the PoP returned ({:?}): {}",
        took.as_secs_f64(),
        bench.site.failback,
        gaps(&report, mended, failed_back)
    ));
    assert!(Some(took) >= bench.site.failback.hold(), "failback came before the hold time");
    assert_eq!(report.there.lost, 0, "failback is no emergency");
    let switch = status.connectors[0].last_switch.as_ref().expect("the switch is remembered");
    assert!(bench.trefoil.log().contains(&switch.reason), "the log does not say {:?}", switch.reason);
}

#[test]
fn cutting_the_wan_that_brings_all_answers_does_not_make_its_siblings_look_down() {
    if !lab_is_possible() {
        return;
    }
    // The PoP does not look after its tunnels for a while, so it goes on answering into the cut.
    let bench = Bench::start_with(Site::new(), |connection| connection.dpd_delay = Duration::from_secs(20), &[]);
    bench.wait_for_all();
    let stream = steady_stream(&bench);
    let newest = carrier(&bench, |tunnel| tunnel.packets_in);
    let status = bench.trefoil.status().expect("status");
    say(&format!(
        "the PoP answers through {}: packets in {}",
        newest.name,
        tunnels(&status)
            .filter(|tunnel| tunnel.role == "primary")
            .map(|tunnel| format!("{} {}", tunnel.link, tunnel.packets_in))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    let siblings: Vec<&WanLink> = LINKS.iter().filter(|link| link.name != newest.name).collect();
    let cut = Instant::now();
    bench.lab.wan.cut(newest.address);
    let mut fell_after = None;
    while cut.elapsed() < Duration::from_secs(12) {
        let status = bench.trefoil.status().expect("status");
        for sibling in &siblings {
            let state = tunnel(&status, "primary", sibling.name);
            assert!(state.usable && state.verdict != "down", "{} looks down: {state:?}", sibling.name);
        }
        if fell_after.is_none() && !tunnel(&status, "primary", newest.name).usable {
            fell_after = Some(cut.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let fell_after = fell_after.expect("the cut tunnel itself is noticed");
    flows_again(&stream);
    let restored = Instant::now();
    let report = stream.finish();
    // Its own liveness checks would have told it after 20 s and three retransmissions.
    let gap = report.back.longest_gap(cut, restored);
    assert!(gap < TOLD, "downstream was restored after {gap:?}");
    say(&format!(
        "{} cut while all answers came through it: it was down after {:.1} s, its siblings never; {}",
        newest.name,
        fell_after.as_secs_f64(),
        gaps(&report, cut, restored)
    ));
    let status = bench.trefoil.status().expect("status");
    assert_eq!(active_role(&status), "primary");
    explained(&bench, &status, "primary", newest.name);
}

/// Longer than the 2 s within which a dead tunnel is set up anew.
const AN_OUTAGE: Duration = Duration::from_secs(4);

/// The worst that an outage may last for the site's packets: a multiple of what `docs/steering.md` promises, for the
/// scheduling of a busy machine.
const DETECTION: Duration = Duration::from_millis(1_000);

/// The same for packets to the site, whose PoP must be told.
const TOLD: Duration = Duration::from_millis(1_500);

/// 500 packets a second from the LAN host to the server and back, already flowing.
pub fn steady_stream(bench: &Bench) -> Stream {
    let stream = Stream::start(&bench.lab.lan, &bench.lab.server, SERVER, Duration::from_millis(2), 200);
    flows_again(&stream);
    stream
}

/// Waits until 250 more packets have reached the server.
fn arrives_again(stream: &Stream) {
    let wanted = stream.received_there() + 250;
    wait_for("the stream arrives", Duration::from_secs(20), || (stream.received_there() >= wanted).then_some(()));
}

/// Waits until 250 more packets have made the whole way.
pub fn flows_again(stream: &Stream) {
    let wanted = stream.received_back() + 250;
    wait_for("the stream flows", Duration::from_secs(40), || (stream.received_back() >= wanted).then_some(()));
}

/// The link of the primary tunnel whose counter grows most while the stream runs.
fn carrier(bench: &Bench, counter: impl Fn(&trefoil::edge::TunnelStatus) -> u64) -> &'static WanLink {
    let count = |status: &SiteStatus| LINKS.each_ref().map(|link| counter(tunnel(status, "primary", link.name)));
    let before = count(&bench.trefoil.status().expect("status"));
    let grown = wait_for("a tunnel carries the stream", Duration::from_secs(20), || {
        let now = count(&bench.trefoil.status()?);
        let grown: Vec<u64> = now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
        (grown.iter().max() > Some(&300)).then_some(grown)
    });
    let most = grown.iter().max().expect("three links");
    &LINKS[grown.iter().position(|count| count == most).expect("the most of them")]
}

fn gaps(report: &Report, from: Instant, until: Instant) -> String {
    let [there, back] = [&report.there, &report.back]
        .map(|trip| format!("{:.0} ms ({} lost)", trip.longest_gap(from, until).as_secs_f64() * 1000.0, trip.lost));
    format!("gap at the server {there}, at the LAN host {back}")
}

/// The tunnel's last change is told in `status` and in the log.
pub fn explained(bench: &Bench, status: &SiteStatus, role: &str, link: &str) {
    let tunnel = tunnel(status, role, link);
    let change = tunnel.last_change.as_ref().unwrap_or_else(|| panic!("{role}/{link} has no last change"));
    assert!(!change.reason.trim().is_empty(), "{role}/{link}: no reason in {change:?}");
    let log = bench.trefoil.log();
    assert!(log.contains(&change.reason), "{role}/{link}: the log does not say {:?}", change.reason);
    say(&format!("{role}/{link}: {} -> {}: {}", change.from, change.to, change.reason));
}
