//! Rules that override links, and what the daemon says of flows.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use trefoil::edge::{Explanation, FlowList};

use super::bench::Bench;
use super::capture::{Capture, inside};
use super::daemon::{tunnel, tunnels};
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{DSL, LAN_HOST, LINKS, LTE, SERVER, Topology, WanLink};
use super::traffic::{IperfServer, Load};

const POLICY: &str = r#"[[rule]]
name = "voice"
dscp = "ef"
links = ["dsl", "fibre"]
sla = "voice"

[[rule]]
name = "backup"
protocol = "udp"
destination_port = 5202
links = ["lte"]
mode = "strict"
"#;

#[test]
fn a_rule_overrides_the_links_and_every_flow_explains_itself() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site { policy: POLICY, ..Site::new() });
    let (lab, trefoil) = (&bench.lab, &bench.trefoil);
    let server = IperfServer::start_on(5_202, &lab.server, SERVER, bench.directory());
    let sent = || {
        let status = trefoil.status().expect("status");
        ["fibre", "dsl", "lte"].map(|link| tunnel(&status, "primary", link).bytes_out)
    };
    let before = sent();
    let rate = server.measure(&lab.lan, Load::Udp(4_000, 1_000), false, 3).expect("UDP crosses");
    let after = sent();
    let [fibre, dsl, lte] = [0, 1, 2].map(|link| after[link] - before[link]);
    say(&format!("4 Mbit/s of the rule's UDP for 3 s: {lte} bytes by lte, {dsl} by dsl, {fibre} by fibre"));
    assert!(rate.mbps > 3.0, "{rate:?}");
    // TCP of iperf3's control connection goes where it likes.
    assert!(lte > 1_300_000 && fibre + dsl < 100_000, "{fibre} {dsl} {lte}");

    let list = wait_for("the flow is listed", PATIENCE, || {
        let list: FlowList = serde_json::from_str(&trefoil.verb(&["flows", "--json"])).expect("JSON");
        list.flows.iter().any(|flow| flow.rule.as_deref() == Some("backup")).then_some(list)
    });
    let flow = list.flows.iter().find(|flow| flow.rule.as_deref() == Some("backup")).expect("listed");
    assert_eq!((flow.link.as_deref(), flow.moves), (Some("lte"), 0), "{flow:?}");
    say(&format!("trefoil flows\n{}", trefoil.verb(&["flows"])));

    let arguments = ["explain", &flow.protocol, &flow.source, &flow.destination];
    say(&format!("trefoil {}\n{}", arguments.join(" "), trefoil.verb(&arguments)));
    let json = trefoil.verb(&[&arguments[..], &["--json"]].concat());
    let told: Explanation = serde_json::from_str(&json).expect("JSON");
    assert_eq!(told.rule.map(|rule| rule.rule).as_deref(), Some("backup"));
    assert_eq!(told.passed_over.len(), 1);
    assert_eq!(told.tunnel, told.live.and_then(|live| live.tunnel));

    let (source, destination) = (format!("{LAN_HOST}:16384"), format!("{SERVER}:16384"));
    let call = ["explain", "udp", &source, &destination, "--dscp", "ef"];
    say(&format!("trefoil {}\n{}", call.join(" "), trefoil.verb(&call)));
    let told: Explanation = serde_json::from_str(&trefoil.verb(&[&call[..], &["--json"]].concat())).expect("JSON");
    assert_eq!((told.tunnel.as_deref(), told.live), (Some("pops/primary/dsl"), None));
}

const ONLY_DSL: &str = r#"[[rule]]
name = "ledger"
protocol = "udp"
destination_port = 5300
links = ["dsl"]
mode = "strict"

[[rule]]
name = "calls"
protocol = "udp"
destination_port = 5400
links = ["lte"]
"#;

/// What a sender's socket was told of its datagrams.
struct Sender {
    socket: UdpSocket,
    /// Nobody reads from it, but without it the server would refuse.
    _sink: UdpSocket,
    sent: u64,
    refused: u64,
}

