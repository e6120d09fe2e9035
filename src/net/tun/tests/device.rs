use std::net::UdpSocket;
use std::time::Duration;

use super::super::device::{SEGMENT_TCP, SEGMENT_UDP, WISHES};
use super::*;
use crate::packet::{Checksum, ChecksumState, Offload, Segments};

/// What no kernel knows.
const UNKNOWN_OFFLOAD: libc::c_uint = 1 << 30;

fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if let Some(namespace) = Namespace::new() {
        namespace.run(test);
    }
}

/// Up, with addresses, and a socket of a host behind it.
fn host(tun: &Tun) -> UdpSocket {
    ip(&format!("addr add 10.7.0.1/24 dev {}", tun.name()));
    ip(&format!("link set {} up", tun.name()));
    let host = UdpSocket::bind("10.7.0.1:4000").unwrap();
    host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    host
}

/// The packet of the host that waits, and the worker whose queue it waits in.
fn question(tun: &Tun) -> (WorkerId, Vec<u8>) {
    for worker in (0..tun.queues.len() as u16).map(WorkerId) {
        let mut batch = packets();
        tun.receive(worker, &mut batch).unwrap();
        // The kernel also announces itself over IPv6.
        let found = batch.filled_mut().iter_mut().find(|packet| packet.packet.bytes()[0] == 0x45);
        if let Some(packet) = found {
            assert_eq!(packet.queue, worker);
            packet.complete_checksum();
            return (worker, packet.packet.bytes().to_vec());
        }
    }
    panic!("no packet of the host");
}

/// Swapping addresses and ports changes neither checksum.
fn answer(question: &[u8], queue: WorkerId) -> Batch<SitePacket> {
    let mut answer = question.to_vec();
    answer[12..20].rotate_left(4);
    answer[20..24].rotate_left(2);
    let mut batch = packets();
    put(&mut batch, &answer, Offload::default(), queue);
    batch
}

fn put(batch: &mut Batch<SitePacket>, bytes: &[u8], offload: Offload, queue: WorkerId) {
    let slot = batch.next_free().unwrap();
    (slot.offload, slot.queue) = (offload, queue);
    assert!(slot.packet.fill(bytes));
    batch.claim(1);
}

/// A super-packet to the host of so many datagrams, each with its number.
fn many_datagrams(count: u16, size: u16) -> (Vec<u8>, Offload) {
    let data: Vec<u8> = (0..count).flat_map(|number| vec![number as u8; usize::from(size)]).collect();
    let length = 8 + data.len() as u16;
    let (from, to) = ([10, 7, 0, 2], [10, 7, 0, 1]);
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet.extend(from.iter().chain(&to));
    packet[2..4].copy_from_slice(&(20 + length).to_be_bytes());
    let sum = Checksum::new().with(&packet).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([5_000, 4_000, length].iter().flat_map(|word: &u16| word.to_be_bytes()));
    let pseudo = Checksum::new().with_pseudo_header(from.into(), to.into(), 17, length.into());
    packet.extend((!pseudo.finish()).to_be_bytes());
    packet.extend(data);
    let checksum = ChecksumState::Partial { start: 20, offset: 6 };
    (packet, Offload { checksum, segments: Some(Segments { kind: SegmentKind::Udp, size }) })
}

fn assert_all_arrive(host: &UdpSocket, count: u16, size: u16) {
    let mut room = [0; 2_000];
    for number in 0..count {
        let (length, from) = host.recv_from(&mut room).unwrap();
        assert_eq!(room[..length], vec![number as u8; usize::from(size)], "datagram {number}");
        assert_eq!(from.to_string(), "10.7.0.2:5000");
    }
}

fn asks_and_is_answered(tun: &Tun) {
    let host = host(tun);
    host.send_to(b"question", "10.7.0.2:5000").unwrap();
    let (queue, question) = question(tun);
    assert!(question.ends_with(b"question"));
    let mut back = answer(&question, queue);
    // Not IP at all: the kernel refuses it, and the other one still arrives.
    put(&mut back, &[0xff; 40], Offload::default(), queue);
    assert_eq!(tun.send(&mut back), 1);
    assert!(back.is_empty());
    let mut room = [0; 64];
    let (length, from) = host.recv_from(&mut room).unwrap();
    assert_eq!((&room[..length], from.to_string().as_str()), (&b"question"[..], "10.7.0.2:5000"));
}

#[test]
fn a_packet_goes_out_through_the_device_and_its_answer_comes_back() {
    in_namespace(|| {
        let tun = Tun::open("nt-%d", 1_400, ONE).unwrap();
        assert_eq!(tun.name(), "nt-0");
        assert_eq!(if_nametoindex("nt-0").unwrap(), tun.index());
        asks_and_is_answered(&tun);
        assert_eq!(crate::net::Interface::named(tun.name()).unwrap().mtu, 1_400);
    });
}

#[test]
fn this_kernel_grants_all_and_a_poorer_one_what_it_has() {
    in_namespace(|| {
        let offloads = |wishes: &[libc::c_uint]| {
            let tun = open_plain("nt-%d", 1, libc::IFF_VNET_HDR, wishes);
            asks_and_is_answered(&tun);
            tun.offloads()
        };
        let all = SiteOffloads { tcp: true, udp: true };
        assert_eq!(offloads(&WISHES), all);
        // The kernel does not know the first wish and is asked for the next.
        assert_eq!(offloads(&[WISHES[0] | UNKNOWN_OFFLOAD, SEGMENT_TCP, 0]), SiteOffloads { udp: false, ..all });
        assert_eq!(offloads(&[SEGMENT_UDP | UNKNOWN_OFFLOAD, libc::TUN_F_CSUM]), SiteOffloads::default());
        assert_eq!(offloads(&[UNKNOWN_OFFLOAD]), SiteOffloads::default());
    });
}

