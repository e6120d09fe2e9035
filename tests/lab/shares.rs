//! The bytes that each WAN link carries, beside the ratio of the configured bandwidths, under a heavy-tailed mix of flows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use trefoil::edge::FlowList;
use trefoil::model::Chance;

use super::bench::Bench;
use super::daemon::{tunnel, tunnels};
use super::namespace::Namespace;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{LINKS, SERVER};

const FLOWS: usize = 200;

/// Packets a second of all flows together.
const PACKETS: f64 = 2_000.0;

/// No flow has more of the bytes.
const LARGEST: f64 = 0.045;

/// Of a packet with its headers.
const BYTES: usize = 600;

const PORT: u16 = 5_500;

/// As many flows as there are, each at a rate of its own.
pub struct Mix {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _sink: UdpSocket,
}

impl Mix {
    pub fn start(from: &Namespace, to: &Namespace, address: Ipv4Addr) -> Mix {
        let sink = to.enter(move || UdpSocket::bind((address, PORT)).expect("a socket of the receiver"));
        let sockets: Vec<UdpSocket> = from.enter(|| {
            let open = |_| UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            (0..FLOWS).map(open).collect()
        });
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || send(&sockets, (address, PORT).into(), &rates(), &told));
        Mix { stop, thread: Some(thread), _sink: sink }
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Packets a second of each flow: Pareto with a tail exponent of 1.2 (Crovella and Bestavros 1997 found 1.0 to 1.3).
fn rates() -> Vec<f64> {
    let mut chance = Chance::from_number(7);
    let uniform = |chance: &mut Chance| f64::from(1 + chance.below(1_000_000)) / 1_000_001.0;
    let mut rates: Vec<f64> = (0..FLOWS).map(|_| uniform(&mut chance).powf(-1.0 / 1.2)).collect();
    for _ in 0..20 {
        let whole: f64 = rates.iter().sum();
        rates.iter_mut().for_each(|rate| *rate = rate.min(whole * LARGEST));
    }
    let whole: f64 = rates.iter().sum();
    rates.iter().map(|rate| rate / whole * PACKETS).collect()
}

fn send(sockets: &[UdpSocket], target: SocketAddr, rates: &[f64], stop: &AtomicBool) {
    let packet = [0; BYTES - 28];
    let start = Instant::now();
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> = (0..sockets.len())
        .map(|flow| Reverse((start + Duration::from_secs_f64(flow as f64 / PACKETS), flow)))
        .collect();
    while let Some(Reverse((at, flow))) = due.pop() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let _ = sockets[flow].send_to(&packet, target);
        due.push(Reverse((at + Duration::from_secs_f64(1.0 / rates[flow]), flow)));
    }
}

/// How far the bytes of each link are from its part of the bandwidths, in per cent of all bytes.
pub fn off(before: [u64; 3], after: [u64; 3]) -> [f64; 3] {
    let sent: [f64; 3] = std::array::from_fn(|link| (after[link] - before[link]) as f64);
    let (all, mbps): (f64, u32) = (sent.iter().sum(), LINKS.iter().map(|link| link.mbps).sum());
    std::array::from_fn(|link| 100.0 * (sent[link] / all - f64::from(LINKS[link].mbps) / f64::from(mbps)))
}

/// Lets the mix run for a while, and then measures so long.
fn shares(interval: Duration, warm: Duration, measured: Duration) {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site { steering_interval: interval, ..Site::new() });
    bench.trefoil.wait("all tunnels are healthy", Duration::from_secs(30), |status| {
        tunnels(status).all(|tunnel| tunnel.verdict == "healthy")
    });
    let sent = || {
        let status = bench.trefoil.status().expect("status");
        LINKS.each_ref().map(|link| tunnel(&status, "primary", link.name).bytes_out)
    };
    let begun = sent();
    let _mix = Mix::start(&bench.lab.lan, &bench.lab.server, SERVER);
    thread::sleep(interval);
    let by_hash = off(begun, sent());
    thread::sleep(warm);
    let before = sent();
    thread::sleep(measured);
    let after = sent();
    let error = off(before, after);
    let list: FlowList =
        serde_json::from_str(&bench.trefoil.verb(&["flows", "--json", "--limit", "1000"])).expect("JSON");
    let moves: u32 = list.flows.iter().map(|flow| flow.moves).sum();
    let told = |off: [f64; 3]| off.map(|part| format!("{part:+.2}")).join(", ");
    say(&format!(
        "{FLOWS} heavy-tailed flows over fibre, dsl and lte of {} Mbps: {} % of all bytes off after {:?} by hash alone, \
         {} % over {:?} after {:?}; {moves} moves; {:.1} MB measured",
        LINKS.each_ref().map(|link| link.mbps.to_string()).join(", "),
        told(by_hash),
        interval,
        told(error),
        measured,
        interval + warm,
        (0..3).map(|link| after[link] - before[link]).sum::<u64>() as f64 / 1e6
    ));
    assert!(error.iter().all(|part| part.abs() < 3.0), "{error:?}");
}

#[test]
fn sent_bytes_follow_the_bandwidths_within_seconds_where_the_interval_is_short() {
    shares(Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(10));
}

#[test]
#[ignore = "a minute and a half at the default interval; the short form is above"]
fn sent_bytes_follow_the_bandwidths_over_a_minute() {
    shares(Duration::from_secs(10), Duration::from_secs(20), Duration::from_secs(60));
}
