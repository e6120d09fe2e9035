use super::*;
use crate::packet::{ChecksumState, SegmentKind, Segments};

const TCP: SiteOffloads = SiteOffloads { tcp: true, udp: true };

/// A TCP packet of a flow of the edge's site with `data` bytes from sequence number 1,000 on, and
/// all checksums right.
pub(super) fn tcp(port: u16, sequence: u32, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 1, 0, 5], [10, 9, 0, 7], 20).tcp(port, 80, sequence, 64_000).ack(7);
    builder.write(&mut packet, data).unwrap();
    with_checksum(without_fragments(packet))
}

fn without_fragments(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] |= 0x40;
    packet
}

/// The same as the kernel hands it over: one packet with the sum of its pseudo-header alone.
pub(super) fn super_packet(port: u16, data: &[u8], size: u16) -> (Vec<u8>, Offload) {
    let mut packet = tcp(port, 1_000, data);
    let length = (packet.len() - 20) as u16;
    let mut sum = 0_u32;
    for pair in packet[12..20].chunks(2).chain([[0, 6].as_slice(), &length.to_be_bytes()]) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[36..38].copy_from_slice(&(folded as u16).to_be_bytes());
    let checksum = ChecksumState::Partial { start: 20, offset: 16 };
    (packet, Offload { checksum, segments: Some(Segments { kind: SegmentKind::Tcp, size }) })
}

pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 256) as u8).collect()
}

#[test]
fn a_super_packet_leaves_in_one_train_and_arrives_as_one() {
    let (mut edge, mut pop) = pair();
    let data = bytes(30_000);
    edge.io.super_packets.push_back(super_packet(5, &data, 1_300));
    edge.turn();
    let [lengths] = &edge.io.trains[..] else { panic!("{:?}", edge.io.trains) };
    let [whole @ .., last] = &lengths[..] else { panic!("an empty train") };
    assert_eq!(lengths.len(), 30_000_usize.div_ceil(1_300));
    assert!(whole.iter().all(|length| *length == whole[0]) && *last < whole[0]);
    assert_eq!(edge.path(edge.io.to_wan[0].0.underlay.0).live.packets_out.load(Ordering::Relaxed), 24);

    pop.io.site_offloads = TCP;
    cross(&mut edge, &mut pop);
    let [packet] = &pop.delivered()[..] else { panic!("not one packet") };
    assert_eq!(packet[40..], data);
    assert_eq!(pop.io.to_site_by[0].0.segments, Some(Segments { kind: SegmentKind::Tcp, size: 1_300 }));
    assert_eq!((edge.drops_out(), pop.drops_in()), (vec![], vec![]));
}

#[test]
fn what_the_host_cannot_join_reaches_it_as_the_packets_that_they_were() {
    let (mut edge, mut pop) = pair();
    let data = bytes(5_000);
    edge.io.super_packets.push_back(super_packet(5, &data, 1_200));
    edge.turn();
    cross(&mut edge, &mut pop);
    let packets = pop.delivered();
    for (index, (packet, chunk)) in packets.iter().zip(data.chunks(1_200)).enumerate() {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(header)) = sliced.transport else { panic!("no TCP") };
        assert_eq!(header.sequence_number(), 1_000 + 1_200 * index as u32);
        assert_eq!(header.payload(), chunk);
        assert_eq!(
            header.checksum(),
            header.to_header().calc_checksum_ipv4_raw([10, 1, 0, 5], [10, 9, 0, 7], chunk).unwrap()
        );
    }
    assert_eq!(packets.len(), 5);
}

#[test]
fn segments_longer_than_the_path_are_cut_to_it() {
    let (mut edge, _) = pair();
    let data = bytes(9_000);
    edge.io.super_packets.push_back(super_packet(5, &data, 4_000));
    edge.turn();
    let longest = edge.io.trains.iter().flatten().max();
    assert!(longest.is_some_and(|longest| *longest <= usize::from(MTU) + 60), "{longest:?}");
    assert_eq!(edge.drops_out(), []);
}

