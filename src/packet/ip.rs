use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::replace_word;
use super::{Checksum, Ecn};
use crate::model::{Dscp, FlowKey, protocol};

/// Length of an IPv6 header, and of an IPv4 header without options.
pub const IPV6_HEADER: usize = 40;
pub const IPV4_HEADER: usize = 20;

/// Extension headers walked before a packet is refused: RFC 8200 4.1 knows four kinds that are
/// walked here, each at most twice.
const MAX_EXTENSIONS: usize = 8;

/// What the packet road needs to know of one IP packet. Every length in it has been checked
/// against the bytes that it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    pub key: FlowKey,
    pub dscp: Dscp,
    pub ecn: Ecn,
    /// Length by the packet's own header, in bytes. What follows it in the buffer is padding.
    pub total_len: usize,
    /// Where the transport header begins; in a later fragment, the data. At most `total_len`.
    pub transport: usize,
    pub fragment: Fragment,
    /// No router may cut it: the DF bit of IPv4; always so in IPv6.
    pub dont_fragment: bool,
    /// Type of an ICMP or ICMPv6 message whose first bytes are here.
    pub icmp_type: Option<u8>,
    /// A TCP segment that opens a connection, from either side.
    pub syn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    Whole,
    First,
    Later,
}

impl Parsed {
    pub const fn is_ipv4(&self) -> bool {
        self.key.source.is_ipv4()
    }

    /// The TOS or traffic-class byte.
    pub const fn traffic_class(&self) -> u8 {
        self.dscp.value() << 2 | self.ecn.bits()
    }
}

/// Reads an IPv4 or IPv6 packet. `None`: it is neither, its lengths do not agree, or it is cut
/// off before the ports.
pub fn parse(bytes: &[u8]) -> Option<Parsed> {
    match bytes.first()? >> 4 {
        4 => parse_ipv4(bytes),
        6 => parse_ipv6(bytes),
        _ => None,
    }
}

fn parse_ipv4(bytes: &[u8]) -> Option<Parsed> {
    let header = bytes.first_chunk::<IPV4_HEADER>()?;
    let transport = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if transport < IPV4_HEADER || transport > total_len || total_len > bytes.len() {
        return None;
    }
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (flags_and_offset & 0x1fff, flags_and_offset & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        (_, _) => Fragment::Later,
    };
    let ip = Ip {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        traffic_class: header[1],
        total_len,
        dont_fragment: flags_and_offset & 0x4000 != 0,
    };
    with_transport(bytes, ip, header[9], transport, fragment)
}

fn parse_ipv6(bytes: &[u8]) -> Option<Parsed> {
    let header = bytes.first_chunk::<IPV6_HEADER>()?;
    // A payload length of 0 would be a jumbogram (RFC 2675), which no tunnel here can carry; the
    // walk below then finds no transport header.
    let total_len = IPV6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if total_len > bytes.len() {
        return None;
    }
    let ip = Ip {
        source: address_v6(header.get(8..24)?)?,
        destination: address_v6(header.get(24..40)?)?,
        traffic_class: header[0] << 4 | header[1] >> 4,
        total_len,
        dont_fragment: true,
    };
    let packet = bytes.get(..total_len)?;
    let mut next = header[6];
    let mut at = IPV6_HEADER;
    let mut fragment = Fragment::Whole;
    // RFC 4301 4.4.1.1: skip these four; AH and ESP count as next-layer protocols.
    for _ in 0..MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let extension = packet.get(at..)?.first_chunk::<2>()?;
                next = extension[0];
                at += (usize::from(extension[1]) + 1) * 8;
            }
            FRAGMENT => {
                let extension = packet.get(at..)?.first_chunk::<8>()?;
                next = extension[0];
                at += 8;
                let offset_and_more = u16::from_be_bytes([extension[2], extension[3]]);
                fragment = match (offset_and_more & 0xfff8, offset_and_more & 1) {
                    // RFC 6946: an atomic fragment is a whole packet.
                    (0, 0) => fragment,
                    (0, _) => Fragment::First,
                    (_, _) => return with_transport(bytes, ip, next, at, Fragment::Later),
                };
            }
            _ => return with_transport(bytes, ip, next, at, fragment),
        }
    }
    None
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

