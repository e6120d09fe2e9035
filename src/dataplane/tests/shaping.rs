//! Links whose bandwidth is a cap: what is sent waits for its turn, and what arrives is policed.

use super::trains::{bytes, super_packet, tcp};
use super::*;
use crate::forward::{LinkFace, PathCounters};
use crate::model::{Chance, Mbps};
use crate::packet::{ChecksumState, SegmentKind, Segments};

/// ESP, UDP and IPv4 around an inner packet, in bytes at most.
const AROUND: usize = 28 + 8 + 8 + 3 + 2 + 16;

impl End {
    /// From now on the links of all paths are held to these.
    fn cap(&self, send: Option<u32>, receive: Option<u32>) {
        let rate = |mbps: Option<u32>| mbps.and_then(Mbps::new);
        let face = |_| LinkFace { cap: Cap::new(rate(send), rate(receive)), home: WorkerId(0), live: Arc::default() };
        self.publish(|next| {
            next.links = (0..PATHS).map(face).collect();
            next.paths.iter_mut().for_each(|path| (path.shaped, path.policed) = (send.is_some(), receive.is_some()));
        });
    }

    /// Turns of a worker that wakes by whole milliseconds, for so long.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.turn();
            self.now = self.now + Duration::from_millis(1);
        }
        self.turn();
    }

    fn on_wire(&self) -> usize {
        self.io.to_wan.iter().map(|(.., datagram)| datagram.len() + 28).sum()
    }
}

#[test]
fn a_super_packet_leaves_piece_by_piece_at_the_rate_of_its_link_and_arrives_whole() {
    let (mut edge, mut pop) = pair();
    edge.cap(Some(8), None);
    let data = bytes(30_000);
    edge.io.super_packets.push_back(super_packet(5, &data, 1_300));
    edge.run(10);
    let sent = edge.on_wire();
    assert!((8_500..=12_500).contains(&sent), "10 ms at 1,000 bytes a millisecond, and one: {sent}");
    let link = edge.path(0).link;
    let queued: u64 = edge.crew.published.load().links.iter().map(|link| link.live.queue().1).sum();
    assert!(queued > 15_000, "{queued} on {link:?}");
    edge.run(30);
    pop.io.site_offloads = SiteOffloads { tcp: true, udp: true };
    cross(&mut edge, &mut pop);
    let [packet] = &pop.delivered()[..] else { panic!("not one packet") };
    assert_eq!(packet[40..], data);
    assert_eq!((edge.drops_out(), pop.drops_in()), (vec![], vec![]));
}

#[test]
fn a_small_packet_goes_before_bulk_and_a_probe_does_not_wait_at_all() {
    let (mut edge, _) = pair();
    edge.cap(Some(8), None);
    edge.publish(all_on_one);
    (0..4).for_each(|_| edge.io.super_packets.push_back(super_packet(5, &bytes(30_000), 1_300)));
    edge.run(20);
    let before = edge.io.to_wan.len();
    edge.io.from_site.push_back(udp(9));
    edge.run(3);
    let lengths: Vec<usize> = edge.io.to_wan[before..].iter().map(|(.., datagram)| datagram.len()).collect();
    assert!(lengths.iter().take(3).any(|length| *length < 250), "{lengths:?}");
    let before = edge.io.to_wan.len();
    let probe = ProbeOrder { path: PathId(0), id: 1, source: private(false, 0), target: private(true, 0), length: 0 };
    edge.io.orders.push_back(ToWorker::Probe(probe));
    edge.turn();
    assert!(edge.io.to_wan.len() > before, "at once");
}

#[test]
fn the_worker_says_when_it_wants_its_next_turn() {
    let (mut edge, _) = pair();
    edge.cap(Some(8), None);
    assert_eq!(edge.worker.turn(&mut edge.io, edge.now).due, None);
    edge.io.super_packets.push_back(super_packet(5, &bytes(5_000), 1_300));
    edge.worker.turn(&mut edge.io, edge.now);
    let due = edge.worker.turn(&mut edge.io, edge.now).due.unwrap();
    assert!(due > edge.now && due.since(edge.now) < Duration::from_millis(3), "{:?}", due.since(edge.now));
    let sent = edge.io.to_wan.len();
    edge.worker.turn(&mut edge.io, due);
    assert!(edge.io.to_wan.len() > sent);
}

