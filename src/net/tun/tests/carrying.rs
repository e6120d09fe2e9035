//! Real connections through two devices, whose packets are carried from one to the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::*;
use crate::packet::{Coalescer, Offered};

/// Inner MTU of the path between the two devices, smaller than theirs.
const PATH_MTU: u16 = 1_300;

const PATIENCE: Duration = Duration::from_secs(30);

/// How packets are carried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Super-packets as they are.
    Whole,
    /// Cut into packets of the path's MTU, whose checksums the receiving kernel verifies.
    Cut,
    /// Cut, and joined again before they are handed over.
    Joined,
}

struct World {
    hosts: [Namespace; 2],
    stop: Arc<AtomicBool>,
    /// Super-packets written: of TCP, of UDP.
    joined: Arc<[AtomicU64; 2]>,
    carrying: Vec<std::thread::JoinHandle<usize>>,
}

impl World {
    fn new(way: Way) -> Option<World> {
        let hosts = [Namespace::new()?, Namespace::new()?];
        let [one, other] = [0, 1].map(|index| {
            let number = index + 1;
            Arc::new(hosts[index].run(move || {
                let tun = Tun::open("nt-carry", 1_400, ONE).unwrap();
                ip("link set nt-carry up");
                ip(&format!("addr add 10.8.0.{number}/24 dev nt-carry"));
                ip(&format!("addr add fd08::{number}/64 dev nt-carry nodad"));
                tun
            }))
        });
        let stop = Arc::new(AtomicBool::new(false));
        let joined: Arc<[AtomicU64; 2]> = Arc::default();
        let carrying = [(one.clone(), other.clone()), (other, one)].map(|(from, to)| {
            let (stop, joined) = (stop.clone(), joined.clone());
            std::thread::spawn(move || carry(way, &from, &to, &stop, &joined))
        });
        Some(World { hosts, stop, joined, carrying: carrying.into() })
    }

    /// What every test ends with: nothing was refused, and no kernel found a wrong checksum.
    fn end(self) -> [u64; 2] {
        self.stop.store(true, Ordering::Relaxed);
        for carrying in self.carrying {
            assert_eq!(carrying.join().unwrap(), 0, "packets that the kernel refused");
        }
        for host in &self.hosts {
            for name in ["InCsumErrors", "InErrs"] {
                assert_eq!(host.counter("Tcp", name), 0, "TCP {name}");
            }
            assert_eq!(host.counter("Udp", "InCsumErrors"), 0);
            assert_eq!(host.counter6("Udp6InCsumErrors"), 0);
            assert_eq!(host.counter("Ip", "InHdrErrors") + host.counter6("Ip6InHdrErrors"), 0);
        }
        self.joined.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// Carries until it is stopped and returns how many packets were refused.
fn carry(way: Way, from: &Tun, to: &Tun, stop: &AtomicBool, joined: &[AtomicU64; 2]) -> usize {
    let (mut taken, mut out) = (packets(), packets());
    let mut coalescer = Coalescer::new(64, way == Way::Joined, way == Way::Joined);
    let mut refused = 0;
    let mut flush = |out: &mut Batch<SitePacket>, coalescer: &mut Coalescer| {
        coalescer.finish(out);
        for segments in out.filled().iter().filter_map(|packet| packet.offload.segments) {
            joined[usize::from(segments.kind == SegmentKind::Udp)].fetch_add(1, Ordering::Relaxed);
        }
        refused += to.send(out);
    };
    while !stop.load(Ordering::Relaxed) {
        from.receive(WorkerId(0), &mut taken).unwrap();
        if taken.is_empty() {
            std::thread::sleep(Duration::from_micros(50));
        }
        if way == Way::Whole {
            flush(&mut taken, &mut coalescer);
            continue;
        }
        for packet in taken.filled() {
            let bytes = packet.packet.bytes();
            let parsed = parse(bytes).expect("a packet of the kernel's");
            let limit = if packet.offload.segments.is_some() { PATH_MTU } else { UNLIMITED };
            let mut splitter = Splitter::new(bytes, &parsed, &packet.offload, limit).expect("a packet of the kernel's");
            let mut room = [0; 2_000];
            while let Some(length) = splitter.write_next(&mut room) {
                let piece = parse(&room[..length]).unwrap();
                while coalescer.offer(&room[..length], &piece, &mut out) == Offered::Full {
                    flush(&mut out, &mut coalescer);
                }
            }
        }
        taken.clear();
        flush(&mut out, &mut coalescer);
    }
    refused
}

/// Bytes that differ from each other wherever they are cut.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A connection between the hosts, that carries data both ways at once.
fn tcp_crosses(world: &World, address: &'static str) {
    const LENGTH: usize = 12 << 20;
    let listener = world.hosts[1].run(move || TcpListener::bind(address).unwrap());
    let client = world.hosts[0].run(move || TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    let ends = [(client, 3), (server, 5)].map(|(stream, seed)| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sending = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || sending.write_all(&pattern(seed, LENGTH)).unwrap());
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; LENGTH];
            (&stream).read_exact(&mut got).unwrap();
            // The other end's seed.
            assert!(got == pattern(8 - seed, LENGTH), "the data has changed");
        });
        [writer, reader]
    });
    ends.into_iter().flatten().for_each(|thread| thread.join().unwrap());
}

/// Datagrams that the sending kernel is given as one.
fn udp_crosses(world: &World, addresses: [&'static str; 2]) {
    const SIZE: usize = 1_000;
    let sockets = [0, 1].map(|index| {
        world.hosts[index].run(move || {
            let socket = UdpSocket::bind(addresses[index]).unwrap();
            setsockopt(&socket, sockopt::UdpGsoSegment, &(SIZE as i32)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    });
    let to: [SocketAddr; 2] = addresses.map(|address| address.parse().unwrap());
    for (from, into) in [(0, 1), (1, 0)] {
        for round in 0..20 {
            // 40 datagrams and a half.
            let data = pattern(round + 1, 40 * SIZE + SIZE / 2);
            assert_eq!(sockets[from].send_to(&data, to[into]).unwrap(), data.len());
            let mut room = [0; 2_000];
            for datagram in data.chunks(SIZE) {
                let (length, source) = sockets[into].recv_from(&mut room).unwrap();
                assert_eq!((&room[..length], source), (datagram, to[from]));
            }
        }
    }
}

fn everything_crosses(way: Way) {
    let Some(world) = World::new(way) else { return };
    tcp_crosses(&world, "10.8.0.2:5001");
    tcp_crosses(&world, "[fd08::2]:5001");
    udp_crosses(&world, ["10.8.0.1:5002", "10.8.0.2:5002"]);
    udp_crosses(&world, ["[fd08::1]:5002", "[fd08::2]:5002"]);
    let [tcp, udp] = world.end();
    println!("super-packets written: {tcp} of TCP, {udp} of UDP");
    if way == Way::Cut {
        assert_eq!((tcp, udp), (0, 0));
    } else {
        assert!(tcp > 100 && udp >= 80, "{tcp} {udp}");
    }
}

#[test]
fn super_packets_cross_whole() {
    everything_crosses(Way::Whole);
}

#[test]
fn what_is_cut_has_checksums_that_the_kernel_accepts() {
    everything_crosses(Way::Cut);
}

#[test]
fn what_is_cut_and_joined_again_is_what_was_sent() {
    everything_crosses(Way::Joined);
}