struct Ip {
    source: IpAddr,
    destination: IpAddr,
    traffic_class: u8,
    total_len: usize,
    dont_fragment: bool,
}

fn with_transport(bytes: &[u8], ip: Ip, protocol: u8, transport: usize, fragment: Fragment) -> Option<Parsed> {
    let segment = bytes.get(transport..ip.total_len)?;
    let mut parsed = Parsed {
        key: FlowKey {
            segment: 0,
            protocol,
            source: ip.source,
            destination: ip.destination,
            source_port: 0,
            destination_port: 0,
        },
        dscp: Dscp::of_traffic_class(ip.traffic_class),
        ecn: Ecn::of_traffic_class(ip.traffic_class),
        total_len: ip.total_len,
        transport,
        fragment,
        dont_fragment: ip.dont_fragment,
        icmp_type: None,
        syn: false,
    };
    if fragment == Fragment::Later {
        return Some(parsed);
    }
    match (protocol, ip.source.is_ipv4()) {
        (protocol::TCP | protocol::UDP, _) => {
            let ports = segment.first_chunk::<4>()?;
            parsed.key.source_port = u16::from_be_bytes([ports[0], ports[1]]);
            parsed.key.destination_port = u16::from_be_bytes([ports[2], ports[3]]);
            let flags = segment.get(13).filter(|_| protocol == protocol::TCP);
            parsed.syn = flags.is_some_and(|flags| flags & 0x02 != 0);
        }
        (protocol::ICMP, true) | (protocol::ICMPV6, false) => {
            let kind = *segment.first()?;
            parsed.icmp_type = Some(kind);
            // A request has the identifier as its source port and a reply as its destination
            // port, so that a reply's key is the reverse of its request's.
            match (kind, ip.source.is_ipv4()) {
                (ECHO_REQUEST, true) | (ECHO_REQUEST_V6, false) => parsed.key.source_port = echo_identifier(segment)?,
                (ECHO_REPLY, true) | (ECHO_REPLY_V6, false) => parsed.key.destination_port = echo_identifier(segment)?,
                _ => {}
            }
        }
        _ => {}
    }
    Some(parsed)
}

fn echo_identifier(segment: &[u8]) -> Option<u16> {
    let header = segment.first_chunk::<8>()?;
    Some(u16::from_be_bytes([header[4], header[5]]))
}

fn address_v6(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// Writes `ecn` into the header of a packet that `parse` accepted.
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    set_traffic_class(packet, 0x03, ecn.bits());
}

/// Writes `dscp` into the header of a packet that `parse` accepted. Checksums of TCP and UDP do not
/// cover it, so a super-packet stays as it is but for its header.
pub fn set_dscp(packet: &mut [u8], dscp: Dscp) {
    set_traffic_class(packet, 0xfc, dscp.value() << 2);
}

/// Replaces these bits of the TOS or traffic-class byte.
fn set_traffic_class(packet: &mut [u8], mask: u8, bits: u8) {
    let Some([first, second, ..]) = packet.first_chunk_mut::<2>() else { return };
    let old = u16::from_be_bytes([*first, *second]);
    if *first >> 4 == 6 {
        // RFC 8200 3: version, traffic class, and the first bits of the flow label.
        let new = old & !(u16::from(mask) << 4) | u16::from(bits) << 4;
        [*first, *second] = new.to_be_bytes();
        return;
    }
    *second = *second & !mask | bits;
    let new = u16::from_be_bytes([*first, *second]);
    if let Some(field) = packet.get_mut(10..12).and_then(|field| field.first_chunk_mut::<2>()) {
        *field = replace_word(u16::from_be_bytes(*field), old, new).to_be_bytes();
    }
}

