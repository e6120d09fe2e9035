use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SLOTS: usize = 8;

fn batch() -> Batch<SitePacket> {
    Batch::new(SLOTS, || SitePacket::with_capacity(65_535))
}

fn joined_with(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    let (mut batch, mut out) = (batch(), Vec::new());
    let mut send = |batch: &mut Batch<SitePacket>| {
        out.extend(batch.filled().iter().map(|slot| (slot.packet.bytes().to_vec(), slot.offload)));
        batch.clear();
    };
    for packet in packets {
        let parsed = parse(packet).unwrap();
        let mut offered = coalescer.offer(packet, &parsed, &mut batch);
        if offered == Offered::Full {
            coalescer.finish(&mut batch);
            send(&mut batch);
            offered = coalescer.offer(packet, &parsed, &mut batch);
        }
        assert_eq!(offered, Offered::Taken);
    }
    coalescer.finish(&mut batch);
    send(&mut batch);
    out
}

fn joined(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    joined_with(&mut Coalescer::new(SLOTS, true, true), packets)
}

fn lengths(packets: &[Vec<u8>]) -> Vec<usize> {
    joined(packets).iter().map(|(packet, _)| packet.len()).collect()
}

fn all_flows() -> [Flow; 4] {
    [Flow::tcp(false), Flow::tcp(true), Flow::udp(false), Flow::udp(true)]
}

#[test]
fn a_train_becomes_the_super_packet_that_a_host_would_have_sent() {
    for flow in all_flows() {
        let (data, push) = (data(40 * 1_348 + 77), Flags { psh: flow.tcp, ..Flags::default() });
        let train = flow.train(&data, 1_348, push);
        assert_eq!(joined(&train), [flow.super_packet(&data, 1_348, push)]);
    }
}

#[test]
fn trains_of_many_flows_that_come_mixed_are_sorted_out() {
    let flows: Vec<Flow> = (0..2).flat_map(|n| all_flows().map(|flow| Flow { port: 1_000 + n, ..flow })).collect();
    let trains: Vec<_> = flows.iter().map(|flow| flow.train(&data(3_000), 300, Flags::default())).collect();
    let mixed: Vec<_> = (0..10).flat_map(|n| trains.iter().map(move |train| train[n].clone())).collect();
    let expected: Vec<_> = flows.iter().map(|flow| flow.super_packet(&data(3_000), 300, Flags::default())).collect();
    assert_eq!(joined(&mixed), expected);
}

#[test]
fn a_lone_packet_passes_as_it_came() {
    for flow in all_flows() {
        for mut packet in [flow.packet(0, 0, &data(50), Flags::default()), flow.packet(0, 0, &[], Flags::default())] {
            packet[flow.field()] ^= 0xff;
            assert_eq!(joined(std::slice::from_ref(&packet)), [(packet, Offload::default())]);
        }
    }
}

#[test]
fn a_super_packet_is_no_longer_than_ip_allows_and_has_no_more_than_64_datagrams() {
    let flow = Flow::tcp(false);
    assert_eq!(lengths(&flow.train(&data(66_000), 1_000, Flags::default())), [65_052, 1_052]);
    let flow = Flow::tcp(true);
    assert_eq!(lengths(&flow.train(&data(66_000), 1_000, Flags::default())), [65_072, 1_072]);
    let flow = Flow::udp(false);
    assert_eq!(lengths(&flow.train(&data(65 * 100), 100, Flags::default())), [28 + 6_400, 128]);
    assert_eq!(lengths(&flow.train(&data(50 * 1_400), 1_400, Flags::default())), [28 + 46 * 1_400, 28 + 4 * 1_400]);
}

#[test]
fn a_shorter_packet_ends_it_and_a_longer_one_begins_another() {
    for flow in all_flows() {
        let own = flow.headers();
        let mut passed = 0;
        let sizes = [100, 100, 60, 100, 100, 101, 101];
        let packets: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(count, size)| {
                passed += size;
                flow.packet(passed - size, count, &data(*size), Flags::default())
            })
            .collect();
        assert_eq!(lengths(&packets), [own + 260, own + 200, own + 202]);
    }
}

