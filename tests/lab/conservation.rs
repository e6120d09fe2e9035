//! Correctness under speed: a mix of traffic through rekeys every five seconds and cuts of WAN links, in
//! which every packet is accounted for. The emulator counts what it takes and gives, by the length
//! of the packet, and so stands as a witness between the two ends: what a host gave to an edge must
//! be on the WAN, and what the WAN gave to it must reach the host, but for what somebody counted
//! as dropped.
//!
//! ```text
//! cargo test --test lab conservation                       # half a minute
//! cargo test --test lab conservation -- --ignored          # ten minutes with each peer
//! ```

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use trefoil::crypto::PacketSuite;
use trefoil::edge::{DropStatus, SiteStatus};
use trefoil::esp::esp_overhead;

use super::bench::{start_edge, start_pop};
use super::daemon::{Trefoil, binary, tunnels};
use super::emulator::EspKind;
use super::gateway::{GatewayWish, start_gateway};
use super::kernel_drops::KernelDrops;
use super::outage::flows_again;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::stream::{Stream, Trip};
use super::strongswan::StrongSwan;
use super::topology::{LINKS, POPS, SERVER, Topology};
use super::traffic::IperfServer;

/// A first rekey 5.1 to 5.7 seconds after an SA was made, of both kinds.
const OFTEN: Duration = Duration::from_secs(6);

const SHORT: u32 = 10;
const LONG: u32 = 600;

/// One link after the other is cut for so long: long enough to lose the tunnel, and too short to be
/// noticed.
const CUTS: [Duration; 3] = [Duration::from_millis(3_500), Duration::from_millis(300), Duration::from_millis(1_500)];
/// Between two cuts, and before the first.
const CALM: Duration = Duration::from_secs(3);

/// Payloads of the two streams, sent every 2 ms and echoed. Nothing else in the mix has their length on the
/// WAN.
const SMALL: usize = 64;
const LARGE: usize = 1_111;
/// Of iperf3's datagrams.
const IPERF_UP: usize = 100;
const IPERF_DOWN: usize = 1_300;

#[test]
fn a_strongswan_pop_gets_and_gives_all_that_the_network_did_not_lose() {
    with_strongswan(SHORT);
}

#[test]
fn two_trefoils_with_two_workers_each_lose_nothing_that_the_network_did_not_lose() {
    with_trefoil(SHORT);
}

#[test]
#[ignore = "ten minutes"]
fn ten_minutes_with_a_strongswan_pop() {
    with_strongswan(LONG);
}

#[test]
#[ignore = "ten minutes"]
fn ten_minutes_of_two_trefoils() {
    with_trefoil(LONG);
}

enum Peer {
    StrongSwan(StrongSwan),
    Trefoil(Box<Trefoil>),
}

fn with_strongswan(seconds: u32) {
    if !lab_is_possible() {
        return;
    }
    let (lab, site) = (Topology::new(), site());
    // The PoP starts those of IKE SAs, and the edge those of Child SAs.
    let pop = start_pop(&lab, &site, 0, |connection| connection.rekey_ike = Duration::from_secs(5));
    run("strongSwan", &lab, &site, Peer::StrongSwan(pop), seconds);
}

fn with_trefoil(seconds: u32) {
    if !lab_is_possible() {
        return;
    }
    let (lab, mut site) = (Topology::new(), site());
    site.roles[0].remote_id_of_link = true;
    let wish = GatewayWish { ike_lifetime: OFTEN, child_lifetime: OFTEN, workers: 2 };
    let gateway = start_gateway(&lab, &site, 0, wish);
    run("Trefoil", &lab, &site, Peer::Trefoil(Box::new(gateway)), seconds);
}

fn site() -> Site {
    let mut site = Site { ike_lifetime: OFTEN, child_lifetime: OFTEN, workers: 2, ..Site::new() };
    site.roles[1].links = Vec::new();
    site
}

fn run(name: &str, lab: &Topology, site: &Site, peer: Peer, seconds: u32) {
    let edge = start_edge(&binary(), lab, site, &[]);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        edge.wait_for_tunnels(3, Duration::from_secs(20));
        let ends = Ends { lab, edge: &edge, gateway: peer.trefoil() };
        measure(name, &ends, seconds);
        // Nothing has been stranded.
        edge.wait_for_tunnels(3, Duration::from_secs(30));
    }));
    if let Err(panic) = outcome {
        eprintln!("{}{}", edge.describe(), peer.describe());
        std::panic::resume_unwind(panic);
    }
}

impl Peer {
    fn trefoil(&self) -> Option<&Trefoil> {
        match self {
            Peer::StrongSwan(_) => None,
            Peer::Trefoil(gateway) => Some(gateway),
        }
    }

    fn describe(&self) -> String {
        match self {
            Peer::StrongSwan(pop) => pop.describe(),
            Peer::Trefoil(gateway) => gateway.describe(),
        }
    }
}

