use trefoil::packet::{
    Batch, ChecksumState, Coalescer, Offered, Offload, SegmentKind, Segments, SitePacket, Splitter, UNLIMITED, parse,
};

/// A packet from the site device with whatever its virtio-net header says, and the way back: the
/// first 9 bytes are the kind, segment size, place of the checksum and MTU, the rest is the packet.
pub fn segment(bytes: &[u8]) {
    let Some((header, packet)) = bytes.split_first_chunk::<9>() else { return };
    let [choice, words @ ..] = *header;
    let [size, start, offset, mtu] = [0, 2, 4, 6].map(|at| u16::from_be_bytes([words[at], words[at + 1]]));
    let Some(parsed) = parse(packet) else { return };
    let checksum = match choice >> 4 & 3 {
        0 => ChecksumState::Unknown,
        1 => ChecksumState::Valid,
        _ => ChecksumState::Partial { start, offset },
    };
    let kind = match choice & 3 {
        0 => None,
        1 => Some(SegmentKind::Tcp),
        2 => Some(SegmentKind::TcpEcn),
        _ => Some(SegmentKind::Udp),
    };
    let segments = kind.map(|kind| Segments { kind, size });
    let Ok(mut splitter) = Splitter::new(packet, &parsed, &Offload { checksum, segments }, mtu) else { return };
    // More would say no more, and a segment size of 1 makes 65,000.
    if splitter.left() > 200 {
        return;
    }

    let mut batch = Batch::new(8, || SitePacket::with_capacity(usize::from(u16::MAX)));
    let mut coalescer = Coalescer::new(8, choice & 4 == 0, choice & 8 == 0);
    let (mut split, mut joined) = (Vec::new(), Vec::new());
    while let Some(length) = splitter.next_len() {
        assert!(length <= usize::from(mtu));
        let mut piece = vec![0; length];
        assert_eq!(splitter.write_next(&mut piece), Some(length));
        let parsed = parse(&piece).expect("a segment is a packet");
        assert_eq!(parsed.total_len, length);
        if coalescer.offer(&piece, &parsed, &mut batch) == Offered::Full {
            send(&mut coalescer, &mut batch, &mut joined);
            assert_eq!(coalescer.offer(&piece, &parsed, &mut batch), Offered::Taken);
        }
        split.push(comparable(piece));
    }
    send(&mut coalescer, &mut batch, &mut joined);
    assert_eq!(split, joined, "joining and splitting again changes nothing");
}

/// Splits again what has been joined.
fn send(coalescer: &mut Coalescer, batch: &mut Batch<SitePacket>, out: &mut Vec<Vec<u8>>) {
    coalescer.finish(batch);
    for slot in batch.filled() {
        let packet = slot.packet.bytes();
        let parsed = parse(packet).expect("a super-packet is a packet");
        let mut splitter = Splitter::new(packet, &parsed, &slot.offload, UNLIMITED).expect("ours can be split");
        while let Some(length) = splitter.next_len() {
            let mut piece = vec![0; length];
            assert_eq!(splitter.write_next(&mut piece), Some(length));
            out.push(comparable(piece));
        }
    }
    batch.clear();
}

/// The packet without the identification and checksum of an IPv4 header with DF: joining may
/// change the one, which then means nothing.
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}