#[test]
fn datagrams_of_a_super_packet_are_never_cut_and_the_sender_hears_of_it() {
    let (mut edge, _) = pair();
    let mut packet = udp_between([10, 1, 0, 5], [10, 9, 0, 7], 5, 53, 6_000);
    packet = with_checksum(without_fragments(packet));
    let segments = Some(Segments { kind: SegmentKind::Udp, size: 2_000 });
    let checksum = ChecksumState::Partial { start: 20, offset: 6 };
    edge.io.super_packets.push_back((packet, Offload { checksum, segments }));
    edge.turn();
    assert!(edge.io.to_wan.is_empty());
    assert_eq!(edge.drops_out(), [(DropReason::TooBig, 1)]);
    assert!(unreachable_code(&edge.delivered()[0]).is_some());
}

#[test]
fn packets_of_a_turn_leave_in_a_train_for_each_path_and_in_order() {
    let (mut edge, mut pop) = pair();
    for round in 0..6 {
        edge.io.from_site.extend((0..10).map(|flow| udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow, 53, 100 + round)));
    }
    edge.turn();
    // Lengths differ between rounds, and grow: a train ends with each.
    assert!(edge.io.trains.len() >= 6 && edge.io.trains.len() <= 18, "{:?}", edge.io.trains);
    cross(&mut edge, &mut pop);
    let mut last = [0; 10];
    for packet in pop.delivered() {
        let port = usize::from(u16::from_be_bytes([packet[20], packet[21]]));
        assert!(packet.len() > last[port], "flow {port} was reordered");
        last[port] = packet.len();
    }
    assert_eq!(last, [133; 10]);
}

#[test]
fn an_ike_message_behind_esp_in_a_train_is_told_from_it() {
    let (mut edge, mut pop) = pair();
    edge.send([udp(1), udp(1), udp(1)]);
    let (leg, tos, first) = edge.io.to_wan[0].clone();
    let ike = [&[0; 4][..], &[7; 40]].concat();
    let mut joined = edge.io.to_wan.drain(..).flat_map(|(.., bytes)| bytes).collect::<Vec<_>>();
    joined.extend(&ike);
    pop.io.from_wan_trains.push_back((flipped(leg), tos, first.len(), joined));
    pop.turn();
    assert_eq!(pop.delivered().len(), 3);
    assert!(pop.io.news.iter().any(|news| matches!(news, ToControl::Ike { bytes, .. } if **bytes == [7; 40])));
    assert_eq!(pop.drops_in(), []);
}

/// An edge with three workers; path 0 is at home with worker 0, and so on.
fn with_workers() -> End {
    let mut view = view(false);
    for path in &mut view.paths {
        path.home = WorkerId(path.id.0 % 3);
    }
    End::with(view, 1, FlowTable::new(1), 3)
}

#[test]
fn whichever_worker_reads_a_packet_the_paths_home_sends_it_in_order() {
    let (mut edge, mut pop) = (with_workers(), End::new(view(true), 2));
    for round in 0..20 {
        for flow in 0..30 {
            let packet = udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow, 53, 100 + round);
            match usize::from(flow) % 3 {
                0 => edge.io.from_site.push_back(packet),
                other => edge.others[other - 1].1.from_site.push_back(packet),
            }
        }
        edge.turn();
    }
    let roads = std::iter::once(&edge.io).chain(edge.others.iter().map(|(_, io)| io));
    for (home, io) in roads.enumerate() {
        assert!(!io.to_wan.is_empty());
        assert!(io.to_wan.iter().all(|(leg, ..)| usize::from(leg.underlay.0) == home), "sent by worker {home}");
        let sequences = io.to_wan.iter().map(|(.., bytes)| u32::from_be_bytes(bytes[4..8].try_into().unwrap()));
        assert!(sequences.eq(1..=io.to_wan.len() as u32), "numbered in the order of sending");
    }
    for (_, io) in &mut edge.others {
        edge.io.to_wan.append(&mut io.to_wan);
    }
    cross(&mut edge, &mut pop);
    assert_eq!((pop.delivered().len(), pop.drops_in()), (600, vec![]));
    assert!(edge.io.woken.contains(&WorkerId(1)) && edge.io.woken.contains(&WorkerId(2)));
}