#[test]
fn what_does_not_get_out_in_time_is_dropped_and_counted_and_the_rest_is_intact() {
    let (mut edge, mut pop) = pair();
    edge.cap(Some(8), None);
    edge.publish(all_on_one);
    let mut given = 0;
    for port in 0..2_000u16 {
        edge.io.from_site.push_back(udp_between([10, 1, 0, 5], [10, 9, 0, 7], port % 3, 53, 1_000));
        given += 1;
        edge.run(u64::from(port % 4 == 0));
    }
    edge.run(1_000);
    let sent = edge.io.to_wan.len() as u64;
    let drops = edge.drops_out();
    let [(DropReason::Shaped, dropped)] = drops[..] else { panic!("{drops:?}") };
    assert_eq!(sent + dropped, given);
    assert!(dropped > 100 && edge.on_wire() < 900_000);
    let counted: u64 = edge.crew.published.load().links.iter().map(|link| of(&link.live.dropped_out)).sum();
    assert_eq!(counted, dropped);
    cross(&mut edge, &mut pop);
    assert_eq!((pop.delivered().len() as u64, pop.drops_in()), (sent, vec![]));
}

#[test]
fn senders_that_understand_it_are_marked_and_lose_nothing() {
    let (mut edge, mut pop) = pair();
    edge.cap(Some(8), None);
    for number in 0..400u32 {
        let mut packet = tcp(5, 1_000 + number * 1_200, &bytes(1_200));
        packet[1] |= Ecn::Capable0.bits();
        edge.io.from_site.push_back(with_checksum(packet));
        edge.run(1);
    }
    edge.run(300);
    cross(&mut edge, &mut pop);
    let delivered = pop.delivered();
    let marked = delivered.iter().filter(|packet| parse(packet).is_some_and(|parsed| parsed.ecn == Ecn::Congested));
    let marked = marked.count() as u64;
    assert_eq!((delivered.len(), edge.drops_out()), (400, vec![]));
    let counted: u64 = edge.crew.published.load().links.iter().map(|link| of(&link.live.marked_out)).sum();
    assert!(marked == counted && marked > 3, "{marked}, {counted}");
}

#[test]
fn a_path_that_goes_while_packets_wait_for_it_takes_them_with_it_and_they_are_counted() {
    let (mut edge, _) = pair();
    edge.cap(Some(8), None);
    edge.io.super_packets.push_back(super_packet(5, &bytes(30_000), 1_300));
    edge.run(2);
    edge.publish(|next| next.paths.iter_mut().for_each(|path| path.children = [].into()));
    edge.run(10);
    assert_eq!(edge.drops_out(), [(DropReason::NoPath, 1)]);
}

/// Flows go by this path alone from now on.
fn only_on(path: u16) -> impl FnOnce(&mut Forwarding) {
    move |next| next.paths.iter_mut().for_each(|face| face.usable = face.id == PathId(path))
}

#[test]
fn what_waits_for_a_path_that_goes_down_leaves_by_the_path_that_its_flow_has_then_and_in_order() {
    for shaped in [true, false] {
        let (mut edge, mut pop) = pair();
        edge.cap(Some(8), None);
        edge.publish(only_on(0));
        edge.publish(|next| next.paths[1].shaped = shaped);
        let lengths: Vec<usize> = (0..20).map(|number| 900 + number).collect();
        for length in &lengths {
            edge.io.from_site.push_back(udp_between([10, 1, 0, 5], [10, 9, 0, 7], 5, 53, *length));
        }
        edge.run(3);
        let before = edge.io.to_wan.len();
        assert!((2..8).contains(&before), "{before}");
        edge.publish(only_on(1));
        // One that comes as soon as it is known.
        edge.io.from_site.push_back(udp_between([10, 1, 0, 5], [10, 9, 0, 7], 5, 53, 999));
        edge.run(40);
        let links: Vec<u16> = edge.io.to_wan.iter().map(|(leg, ..)| leg.underlay.0).collect();
        assert_eq!(links[before..], vec![1; 21 - before], "nothing more is sent to a dead path");
        cross(&mut edge, &mut pop);
        let arrived: Vec<usize> = pop.delivered().iter().map(|packet| packet.len() - 28).collect();
        assert_eq!(arrived, [lengths, vec![999]].concat());
        assert_eq!((edge.drops_out(), pop.drops_in()), (vec![], vec![]));
        let told = edge.crew.flows.get(&parse(&udp(5)).unwrap().key).unwrap();
        assert_eq!((told.packets, told.path), (21, Some(PathId(1))), "each is counted once");
    }
}

