//! Flows that leave by a WAN link itself, outside of the tunnels.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use trefoil::edge::Explanation;

use super::bench::Bench;
use super::capture::Capture;
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{DSL, LAN_HOST, LINKS, LTE, SERVER, Topology};
use super::traffic::ping;

const POLICY: &str = r#"[[rule]]
name = "out"
destination = "198.19.0.77/32"
mode = "breakout"
links = ["dsl", "lte"]
"#;

/// Sooner than the 5 s after which the daemon looks for itself at what it has not been told.
const FOLLOWED: Duration = Duration::from_secs(4);

/// On the internet, though the connector's range contains it.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 77);

/// Says where each datagram comes from.
fn mirror(bench: &Bench) {
    let socket = bench.lab.internet.enter(|| UdpSocket::bind((OUTSIDE, 7_000)).expect("a socket"));
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.to_string().as_bytes(), peer);
        }
    });
}

/// What the mirror says of this socket, if it answers.
fn asked(socket: &UdpSocket) -> Option<Ipv4Addr> {
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    let seen: SocketAddr = String::from_utf8_lossy(&buffer[..length]).parse().expect("an address");
    match seen.ip() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

fn capture(bench: &Bench, name: &str) -> [Capture; 3] {
    let file = |link: &str| bench.directory().join(format!("{name}-{link}.pcapng"));
    LINKS.each_ref().map(|link| Capture::start(&bench.lab.internet, link.interface, file(link.name)))
}

/// Who sent what to whom on each link, outside of the tunnels.
fn in_clear(captures: [Capture; 3]) -> [Vec<String>; 3] {
    captures.map(|capture| {
        let file = capture.finish();
        let filter = "ip and not udp.port == 4500 and not udp.port == 500 and not icmp.type == 3";
        let fields = ["-T", "fields", "-e", "ip.src", "-e", "ip.dst"];
        let seen = Command::new("tshark").arg("-r").arg(&file).args(["-Y", filter]).args(fields).output();
        let text = String::from_utf8_lossy(&seen.expect("tshark").stdout).into_owned();
        text.lines().map(str::to_owned).collect()
    })
}

fn output(bench: &Bench, program: &str, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&bench.lab.edge.run(program, arguments).stdout).into_owned()
}

#[test]
fn a_rule_lets_flows_out_with_the_links_address_and_everything_else_stays_in_tunnels() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    lab.internet.ip(&format!("addr add {OUTSIDE}/32 dev lo\n"));
    let mut bench = Bench::start_in(lab, Site { policy: POLICY, ..Site::new() }, |_| {}, &[]);
    bench.wait_for_all();
    mirror(&bench);
    bench.trefoil.wait("both links are ready", PATIENCE, |status| {
        status.breakouts.len() == 2 && status.breakouts.iter().all(|one| one.usable)
    });
    let captures = capture(&bench, "first");
    let socket = || {
        bench.lab.lan.enter(|| {
            let socket = UdpSocket::bind((LAN_HOST, 0)).expect("a socket");
            socket.connect((OUTSIDE, 7_000)).expect("a destination");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            socket
        })
    };
    let flow = socket();
    assert_eq!(asked(&flow), Some(DSL.address), "{}", output(&bench, "nft", &["list", "ruleset"]));
    assert_eq!(ping(&bench.lab.lan, SERVER, 20), 20);
    assert_eq!(ping(&bench.lab.lan, OUTSIDE, 5), 5, "what is no UDP breaks out as well");

    let port = flow.local_addr().expect("an address").port();
    let arguments = ["explain", "udp", &format!("{LAN_HOST}:{port}"), &format!("{OUTSIDE}:7000")].map(str::to_owned);
    let arguments = arguments.each_ref().map(String::as_str);
    say(&format!("trefoil {}\n{}", arguments.join(" "), bench.trefoil.verb(&arguments)));
    let told: Explanation =
        serde_json::from_str(&bench.trefoil.verb(&[&arguments[..], &["--json"]].concat())).expect("JSON");
    assert_eq!((told.breakout.as_deref(), told.tunnel), (Some("dsl"), None));
    assert_eq!(told.live.and_then(|live| live.link).as_deref(), Some("dsl"));
    assert!(bench.trefoil.table().contains("breakout by dsl: "), "{}", bench.trefoil.table());

    let [fibre, dsl, lte] = in_clear(captures);
    say(&format!("in clear: {} packets on fibre, {} on dsl, {} on lte", fibre.len(), dsl.len(), lte.len()));
    assert!(fibre.is_empty() && lte.is_empty(), "{fibre:?} {lte:?}");
    let pairs = [format!("{}\t{OUTSIDE}", DSL.address), format!("{OUTSIDE}\t{}", DSL.address)];
    assert!(dsl.len() >= 12 && dsl.iter().all(|line| pairs.contains(line)), "{dsl:?}");

    // A firewall that starts anew takes our rules along: until they are there again, nothing leaves.
    let captures = capture(&bench, "flushed");
    output(&bench, "nft", &["flush", "ruleset"]);
    let flushed = Instant::now();
    let (mut asked_in_vain, others, unheard) = (0, socket(), socket());
    others.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    while asked(&others).is_none() {
        asked_in_vain += 1;
        let _ = unheard.send(b"?");
        assert!(flushed.elapsed() < FOLLOWED, "{}", output(&bench, "nft", &["list", "ruleset"]));
    }
    let gone = flushed.elapsed();
    let [fibre, dsl, lte] = in_clear(captures);
    say(&format!("without nftables for {gone:?}: {asked_in_vain} packets went nowhere"));
    assert!(
        fibre.is_empty() && lte.is_empty() && dsl.iter().all(|line| pairs.contains(line)),
        "{fibre:?} {dsl:?} {lte:?}"
    );
    wait_for("the flow goes on", PATIENCE, || asked(&flow).filter(|by| *by == DSL.address));

    // The link goes: the next one of the rule; both: nowhere.
    bench.lab.edge.ip(&format!("link set {} down\n", DSL.interface));
    let by = wait_for("it leaves by the next link", FOLLOWED, || asked(&flow));
    assert_eq!(by, LTE.address);
    bench.lab.edge.ip(&format!("link set {} down\n", LTE.interface));
    wait_for("it leaves no more", FOLLOWED, || asked(&flow).is_none().then_some(()));
    wait_for("that is counted", PATIENCE, || {
        let _ = asked(&socket());
        let status = bench.trefoil.status()?;
        status.drops.iter().any(|drop| drop.reason == "no_breakout").then_some(())
    });

    // Killed, it leaves what `release` takes away.
    bench.trefoil.kill();
    assert_eq!(asked(&socket()), None, "in clear without a daemon");
    assert!(output(&bench, "nft", &["list", "tables"]).contains("trefoil"));
    let released = bench.release();
    assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stderr));
    let rules = output(&bench, "ip", &["rule"]);
    assert!(!rules.contains("proto 117"), "{rules}");
    let left = [
        output(&bench, "nft", &["list", "tables"]),
        output(&bench, "ip", &["route", "show", "table", "all", "proto", "117"]),
        output(&bench, "ip", &["-br", "link", "show", "type", "tun"]),
    ];
    assert!(left.iter().all(|text| text.trim().is_empty()), "{left:#?}");
}
