//! Rekeys under load: make before break, so nothing is lost.

use std::time::{Duration, Instant};

use super::bench::Bench;
use super::daemon::tunnels;
use super::outage::flows_again;
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::stream::Stream;
use super::topology::SERVER;
use super::traffic::{IperfServer, Load};

/// A dozen Child SA and half a dozen IKE SA rekeys a tunnel.
const UNDER_LOAD: u32 = 30;

#[test]
fn child_and_ike_rekeys_that_we_start_lose_no_packet() {
    let site = Site { ike_lifetime: Duration::from_secs(7), child_lifetime: Duration::from_secs(4), ..Site::new() };
    rekeys_lose_nothing("started by us", site, Duration::ZERO, Duration::ZERO);
}

#[test]
fn child_and_ike_rekeys_that_the_pop_starts_lose_no_packet() {
    rekeys_lose_nothing("started by the PoP", Site::new(), Duration::from_secs(7), Duration::from_secs(3));
}

fn rekeys_lose_nothing(whose: &str, site: Site, pop_ike: Duration, pop_child: Duration) {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::start_with(
        site,
        |connection| {
            connection.rekey_ike = pop_ike;
            connection.rekey_child = pop_child;
        },
        &[],
    );
    bench.wait_for_all();
    let server = IperfServer::start(&bench.lab.server, SERVER, bench.directory());
    let stream = Stream::start(&bench.lab.lan, &bench.lab.server, SERVER, Duration::from_millis(1), 600);
    flows_again(&stream);
    let before = rekeys(&bench);
    let start = Instant::now();
    let overflowed = overflow(&bench);
    let load = server.measure(&bench.lab.lan, Load::Udp(20_000, 1200), false, UNDER_LOAD).expect("UDP load");
    let took = start.elapsed();
    let count = rekeys(&bench) - before;
    flows_again(&stream);
    let report = stream.finish();
    let overflowed = overflow(&bench) - overflowed;
    say(&format!(
        "{count} rekeys {whose} in {:.0} s under load: lost {} of {} there, {} of {} back, iperf3 {:.3} % of its UDP; {overflowed} by full sockets",
        took.as_secs_f64(),
        report.there.lost,
        report.there.sent,
        report.back.lost,
        report.back.sent,
        load.lost_percent
    ));
    assert!(count >= 40, "only {count} rekeys on six tunnels in {took:?}");
    let lost = report.there.lost + report.back.lost;
    assert!(lost <= overflowed, "{lost} packets were lost, and only {overflowed} of them for want of a processor");
    assert_eq!(report.there.duplicates + report.back.duplicates, 0);
    assert!(overflowed > 0 || load.lost_percent == 0.0, "iperf3 lost {} %", load.lost_percent);
    bench.wait_for_all();
    for pop in &bench.pops {
        wait_for("the PoP keeps no SA beyond its three", PATIENCE, || (pop.children() == 3).then_some(()));
    }
}

/// Datagrams that a PoP's or the edge's full sockets dropped: charon decrypts with the threads
/// that also do its Diffie-Hellman, and reads too late on a machine with two cores.
fn overflow(bench: &Bench) -> u64 {
    let places = bench.lab.pops.iter().chain([&bench.lab.edge, &bench.lab.lan, &bench.lab.server]);
    let counters = places.map(|place| {
        let text = place.run("cat", &["/proc/net/snmp"]).stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<Vec<&str>> =
            text.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split(' ').collect()).collect();
        let column = lines[0].iter().position(|name| *name == "RcvbufErrors").expect("the kernel counts overflows");
        lines[1][column].parse::<u64>().expect("a number")
    });
    counters.sum()
}

fn rekeys(bench: &Bench) -> u64 {
    tunnels(&bench.trefoil.status().expect("status")).map(|tunnel| tunnel.rekeys).sum()
}
