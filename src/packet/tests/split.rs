use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

/// Are the lengths and checksums of a packet right, as etherparse sees them?
fn assert_sound(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (mut v4, mut v6) = (None, None);
    match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.total_len), packet.len());
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            v4 = Some(header);
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.payload_length) + 40, packet.len());
            v6 = Some(header);
        }
        NetSlice::Arp(_) => panic!("an IP packet"),
    }
    let (given, right) = match (sliced.transport.unwrap(), v4, v6) {
        (TransportSlice::Tcp(tcp), Some(ip), _) => (tcp.checksum(), tcp.calc_checksum_ipv4(ip.source, ip.destination)),
        (TransportSlice::Tcp(tcp), _, Some(ip)) => (tcp.checksum(), tcp.calc_checksum_ipv6(ip.source, ip.destination)),
        (TransportSlice::Udp(udp), v4, v6) => {
            assert_eq!(usize::from(udp.length()), udp.slice().len());
            let header = udp.to_header();
            let right = match (v4, v6) {
                (Some(ip), _) => header.calc_checksum_ipv4(&ip, udp.payload()),
                (_, ip) => header.calc_checksum_ipv6(&ip.unwrap(), udp.payload()),
            };
            (header.checksum, right)
        }
        _ => panic!("TCP or UDP"),
    };
    assert_eq!(given, right.unwrap());
}

#[test]
fn a_full_super_packet_becomes_the_packets_that_the_host_would_have_sent() {
    for (flow, room) in [(Flow::tcp(false), 52), (Flow::tcp(true), 72), (Flow::udp(false), 28), (Flow::udp(true), 48)] {
        let size = 1_400 - room;
        let data = data(if flow.tcp { 65_535 - room } else { 47 * size - 5 });
        let flags = Flags { psh: flow.tcp, fin: flow.tcp, cwr: flow.tcp, ..Flags::default() };
        let (packet, offload) = flow.super_packet(&data, size, flags);
        let pieces = split(&packet, &offload, 1_400).unwrap();
        assert_eq!(pieces, flow.train(&data, size, flags));
        pieces.iter().for_each(|piece| assert_sound(piece));
    }
}

#[test]
fn a_path_that_carries_less_than_the_segment_size_gets_smaller_tcp_segments() {
    let flow = Flow::tcp(false);
    let (packet, offload) = flow.super_packet(&data(10_000), 1_448, Flags::default());
    assert_eq!(split(&packet, &offload, 1_300), Ok(flow.train(&data(10_000), 1_248, Flags::default())));
    assert_eq!(split(&packet, &offload, 53).unwrap().len(), 10_000);
    assert_eq!(split(&packet, &offload, 52), Err(Unsplittable::TooBig));
}

#[test]
fn a_datagram_keeps_its_size_or_is_refused() {
    for v6 in [false, true] {
        let flow = Flow::udp(v6);
        let (packet, offload) = flow.super_packet(&data(3_000), 1_200, Flags::default());
        let mtu = 1_200 + flow.headers() as u16;
        assert_eq!(split(&packet, &offload, mtu), Ok(flow.train(&data(3_000), 1_200, Flags::default())));
        assert_eq!(split(&packet, &offload, mtu - 1), Err(Unsplittable::TooBig));
    }
}

#[test]
fn a_packet_that_is_not_to_be_cut_passes_as_it_is_wrong_checksum_or_not() {
    for mut packet in [
        Flow::tcp(false).packet(0, 0, &data(100), Flags::default()),
        Flow::udp(true).packet(0, 0, &data(101), Flags::default()),
    ] {
        let whole = Offload::default();
        assert_eq!(split(&packet, &whole, packet.len() as u16), Ok(vec![packet.clone()]));
        assert_eq!(split(&packet, &whole, packet.len() as u16 - 1), Err(Unsplittable::TooBig));
        *packet.last_mut().unwrap() ^= 1;
        for checksum in [ChecksumState::Unknown, ChecksumState::Valid] {
            assert_eq!(split(&packet, &Offload { checksum, segments: None }, UNLIMITED), Ok(vec![packet.clone()]));
        }
        packet.extend([9; 20]);
        let length = packet.len() - 20;
        assert_eq!(split(&packet, &whole, UNLIMITED), Ok(vec![packet[..length].to_vec()]), "padding goes");
    }
}

#[test]
fn a_checksum_that_was_left_to_the_device_is_completed() {
    for flow in [Flow::tcp(false), Flow::tcp(true), Flow::udp(false), Flow::udp(true)] {
        let complete = flow.packet(0, 0, &data(333), Flags::default());
        let (mut partial, offload) = flow.super_packet(&data(333), 1, Flags::default());
        let offload = Offload { segments: None, ..offload };
        assert_eq!(split(&partial, &offload, UNLIMITED), Ok(vec![complete.clone()]));
        let parsed = parse(&partial).unwrap();
        partial.push(0xff);
        complete_checksum(&mut partial, &parsed, offload.checksum).unwrap();
        assert_eq!(partial[..complete.len()], complete);
    }
}

