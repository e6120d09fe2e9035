use std::net::IpAddr;

use super::{Checksum, Fragment, IPV4_HEADER, IPV6_HEADER, PacketBuf, Parsed, write_header};
use crate::model::protocol;

/// Length of the fixed part of every ICMP message made or read here.
pub const ICMP_HEADER: usize = 8;

/// Largest ICMPv4 error, in bytes (RFC 1812 4.3.2.3), and largest ICMPv6 one (RFC 4443 2.4 c).
const MAX_ERROR_V4: usize = 576;
const MAX_ERROR_V6: usize = 1280;

/// Precedence "internetwork control" for errors (RFC 1812 4.3.2.5).
const ERROR_TOS: u8 = 0xc0;

/// Why a packet is handed back to the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NetworkUnreachable,
    /// By a rule (RFC 1812 5.2.7.1; RFC 4443 3.1).
    Prohibited,
    /// "Fragmentation needed" (RFC 1191 4) or "packet too big" (RFC 4443 3.2).
    TooBig {
        mtu: u16,
    },
}

/// Writes the ICMP error for a refused packet into `out`. `false`, with `out` empty, where no
/// error may be sent. Limiting their rate is the caller's part.
///
/// The error claims to come from the packet's destination. An address of ours would be more
/// exact, but a host drops what its own address seems to send it from outside, and one that no
/// route leads back to fails the reverse-path check; the destination passes both.
pub fn refuse(refusal: Refusal, packet: &[u8], parsed: &Parsed, out: &mut PacketBuf) -> bool {
    out.reset();
    if !may_be_answered(parsed) {
        return false;
    }
    let v4 = parsed.is_ipv4();
    let (kind, code, mtu) = match (refusal, v4) {
        (Refusal::NetworkUnreachable, true) => (3, 0, 0),
        (Refusal::NetworkUnreachable, false) => (1, 0, 0),
        (Refusal::Prohibited, true) => (3, 13, 0),
        (Refusal::Prohibited, false) => (1, 1, 0),
        (Refusal::TooBig { mtu }, true) => (3, 4, mtu),
        (Refusal::TooBig { mtu }, false) => (2, 0, mtu),
    };
    let room = if v4 { MAX_ERROR_V4 - IPV4_HEADER } else { MAX_ERROR_V6 - IPV6_HEADER } - ICMP_HEADER;
    let whole = packet.get(..parsed.total_len).unwrap_or(packet);
    let quoted = whole.get(..room).unwrap_or(whole);
    let message = Icmp {
        source: parsed.key.destination,
        destination: parsed.key.source,
        kind,
        code,
        rest: u32::from(mtu).to_be_bytes(),
    };
    message.write(ERROR_TOS, &[quoted], out)
}

/// RFC 1122 3.2.2 and RFC 4443 2.4 e: errors never answer errors, later fragments, or packets
/// to or from anything but one host.
fn may_be_answered(parsed: &Parsed) -> bool {
    let is_error = match (parsed.icmp_type, parsed.is_ipv4()) {
        (Some(kind), true) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (Some(kind), false) => kind < 128 || kind == 137,
        (None, _) => false,
    };
    !is_error
        && parsed.fragment != Fragment::Later
        && is_one_host(parsed.key.source)
        && is_one_host(parsed.key.destination)
}

fn is_one_host(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    match address {
        // Class E holds the limited broadcast.
        IpAddr::V4(v4) => !special && v4.octets()[0] < 240,
        IpAddr::V6(_) => !special,
    }
}

/// An ICMP or ICMPv6 message to write, but for its data.
pub(super) struct Icmp {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub kind: u8,
    pub code: u8,
    pub rest: [u8; 4],
}

impl Icmp {
    /// Writes the whole packet, whose data is the pieces one after the other; all but the last
    /// have an even length. `false`, with `out` empty, when it does not fit.
    pub fn write(&self, traffic_class: u8, data: &[&[u8]], out: &mut PacketBuf) -> bool {
        let length = self.write_into(traffic_class, data, out.reset()).unwrap_or(0);
        out.set_len(length);
        length > 0
    }

