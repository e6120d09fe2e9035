//! Rules by names that were learned from DNS answers inside the tunnels.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use trefoil::edge::Explanation;

use super::bench::Bench;
use super::daemon::tunnel;
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{LAN_HOST, SERVER, Topology};
use super::traffic::ping;

const POLICY: &str = r#"[[rule]]
name = "meetings"
fqdn = "*.meetings.example"
links = ["lte"]
mode = "strict"

[[rule]]
name = "rest"
links = ["dsl"]
mode = "strict"
"#;

/// Answers to a name at the server's side.
const NAMED: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 20);

/// A name server that knows one address for everything.
fn name_server(bench: &Bench) {
    let socket = bench.lab.server.enter(|| UdpSocket::bind((SERVER, 53)).expect("a socket"));
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            // A response, with one answer: the name that was asked for, an A record, 120 s.
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 120, 0, 4]);
            answer.extend(NAMED.octets());
            let _ = socket.send_to(&answer, peer);
        }
    });
}

fn ask(bench: &Bench, name: &str) {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    bench.lab.lan.enter(move || {
        let socket = UdpSocket::bind((LAN_HOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        socket.send_to(&query, (SERVER, 53)).expect("a way");
        socket.recv(&mut [0; 512]).expect("an answer");
    });
}

#[test]
fn flows_to_a_name_that_was_answered_go_as_its_rule_says() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    lab.server.ip(&format!("addr add {NAMED}/32 dev lo\n"));
    let bench = Bench::start_in(lab, Site { policy: POLICY, ..Site::new() }, |_| {}, &[]);
    bench.wait_for_all();
    name_server(&bench);
    let sent = || {
        let status = bench.trefoil.status().expect("status");
        ["fibre", "dsl", "lte"].map(|link| tunnel(&status, "primary", link).packets_out)
    };
    let pinged = |target: Ipv4Addr| {
        let before = sent();
        assert_eq!(ping(&bench.lab.lan, target, 10), 10);
        let after = sent();
        [0, 1, 2].map(|link| after[link] - before[link])
    };
    let before = pinged(NAMED);
    // Nothing answers this one: it is as new as a flow can be that was there before.
    let open = bench.lab.lan.enter(|| UdpSocket::bind((LAN_HOST, 0)).expect("a socket"));
    let sent_by_open = |count: u64| {
        let before = sent();
        (0..count).for_each(|_| _ = open.send_to(b"?", (NAMED, 9_000)).expect("a way"));
        wait_for("they are counted", PATIENCE, || {
            let after = sent();
            (after.iter().sum::<u64>() >= before.iter().sum::<u64>() + count).then_some(())
        });
        let after = sent();
        [0, 1, 2].map(|link| after[link] - before[link])
    };
    let open_before = sent_by_open(10);
    ask(&bench, "eu.meetings.example");
    let status = wait_for("the name is learned", PATIENCE, || {
        bench.trefoil.status().filter(|status| status.names.as_ref().is_some_and(|names| names.kept == 1))
    });
    let after = pinged(NAMED);
    let open_after = sent_by_open(10);
    assert_eq!((open_before, open_after), ([0, 10, 0], [0, 10, 0]), "what is open stays where it is");
    let other = pinged(SERVER);
    say(&format!("packets by fibre, dsl and lte: before the answer {before:?}, after {after:?}, elsewhere {other:?}"));
    assert_eq!((before, other), ([0, 10, 0], [0, 10, 0]));
    assert_eq!(after, [0, 0, 10]);
    assert_eq!(status.names.map(|names| (names.learned, names.unasked, names.malformed)), Some((1, 0, 0)));

    let (source, destination) = (format!("{LAN_HOST}:5000"), format!("{NAMED}:443"));
    let arguments = ["explain", "tcp", &source, &destination];
    say(&format!("trefoil {}\n{}", arguments.join(" "), bench.trefoil.verb(&arguments)));
    let told: Explanation =
        serde_json::from_str(&bench.trefoil.verb(&[&arguments[..], &["--json"]].concat())).expect("JSON");
    assert_eq!(told.rule.map(|rule| rule.rule).as_deref(), Some("meetings"));
    assert_eq!(told.names[0].name, "eu.meetings.example");
    let rest = told.names[0].until_ms - told.at_ms;
    assert!((100_000..=120_000).contains(&rest), "{rest} ms");
}