#[test]
fn without_a_header_packets_cross_and_super_packets_are_cut() {
    in_namespace(|| {
        let tun = open_plain("nt-plain", 1, 0, &WISHES);
        assert!(!tun.header);
        assert_eq!(tun.offloads(), SiteOffloads::default());
        asks_and_is_answered(&tun);
    });
    in_namespace(|| {
        let tun = open_plain("nt-plain", 1, 0, &WISHES);
        let host = host(&tun);
        let (packet, offload) = many_datagrams(40, 1_000);
        let mut batch = packets();
        put(&mut batch, &packet, offload, WorkerId(0));
        assert_eq!(tun.send(&mut batch), 0);
        assert_all_arrive(&host, 40, 1_000);
    });
}

#[test]
fn a_super_packet_that_the_kernel_refuses_arrives_in_pieces_and_no_more_are_offered() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        let tun = Tun::open("nt-refuse", 1_400, ONE).unwrap();
        let host = host(&tun);
        let send = |count, size| {
            let (packet, offload) = many_datagrams(count, size);
            let mut batch = packets();
            put(&mut batch, &packet, offload, WorkerId(0));
            assert_eq!(tun.send(&mut batch), 0);
            assert_all_arrive(&host, count, size);
        };
        send(40, 1_000);
        assert_eq!(tun.offloads(), SiteOffloads { tcp: true, udp: true });
        // More datagrams than the kernel takes in one (`UDP_MAX_SEGMENTS`): EINVAL.
        send(200, 20);
        assert_eq!(tun.offloads(), SiteOffloads { tcp: true, udp: false });
        send(40, 1_000);
    });
    assert_eq!(namespace.counter("Udp", "InCsumErrors"), 0);
}

#[test]
fn a_packet_that_is_broken_in_itself_takes_no_offload_away() {
    in_namespace(|| {
        let tun = Tun::open("nt-broken", 1_400, ONE).unwrap();
        let _host = host(&tun);
        let (packet, offload) = many_datagrams(40, 1_000);
        let beyond = ChecksumState::Partial { start: 60_000, offset: 6 };
        let mut batch = packets();
        put(&mut batch, &packet, Offload { checksum: beyond, ..offload }, WorkerId(0));
        assert_eq!(tun.send(&mut batch), 1);
        assert_eq!(tun.offloads(), SiteOffloads { tcp: true, udp: true });
    });
}

#[test]
fn a_flow_comes_by_the_queue_that_was_last_written_for_it() {
    in_namespace(|| {
        let tun = Tun::open("nt-many", 1_400, NonZero::new(3).unwrap()).unwrap();
        assert_eq!(tun.queues.len(), 3);
        assert!(tun.queue(WorkerId(2)).is_some() && tun.queue(WorkerId(3)).is_none());
        let host = host(&tun);
        let ask = || {
            host.send_to(b"question", "10.7.0.2:5000").unwrap();
            question(&tun)
        };
        let (_, first) = ask();
        let mut room = [0; 64];
        for queue in [0, 1, 2, 1, 0, 2].map(WorkerId) {
            assert_eq!(tun.send(&mut answer(&first, queue)), 0);
            host.recv_from(&mut room).unwrap();
            assert_eq!(ask().0, queue);
            assert_eq!(ask().0, queue);
        }
        // For a worker without a queue of its own there is one all the same.
        assert_eq!(tun.send(&mut answer(&first, WorkerId(7))), 0);
        assert_eq!(ask().0, WorkerId(0));
    });
}

#[test]
fn a_device_that_another_holds_is_refused_with_a_hint() {
    in_namespace(|| {
        for queues in [ONE, NonZero::new(2).unwrap()] {
            let _first = Tun::open("nt-held", 1_400, queues).unwrap();
            for queues in [ONE, NonZero::new(2).unwrap()] {
                let error = Tun::open("nt-held", 1_400, queues).unwrap_err();
                assert!(error.to_string().ends_with("does another trefoil run?"), "{error}");
            }
        }
    });
}

#[test]
fn a_device_that_was_made_before_is_taken_over() {
    in_namespace(|| {
        ip("tuntap add dev nt-ready mode tun");
        let tun = Tun::open("nt-ready", 1_400, NonZero::new(2).unwrap()).unwrap();
        assert_eq!(tun.queues.len(), 1);
        asks_and_is_answered(&tun);
    });
}

#[test]
fn a_dropped_device_disappears() {
    in_namespace(|| {
        drop(Tun::open("nt-gone", 1_400, ONE).unwrap());
        assert!(if_nametoindex("nt-gone").is_err());
    });
}

#[test]
fn a_turn_leaves_what_would_not_stay_in_the_cache() {
    in_namespace(|| {
        let tun = Tun::open("nt-turn", 1_400, ONE).unwrap();
        let host = host(&tun);
        nix::sys::socket::setsockopt(&host, nix::sys::socket::sockopt::UdpGsoSegment, &1_000).unwrap();
        for _ in 0..8 {
            host.send_to(&[7; 60_000], "10.7.0.2:5000").unwrap();
        }
        let mut batch = packets();
        assert_eq!(tun.receive(WorkerId(0), &mut batch), Ok(true));
        let bytes: usize = batch.filled().iter().map(|packet| packet.packet.len()).sum();
        assert!((TURN_BYTES..TURN_BYTES + 65_536).contains(&bytes), "{bytes}");
        let mut rest = packets();
        while tun.receive(WorkerId(0), &mut rest) == Ok(true) {}
        let large =
            |batch: &Batch<SitePacket>| batch.filled().iter().filter(|packet| packet.packet.len() > 60_000).count();
        assert_eq!(large(&batch) + large(&rest), 8);
    });
}