#[test]
fn a_worker_that_does_not_run_costs_only_its_own_packets() {
    let mut edge = with_workers();
    edge.io.from_site.extend((0..2_400).map(udp));
    while edge.worker.turn(&mut edge.io, edge.now).worked {}
    let lost = edge.drops_out();
    let [(DropReason::QueueFull, lost)] = lost[..] else { panic!("{lost:?}") };
    let sent = edge.io.to_wan.len() as u64;
    assert!(sent > 700, "the worker's own paths go on");
    edge.turn();
    let late: usize = edge.others.iter().map(|(_, io)| io.to_wan.len()).sum();
    assert_eq!((sent + lost, late as u64), (2_400 - late as u64, 1_024));
}

#[test]
fn bulk_that_waits_for_a_worker_takes_no_place_of_small_packets() {
    let mut edge = with_workers();
    edge.publish(|next| next.connectors[0].roles[0] = [PathId(1)].into_iter().collect());
    let data = bytes(20_000);
    for _ in 0..4 {
        edge.io.super_packets.extend((0..60).map(|_| super_packet(5, &data, 1_300)));
        edge.io.from_site.extend((0..100).map(udp));
        while edge.worker.turn(&mut edge.io, edge.now).worked {}
    }
    assert_eq!(edge.drops_out(), [(DropReason::QueueFull, 4 * 60 - 128)]);
    edge.turn();
    let datagrams = 128 * 20_000_usize.div_ceil(1_300) + 400;
    assert_eq!(edge.others[0].1.to_wan.len(), datagrams);
    // All buffers have come back.
    edge.io.super_packets.extend((0..128).map(|_| super_packet(5, &data, 1_300)));
    edge.io.from_site.extend((0..512).map(udp));
    while edge.worker.turn(&mut edge.io, edge.now).worked {}
    assert_eq!(edge.drops_out(), [(DropReason::QueueFull, 4 * 60 - 128)]);
}

#[test]
fn a_probe_for_another_workers_path_is_sent_by_that_one() {
    let mut edge = with_workers();
    let order = ProbeOrder { path: PathId(1), id: 7, source: private(false, 1), target: private(true, 1), length: 0 };
    edge.io.orders.push_back(ToWorker::Probe(order));
    edge.turn();
    assert_eq!((edge.io.to_wan.len(), edge.others[0].1.to_wan.len()), (0, 1));
}

#[test]
fn what_arrives_goes_to_the_device_queue_of_the_worker_that_sends_the_answer() {
    let (mut edge, mut pop) = (with_workers(), End::new(view(true), 2));
    edge.io.from_site.extend((0..30).map(udp));
    edge.turn();
    let mut homes = std::collections::HashMap::new();
    for flow in 0..30 {
        let entry = edge.crew.flows.get(&parse(&udp(flow)).unwrap().key).unwrap();
        homes.insert(flow, edge.path(entry.path.unwrap().0).home);
    }
    pop.io.from_site.extend((0..30).map(udp_back));
    pop.turn();
    cross(&mut pop, &mut edge);
    for (packet, (_, queue)) in edge.io.to_site.iter().zip(&edge.io.to_site_by) {
        assert_eq!(homes[&u16::from_be_bytes([packet[22], packet[23]])], *queue);
    }
    assert_eq!(edge.io.to_site.len(), 30);
}

/// The ECN field of every data byte of a TCP flow, by its offset, as the site got it.
fn marks(packets: &[Vec<u8>]) -> Vec<Ecn> {
    let mut marks = Vec::new();
    for packet in packets {
        let sequence = u32::from_be_bytes(packet[24..28].try_into().unwrap());
        let start = (sequence - 1_000) as usize;
        assert_eq!(start, marks.len(), "in order");
        marks.resize(start + packet.len() - 40, Ecn::of_traffic_class(packet[1]));
    }
    marks
}

