use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::model::Spi;
use crate::net::namespace::{Namespace, ip};
use crate::packet::TRAIN_CAPACITY;

const ANY_PORTS: PortPlan = PortPlan { ike: 0, natt: 0 };
const FIRST: WorkerId = WorkerId(0);

fn open_for(workers: usize, id: u16, last: u8) -> UnderlaySockets {
    let address = Ipv4Addr::new(127, 0, 0, last);
    UnderlaySockets::open(UnderlayId(id), None, Some(address), ANY_PORTS, workers, None).unwrap()
}

fn open(id: u16, last: u8) -> UnderlaySockets {
    open_for(1, id, last)
}

fn train(leg: Leg, tos: u8, segment: usize, bytes: &[u8]) -> Train {
    let mut train = Train::with_capacity(TRAIN_CAPACITY);
    (train.leg, train.tos, train.segment) = (leg, tos, segment);
    assert!(train.packet.fill(bytes));
    train
}

fn datagram(leg: Leg, tos: u8, bytes: &[u8]) -> Train {
    train(leg, tos, bytes.len(), bytes)
}

fn leg(from: &UnderlaySockets, to: &UnderlaySockets, natt: bool) -> Leg {
    Leg { underlay: from.id(), natt, local: from.local(natt), remote: to.local(natt) }
}

fn send(from: &UnderlaySockets, trains: &[Train]) -> Vec<Unsent> {
    let mut refused = Vec::new();
    let (mut calls, mut limits) = (MultiMessage::default(), RunLimits::default());
    from.send(true, FIRST, &mut calls, &mut limits, trains, &mut |unsent| refused.push(unsent));
    refused
}

fn received_by(worker: WorkerId, sockets: &UnderlaySockets, natt: bool, capacity: usize) -> Batch<Train> {
    let mut batch = Batch::new(capacity, || Train::with_capacity(TRAIN_CAPACITY));
    sockets.receive(natt, worker, &mut MultiMessage::default(), &mut batch, &mut usize::MAX.clone()).unwrap();
    batch
}

fn received(sockets: &UnderlaySockets, natt: bool, capacity: usize) -> Batch<Train> {
    received_by(FIRST, sockets, natt, capacity)
}

/// All datagrams, with how they came.
fn datagrams(batch: &Batch<Train>) -> Vec<(Leg, u8, Vec<u8>)> {
    let each =
        |train: &Train| train.datagrams().map(|bytes| (train.leg, train.tos, bytes.to_vec())).collect::<Vec<_>>();
    batch.filled().iter().flat_map(each).collect()
}

#[test]
fn a_batch_crosses_in_order_with_its_tos_and_its_legs() {
    let (ours, theirs) = (open(0, 1), open(7, 2));
    let way = leg(&ours, &theirs, true);
    let sent: Vec<Train> = (0..150u8).map(|index| datagram(way, (index % 4) << 2, &[index; 100])).collect();
    assert_eq!(send(&ours, &sent), []);
    let got = datagrams(&received(&theirs, true, 200));
    assert_eq!(got.len(), 150);
    for (index, got) in (0u8..).zip(got) {
        assert_eq!(got, (leg(&theirs, &ours, true), (index % 4) << 2, vec![index; 100]));
    }
    assert!(received(&theirs, false, 10).is_empty());
}