struct Ends<'a> {
    lab: &'a Topology,
    edge: &'a Trefoil,
    /// `None`: the PoP is a strongSwan, which counts nothing.
    gateway: Option<&'a Trefoil>,
}

fn measure(name: &str, ends: &Ends, seconds: u32) {
    let lab = ends.lab;
    let rekeyed = rekeys(ends.edge);
    let before = Counted::read(ends);
    let stream = |port, bytes| Stream::start_on(port, &lab.lan, &lab.server, SERVER, Duration::from_millis(2), bytes);
    let streams = [(SMALL, stream(40_000, SMALL)), (LARGE, stream(40_001, LARGE))];
    streams.iter().for_each(|(_, stream)| flows_again(stream));
    let (iperf, cuts) = load_and_cut(lab, seconds);
    streams.iter().for_each(|(_, stream)| flows_again(stream));
    let trips = streams.map(|(bytes, stream)| (bytes, stream.finish()));
    let rekeyed = rekeys(ends.edge) - rekeyed;
    let counted = Counted::read(ends).since(&before);

    say(&format!("{name}: {seconds} s with {rekeyed} rekeys and {cuts} cuts; {}; {counted:?}", iperf.told()));
    let mut lost_by_network = 0;
    for (bytes, report) in &trips {
        let (up, down) = (Wan::up(lab, *bytes), Wan::down(lab, *bytes));
        lost_by_network += up.lost() + down.lost();
        say(&format!("{name}, {bytes} bytes up: {}", up.told(&report.there)));
        say(&format!("{name}, {bytes} bytes down: {}", down.told(&report.back)));
        let ours = counted.edge_out + counted.edge_kernel + counted.hosts;
        assert!(up.missing_before(&report.there) <= ours, "the edge lost packets that nobody counted");
        let ours = counted.edge_in + counted.edge_kernel + counted.hosts;
        assert!(down.missing_behind(&report.back) <= ours, "the edge lost packets that nobody counted");
        assert_eq!((report.there.duplicates, report.back.duplicates), (0, 0));
        if ends.gateway.is_some() {
            let theirs = counted.pop + counted.pop_kernel + counted.hosts;
            assert!(up.missing_behind(&report.there) <= theirs, "the gateway lost packets that nobody counted");
            assert!(down.missing_before(&report.back) <= theirs, "the gateway lost packets that nobody counted");
        }
    }
    let sent = iperf.up["end"]["sum"]["packets"].as_u64().expect("iperf3 counts its packets");
    let entered = Wan::up(lab, IPERF_UP).entered;
    let counted = counted.edge_out + counted.edge_kernel + counted.hosts;
    assert!(sent <= entered + counted, "of {sent} datagrams of iperf3, {entered} came to the WAN");
    assert!(lost_by_network > 0 && cuts > 0, "the cuts have cut nothing");
    assert!(rekeyed >= u64::from(seconds / 6 * 3), "only {rekeyed} rekeys");
}

/// Reports of the clients.
struct Iperf {
    tcp: Value,
    up: Value,
    down: Value,
}

/// Bulk in both directions, many small datagrams there and large ones back, while one link after
/// the other is cut; gives the number of cuts.
fn load_and_cut(lab: &Topology, seconds: u32) -> (Iperf, usize) {
    let servers = [5_201, 5_202, 5_203].map(|port| IperfServer::start_on(port, &lab.server, SERVER, lab.directory()));
    let [tcp, up, down] = &servers;
    let ask = |server: &IperfServer, arguments: &str| {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        server.run(&lab.lan, &arguments, seconds).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    };
    thread::scope(|scope| {
        let tcp = scope.spawn(|| ask(tcp, "--bidir --bitrate 10M"));
        let up = scope.spawn(|| ask(up, &format!("--udp --bitrate 1M --length {IPERF_UP}")));
        let down = scope.spawn(|| ask(down, &format!("--udp --reverse --bitrate 8M --length {IPERF_DOWN}")));
        let (start, limit) = (Instant::now(), Duration::from_secs(seconds.into()));
        let mut cuts = 0;
        for (link, cut) in LINKS.iter().cycle().zip(CUTS.iter().cycle()) {
            thread::sleep(CALM);
            if start.elapsed() + *cut > limit {
                break;
            }
            lab.wan.cut(link.address);
            thread::sleep(*cut);
            lab.wan.mend(link.address);
            cuts += 1;
        }
        let done = |client: thread::ScopedJoinHandle<'_, Value>| client.join().expect("iperf3");
        (Iperf { tcp: done(tcp), up: done(up), down: done(down) }, cuts)
    })
}