#[test]
fn the_rest_of_a_super_packet_goes_on_by_another_path_and_another_worker_where_it_was() {
    let mut edge = End::with(view(false), 1, FlowTable::new(1), 2);
    let mut pop = End::new(view(true), 2);
    edge.cap(Some(8), None);
    edge.publish(only_on(0));
    let data = bytes(30_000);
    edge.io.super_packets.push_back(super_packet(5, &data, 1_300));
    edge.run(10);
    let left = edge.io.to_wan.len();
    assert!((5..12).contains(&left), "{left}");
    edge.publish(|next| {
        only_on(2)(next);
        (next.paths[2].home, next.paths[2].shaped) = (WorkerId(1), false);
        next.paths[2].mtu = 1_000;
    });
    edge.run(5);
    let elsewhere = std::mem::take(&mut edge.others[0].1.to_wan);
    assert!(elsewhere.iter().all(|(leg, ..)| leg.underlay.0 == 2) && edge.io.to_wan.len() == left);
    edge.io.to_wan.extend(elsewhere);
    cross(&mut edge, &mut pop);
    let arrived: Vec<u8> = pop.delivered().iter().flat_map(|packet| packet[40..].to_vec()).collect();
    assert_eq!(arrived, data);
    assert_eq!((edge.drops_out(), pop.drops_in()), (vec![], vec![]));
}

#[test]
fn what_waits_when_the_last_path_goes_down_is_dropped_at_once_and_not_sent_when_it_is_back() {
    let (mut edge, _) = pair();
    edge.cap(Some(8), None);
    edge.publish(only_on(0));
    let packets = (0..20).map(|number| udp_between([10, 1, 0, 5], [10, 9, 0, 7], number, 53, 1_000));
    edge.io.from_site.extend(packets);
    edge.run(3);
    let sent = edge.io.to_wan.len();
    edge.publish(|next| next.paths.iter_mut().for_each(|path| path.usable = false));
    edge.worker.turn(&mut edge.io, edge.now);
    assert_eq!(edge.drops_out(), [(DropReason::NoPath, 20 - sent as u64)]);
    assert!(edge.delivered().iter().all(|packet| unreachable_code(packet).is_some()), "their senders are told");
    edge.publish(only_on(0));
    edge.run(100);
    assert_eq!(edge.io.to_wan.len(), sent);
    let waiting: u64 = edge.crew.published.load().links.iter().map(|link| link.live.queue().1).sum();
    assert_eq!(waiting, 0);
}

#[test]
fn a_new_rate_and_the_end_of_a_cap_lose_nothing_of_what_waits() {
    let (mut edge, mut pop) = pair();
    edge.cap(Some(8), None);
    edge.publish(only_on(0));
    let packets = (0..40).map(|number| udp_between([10, 1, 0, 5], [10, 9, 0, 7], 5, 53, 900 + number));
    edge.io.from_site.extend(packets);
    for cap in [Some(8), Some(16), None] {
        edge.cap(cap, None);
        edge.run(4);
    }
    cross(&mut edge, &mut pop);
    let arrived: Vec<usize> = pop.delivered().iter().map(|packet| packet.len() - 28).collect();
    assert_eq!(arrived, (900..940).collect::<Vec<_>>());
    assert_eq!(edge.drops_out(), []);
}