#[test]
fn trains_of_all_shapes_arrive_datagram_by_datagram() {
    let (ours, theirs) = (open(0, 1), open(7, 2));
    let way = leg(&ours, &theirs, true);
    // 44 packets of ESP and behind them a shorter IKE message, as one train.
    let mut mixed: Vec<u8> = (1..=44u8).flat_map(|number| [number; 1_400]).collect();
    mixed.extend([0; 4].iter().chain(&[9; 300]));
    let small: Vec<u8> = (1..=64u8).flat_map(|number| [number; 72]).collect();
    let sent = [
        train(way, 0x02, 1_400, &mixed),
        datagram(way, 0xb8, b"alone"),
        train(way, 0xb8, 72, &small),
        train(way, 0, 1_000, &[5; 2_000]),
    ];
    assert_eq!(send(&ours, &sent), []);
    let batch = received(&theirs, true, 16);
    assert!(batch.filled().len() < 10, "receive offload gave {} trains", batch.filled().len());
    let expected: Vec<_> = sent
        .iter()
        .flat_map(|train| train.datagrams().map(|bytes| (leg(&theirs, &ours, true), train.tos, bytes.to_vec())))
        .collect();
    assert!(datagrams(&batch) == expected);
    assert!(ours.segmentation.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn a_turn_takes_about_as_much_as_it_was_told() {
    let (ours, theirs) = (open(0, 1), open(7, 2));
    let full = train(leg(&ours, &theirs, true), 0, 1_400, &[7; 44 * 1_400]);
    let sent: Vec<Train> = (0..6).map(|_| train(full.leg, 0, 1_400, full.packet.bytes())).collect();
    assert_eq!(send(&ours, &sent), []);
    let mut calls = MultiMessage::default();
    let mut taken = Vec::new();
    loop {
        let mut batch = Batch::new(16, || Train::with_capacity(TRAIN_CAPACITY));
        let mut bytes = 100_000;
        let more = theirs.receive(true, FIRST, &mut calls, &mut batch, &mut bytes).unwrap();
        taken.push(batch.filled().len());
        if !more {
            break;
        }
        assert_eq!(bytes, 0);
    }
    assert_eq!((taken.iter().sum::<usize>(), taken[0]), (6, 2), "{taken:?}");
}

#[test]
fn a_socket_that_refuses_runs_is_given_shorter_ones() {
    let (ours, theirs) = (open(0, 1), open(1, 2));
    // The kernel does not cut what it may not sum: EINVAL.
    let socket = ours.natt.socket(0);
    no_checksums(socket, 1);
    let way = leg(&ours, &theirs, true);
    let bytes: Vec<u8> = (0..30u8).flat_map(|number| [number; 500]).collect();
    let sent = [train(way, 0, 500, &bytes)];
    let (mut calls, mut limits) = (MultiMessage::default(), RunLimits::default());
    ours.send(true, FIRST, &mut calls, &mut limits, &sent, &mut |unsent| panic!("{unsent:?}"));
    let arrived = |batch| datagrams(&batch).iter().map(|(_, _, bytes)| bytes[0]).collect::<Vec<_>>();
    assert_eq!(arrived(received(&theirs, true, 64)), (0..30).collect::<Vec<_>>());
    assert_eq!(limits.of(&way), 15);
    no_checksums(socket, 0);
    ours.send(true, FIRST, &mut calls, &mut limits, &sent, &mut |unsent| panic!("{unsent:?}"));
    let shorter = received(&theirs, true, 64);
    assert_eq!(shorter.filled().iter().map(|train| train.datagrams().len()).collect::<Vec<_>>(), [15, 15]);
}

/// SO_NO_CHECK.
fn no_checksums(socket: &socket2::Socket, value: libc::c_int) {
    use std::os::fd::AsRawFd;
    // SAFETY: the option takes an integer, whose address and size are given and which lives
    // until the call is over.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0);
}

#[test]
fn what_exceeds_the_mtu_is_refused_and_the_rest_is_sent() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        ip("link set lo mtu 1500 up");
        let (ours, theirs) = (open(0, 1), open(1, 2));
        let way = leg(&ours, &theirs, true);
        let sent = [train(way, 0, 1_480, &[1; 1_480 * 20 + 9]), train(way, 0, 1_400, &[2; 1_400 * 20])];
        assert_eq!(send(&ours, &sent), [Unsent { index: 0, datagrams: 20, errno: libc::EMSGSIZE }]);
        let got = datagrams(&received(&theirs, true, 64));
        assert_eq!((got.len(), got[0].2.as_slice(), got[1].2[0]), (21, &[1; 9][..], 2));
    });
}