#[test]
fn what_ends_data_ends_the_super_packet() {
    for end in [Flags { psh: true, ..Flags::default() }, Flags { fin: true, ..Flags::default() }] {
        let flow = Flow::tcp(false);
        let mut packets = flow.train(&data(300), 100, end);
        packets.push(flow.packet(300, 3, &data(100), Flags::default()));
        assert_eq!(lengths(&packets), [352, 152]);
        let (first, _) = &joined(&packets)[0];
        assert_eq!(first[33], packets[2][33], "the flag is not lost");
    }
}

/// The second of two packets that would be joined, differing in one thing from what follows.
fn not_following(flow: &Flow, change: fn(&mut Flow), flags: Flags) -> bool {
    let mut changed = flow.clone();
    change(&mut changed);
    let packets = [flow.packet(0, 0, &data(100), Flags::default()), changed.packet(100, 1, &data(100), flags)];
    let out: Vec<_> = joined(&packets).into_iter().map(|(packet, _)| packet).collect();
    out == packets
}

#[test]
fn packets_whose_headers_differ_are_not_joined() {
    let none = Flags::default();
    for v6 in [false, true] {
        for flow in [Flow::tcp(v6), Flow::udp(v6)] {
            assert!(!not_following(&flow, |_| {}, none));
            assert!(not_following(&flow, |flow| flow.traffic_class ^= 3, none), "ECN");
            assert!(not_following(&flow, |flow| flow.traffic_class ^= 0x80, none), "DSCP");
            assert!(not_following(&flow, |flow| flow.hops += 1, none));
            assert!(not_following(&flow, |flow| flow.port += 1, none));
        }
        let flow = Flow::tcp(v6);
        assert!(not_following(&flow, |flow| flow.sequence = flow.sequence.wrapping_add(1), none), "a gap");
        assert!(not_following(&flow, |flow| flow.sequence = flow.sequence.wrapping_sub(100), none), "sent again");
        assert!(not_following(&flow, |flow| flow.acknowledged += 1, none));
        assert!(not_following(&flow, |flow| flow.window += 1, none));
        assert!(not_following(&flow, |flow| flow.options[2][3] += 1, none), "a later time stamp");
        assert!(not_following(&flow, |flow| flow.options.truncate(2), none));
        assert!(not_following(&flow, |flow| flow.ece = true, none));
        for flags in [
            Flags { syn: true, ..none },
            Flags { rst: true, ..none },
            Flags { urg: true, ..none },
            Flags { cwr: true, ..none },
        ] {
            assert!(not_following(&flow, |_| {}, flags), "{flags:?}");
        }
    }
    for flow in [Flow::tcp(false), Flow::udp(false)] {
        assert!(not_following(&flow, |flow| flow.dont_fragment = false, none));
        let cut = Flow { dont_fragment: false, ..flow.clone() };
        assert!(not_following(&cut, |flow| flow.id = 9, none), "an identification that matters");
    }
    for flow in [Flow::tcp(true), Flow::udp(true)] {
        assert!(not_following(&flow, |flow| flow.label += 1, none));
    }
}

#[test]
fn a_head_that_stands_for_itself_is_not_continued() {
    let flow = Flow::tcp(false);
    let none = Flags::default();
    for flags in [
        Flags { syn: true, ..none },
        Flags { rst: true, ..none },
        Flags { urg: true, ..none },
        Flags { cwr: true, ..none },
        Flags { psh: true, ..none },
        Flags { fin: true, ..none },
    ] {
        let packets = [flow.packet(0, 0, &data(100), flags), flow.packet(100, 1, &data(100), flags)];
        assert_eq!(lengths(&packets), [152, 152], "{flags:?}");
    }
}

#[test]
fn a_packet_with_a_wrong_checksum_passes_alone_and_unchanged() {
    for flow in all_flows() {
        let train = flow.train(&data(500), 100, Flags::default());
        for harmed in 0..5 {
            for at in [train[0].len() - 1, flow.field()] {
                let mut packets = train.clone();
                packets[harmed][at] ^= 0x10;
                let out = joined(&packets);
                assert!(out.contains(&(packets[harmed].clone(), Offload::default())), "number {harmed}");
                let sizes: Vec<_> = out.iter().map(|(packet, _)| (packet.len() - flow.headers()) / 100).collect();
                let expected: &[usize] = [&[1, 4][..], &[1, 1, 3], &[2, 1, 2], &[3, 1, 1], &[4, 1]][harmed];
                assert_eq!(sizes, expected);
            }
        }
        if !flow.v6 {
            let mut packets = train.clone();
            packets[1][10] ^= 1;
            assert!(joined(&packets).contains(&(packets[1].clone(), Offload::default())), "the header's own checksum");
        }
    }
}

