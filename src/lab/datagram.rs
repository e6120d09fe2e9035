use std::net::Ipv4Addr;

use crate::model::{Dscp, protocol};
use crate::packet::{Checksum, IPV4_HEADER, Parsed, write_header};

/// A UDP datagram of the lab as its two ends see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub dscp: Dscp,
}

const UDP_HEADER: usize = 8;

impl Datagram {
    /// The whole IP packet; empty when the payload is too long for one.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let length = UDP_HEADER + payload.len();
        let mut packet = vec![0; IPV4_HEADER];
        let (source, destination) = (self.source.0.into(), self.destination.0.into());
        let tos = self.dscp.value() << 2;
        if write_header(&mut packet, source, destination, protocol::UDP, tos, length).is_none() {
            return Vec::new();
        }
        let mut header = [0; UDP_HEADER];
        header[..2].copy_from_slice(&self.source.1.to_be_bytes());
        header[2..4].copy_from_slice(&self.destination.1.to_be_bytes());
        header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        let sum = Checksum::new().with_pseudo_header(source, destination, protocol::UDP, length);
        let checksum = match sum.with(&header).with(payload).finish() {
            // RFC 768: 0 would mean that there is no checksum.
            0 => u16::MAX,
            checksum => checksum,
        };
        header[6..8].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(&header);
        packet.extend_from_slice(payload);
        packet
    }
}

/// The payload of a UDP packet that `parse` accepted; `None` when its checksum is wrong.
pub fn payload<'a>(packet: &'a [u8], parsed: &Parsed) -> Option<&'a [u8]> {
    let segment = packet.get(parsed.transport..parsed.total_len)?;
    let (source, destination) = (parsed.key.source, parsed.key.destination);
    let sum = Checksum::new().with_pseudo_header(source, destination, protocol::UDP, segment.len());
    (parsed.key.protocol == protocol::UDP && sum.with(segment).finish() == 0)
        .then(|| segment.get(UDP_HEADER..))
        .flatten()
}

/// Turns a UDP packet that `parse` accepted into one from its receiver to its sender. All sums
/// stay right, for they do not depend on the order of what they cover.
pub fn turn_around(packet: &mut [u8], parsed: &Parsed) {
    let mut swap = |first: usize, second: usize, length: usize| {
        for offset in 0..length {
            if first + offset < packet.len() && second + offset < packet.len() {
                packet.swap(first + offset, second + offset);
            }
        }
    };
    swap(12, 16, 4);
    swap(parsed.transport, parsed.transport + 2, 2);
}

/// Marks an IPv4 packet with a DSCP, as a LAN switch does that trusts its ports.
pub fn mark(packet: &mut [u8], dscp: Dscp) {
    let Some(header) = packet.first_chunk_mut::<IPV4_HEADER>() else { return };
    header[1] = dscp.value() << 2 | header[1] & 0x03;
    header[10..12].fill(0);
    // The lab's stacks send no IP options.
    let checksum = Checksum::new().with(header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::packet::parse;

    const VOICE: Datagram = Datagram {
        source: (Ipv4Addr::new(10, 60, 0, 11), 4000),
        destination: (Ipv4Addr::new(10, 80, 0, 10), 4001),
        dscp: match Dscp::new(46) {
            Some(dscp) => dscp,
            None => panic!("46 is a DSCP"),
        },
    };

    #[test]
    fn a_datagram_is_one_that_others_read() {
        let packet = VOICE.packet(b"payload");
        let read = SlicedPacket::from_ip(&packet).expect("a sound packet");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (read.net, read.transport) else {
            panic!("not UDP over IPv4");
        };
        assert_eq!((ip.header().dcp().value(), udp.payload()), (46, &b"payload"[..]));
        assert_eq!((udp.source_port(), udp.destination_port()), (4000, 4001));
        let parsed = parse(&packet).expect("a sound packet");
        assert_eq!(payload(&packet, &parsed), Some(&b"payload"[..]));
    }

    #[test]
    fn turned_around_it_goes_back_with_right_sums() {
        let mut packet = VOICE.packet(b"odd");
        let parsed = parse(&packet).expect("a sound packet");
        turn_around(&mut packet, &parsed);
        let back = parse(&packet).expect("still sound");
        assert_eq!(back.key, parsed.key.reversed());
        assert_eq!(payload(&packet, &back), Some(&b"odd"[..]));
        assert_eq!(back.dscp, VOICE.dscp);
    }

    #[test]
    fn a_mark_changes_the_dscp_and_keeps_the_checksum_right() {
        let mut packet = VOICE.packet(b"x");
        mark(&mut packet, Dscp::DEFAULT);
        let unmarked = Datagram { dscp: Dscp::DEFAULT, ..VOICE };
        assert_eq!(packet, unmarked.packet(b"x"));
    }

    #[test]
    fn a_damaged_payload_is_refused() {
        let mut packet = VOICE.packet(b"payload");
        if let Some(last) = packet.last_mut() {
            *last ^= 1;
        }
        let parsed = parse(&packet).expect("the header is sound");
        assert_eq!(payload(&packet, &parsed), None);
    }
}