#[test]
fn the_system_chooses_ports_and_they_are_reported() {
    let sockets = open(0, 1);
    let PortPlan { ike, natt } = sockets.ports();
    assert!(ike != 0 && natt != 0 && ike != natt);
    assert_eq!(sockets.local(false).port(), ike);
}

#[test]
fn an_spi_leads_to_its_worker_and_everything_else_to_the_first() {
    let (ours, theirs) = (open(0, 1), open_for(3, 1, 2));
    let way = leg(&ours, &theirs, true);
    assert_eq!(theirs.natt.local.port(), theirs.natt.socket(2).local_addr().unwrap().as_socket().unwrap().port());
    for slot in 1..=30u16 {
        for random in [0, 1, 2, 0x7fff, 0xffff] {
            let spi = Spi::of_slot(slot, random);
            assert_eq!(send(&ours, &[datagram(way, 0, &[&spi.0.to_be_bytes()[..], b"esp"].concat())]), []);
            for worker in 0..3 {
                let got = received_by(WorkerId(worker), &theirs, true, 4);
                let mine = spi.slot() % 3 == usize::from(worker);
                assert_eq!(got.filled().len(), usize::from(mine), "{spi} at worker {worker}");
            }
        }
    }
    for other in [&[0, 0, 0, 0, 1, 2, 3, 4][..], &[0xff], &[0, 9], &[0xff; 3]] {
        assert_eq!(send(&ours, &[datagram(way, 0, other)]), []);
        assert_eq!(received(&theirs, true, 4).filled().len(), 1, "{other:?}");
    }
}

#[test]
fn each_worker_sends_by_its_own_socket_from_the_same_port() {
    let (ours, theirs) = (open_for(3, 0, 1), open(1, 2));
    for worker in 0..3 {
        let sent = [datagram(leg(&ours, &theirs, true), 0, &[1, worker])];
        let (mut calls, mut limits) = (MultiMessage::default(), RunLimits::default());
        ours.send(true, WorkerId(worker.into()), &mut calls, &mut limits, &sent, &mut |unsent| panic!("{unsent:?}"));
        let got = datagrams(&received(&theirs, true, 4));
        assert_eq!(got, [(leg(&theirs, &ours, true), 0, vec![1, worker])]);
    }
    assert!(ours.descriptor(true, WorkerId(2)).is_some() && ours.descriptor(true, WorkerId(3)).is_none());
    assert!(ours.descriptor(false, FIRST).is_some() && ours.descriptor(false, WorkerId(1)).is_none());
}

#[test]
fn an_ike_message_has_the_marker_on_the_nat_traversal_port_only() {
    let (ours, theirs) = (open(0, 1), open(1, 2));
    for natt in [false, true] {
        ours.send_ike(leg(&ours, &theirs, natt), b"ike").unwrap();
    }
    assert_eq!(received(&theirs, false, 2).filled()[0].packet.bytes(), b"ike");
    assert_eq!(received(&theirs, true, 2).filled()[0].packet.bytes(), b"\0\0\0\0ike");
}

#[test]
fn what_the_socket_refuses_is_told_and_the_rest_is_sent() {
    let (ours, theirs) = (open(0, 1), open(1, 2));
    let good = leg(&ours, &theirs, true);
    let six = Leg { remote: "[::1]:4500".parse().unwrap(), ..good };
    let nowhere = Leg { remote: "255.255.255.255:9".parse().unwrap(), ..good };
    let batch = [good, six, good, nowhere, good].map(|leg| train(leg, 0, 2, b"xxxxx"));
    let refused = |index, errno| Unsent { index, datagrams: 3, errno };
    let told = send(&ours, &batch);
    assert_eq!(told, [refused(1, libc::EAFNOSUPPORT), refused(3, libc::EACCES)]);
    assert_eq!(datagrams(&received(&theirs, true, 8)).len(), 9);
}