#[test]
fn a_checksum_that_comes_out_as_zero_does_not_become_none() {
    for v6 in [false, true] {
        let flow = Flow::udp(v6);
        // The two bytes that bring the sum to zero.
        let probe = flow.packet(0, 0, &[0, 0], Flags::default());
        let data = [probe[flow.field()], probe[flow.field() + 1]];
        let (packet, offload) = flow.super_packet(&data, 2, Flags::default());
        for segments in [offload.segments, None] {
            let pieces = split(&packet, &Offload { segments, ..offload }, UNLIMITED).unwrap();
            assert_eq!(pieces[0][flow.field()..][..2], [0xff, 0xff]);
            assert_sound(&pieces[0]);
        }
    }
}

#[test]
fn datagrams_without_a_checksum_stay_without() {
    let flow = Flow::udp(false);
    let (mut packet, offload) = flow.super_packet(&data(1_000), 400, Flags::default());
    packet[26..28].fill(0);
    for checksum in [ChecksumState::Unknown, ChecksumState::Valid] {
        let mut expected = flow.train(&data(1_000), 400, Flags::default());
        expected.iter_mut().for_each(|piece| piece[26..28].fill(0));
        assert_eq!(split(&packet, &Offload { checksum, ..offload }, UNLIMITED), Ok(expected));
    }
}

#[test]
fn a_super_packet_with_a_wrong_checksum_is_not_made_right_by_cutting_it() {
    for flow in [Flow::tcp(false), Flow::tcp(true), Flow::udp(false), Flow::udp(true)] {
        let mut packet = flow.packet(0, 0, &data(1_000), Flags::default());
        let unknown = Offload { checksum: ChecksumState::Unknown, segments: Some(flow.segments(300)) };
        assert_eq!(split(&packet, &unknown, UNLIMITED), Ok(flow.train(&data(1_000), 300, Flags::default())));
        *packet.last_mut().unwrap() ^= 0x40;
        assert_eq!(split(&packet, &unknown, UNLIMITED), Err(Unsplittable::WrongChecksum));

        // A wrong sum of the pseudo-header makes every segment as wrong.
        let (mut packet, offload) = flow.super_packet(&data(1_000), 300, Flags::default());
        packet[flow.field()] ^= 1;
        for (piece, right) in
            split(&packet, &offload, UNLIMITED).unwrap().iter().zip(flow.train(&data(1_000), 300, Flags::default()))
        {
            let at = flow.field();
            assert_ne!(piece[at..at + 2], right[at..at + 2]);
            assert_eq!((&piece[..at], &piece[at + 2..]), (&right[..at], &right[at + 2..]));
        }
    }
}

#[test]
fn the_urgent_pointer_points_to_the_same_byte_from_each_segment() {
    let flow = Flow { urgent: 250, ..Flow::tcp(false) };
    let (packet, offload) = flow.super_packet(&data(400), 100, Flags { urg: true, ..Flags::default() });
    let pieces = split(&packet, &offload, UNLIMITED).unwrap();
    let told: Vec<_> = pieces.iter().map(|piece| (piece[33] & 0x20 != 0, piece[38], piece[39])).collect();
    assert_eq!(told, [(true, 0, 250), (true, 0, 150), (true, 0, 50), (false, 0, 0)]);
    pieces.iter().for_each(|piece| assert_sound(piece));
}

#[test]
fn headers_in_between_are_repeated_in_every_segment() {
    // IPv4 with a record-route option, as Linux repeats it.
    let flow = Flow::tcp(false);
    let (packet, offload) = flow.super_packet(&data(500), 200, Flags::default());
    let mut packet = [&packet[..20], &[7, 7, 4, 0, 0, 0, 0, 0], &packet[20..]].concat();
    packet[0] = 0x47;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let checksum = ChecksumState::Partial { start: 28, offset: 16 };
    let pieces = split(&packet, &Offload { checksum, ..offload }, UNLIMITED).unwrap();
    assert_eq!(pieces.len(), 3);
    for piece in &pieces {
        assert_eq!(piece[20..28], packet[20..28]);
        assert_sound(piece);
    }
    // IPv6 with a destination-options header.
    let flow = Flow::udp(true);
    let (packet, offload) = flow.super_packet(&data(500), 200, Flags::default());
    let mut packet = [&packet[..40], &[17, 0, 1, 4, 0, 0, 0, 0], &packet[40..]].concat();
    packet[6] = 60;
    let length = packet.len() as u16 - 40;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    let checksum = ChecksumState::Partial { start: 48, offset: 6 };
    let pieces = split(&packet, &Offload { checksum, ..offload }, UNLIMITED).unwrap();
    assert_eq!(pieces.len(), 3);
    for piece in &pieces {
        assert_eq!(piece[40..48], packet[40..48]);
        assert_sound(piece);
    }
}