/// Paths come and go, caps and homes change, and super-packets are among what waits.
#[test]
fn whatever_happens_to_the_paths_each_packet_leaves_by_one_that_is_usable_and_in_order_or_is_counted() {
    for seed in 0..40 {
        let workers = 1 + (seed % 2) as u16;
        let mut chance = Chance::from_number(seed);
        let (mut edge, mut pop) = (End::with(view(false), 1, FlowTable::new(1), workers), End::new(view(true), 2));
        let mut usable = [true; PATHS as usize];
        let (mut given, mut seen) = (Vec::new(), [0; 2]);
        for round in 0..30 {
            if round % 10 == 5 {
                edge.cap(Some(4 + chance.below(20)).filter(|_| chance.below(4) > 0), None);
            }
            if chance.below(2) == 0 {
                usable[chance.below(3) as usize] ^= true;
            }
            let home = chance.below(u32::from(workers)) as u16;
            edge.publish(|next| {
                for path in &mut next.paths {
                    path.usable = usable[usize::from(path.id.0)];
                }
                // All of a link have one home.
                if round % 7 == 6 {
                    let mut links = next.links.to_vec();
                    links.iter_mut().for_each(|link| link.home = WorkerId(home));
                    next.links = links.into();
                    next.paths.iter_mut().for_each(|path| path.home = WorkerId(home));
                }
            });
            for _ in 0..chance.below(30) {
                let (flow, length) = (chance.below(6) as u16, 100 + given.len());
                edge.io.from_site.push_back(udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow, 53, length));
                given.push((flow, length));
            }
            edge.run(u64::from(chance.below(12)));
            let ends = std::iter::once(&edge.io).chain(edge.others.iter().map(|(_, io)| io));
            for (io, seen) in ends.zip(&mut seen) {
                let new = &io.to_wan[*seen..];
                assert!(new.iter().all(|(leg, ..)| usable[usize::from(leg.underlay.0)]), "{seed} {round}");
                *seen = io.to_wan.len();
            }
        }
        usable = [true; PATHS as usize];
        edge.publish(|next| next.paths.iter_mut().for_each(|path| path.usable = usable[usize::from(path.id.0)]));
        edge.run(3_000);
        for other in 0..edge.others.len() {
            let sent = std::mem::take(&mut edge.others[other].1.to_wan);
            edge.io.to_wan.extend(sent);
        }
        let sent = edge.io.to_wan.len() as u64;
        let dropped: u64 = edge.drops_out().iter().map(|(_, packets)| packets).sum();
        assert_eq!(sent + dropped, given.len() as u64, "{seed}: {:?}", edge.drops_out());
        assert!(edge.drops_out().iter().all(|(reason, _)| [DropReason::NoPath, DropReason::Shaped].contains(reason)));
        assert!(sent > given.len() as u64 / 3, "{seed}: {sent} of {}", given.len());
        cross(&mut edge, &mut pop);
        let mut arrived = pop.delivered();
        assert_eq!(arrived.len() as u64, sent);
        if workers == 1 {
            arrived.dedup_by_key(|packet| packet.len());
            for flow in 0..6 {
                let of_flow = |packet: &&Vec<u8>| parse(packet).is_some_and(|parsed| parsed.key.source_port == flow);
                assert!(arrived.iter().filter(of_flow).is_sorted_by_key(|packet| packet.len()), "{seed} {flow}");
            }
        }
    }
}

#[test]
fn what_another_worker_left_for_a_path_that_has_gone_since_takes_the_next() {
    let mut edge = End::with(view(false), 1, FlowTable::new(1), 2);
    edge.publish(|next| {
        only_on(0)(next);
        next.paths[0].home = WorkerId(1);
    });
    edge.io.from_site.push_back(udp(5));
    edge.worker.turn(&mut edge.io, edge.now);
    edge.publish(only_on(1));
    edge.turn();
    let by: Vec<u16> = edge.io.to_wan.iter().map(|(leg, ..)| leg.underlay.0).collect();
    assert_eq!((by, edge.others[0].1.to_wan.len(), edge.drops_out()), (vec![1], 0, vec![]));
}