#[test]
fn a_datagram_larger_than_its_slot_is_cut_and_does_not_hurt_the_next() {
    let (ours, theirs) = (open(0, 1), open(1, 2));
    let way = leg(&ours, &theirs, true);
    assert_eq!(send(&ours, &[datagram(way, 0, &[9; 5_000]), datagram(way, 0, b"small")]), []);
    let mut got = Batch::new(4, || Train::with_capacity(2_048));
    theirs.receive(true, FIRST, &mut MultiMessage::default(), &mut got, &mut 9_999).unwrap();
    assert_eq!(got.filled()[0].packet.bytes()[..2_048], [9; 2_048]);
    assert_eq!(got.filled()[1].packet.bytes(), b"small");
}

#[test]
fn an_interface_gives_the_address_and_an_unknown_one_is_a_plain_error() {
    let open = |interface| UnderlaySockets::open(UnderlayId(0), Some(interface), None, ANY_PORTS, 2, None);
    let sockets = open("lo").unwrap();
    let fact = sockets.fact().unwrap();
    assert!(fact.address.is_loopback() && fact.mtu >= 1_280);
    assert_eq!(PortPlan { ike: fact.ike_port, natt: fact.natt_port }, sockets.ports());
    assert_eq!(open("nt-none").unwrap_err().to_string(), "there is no interface nt-none");
}

#[test]
fn a_port_in_use_is_told_with_a_hint_whether_it_is_shared_or_not() {
    for (first, second) in [(1, 1), (1, 3), (3, 1), (3, 3)] {
        let first = open_for(first, 0, 1);
        let PortPlan { natt, .. } = first.ports();
        for ports in [first.ports(), PortPlan { ike: 0, natt }] {
            let address = Some(Ipv4Addr::LOCALHOST);
            let error = UnderlaySockets::open(UnderlayId(0), None, address, ports, second, None).unwrap_err();
            assert!(error.to_string().ends_with("does another IKE daemon run?"), "{error}");
        }
    }
}

#[test]
fn a_worker_that_does_not_read_leaves_the_others_their_packets() {
    let (ours, theirs) = (open(0, 1), open_for(2, 1, 2));
    let way = leg(&ours, &theirs, true);
    let of_slot = |slot| {
        let mut packet = Spi::of_slot(slot, 7).0.to_be_bytes().to_vec();
        packet.resize(1_400, 0);
        packet
    };
    // Far more than a socket holds.
    let flood = train(way, 0, 1_400, &of_slot(1).repeat(44));
    let started = Instant::now();
    for _ in 0..400 {
        send(&ours, std::slice::from_ref(&flood));
    }
    assert_eq!(send(&ours, &[datagram(way, 0, &of_slot(2))]), []);
    assert_eq!(received(&theirs, true, 4).filled().len(), 1);
    assert!(!received_by(WorkerId(1), &theirs, true, 4).is_empty());
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_pair_is_replaced_while_others_stay() {
    let underlays = Underlays::new(vec![open(0, 1), open(1, 2)]);
    let kept = underlays.get(UnderlayId(1)).unwrap();
    let old = underlays.get(UnderlayId(0)).unwrap().local(true);
    underlays.put(open(0, 3));
    assert_ne!(underlays.get(UnderlayId(0)).unwrap().local(true), old);
    assert!(Arc::ptr_eq(&kept, &underlays.get(UnderlayId(1)).unwrap()));
    underlays.remove(UnderlayId(0));
    assert_eq!(underlays.all().len(), 1);
    assert!(underlays.send_ike(leg(&kept, &kept, false), b"x").is_ok());
    let gone = Leg { underlay: UnderlayId(0), ..leg(&kept, &kept, false) };
    assert!(underlays.send_ike(gone, b"x").is_err());
}