#[test]
fn a_super_packet_says_which_of_its_bytes_have_met_congestion() {
    const SIZE: usize = 1_000;
    let (mut edge, mut pop) = pair();
    let data = bytes(40 * SIZE);
    let (mut packet, offload) = super_packet(5, &data, SIZE as u16);
    packet[1] = Ecn::Capable0.bits();
    edge.io.super_packets.push_back((with_checksum(packet), offload));
    edge.turn();
    assert!(edge.io.to_wan.iter().all(|(_, tos, _)| *tos == Ecn::Capable0.bits()));
    // A router on the way marks some.
    let marked = [3, 4, 5, 17, 39];
    for index in marked {
        edge.io.to_wan[index].1 = Ecn::Congested.bits();
    }
    pop.io.site_offloads = TCP;
    cross(&mut edge, &mut pop);
    let packets = pop.delivered();
    // As far as the marks agree, and in two turns.
    assert_eq!(packets.len(), 6 + 1);
    for (offset, mark) in marks(&packets).into_iter().enumerate() {
        let expected = if marked.contains(&(offset / SIZE)) { Ecn::Congested } else { Ecn::Capable0 };
        assert_eq!(mark, expected, "byte {offset}");
    }
    assert!(packets.iter().all(|packet| *packet == with_checksum(packet.clone())));
}

#[test]
fn congestion_that_a_host_has_met_before_the_tunnel_is_in_every_segment_of_its_super_packet() {
    let (mut edge, mut pop) = pair();
    let (mut packet, offload) = super_packet(5, &bytes(9_000), 1_000);
    packet[1] = 10 << 2 | Ecn::Congested.bits();
    edge.io.super_packets.push_back((with_checksum(packet), offload));
    edge.turn();
    assert!(edge.io.to_wan.iter().all(|(_, tos, _)| *tos == 10 << 2 | Ecn::Congested.bits()));
    // Whoever clears the outer field does not clear the mark (RFC 6040 4.2).
    edge.io.to_wan.iter_mut().for_each(|(_, tos, _)| *tos = 0);
    cross(&mut edge, &mut pop);
    let packets = pop.delivered();
    assert_eq!(packets.len(), 9);
    assert!(packets.iter().all(|packet| packet[1] == 10 << 2 | Ecn::Congested.bits()), "the inner DSCP stays");
}

#[test]
fn packets_of_different_dscp_leave_in_trains_of_their_own() {
    let (mut edge, _) = pair();
    for class in [0, 46 << 2, 0, 46 << 2] {
        let mut packet = udp(1);
        packet[1] = class;
        edge.io.from_site.push_back(with_checksum(packet));
    }
    edge.turn();
    assert_eq!(edge.io.to_wan.iter().map(|(_, tos, _)| *tos).collect::<Vec<_>>(), [0, 46 << 2, 0, 46 << 2]);
}

#[test]
fn ipv6_carries_its_congestion_marks_like_ipv4() {
    let (mut edge, mut pop) = pair();
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    for ecn in [Ecn::Capable0, Ecn::Capable1, Ecn::NotCapable] {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv6(address("2001:db8:1::5"), address("2001:db8:9::7"), 9).udp(1, 2);
        builder.write(&mut packet, b"data").unwrap();
        packet[1] |= ecn.bits() << 4;
        edge.send([packet]);
    }
    edge.io.to_wan.iter_mut().for_each(|(_, tos, _)| *tos |= Ecn::Congested.bits());
    cross(&mut edge, &mut pop);
    let packets = pop.delivered();
    assert_eq!(packets.iter().map(|packet| packet[1] >> 4 & 3).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(pop.drops_in(), [(DropReason::Congested, 1)]);
}

#[test]
fn however_the_workers_turns_interleave_a_peer_with_a_window_of_32_drops_nothing() {
    for seed in 0..200 {
        let mut chance = crate::model::Chance::from_number(seed);
        let workers = 2 + chance.below(3) as u16;
        let mut view = view(false);
        for path in &mut view.paths {
            path.home = WorkerId(chance.below(workers.into()) as u16);
        }
        let mut edge = End::with(view, 1, FlowTable::new(seed), workers);
        let mut next = [0_usize; 24];
        let (mut sent, mut wire) = (0, Vec::new());
        for _ in 0..400 {
            let worker = chance.below(workers.into()) as usize;
            let (turning, io) = match worker.checked_sub(1) {
                None => (&mut edge.worker, &mut edge.io),
                Some(other) => {
                    let (worker, io) = &mut edge.others[other];
                    (worker, io)
                }
            };
            // A flow is read by one worker; its packets get longer.
            for _ in 0..chance.below(12) {
                let flow = (chance.below(24 / u32::from(workers)) as usize) * usize::from(workers) + worker;
                let packet = udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow as u16, 53, 100 + next[flow]);
                io.from_site.push_back(packet);
                next[flow] += 1;
                sent += 1;
            }
            turning.turn(io, edge.now);
            wire.append(&mut io.to_wan);
        }
        edge.turn();
        wire.append(&mut edge.io.to_wan);
        edge.others.iter_mut().for_each(|(_, io)| wire.append(&mut io.to_wan));
        let mut highest = [0_u32; PATHS as usize];
        for (leg, _, bytes) in &wire {
            let (path, number) = (usize::from(leg.underlay.0), u32::from_be_bytes(bytes[4..8].try_into().unwrap()));
            assert!(number + 32 > highest[path], "seed {seed}: {number} after {}", highest[path]);
            highest[path] = highest[path].max(number);
        }
        let mut pop = End::new(super::view(true), 2);
        edge.io.to_wan = wire;
        cross(&mut edge, &mut pop);
        let mut last = [0; 24];
        for packet in pop.delivered() {
            let flow = usize::from(u16::from_be_bytes([packet[20], packet[21]]));
            assert!(packet.len() > last[flow], "seed {seed}: flow {flow} was reordered");
            last[flow] = packet.len();
        }
        let dropped: u64 = edge.drops_out().iter().map(|(_, count)| count).sum();
        let arrived: u64 =
            pop.crew.published.load().paths.iter().map(|path| path.live.packets_in.load(Ordering::Relaxed)).sum();
        assert_eq!((arrived + dropped, pop.drops_in()), (sent, vec![]), "seed {seed}");
    }
}