impl Sender {
    fn new(bench: &Bench, port: u16) -> Sender {
        let socket = bench.lab.lan.enter(move || {
            let socket = UdpSocket::bind((LAN_HOST, 0)).expect("a socket");
            // A connected socket is told what ICMP says of its datagrams.
            socket.connect((SERVER, port)).expect("a destination");
            socket
        });
        let sink = bench.lab.server.enter(move || UdpSocket::bind((SERVER, port)).expect("a socket of the server"));
        Sender { socket, _sink: sink, sent: 0, refused: 0 }
    }

    /// Sends for so long, a datagram each 10 ms.
    fn send(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            match self.socket.send(&[7; 400]) {
                Ok(_) => self.sent += 1,
                // Told by an ICMP message about an earlier one: administratively prohibited.
                Err(error) if error.raw_os_error() == Some(EHOSTUNREACH) => self.refused += 1,
                Err(error) => panic!("{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

const EHOSTUNREACH: i32 = 113;

#[test]
fn a_strict_flow_never_leaves_by_another_link_and_its_sender_is_told() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let keys = lab.directory().join("keys");
    let flags = ["--debug-key-log", &keys.display().to_string(), "--expose-traffic-keys"].map(str::to_owned);
    let site = Site { policy: ONLY_DSL, ..Site::new() };
    let bench = Bench::start_in(lab, site, |_| {}, &flags.each_ref().map(String::as_str));
    bench.trefoil.wait("all tunnels are healthy", Duration::from_secs(30), |status| {
        tunnels(status).all(|tunnel| tunnel.verdict == "healthy")
    });
    let file = |link: &WanLink| bench.directory().join(format!("{}.pcapng", link.name));
    let captures = LINKS.each_ref().map(|link| Capture::start(&bench.lab.edge, link.interface, file(link)));

    let (mut ledger, mut calls) = (Sender::new(&bench, 5_300), Sender::new(&bench, 5_400));
    ledger.send(Duration::from_secs(1));
    calls.send(Duration::from_secs(1));
    assert_eq!((ledger.refused, calls.refused), (0, 0));
    let (before, calls_before) = (ledger.sent, calls.sent);
    bench.lab.wan.cut(DSL.address);
    bench.trefoil.wait("dsl is down", Duration::from_secs(20), |status| {
        !tunnel(status, "primary", "dsl").usable && !tunnel(status, "secondary", "dsl").usable
    });
    ledger.send(Duration::from_secs(3));
    let (at_cut, refused) = (ledger.sent - before, ledger.refused);
    say(&bench.trefoil.verb(&["explain", "udp", &format!("{LAN_HOST}:9"), &format!("{SERVER}:5300")]));
    // The other rule only prefers its link, and its flow goes elsewhere.
    bench.lab.wan.cut(LTE.address);
    bench.trefoil.wait("lte is down", Duration::from_secs(20), |status| !tunnel(status, "primary", "lte").usable);
    calls.send(Duration::from_secs(1));
    bench.lab.wan.mend(DSL.address);
    bench.lab.wan.mend(LTE.address);
    bench.wait_for_all();
    thread::sleep(Duration::from_secs(1));
    ledger.refused = 0;
    ledger.send(Duration::from_secs(1));

    let seen = captures.map(|capture| {
        let file = capture.finish();
        [5_300, 5_400].map(|port| inside(&file, &keys, &format!("udp.dstport == {port}")))
    });
    let [[fibre, calls_fibre], [dsl, calls_dsl], [lte, calls_lte]] = seen;
    say(&format!(
        "strict on dsl: {before} datagrams before the cut, {at_cut} during it, {refused} sends told that they are \
         prohibited; seen inside ESP: {dsl} on dsl, {fibre} on fibre, {lte} on lte; the flow that prefers lte: \
         {calls_lte} on lte, {calls_dsl} on dsl, {calls_fibre} on fibre"
    ));
    assert_eq!((fibre, lte), (0, 0), "the strict flow was seen on another link");
    assert!(dsl as u64 >= before, "{dsl} of {before}");
    // Linux tells a socket of one ICMP message at a time, and our own are limited in their rate.
    assert!(refused > 20 && refused <= at_cut + 1, "{refused} of {at_cut}");
    // The last one of the cut may be told only now.
    assert!(ledger.refused <= 1, "the link is back: {}", ledger.refused);
    assert!(calls_lte as u64 >= calls_before && calls_fibre > 0 && calls_dsl == 0, "{calls_before}");
}
