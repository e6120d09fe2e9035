use crate::packet::{ChecksumState, Offload, SegmentKind, Segments};

/// Length of the header before each packet that crosses the device (virtio 1.3, 5.1.6, the legacy
/// form without a buffer count).
pub const HEADER: usize = 10;

// Byte 0: flags.
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;

// Byte 1: how it is to be cut.
const NONE: u8 = 0;
const TCP_IPV4: u8 = 1;
const TCP_IPV6: u8 = 4;
const UDP_DATAGRAMS: u8 = 5;
const WITH_ECN: u8 = 0x80;

/// Data bytes of a TCP header that its data offset counts in words, and where that stands.
const TCP_DATA_OFFSET: usize = 12;
const UDP_HEADER: u16 = 8;

/// What the kernel says of a packet that it sends; `None` for something that it was not asked
/// for. The numbers are in the host's byte order, which TUN uses unless told otherwise.
pub fn read(header: &[u8; HEADER]) -> Option<Offload> {
    let [flags, kind, _, _, size0, size1, start0, start1, offset0, offset1] = *header;
    let checksum = if flags & NEEDS_CHECKSUM != 0 {
        let (start, offset) = (u16::from_ne_bytes([start0, start1]), u16::from_ne_bytes([offset0, offset1]));
        ChecksumState::Partial { start, offset }
    } else if flags & CHECKSUM_VALID != 0 {
        ChecksumState::Valid
    } else {
        ChecksumState::Unknown
    };
    let with_ecn = kind & WITH_ECN != 0;
    let kind = match kind & !WITH_ECN {
        NONE => return Some(Offload { checksum, segments: None }),
        TCP_IPV4 | TCP_IPV6 if with_ecn => SegmentKind::TcpEcn,
        TCP_IPV4 | TCP_IPV6 => SegmentKind::Tcp,
        UDP_DATAGRAMS => SegmentKind::Udp,
        _ => return None,
    };
    let size = u16::from_ne_bytes([size0, size1]);
    (size > 0).then_some(Offload { checksum, segments: Some(Segments { kind, size }) })
}

/// What the kernel has to know of a packet that is handed to it.
pub fn write(offload: Offload, packet: &[u8]) -> [u8; HEADER] {
    let (flags, start, offset) = match offload.checksum {
        ChecksumState::Unknown => (0, 0, 0),
        ChecksumState::Valid => (CHECKSUM_VALID, 0, 0),
        ChecksumState::Partial { start, offset } => (NEEDS_CHECKSUM, start, offset),
    };
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let tcp = if is_ipv4 { TCP_IPV4 } else { TCP_IPV6 };
    let (kind, size) = match offload.segments {
        None => (NONE, 0),
        Some(Segments { kind: SegmentKind::Tcp, size }) => (tcp, size),
        Some(Segments { kind: SegmentKind::TcpEcn, size }) => (tcp | WITH_ECN, size),
        Some(Segments { kind: SegmentKind::Udp, size }) => (UDP_DATAGRAMS, size),
    };
    // A hint: so much the kernel puts into one piece of memory, and the rest into pages. Without
    // it, it looks for one piece for all.
    let headers = match offload.segments {
        None => 0,
        Some(Segments { kind: SegmentKind::Udp, .. }) => start.saturating_add(UDP_HEADER),
        Some(_) => {
            let words = packet.get(usize::from(start) + TCP_DATA_OFFSET).map_or(0, |byte| byte >> 4);
            start.saturating_add(u16::from(words) * 4)
        }
    };
    let mut header = [0; HEADER];
    (header[0], header[1]) = (flags, kind);
    for (place, number) in header[2..].chunks_exact_mut(2).zip([headers, size, start, offset]) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTIAL: ChecksumState = ChecksumState::Partial { start: 20, offset: 16 };

    fn of(checksum: ChecksumState, kind: SegmentKind) -> Offload {
        Offload { checksum, segments: Some(Segments { kind, size: 1_360 }) }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut packet = [0; 60];
        packet[32] = 0x80;
        for first in [0x45, 0x60] {
            packet[0] = first;
            for checksum in [ChecksumState::Unknown, ChecksumState::Valid, PARTIAL] {
                let plain = Offload { checksum, segments: None };
                assert_eq!(read(&write(plain, &packet)), Some(plain));
                for kind in [SegmentKind::Tcp, SegmentKind::TcpEcn, SegmentKind::Udp] {
                    assert_eq!(read(&write(of(checksum, kind), &packet)), Some(of(checksum, kind)));
                }
            }
        }
    }

    #[test]
    fn the_ip_version_and_the_length_of_the_headers_come_from_the_packet() {
        let mut packet = [0; 60];
        packet[0] = 0x45;
        packet[32] = 0x80;
        let header = write(of(PARTIAL, SegmentKind::Tcp), &packet);
        assert_eq!((header[1], u16::from_ne_bytes([header[2], header[3]])), (TCP_IPV4, 20 + 32));
        packet[0] = 0x60;
        assert_eq!(write(of(PARTIAL, SegmentKind::TcpEcn), &packet)[1], TCP_IPV6 | WITH_ECN);
        let header = write(of(PARTIAL, SegmentKind::Udp), &packet);
        assert_eq!((header[1], u16::from_ne_bytes([header[2], header[3]])), (UDP_DATAGRAMS, 28));
    }

    #[test]
    fn what_nobody_asked_for_is_refused() {
        // UDP fragmentation, which is another thing than segmentation.
        assert_eq!(read(&[1, 3, 0, 0, 1, 1, 20, 0, 6, 0]), None);
        assert_eq!(read(&[1, TCP_IPV4, 0, 0, 0, 0, 20, 0, 16, 0]), None, "cut into pieces of nothing");
    }
}
