//! What an operator tells a running site to do, under traffic.

use std::thread;
use std::time::{Duration, Instant};

use trefoil::edge::{Explanation, SiteStatus, TunnelStatus};

use super::bench::Bench;
use super::daemon::{active_role, tunnel};
use super::kernel_drops::KernelDrops;
use super::namespace::Namespace;
use super::outage::flows_again;
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::stream::{Report, Stream};
use super::topology::{LAN_HOST, LINKS, SERVER};
use super::traffic::IperfServer;

const STREAMS: u16 = 8;

/// Where the kernel may drop what nobody had the time to read.
fn places(bench: &Bench) -> [&Namespace; 6] {
    let [primary, secondary] = &bench.lab.pops;
    [&bench.lab.lan, &bench.lab.edge, &bench.lab.internet, primary, secondary, &bench.lab.server]
}

/// Calls and a fast flow: 250 packets a second each.
fn streams(bench: &Bench) -> Vec<Stream> {
    let start = |number| {
        let interval = Duration::from_millis(4);
        Stream::start_on(41_000 + number, &bench.lab.lan, &bench.lab.server, SERVER, interval, 200)
    };
    let streams: Vec<Stream> = (0..STREAMS).map(start).collect();
    streams.iter().for_each(flows_again);
    streams
}

/// Datagrams that each direction has lost, and the longest silence there.
fn told(streams: Vec<Stream>, since: Instant) -> (u64, u64, String) {
    let until = Instant::now();
    let reports: Vec<Report> = streams.into_iter().map(Stream::finish).collect();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let gap = reports.iter().map(|report| report.there.longest_gap(since, until)).max().unwrap_or_default();
    let gap_back = reports.iter().map(|report| report.back.longest_gap(since, until)).max().unwrap_or_default();
    let (there, back) = (sum(|report| report.there.lost), sum(|report| report.back.lost));
    let text = format!(
        "of {} datagrams {there} lost to the server, {back} back, {} and {} out of order, longest silence {:.0} and {:.0} ms",
        sum(|report| report.there.sent),
        sum(|report| report.there.reordered),
        sum(|report| report.back.reordered),
        gap.as_secs_f64() * 1e3,
        gap_back.as_secs_f64() * 1e3,
    );
    let losses: Vec<_> =
        reports.iter().map(|report| report.there.losses(since)).filter(|one| !one.is_empty()).collect();
    let text =
        if losses.is_empty() { text } else { format!("{text}; lost there, by stream, seconds after: {losses:.3?}") };
    (there, back, text)
}

/// The link of the primary tunnel that carries most of what is counted.
fn busiest(bench: &Bench, counted: fn(&TunnelStatus) -> u64) -> &'static str {
    let count = |status: &SiteStatus| LINKS.each_ref().map(|link| counted(tunnel(status, "primary", link.name)));
    let before = count(&bench.trefoil.status().expect("status"));
    thread::sleep(Duration::from_millis(500));
    let after = count(&bench.trefoil.status().expect("status"));
    let grown: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let (place, _) = grown.iter().enumerate().max_by_key(|(_, grown)| **grown).expect("three links");
    LINKS[place].name
}