/// Writes an IP header for `payload` bytes of `protocol` to the front of `out` and returns its
/// length. `None`: the families differ, or it does not fit.
pub fn write_header(
    out: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    traffic_class: u8,
    payload: usize,
) -> Option<usize> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(IPV4_HEADER.checked_add(payload)?).ok()?.to_be_bytes();
            let header = out.first_chunk_mut::<IPV4_HEADER>()?;
            // DF is set, so the identification may be 0 (RFC 6864 4.1).
            *header = [
                0x45,
                traffic_class,
                total[0],
                total[1],
                0,
                0,
                0x40,
                0,
                HOPS,
                protocol,
                0,
                0, //
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let checksum = Checksum::new().with(header).finish();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            Some(IPV4_HEADER)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload).ok()?.to_be_bytes();
            let header = out.first_chunk_mut::<IPV6_HEADER>()?;
            header[..8].copy_from_slice(&[
                0x60 | traffic_class >> 4,
                traffic_class << 4,
                0,
                0,
                length[0],
                length[1],
                protocol,
                HOPS,
            ]);
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
            Some(IPV6_HEADER)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Time to live of packets made here (the recommended default of RFC 1700).
const HOPS: u8 = 64;

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    fn built(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    fn echo(kind: u8, source: [u8; 4], destination: [u8; 4], id: u16) -> Vec<u8> {
        let mut packet = vec![0; 28];
        write_header(&mut packet, source.into(), destination.into(), protocol::ICMP, 0, 8).unwrap();
        packet[20] = kind;
        packet[24..26].copy_from_slice(&id.to_be_bytes());
        packet
    }

    #[test]
    fn an_echo_reply_belongs_to_the_flow_of_its_request() {
        let request = parse(&echo(8, [10, 0, 0, 1], [10, 9, 0, 1], 77)).unwrap();
        let reply = parse(&echo(0, [10, 9, 0, 1], [10, 0, 0, 1], 77)).unwrap();
        assert_eq!(request.key.source_port, 77);
        assert_eq!(reply.key.reversed(), request.key);
    }

    #[test]
    fn bytes_behind_the_packet_do_not_count() {
        let mut packet = built(PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(1, 2), &[0; 10]);
        packet.extend([0xff; 30]);
        assert_eq!(parse(&packet).unwrap().total_len, 38);
    }

    #[test]
    fn a_packet_cut_off_anywhere_is_refused() {
        for packet in [
            built(PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(1, 2), &[7; 10]),
            built(PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(1, 2), &[7; 10]),
        ] {
            assert!(parse(&packet).is_some());
            for length in 0..packet.len() {
                assert_eq!(parse(&packet[..length]), None, "{length} bytes");
            }
        }
    }

    #[test]
    fn ports_are_found_behind_ipv6_extension_headers() {
        // Hop-by-hop (8 bytes), destination options (16), an atomic fragment, then UDP.
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([17, 0, 0, 0, 0, 0, 0, 9]);
        payload.extend([0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0]);
        let mut packet = vec![0; IPV6_HEADER];
        write_header(&mut packet, [1_u16; 8].into(), [2_u16; 8].into(), HOP_BY_HOP, 0, payload.len()).unwrap();
        packet.extend(&payload);
        let parsed = parse(&packet).unwrap();
        assert_eq!((parsed.key.protocol, parsed.key.source_port, parsed.key.destination_port), (17, 0x1234, 0x5678));
        assert_eq!((parsed.transport, parsed.fragment), (72, Fragment::Whole));
    }

    #[test]
    fn an_endless_chain_of_extension_headers_is_refused() {
        let mut packet = vec![0; IPV6_HEADER + 400];
        write_header(&mut packet, [1_u16; 8].into(), [2_u16; 8].into(), HOP_BY_HOP, 0, 400).unwrap();
        assert_eq!(parse(&packet), None);
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut packet = built(PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(1, 2), &[7; 16]);
        packet[6..8].copy_from_slice(&0x2000_u16.to_be_bytes());
        assert_eq!(parse(&packet).unwrap().fragment, Fragment::First);
        assert_eq!(parse(&packet).unwrap().key.destination_port, 2);
        packet[6..8].copy_from_slice(&0x0003_u16.to_be_bytes());
        assert_eq!(parse(&packet).unwrap().fragment, Fragment::Later);
        assert_eq!(parse(&packet).unwrap().key.destination_port, 0);
    }

    fn ip_header_and_noise() -> impl Strategy<Value = Vec<u8>> {
        let start = prop_oneof![Just(0x45_u8), Just(0x46), Just(0x60), any::<u8>()];
        let next = prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(0), Just(44), Just(60), any::<u8>()];
        (start, next, proptest::collection::vec(any::<u8>(), 0..120)).prop_map(|(start, next, mut bytes)| {
            let length = bytes.len() as u16;
            if bytes.len() > 10 {
                bytes[0] = start;
                if start == 0x60 {
                    bytes[4..6].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
                    bytes[6] = next;
                } else {
                    bytes[2..4].copy_from_slice(&length.to_be_bytes());
                    bytes[9] = next;
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_parsed_or_refused_as_etherparse_does(bytes in ip_header_and_noise()) {
            let ours = parse(&bytes);
            if let Some(parsed) = ours {
                prop_assert!(parsed.transport <= parsed.total_len && parsed.total_len <= bytes.len());
            }
            // etherparse also reads checksums, AH and transport lengths, so it may refuse more.
            let Ok(theirs) = SlicedPacket::from_ip(&bytes) else { return Ok(()) };
            let (source, destination): (IpAddr, IpAddr) = match &theirs.net {
                Some(NetSlice::Ipv4(ip)) =>
                    (ip.header().source_addr().into(), ip.header().destination_addr().into()),
                Some(NetSlice::Ipv6(ip)) =>
                    (ip.header().source_addr().into(), ip.header().destination_addr().into()),
                _ => return Ok(()),
            };
            let ports = match &theirs.transport {
                Some(TransportSlice::Tcp(tcp)) => Some((6, tcp.source_port(), tcp.destination_port(), tcp.syn())),
                Some(TransportSlice::Udp(udp)) => Some((17, udp.source_port(), udp.destination_port(), false)),
                _ => None,
            };
            if let Some(parsed) = ours {
                prop_assert_eq!((parsed.key.source, parsed.key.destination), (source, destination));
                if let Some((protocol, from, to, syn)) = ports {
                    // AH is a protocol of its own here and a header to skip there.
                    if parsed.key.protocol != 51 {
                        prop_assert_eq!(
                            (parsed.key.protocol, parsed.key.source_port, parsed.key.destination_port, parsed.syn),
                            (protocol, from, to, syn)
                        );
                    }
                }
            } else {
                prop_assert!(ports.is_none(), "refused what etherparse reads: {:?}", bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
            set_ecn(&mut bytes, Ecn::Congested);
        }

        #[test]
        fn a_written_header_reads_back_and_etherparse_agrees(
            v6: bool, tos: u8, payload in 8_usize..200, a: [u8; 16], b: [u8; 16],
        ) {
            let (source, destination): (IpAddr, IpAddr) = if v6 {
                (a.into(), b.into())
            } else {
                (
                    <[u8; 4]>::try_from(&a[..4]).unwrap().into(),
                    <[u8; 4]>::try_from(&b[..4]).unwrap().into(),
                )
            };
            let mut packet = vec![0; 40 + payload];
            let header = write_header(&mut packet, source, destination, 99, tos, payload).unwrap();
            packet.truncate(header + payload);
            for ecn in [Ecn::of_traffic_class(tos), Ecn::Capable0, Ecn::Congested, Ecn::NotCapable] {
                set_ecn(&mut packet, ecn);
                let parsed = parse(&packet).unwrap();
                prop_assert_eq!((parsed.key.source, parsed.key.destination), (source, destination));
                prop_assert_eq!(parsed.traffic_class(), tos & 0xfc | ecn.bits());
                let before = packet.clone();
                let marked = Dscp::new(a[0] & 63).unwrap();
                set_dscp(&mut packet, marked);
                let parsed = parse(&packet).unwrap();
                prop_assert_eq!(parsed.traffic_class(), marked.value() << 2 | ecn.bits());
                if let Some(NetSlice::Ipv4(ip)) = &SlicedPacket::from_ip(&packet).unwrap().net {
                    prop_assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                }
                set_dscp(&mut packet, Dscp::of_traffic_class(tos));
                prop_assert_eq!(&packet, &before, "and back");
                let sliced = SlicedPacket::from_ip(&packet).unwrap();
                if let Some(NetSlice::Ipv4(ip)) = &sliced.net {
                    prop_assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                }
            }
        }
    }
}