#[test]
fn combinations_that_cannot_be_are_refused() {
    let (tcp, offload) = Flow::tcp(false).super_packet(&data(3_000), 1_000, Flags::default());
    let with = |kind, size, checksum| Offload { checksum, segments: Some(Segments { kind, size }) };
    let partial = |start, offset| ChecksumState::Partial { start, offset };
    let good = offload.checksum;
    let udp = Flow::udp(true).packet(0, 0, &data(99), Flags::default());
    for (packet, offload, reason) in [
        (&tcp, with(SegmentKind::Tcp, 0, good), Unsplittable::NoSize),
        (&tcp, with(SegmentKind::Udp, 1_000, good), Unsplittable::WrongKind),
        (&udp, with(SegmentKind::Tcp, 1_000, good), Unsplittable::WrongKind),
        (&tcp, with(SegmentKind::Tcp, 1_000, partial(20, 6)), Unsplittable::ChecksumPlace),
        (&tcp, with(SegmentKind::TcpEcn, 1_000, partial(0, 36)), Unsplittable::ChecksumPlace),
        (&tcp, Offload { checksum: partial(0, 10), segments: None }, Unsplittable::ChecksumPlace),
        (&tcp, Offload { checksum: partial(u16::MAX, u16::MAX), segments: None }, Unsplittable::ChecksumPlace),
        (&udp, Offload { checksum: partial(146, 0), segments: None }, Unsplittable::ChecksumPlace),
    ] {
        assert_eq!(split(packet, &offload, UNLIMITED), Err(reason), "{offload:?}");
    }
    for (length, offset) in [(0x40, 12), (0xf0, 12)] {
        // A TCP header of 16 bytes, and one that is longer than the packet.
        let mut packet = Flow { options: vec![], ..Flow::tcp(false) }.packet(0, 0, &data(39), Flags::default());
        packet[20 + offset] = length;
        assert_eq!(split(&packet, &offload, UNLIMITED), Err(Unsplittable::Header));
    }
    for flags in [Flags { syn: true, ..Flags::default() }, Flags { rst: true, ..Flags::default() }] {
        let (packet, offload) = Flow::tcp(true).super_packet(&data(3_000), 1_000, flags);
        assert_eq!(split(&packet, &offload, UNLIMITED), Err(Unsplittable::Flags));
    }
    for fragment in [0x20, 0x00] {
        let (mut packet, offload) = Flow::udp(false).super_packet(&data(3_000), 1_000, Flags::default());
        (packet[6], packet[7]) = (fragment, 1);
        assert_eq!(split(&packet, &offload, UNLIMITED), Err(Unsplittable::Fragment));
        let single = Offload { segments: None, ..offload };
        assert_eq!(split(&packet, &single, UNLIMITED), Err(Unsplittable::Fragment));
    }
}

proptest! {
    #[test]
    fn segments_are_the_packets_that_would_have_been_sent_one_by_one(
        flow in any_flow(), length in 0_usize..4_000, size in 1_usize..1_500, state in 0..3, flags: [bool; 3],
    ) {
        let flags = Flags { fin: flags[0], psh: flags[1], cwr: flags[2], ..Flags::default() };
        let data = data(length.max(1));
        let (partial, offload) = flow.super_packet(&data, size, flags);
        let complete = flow.packet(0, 0, &data, flags);
        let (packet, checksum) = match state {
            0 => (partial, offload.checksum),
            1 => (complete, ChecksumState::Unknown),
            _ => (complete, ChecksumState::Valid),
        };
        let pieces = split(&packet, &Offload { checksum, ..offload }, UNLIMITED).unwrap();
        prop_assert_eq!(&pieces, &flow.train(&data, size, flags));
        pieces.iter().for_each(|piece| assert_sound(piece));
    }

    #[test]
    fn whatever_comes_with_whatever_header_is_split_or_refused(
        flow in any_flow(), length in 0_usize..300, harm in proptest::collection::vec((0_usize..120, any::<u8>()), 0..6),
        cut in 0_usize..400, start in prop_oneof![Just(20_u16), Just(40), any::<u16>()],
        offset in prop_oneof![Just(16_u16), Just(6), any::<u16>()], size in 0_u16..400, mtu in 0_u16..400, choice: [u8; 2],
    ) {
        let mut packet = flow.packet(0, 0, &data(length), Flags::default());
        harm.iter().for_each(|(at, value)| if let Some(byte) = packet.get_mut(*at) { *byte = *value });
        let Some(parsed) = parse(&packet) else { return Ok(()) };
        // Less than was parsed, too: nothing may rely on it.
        packet.truncate(cut.max(1));
        let kind = [SegmentKind::Tcp, SegmentKind::TcpEcn, SegmentKind::Udp][usize::from(choice[0] % 3)];
        let checksum = match choice[1] % 3 {
            0 => ChecksumState::Unknown,
            1 => ChecksumState::Valid,
            _ => ChecksumState::Partial { start, offset },
        };
        for segments in [None, Some(Segments { kind, size })] {
            let Ok(mut splitter) = Splitter::new(&packet, &parsed, &Offload { checksum, segments }, mtu) else { continue };
            while let Some(length) = splitter.next_len() {
                prop_assert!(length <= usize::from(mtu));
                let mut out = vec![0; length];
                prop_assert_eq!(splitter.write_next(&mut out), Some(length));
                prop_assert_eq!(parse(&out).map(|parsed| parsed.total_len), Some(length));
            }
        }
        let _ = complete_checksum(&mut packet, &parsed, checksum);
    }
}