#[test]
fn what_exceeds_the_link_s_rate_on_arrival_is_dropped_and_counted_but_proves_the_path_alive() {
    let (mut edge, mut pop) = pair();
    pop.cap(None, Some(8));
    let mut given = 0;
    for _ in 0..1_000 {
        for flow in 0..2 {
            edge.io.from_site.push_back(udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow, 53, 1_000));
            given += 1;
        }
        edge.turn();
        pop.now = pop.now + Duration::from_millis(1);
        cross(&mut edge, &mut pop);
    }
    let delivered = pop.delivered().len() as u64;
    let drops = pop.drops_in();
    let [(DropReason::Policed, dropped)] = drops[..] else { panic!("{drops:?}") };
    assert_eq!(delivered + dropped, given);
    let paths: Vec<Arc<PathCounters>> = (0..PATHS).map(|path| pop.path(path).live).collect();
    let used = paths.iter().filter(|live| of(&live.packets_in) > 0).count() as u64;
    let most = used * (1_000 * 1_000 + 65_536) / (1_028 + AROUND as u64 - 8);
    assert!(delivered <= most && delivered >= most * 9 / 10 || used == 2, "{delivered} of {given}, {most}");
    assert!(paths.iter().any(|live| of(&live.last_in) == pop.now.as_nanos()));
}

#[test]
fn the_license_polices_all_links_together() {
    let (mut edge, mut pop) = pair();
    pop.publish(|next| {
        next.site.cap = Cap::new(None, Mbps::new(8));
        next.links =
            (0..PATHS).map(|_| LinkFace { cap: Cap::default(), home: WorkerId(0), live: Arc::default() }).collect();
        next.paths.iter_mut().for_each(|path| path.policed = true);
    });
    for number in 0..1_000u16 {
        for flow in 0..3 {
            let packet = udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow * 7 + number % 7, 53, 1_000);
            edge.io.from_site.push_back(packet);
        }
        edge.turn();
        pop.now = pop.now + Duration::from_millis(1);
        cross(&mut edge, &mut pop);
    }
    let bytes: usize = pop.delivered().iter().map(|packet| packet.len() + AROUND - 8).sum();
    assert!((950_000..=1_100_000).contains(&bytes), "{bytes} in a second, and a burst");
}

#[test]
fn the_license_shapes_all_links_together_at_one_home() {
    let mut edge = End::with(view(false), 1, FlowTable::new(1), 2);
    edge.publish(|next| {
        next.site.cap = Cap::new(Mbps::new(8), None);
        next.links =
            (0..PATHS).map(|_| LinkFace { cap: Cap::default(), home: WorkerId(1), live: Arc::default() }).collect();
        next.paths.iter_mut().for_each(|path| (path.shaped, path.home) = (true, WorkerId(1)));
    });
    for _ in 0..500 {
        for flow in 0..6 {
            edge.io.from_site.push_back(udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow, 53, 1_000));
        }
        edge.run(1);
    }
    let sent: Vec<usize> = edge.others[0].1.to_wan.iter().map(|(.., datagram)| datagram.len() + 28).collect();
    let all: usize = sent.iter().sum();
    assert!((490_000..=510_000).contains(&all), "{all} in half a second");
    assert!(edge.io.to_wan.is_empty());
}

#[test]
fn datagrams_of_a_super_packet_keep_their_size_and_fragments_count_together() {
    let (mut edge, mut pop) = pair();
    edge.cap(Some(8), None);
    let mut datagrams = udp_between([10, 1, 0, 5], [10, 9, 0, 7], 5, 53, 6_000);
    datagrams = with_checksum(datagrams);
    let segments = Some(Segments { kind: SegmentKind::Udp, size: 700 });
    let checksum = ChecksumState::Partial { start: 20, offset: 6 };
    edge.io.super_packets.push_back((datagrams, Offload { checksum, segments }));
    let mut long = udp_between([10, 1, 0, 5], [10, 9, 0, 7], 6, 53, 3_000);
    long[6] &= !0x40;
    edge.io.from_site.push_back(with_checksum(long));
    edge.run(30);
    cross(&mut edge, &mut pop);
    let mut lengths: Vec<usize> = pop.delivered().iter().map(Vec::len).collect();
    lengths.sort();
    assert_eq!(lengths[lengths.len() - 2..], [1_396, 1_396], "{lengths:?}");
    assert_eq!(lengths.iter().filter(|length| **length == 728).count(), 8);
    assert_eq!((edge.drops_out(), pop.drops_in()), (vec![], vec![]));
}

fn all_on_one(next: &mut Forwarding) {
    next.paths.iter_mut().for_each(|path| path.usable = path.id == PathId(0));
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
