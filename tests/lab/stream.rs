//! A UDP stream that notices what an application would: numbered and timed packets from the LAN
//! host to the server and back, so that loss, order and every silence are measured at the ends.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::namespace::Namespace;

pub struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What arrived of one direction.
pub struct Trip {
    pub sent: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub reordered: u64,
    arrivals: Vec<Arrival>,
    started: Instant,
    ended: Instant,
}

impl Trip {
    /// Duplicates included.
    pub fn arrived(&self) -> u64 {
        self.arrivals.len() as u64
    }
}

pub struct Report {
    pub there: Trip,
    pub back: Trip,
}

#[derive(Clone, Copy)]
struct Arrival {
    number: u64,
    at: Instant,
    /// Since it was first sent: on the way back, of the whole round trip.
    delay: Duration,
}

struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    echoed: AtomicU64,
    started: Instant,
    there: Mutex<Vec<Arrival>>,
    back: Mutex<Vec<Arrival>>,
}

/// In front of each packet: its number, and when it was sent, in nanoseconds.
const HEAD: usize = 16;

/// Packets that are still on their way when the sender stops are waited for this long.
const LINGER: Duration = Duration::from_millis(700);

impl Stream {
    /// One packet of `bytes` each `interval`, echoed by the far end.
    pub fn start(from: &Namespace, to: &Namespace, address: Ipv4Addr, interval: Duration, bytes: usize) -> Stream {
        Stream::start_on(40_000, from, to, address, interval, bytes)
    }

    /// The same to another port of the far end, beside others.
    pub fn start_on(
        port: u16,
        from: &Namespace,
        to: &Namespace,
        address: Ipv4Addr,
        interval: Duration,
        bytes: usize,
    ) -> Stream {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            echoed: AtomicU64::new(0),
            started: Instant::now(),
            there: Mutex::default(),
            back: Mutex::default(),
        });
        let server = to.enter(move || bind(SocketAddrV4::new(address, port)));
        let client = from.enter(|| bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
        let target = SocketAddr::from((address, port));
        let receiving = client.try_clone().expect("a second handle");
        let [a, b, c] = [shared.clone(), shared.clone(), shared.clone()];
        let threads = vec![
            thread::spawn(move || echo(&server, &a)),
            thread::spawn(move || send(&client, target, interval, bytes, &b)),
            thread::spawn(move || receive(&receiving, &c)),
        ];
        Stream { shared, threads }
    }

    pub fn received_there(&self) -> usize {
        lock(&self.shared.there).len()
    }

    pub fn received_back(&self) -> usize {
        lock(&self.shared.back).len()
    }

    /// Stops sending, waits for what is under way, and counts.
    pub fn finish(mut self) -> Report {
        let ended = Instant::now();
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the stream's thread");
        }
        let trip = |sent: &AtomicU64, arrivals: &Mutex<Vec<Arrival>>| {
            let arrivals = std::mem::take(&mut *lock(arrivals));
            Trip::new(sent.load(Ordering::Relaxed), arrivals, self.shared.started, ended)
        };
        Report {
            there: trip(&self.shared.sent, &self.shared.there),
            back: trip(&self.shared.echoed, &self.shared.back),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Trip {
    fn new(sent: u64, arrivals: Vec<Arrival>, started: Instant, ended: Instant) -> Trip {
        let mut seen: Vec<u64> = arrivals.iter().map(|arrival| arrival.number).collect();
        let reordered = seen.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        seen.sort_unstable();
        seen.dedup();
        let (distinct, all) = (seen.len() as u64, arrivals.len() as u64);
        Trip {
            sent,
            lost: sent.saturating_sub(distinct),
            duplicates: all - distinct,
            reordered,
            arrivals,
            started,
            ended,
        }
    }

    /// The longest time between two arrivals of which at least a part lies in the given span.
    pub fn longest_gap(&self, from: Instant, until: Instant) -> Duration {
        let ends = std::iter::once(self.started).chain(self.arrivals.iter().map(|arrival| arrival.at));
        let next = self.arrivals.iter().map(|arrival| arrival.at).chain(std::iter::once(self.ended));
        ends.zip(next)
            .filter(|(start, end)| *end >= from && *start <= until)
            .map(|(start, end)| end.saturating_duration_since(start))
            .max()
            .unwrap_or_default()
    }

    /// Seconds after `from` at which packets arrived before which some are missing, and how many.
    pub fn losses(&self, from: Instant) -> Vec<(f64, u64)> {
        let mut arrivals = self.arrivals.clone();
        arrivals.sort_unstable_by_key(|arrival| arrival.number);
        let seconds = |at: Instant| (at.saturating_duration_since(from), from.saturating_duration_since(at));
        let gaps =
            arrivals.windows(2).map(|pair| (seconds(pair[1].at), pair[1].number.saturating_sub(pair[0].number + 1)));
        let gaps = gaps.filter(|(_, missing)| *missing > 0);
        gaps.map(|((after, before), missing)| (after.as_secs_f64() - before.as_secs_f64(), missing)).collect()
    }

    /// How long so many in a hundred took at most; on the way back, for the whole round trip.
    pub fn delay(&self, percent: usize) -> Duration {
        let mut delays: Vec<Duration> = self.arrivals.iter().map(|arrival| arrival.delay).collect();
        delays.sort_unstable();
        delays.get(delays.len().saturating_sub(1) * percent / 100).copied().unwrap_or(Duration::MAX)
    }

    pub fn longest_gap_of_all(&self) -> Duration {
        self.longest_gap(self.started, self.ended)
    }
}

fn bind(address: SocketAddrV4) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    // Bulk traffic beside the stream must not cost it packets in our own socket.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20);
    socket
}

fn send(socket: &UdpSocket, target: SocketAddr, interval: Duration, bytes: usize, shared: &Shared) {
    let mut packet = vec![0; bytes.max(HEAD)];
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.sent.fetch_add(1, Ordering::Relaxed);
        packet[..8].copy_from_slice(&number.to_be_bytes());
        let sent = shared.started.elapsed().as_nanos() as u64;
        packet[8..HEAD].copy_from_slice(&sent.to_be_bytes());
        // A refused packet (ICMP while no path is up) is a lost one.
        let _ = socket.send_to(&packet, target);
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn echo(socket: &UdpSocket, shared: &Shared) {
    each_packet(socket, shared, |arrival, packet, from| {
        lock(&shared.there).push(arrival);
        shared.echoed.fetch_add(1, Ordering::Relaxed);
        let _ = socket.send_to(packet, from);
    });
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    each_packet(socket, shared, |arrival, _, _| lock(&shared.back).push(arrival));
}

fn each_packet(socket: &UdpSocket, shared: &Shared, mut handle: impl FnMut(Arrival, &[u8], SocketAddr)) {
    let mut buffer = [0; 2048];
    let mut last_packet = Instant::now();
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if length >= HEAD => {
                let number = |from: usize| u64::from_be_bytes(buffer[from..from + 8].try_into().expect("8 bytes"));
                let sent = shared.started + Duration::from_nanos(number(8));
                let at = Instant::now();
                handle(Arrival { number: number(0), at, delay: at - sent }, &buffer[..length], from);
                last_packet = Instant::now();
            }
            // A runt, a timeout, or an ICMP error about an earlier packet.
            Ok(_) | Err(_) => {}
        }
        if shared.stop.load(Ordering::Relaxed) && last_packet.elapsed() > LINGER {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