    fn write_into(&self, traffic_class: u8, data: &[&[u8]], room: &mut [u8]) -> Option<usize> {
        let length = data.iter().try_fold(ICMP_HEADER, |sum, piece| sum.checked_add(piece.len()))?;
        let protocol = if self.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let header = write_header(room, self.source, self.destination, protocol, traffic_class, length)?;
        let message = room.get_mut(header..header.checked_add(length)?)?;
        let (head, mut rest) = message.split_at_mut_checked(ICMP_HEADER)?;
        head.copy_from_slice(&[self.kind, self.code, 0, 0, self.rest[0], self.rest[1], self.rest[2], self.rest[3]]);
        for piece in data {
            let (place, behind) = rest.split_at_mut_checked(piece.len())?;
            place.copy_from_slice(piece);
            rest = behind;
        }
        let checksum = checksum(message, self.source, self.destination);
        message.get_mut(2..4)?.copy_from_slice(&checksum.to_be_bytes());
        Some(header + length)
    }
}

/// An ICMP or ICMPv6 echo message, read from an untrusted packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Echo<'a> {
    pub request: bool,
    pub identifier: u16,
    pub sequence: u16,
    pub data: &'a [u8],
}

impl<'a> Echo<'a> {
    /// `None` when the packet is something else, in fragments, or its checksum is wrong.
    pub fn read(packet: &'a [u8], parsed: &Parsed) -> Option<Echo<'a>> {
        if parsed.fragment != Fragment::Whole {
            return None;
        }
        let request = match (parsed.icmp_type?, parsed.is_ipv4()) {
            (8, true) | (128, false) => true,
            (0, true) | (129, false) => false,
            _ => return None,
        };
        let message = packet.get(parsed.transport..parsed.total_len)?;
        let (head, data) = message.split_first_chunk::<ICMP_HEADER>()?;
        let sound = head[1] == 0 && checksum(message, parsed.key.source, parsed.key.destination) == 0;
        sound.then_some(Echo {
            request,
            identifier: u16::from_be_bytes([head[4], head[5]]),
            sequence: u16::from_be_bytes([head[6], head[7]]),
            data,
        })
    }

    /// Writes the reply to this request, which came in a packet with this header.
    pub fn write_reply(&self, parsed: &Parsed, out: &mut PacketBuf) -> bool {
        let (id, sequence) = (self.identifier.to_be_bytes(), self.sequence.to_be_bytes());
        let reply = Icmp {
            source: parsed.key.destination,
            destination: parsed.key.source,
            kind: if parsed.is_ipv4() { 0 } else { 129 },
            code: 0,
            rest: [id[0], id[1], sequence[0], sequence[1]],
        };
        reply.write(parsed.traffic_class(), &[self.data], out)
    }
}

/// ICMPv6 covers a pseudo-header too (RFC 4443 2.3), ICMP does not.
fn checksum(message: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let start = match source {
        IpAddr::V4(_) => Checksum::new(),
        IpAddr::V6(_) => Checksum::new().with_pseudo_header(source, destination, protocol::ICMPV6, message.len()),
    };
    start.with(message).finish()
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;

    fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        if v6 {
            PacketBuilder::ipv6([0x20; 16], [0x30; 16], 9).udp(1, 2).write(&mut packet, payload).unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 9, 0, 1], 9).udp(1, 2).write(&mut packet, payload).unwrap();
        }
        packet
    }

    fn refused(refusal: Refusal, packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = PacketBuf::with_capacity(2048);
        refuse(refusal, packet, &parse(packet).unwrap(), &mut out).then(|| out.bytes().to_vec())
    }

    #[test]
    fn refusals_read_back_in_etherparse_with_a_right_checksum() {
        use icmpv4::DestUnreachableHeader as V4;
        use icmpv6::DestUnreachableCode as V6;
        for (refusal, v4, v6) in [
            (
                Refusal::NetworkUnreachable,
                Icmpv4Type::DestinationUnreachable(V4::Network),
                Icmpv6Type::DestinationUnreachable(V6::NoRoute),
            ),
            (
                Refusal::Prohibited,
                Icmpv4Type::DestinationUnreachable(V4::FilterProhibited),
                Icmpv6Type::DestinationUnreachable(V6::Prohibited),
            ),
            (
                Refusal::TooBig { mtu: 1400 },
                Icmpv4Type::DestinationUnreachable(V4::FragmentationNeeded { next_hop_mtu: 1400 }),
                Icmpv6Type::PacketTooBig { mtu: 1400 },
            ),
        ] {
            let packet = udp(false, &[1; 1401]);
            let answer = refused(refusal, &packet).unwrap();
            let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ip(&answer).unwrap().transport else {
                panic!()
            };
            assert_eq!(icmp.icmp_type(), v4);
            assert_eq!(icmp.checksum(), v4.calc_checksum(icmp.payload()));
            assert_eq!((answer.len(), icmp.payload()), (576, &packet[..548]));

            let packet = udp(true, &[1; 1401]);
            let answer = refused(refusal, &packet).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ip(&answer).unwrap().transport else {
                panic!()
            };
            assert_eq!(icmp.icmp_type(), v6);
            assert_eq!(icmp.checksum(), v6.calc_checksum([0x30; 16], [0x20; 16], icmp.payload()).unwrap());
            assert_eq!((answer.len(), icmp.payload()), (1280, &packet[..1232]));
        }
    }

    #[test]
    fn errors_fragments_and_groups_are_never_answered() {
        let error = refused(Refusal::Prohibited, &udp(false, &[0; 9])).unwrap();
        assert_eq!(refused(Refusal::Prohibited, &error), None);
        let error = refused(Refusal::Prohibited, &udp(true, &[0; 9])).unwrap();
        assert_eq!(refused(Refusal::Prohibited, &error), None);
        let mut later = udp(false, &[0; 9]);
        later[7] = 1;
        assert_eq!(refused(Refusal::Prohibited, &later), None);
        for (at, octets) in [(16, [224, 0, 0, 5]), (16, [255; 4]), (12, [0; 4]), (12, [127, 0, 0, 1])] {
            let mut packet = udp(false, &[0; 9]);
            packet[at..at + 4].copy_from_slice(&octets);
            assert_eq!(refused(Refusal::Prohibited, &packet), None, "{octets:?} at {at}");
        }
        let mut group = udp(true, &[0; 9]);
        group[24] = 0xff;
        assert_eq!(refused(Refusal::TooBig { mtu: 1300 }, &group), None);
    }

    #[test]
    fn an_error_that_does_not_fit_leaves_nothing() {
        let mut out = PacketBuf::with_capacity(40);
        let packet = udp(false, &[0; 100]);
        assert!(!refuse(Refusal::Prohibited, &packet, &parse(&packet).unwrap(), &mut out));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn an_echo_request_gets_its_own_reply(v6: bool, id: u16, seq: u16, data in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut request = Vec::new();
            if v6 {
                PacketBuilder::ipv6([0x20; 16], [0x30; 16], 9).icmpv6_echo_request(id, seq).write(&mut request, &data).unwrap();
            } else {
                PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).icmpv4_echo_request(id, seq).write(&mut request, &data).unwrap();
            }
            let parsed = parse(&request).unwrap();
            let echo = Echo::read(&request, &parsed).unwrap();
            prop_assert_eq!(echo, Echo { request: true, identifier: id, sequence: seq, data: &data });
            let mut out = PacketBuf::with_capacity(256);
            prop_assert!(echo.write_reply(&parsed, &mut out));
            let answered = parse(out.bytes()).unwrap();
            prop_assert_eq!(answered.key.reversed(), parsed.key);
            let reply = Echo::read(out.bytes(), &answered).unwrap();
            prop_assert_eq!(reply, Echo { request: false, identifier: id, sequence: seq, data: &data });
            let last = out.len() - 1;
            out.bytes_mut()[last] ^= 1;
            prop_assert_eq!(Echo::read(out.bytes(), &answered), None);
        }
    }
}