impl Iperf {
    fn told(&self) -> String {
        let mbps = |name: &str| self.tcp["end"][name]["bits_per_second"].as_f64().unwrap_or_default() / 1e6;
        let lost = |report: &Value| report["end"]["sum"]["lost_percent"].as_f64().unwrap_or_default();
        format!(
            "TCP {:.1} up, {:.1} down Mbit/s with {} retransmits; UDP lost {:.2} % up, {:.2} % down",
            mbps("sum_received"),
            mbps("sum_received_bidir_reverse"),
            self.tcp["end"]["sum_sent"]["retransmits"],
            lost(&self.up),
            lost(&self.down)
        )
    }
}

/// What crossed the emulated network of one payload in one direction.
struct Wan {
    entered: u64,
    left: u64,
}

impl Wan {
    fn up(lab: &Topology, payload: usize) -> Wan {
        Wan::read(lab, payload, |kind| kind.destination)
    }

    fn down(lab: &Topology, payload: usize) -> Wan {
        Wan::read(lab, payload, |kind| kind.source)
    }

    fn read(lab: &Topology, payload: usize, pop: impl Fn(&EspKind) -> Ipv4Addr) -> Wan {
        // IPv4 and UDP inside, ESP, and UDP and IPv4 around it.
        let inner = 28 + payload;
        let length = 28 + inner + esp_overhead(PacketSuite::ALL[0], inner);
        let crossed = lab.wan.esp(|kind| pop(kind) == POPS[0] && kind.length == length);
        Wan { entered: crossed.entered, left: crossed.left }
    }

    fn lost(&self) -> u64 {
        self.entered - self.left
    }

    /// Packets that their sender gave to the edge, or to the PoP, and that never came to the WAN.
    fn missing_before(&self, trip: &Trip) -> u64 {
        trip.sent.saturating_sub(self.entered)
    }

    /// Packets that the WAN gave to the PoP, or to the edge, and that never came to their receiver.
    fn missing_behind(&self, trip: &Trip) -> u64 {
        self.left.saturating_sub(trip.arrived())
    }

    fn told(&self, trip: &Trip) -> String {
        format!(
            "sent {}, before the WAN lost {}, by the WAN {}, behind it {}; {} overtaken",
            trip.sent,
            self.missing_before(trip),
            self.lost(),
            self.missing_behind(trip),
            trip.reordered
        )
    }
}

/// Packets that somebody knows to have dropped.
#[derive(Debug)]
struct Counted {
    /// By the edge itself, on the way out and on the way in; where no tunnel was known, in both.
    edge_out: u64,
    edge_in: u64,
    /// By a Trefoil at the PoP, whichever way.
    pop: u64,
    /// By the queues of devices and sockets.
    edge_kernel: u64,
    pop_kernel: u64,
    hosts: u64,
    reasons: Vec<String>,
}

impl Counted {
    fn read(ends: &Ends) -> Counted {
        let Ends { lab, edge, gateway } = ends;
        let edge = edge.status().expect("status");
        let gateway = gateway.map(|gateway| gateway.status().expect("status of the gateway"));
        let sum = |drops: &[DropStatus]| drops.iter().map(|drop| drop.packets).sum::<u64>();
        let out = |status: &SiteStatus| tunnels(status).map(|tunnel| sum(&tunnel.drops_out)).sum::<u64>();
        let inward = |status: &SiteStatus| tunnels(status).map(|tunnel| sum(&tunnel.drops_in)).sum::<u64>();
        let reasons = |status: &SiteStatus| {
            let ways = tunnels(status).flat_map(|tunnel| tunnel.drops_out.iter().chain(&tunnel.drops_in));
            let all = ways.chain(&status.drops);
            all.map(|drop| format!("{} {}", drop.packets, drop.reason)).collect::<Vec<_>>()
        };
        Counted {
            edge_out: out(&edge) + sum(&edge.drops),
            edge_in: inward(&edge) + sum(&edge.drops),
            pop: gateway.as_ref().map_or(0, |status| out(status) + inward(status) + sum(&status.drops)),
            edge_kernel: KernelDrops::read(&[&lab.edge]).total(),
            pop_kernel: KernelDrops::read(&[&lab.pops[0]]).total(),
            hosts: KernelDrops::read(&[&lab.lan, &lab.server]).total(),
            reasons: reasons(&edge).into_iter().chain(gateway.iter().flat_map(reasons)).collect(),
        }
    }

    fn since(self, before: &Counted) -> Counted {
        Counted {
            edge_out: self.edge_out - before.edge_out,
            edge_in: self.edge_in - before.edge_in,
            pop: self.pop - before.pop,
            edge_kernel: self.edge_kernel - before.edge_kernel,
            pop_kernel: self.pop_kernel - before.pop_kernel,
            hosts: self.hosts - before.hosts,
            reasons: self.reasons,
        }
    }
}

fn rekeys(trefoil: &Trefoil) -> u64 {
    tunnels(&trefoil.status().expect("status")).map(|tunnel| tunnel.rekeys).sum()
}