#[test]
fn datagrams_without_checksum_or_data_or_of_another_length_pass_alone() {
    let flow = Flow::udp(false);
    let train = flow.train(&data(300), 100, Flags::default());
    let mut absent = train.clone();
    absent.iter_mut().for_each(|packet| packet[26..28].fill(0));
    let mut shorter = train.clone();
    shorter.iter_mut().for_each(|packet| packet[25] -= 1);
    let empty: Vec<_> = (0..3).map(|count| flow.packet(0, count, &[], Flags::default())).collect();
    for packets in [absent, shorter, empty] {
        let out: Vec<_> = joined(&packets).into_iter().map(|(packet, _)| packet).collect();
        assert_eq!(out, packets);
    }
}

#[test]
fn nothing_of_a_flow_overtakes_an_acknowledgement_or_a_fragment() {
    let flow = Flow::tcp(true);
    let mut packets = flow.train(&data(300), 100, Flags::default());
    packets.insert(1, flow.packet(100, 1, &[], Flags::default()));
    assert_eq!(lengths(&packets), [172, 72, 272]);
    let flow = Flow { dont_fragment: false, ..Flow::udp(false) };
    let mut packets = flow.train(&data(300), 100, Flags::default());
    let mut later = packets[0].clone();
    (later[6], later[7]) = (0, 5);
    packets.insert(1, later);
    assert_eq!(lengths(&packets), [128, 128, 228]);
}

#[test]
fn a_protocol_that_the_host_refuses_is_left_alone() {
    let (tcp, udp) = (Flow::tcp(false), Flow::udp(false));
    let packets = [tcp.train(&data(200), 100, Flags::default()), udp.train(&data(200), 100, Flags::default())].concat();
    let mut coalescer = Coalescer::new(SLOTS, false, true);
    let count = |coalescer: &mut Coalescer| joined_with(coalescer, &packets).len();
    assert_eq!(count(&mut coalescer), 3);
    coalescer.allow(true, false);
    assert_eq!(count(&mut coalescer), 3);
    coalescer.allow(false, false);
    assert_eq!(count(&mut coalescer), 4);
    coalescer.allow(true, true);
    assert_eq!(count(&mut coalescer), 2);
}

#[test]
fn a_batch_that_is_cleared_without_being_finished_leaves_nothing_behind() {
    let (mut coalescer, mut batch) = (Coalescer::new(SLOTS, true, true), batch());
    let train = Flow::tcp(false).train(&data(300), 100, Flags::default());
    for packet in &train[..2] {
        assert_eq!(coalescer.offer(packet, &parse(packet).unwrap(), &mut batch), Offered::Taken);
    }
    batch.clear();
    assert_eq!(coalescer.offer(&train[2], &parse(&train[2]).unwrap(), &mut batch), Offered::Taken);
    coalescer.finish(&mut batch);
    assert_eq!((batch.filled().len(), batch.filled()[0].packet.bytes()), (1, &train[2][..]));
}

#[test]
fn a_packet_longer_than_a_slot_is_said_to_be() {
    let mut batch = Batch::new(1, || SitePacket::with_capacity(100));
    let packet = Flow::udp(false).packet(0, 0, &data(100), Flags::default());
    let mut coalescer = Coalescer::new(1, true, true);
    assert_eq!(coalescer.offer(&packet, &parse(&packet).unwrap(), &mut batch), Offered::TooLong);
    assert!(batch.is_empty());
}

/// One step of a random conversation: which flow sends how much, and what is odd about it.
fn any_step() -> impl Strategy<Value = (usize, usize, u8)> {
    let size = prop_oneof![4 => Just(100_usize), 1 => Just(99), 1 => Just(60), 1 => Just(101), 1 => Just(0)];
    (0_usize..4, size, prop_oneof![3 => Just(0_u8), 1 => 1_u8..20])
}