#[test]
fn workers_count_what_they_do_and_their_sums_are_those_of_the_paths() {
    let (mut edge, mut pop) = (with_workers(), End::new(view(true), 2));
    edge.io.from_site.extend((0..60).map(udp));
    edge.io.from_site.push_back(vec![0; 9]);
    edge.turn();
    for (_, io) in &mut edge.others {
        edge.io.to_wan.append(&mut io.to_wan);
    }
    let totals: Vec<_> = edge.crew.counters.iter().map(|counters| counters.totals()).collect();
    let sum = |of: fn(&crate::forward::WorkerTotals) -> u64| totals.iter().map(of).sum::<u64>();
    let paths = edge.crew.published.load().paths.clone();
    let bytes: u64 = paths.iter().map(|path| path.live.bytes_out.load(Ordering::Relaxed)).sum();
    assert_eq!((sum(|worker| worker.packets_out), sum(|worker| worker.bytes_out)), (60, bytes));
    assert_eq!(totals[0].handed_over, totals[1].taken_over + totals[2].taken_over);
    assert!(totals[1].taken_over > 0 && totals[2].taken_over > 0);
    assert!(totals.iter().all(|worker| worker.turns > 0));
    assert_eq!(edge.crew.counters[0].drops().get(DropReason::Malformed), 1);
    cross(&mut edge, &mut pop);
    assert_eq!(pop.crew.counters[0].totals().packets_in, 60);
}

#[test]
fn every_piece_of_a_super_packet_has_the_mark_of_its_rule() {
    let (mut edge, mut pop) = pair();
    let matcher = Matcher { protocols: vec![protocol::TCP], ..Matcher::default() };
    let action = Action::Steer(Steering { set_dscp: Dscp::new(10), ..Steering::default() });
    let rule = Rule { name: "bulk".into(), place: String::new(), matcher, action };
    edge.publish(|next| next.rules = Arc::new(RuleSet::new(vec![rule], Vec::new())));
    let data = bytes(5_000);
    edge.io.super_packets.push_back(super_packet(5, &data, 1_200));
    edge.turn();
    cross(&mut edge, &mut pop);
    let packets = pop.delivered();
    assert_eq!(packets.len(), 5);
    for (packet, chunk) in packets.iter().zip(data.chunks(1_200)) {
        assert_eq!(parse(packet).unwrap().dscp.value(), 10);
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("no IPv4") };
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        let Some(TransportSlice::Tcp(header)) = sliced.transport else { panic!("no TCP") };
        let checksum = header.to_header().calc_checksum_ipv4_raw([10, 1, 0, 5], [10, 9, 0, 7], chunk);
        assert_eq!((header.checksum(), header.payload()), (checksum.unwrap(), chunk));
    }
}