#[test]
fn a_drain_under_traffic_and_taking_a_tunnel_down_and_up_lose_nothing() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site::new());
    let trefoil = &bench.trefoil;
    let server = IperfServer::start(&bench.lab.server, SERVER, bench.directory());
    // Before the streams begin: what is dropped while they do counts as lost, too.
    let before = KernelDrops::read(&places(&bench));
    thread::scope(|scope| {
        let lan = &bench.lab.lan;
        let tcp = scope.spawn(move || server.run(lan, &["--bitrate".to_owned(), "5M".to_owned()], 15));
        let streams = streams(&bench);
        let started = Instant::now();
        let swallowed = || {
            let wan = bench.lab.wan.esp(|_| true);
            wan.entered - wan.left
        };
        let link = busiest(&bench, |tunnel| tunnel.packets_out);
        let name = format!("primary/{link}");
        let packets = || tunnel(&trefoil.status().expect("status"), "primary", link).packets_out;

        say(&trefoil.verb(&["tunnel", "drain", &name]));
        // Its flows follow within a second, and what a busy machine takes.
        thread::sleep(Duration::from_millis(2_500));
        let drained = packets();
        thread::sleep(Duration::from_secs(1));
        assert_eq!(packets(), drained, "the drained tunnel still sends");
        let status = trefoil.status().expect("status");
        let state = tunnel(&status, "primary", link);
        assert_eq!((state.duty.as_str(), state.usable, state.share_percent), ("drained", true, 0.0), "{state:?}");
        let (source, destination) = (format!("{LAN_HOST}:16384"), format!("{SERVER}:16384"));
        let told_of = trefoil.verb(&["explain", "udp", &source, &destination, "--json"]);
        let explained: Explanation = serde_json::from_str(&told_of).expect("JSON");
        let standing = explained.candidates.iter().find(|one| one.link == link).map(|one| one.standing.as_str());
        assert_eq!(standing, Some("drained by the operator"));
        say(&trefoil.verb(&["tunnel", "up", &name]));

        // The flows stay where they are now: it is one of those tunnels that is taken down under them.
        let (was_drained, link) = (link, busiest(&bench, |tunnel| tunnel.packets_out));
        let name = format!("primary/{link}");
        say(&trefoil.verb(&["tunnel", "down", &name]));
        trefoil.wait("the tunnel is down", PATIENCE, |status| tunnel(status, "primary", link).state == "down");
        thread::sleep(Duration::from_secs(3));
        assert_eq!(tunnel(&trefoil.status().expect("status"), "primary", link).state, "down", "it stays down");
        say(&trefoil.table());
        say(&trefoil.verb(&["tunnel", "up", &name]));
        bench.wait_for_all();
        thread::sleep(Duration::from_secs(1));
        let (there, back, text) = self::told(streams, started);
        let tcp = tcp.join().expect("TCP").expect("TCP went through");
        let retransmits = tcp["end"]["sum_sent"]["retransmits"].as_u64().unwrap_or_default();
        let dropped = KernelDrops::read(&places(&bench)).since(&before);
        say(&format!(
            "{was_drained} drained and up, {link} down and up: {text}; TCP beside it sent {retransmits} segments again; dropped by the \
             kernel: {}; in the WAN or lost there: {}",
            dropped.told(),
            swallowed()
        ));
        assert!(there + back <= dropped.total(), "{text}\n{}", trefoil.describe());
    });
}

#[test]
fn taking_the_tunnel_down_that_brings_all_answers_loses_nothing() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site::new());
    let before = KernelDrops::read(&places(&bench));
    let streams = streams(&bench);
    // strongSwan returns everything through its newest tunnel.
    let link = busiest(&bench, |tunnel| tunnel.packets_in);
    let started = Instant::now();
    say(&bench.trefoil.verb(&["tunnel", "down", &format!("primary/{link}")]));
    bench.trefoil.wait("the tunnel is down", PATIENCE, |status| tunnel(status, "primary", link).state == "down");
    thread::sleep(Duration::from_secs(1));
    let (there, back, text) = told(streams, started);
    let dropped = KernelDrops::read(&places(&bench)).since(&before);
    say(&format!("{link}, which brought all answers, taken down: {text}; dropped by the kernel: {}", dropped.told()));
    assert!(there + back <= dropped.total(), "{text}");
}

#[test]
fn a_failover_by_hand_and_the_way_back_lose_nothing() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site { failback: trefoil::ha::Failback::Manual, ..Site::new() });
    let trefoil = &bench.trefoil;
    for (role, arguments) in [("secondary", &["failover"][..]), ("primary", &["failover", "pops", "--to", "primary"])] {
        let before = KernelDrops::read(&places(&bench));
        let streams = streams(&bench);
        let started = Instant::now();
        say(&trefoil.verb(arguments));
        let status = trefoil.status().expect("status");
        assert_eq!((active_role(&status), status.connectors[0].held), (role, role == "secondary"));
        let sent = || LINKS.iter().map(|link| tunnel(&trefoil.status().expect("status"), role, link.name).packets_out);
        let sent_before: u64 = sent().sum();
        wait_for("the role carries", PATIENCE, || (sent().sum::<u64>() > sent_before + 500).then_some(()));
        thread::sleep(Duration::from_secs(2));
        let (there, back, text) = told(streams, started);
        let dropped = KernelDrops::read(&places(&bench)).since(&before);
        say(&format!("all traffic sent to the {role} role: {text}; dropped by the kernel: {}", dropped.told()));
        assert!(there + back <= dropped.total(), "{text}");
    }
}