/// An odd packet of the flow.
fn odd(flow: &mut Flow, passed: usize, count: usize, data: &[u8], oddity: u8) -> Vec<u8> {
    let mut flags = Flags::default();
    match oddity {
        1 => flags.psh = true,
        2 => flags.fin = true,
        3 => flags.syn = true,
        4 => flags.urg = true,
        5 => flags.cwr = true,
        6 => flags.rst = true,
        7 => flow.acknowledged = flow.acknowledged.wrapping_add(1),
        8 => flow.window ^= 1,
        9 => flow.traffic_class ^= 3,
        10 => flow.hops ^= 1,
        11 => flow.id = flow.id.wrapping_add(77),
        12 => flow.sequence = flow.sequence.wrapping_add(50),
        13 => flow.ece = !flow.ece,
        14 => flow.label ^= 1,
        15 => flow.dont_fragment = !flow.dont_fragment,
        _ => {}
    }
    let mut packet = flow.packet(passed, count, data, flags);
    let (field, last) = (flow.field(), packet.len() - 1);
    match oddity {
        16 => packet[last] ^= 1,
        17 if !flow.v6 => packet[10] ^= 1,
        18 if !flow.tcp => packet[field..field + 2].fill(0),
        19 if !flow.v6 => packet[6] ^= 0x20,
        _ => {}
    }
    packet
}

/// The packet without what joining may change: the identification of a packet that is never cut.
/// In place of the header's checksum stands whether it is right.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        let sum = plain_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[4..6].fill(0);
    }
    packet
}

fn by_flow<'a>(packets: impl Iterator<Item = &'a Vec<u8>>) -> BTreeMap<crate::model::FlowKey, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        flows.entry(parse(packet).unwrap().key).or_default().push(comparable(packet));
    }
    flows
}

proptest! {
    #[test]
    fn what_is_joined_splits_into_the_same_packets_in_the_same_order(
        flows in proptest::collection::vec(any_flow(), 4), steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut flows: Vec<(Flow, usize, usize)> = flows.into_iter().map(|flow| (flow, 0, 0)).collect();
        let packets: Vec<_> = steps.iter().map(|(which, size, oddity)| {
            let (flow, passed, count) = &mut flows[*which];
            let packet = odd(flow, *passed, *count, &data(*size), *oddity);
            (*passed, *count) = (*passed + size, *count + 1);
            packet
        }).collect();
        let out = joined(&packets);
        let again: Vec<_> =
            out.iter().flat_map(|(packet, offload)| split(packet, offload, UNLIMITED).unwrap()).collect();
        prop_assert_eq!(by_flow(again.iter()), by_flow(packets.iter()));
    }

    #[test]
    fn what_is_split_joins_into_the_same_super_packet(
        flow in any_flow(), count in 2_usize..40, size in 1_usize..1_400, rest in 0_usize..1_400, psh: bool, fin: bool,
    ) {
        let data = data((count * size).min(60_000).max(size + 1) + rest.min(size - 1));
        let flags = Flags { psh: psh && flow.tcp, fin: fin && flow.tcp, ..Flags::default() };
        let (packet, offload) = flow.super_packet(&data, size, flags);
        let pieces = split(&packet, &offload, UNLIMITED).unwrap();
        prop_assume!(flow.tcp || pieces.len() <= 64);
        prop_assert_eq!(joined(&pieces), [(packet, offload)]);
    }

    #[test]
    fn whatever_arrives_is_taken_and_comes_out_again(
        flow in any_flow(), harms in proptest::collection::vec(proptest::collection::vec((0_usize..80, any::<u8>()), 0..3), 1..30),
    ) {
        let mut sent = 0;
        let (mut coalescer, mut batch) = (Coalescer::new(4, true, true), Batch::new(40, || SitePacket::with_capacity(9_000)));
        for (count, harm) in harms.iter().enumerate() {
            let mut packet = flow.packet(count * 100, count, &data(100), Flags::default());
            harm.iter().for_each(|(at, value)| if let Some(byte) = packet.get_mut(*at) { *byte = *value });
            let Some(parsed) = parse(&packet) else { continue };
            sent += packet.len() - usize::from(parsed.total_len < packet.len()) * (packet.len() - parsed.total_len);
            prop_assert_eq!(coalescer.offer(&packet, &parsed, &mut batch), Offered::Taken);
        }
        coalescer.finish(&mut batch);
        let pieces = batch.filled().iter().flat_map(|slot| split(slot.packet.bytes(), &slot.offload, UNLIMITED).unwrap());
        prop_assert_eq!(pieces.map(|piece| piece.len()).sum::<usize>(), sent);
    }
}
