use std::net::SocketAddr;

use super::{Checksum, Fragment, Parsed, write_header};
use crate::model::protocol;

const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// The one option written here: the largest segment that we take (RFC 9293 3.7.1).
const MSS_OPTION: usize = 4;

/// Makes a UDP packet with this data. `None`: the families differ, or it is too long for one packet.
pub fn udp_packet(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Option<Box<[u8]>> {
    let length = UDP_HEADER.checked_add(data.len())?;
    packet(source, destination, protocol::UDP, length, |datagram| {
        let (head, place) = datagram.split_first_chunk_mut::<UDP_HEADER>()?;
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()];
        head[..4].copy_from_slice(ports.as_flattened());
        head[4..6].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
        place.copy_from_slice(data);
        // RFC 768: a sum of zero is sent as its complement.
        let sum = checksum(source, destination, protocol::UDP, datagram);
        set(datagram, 6, if sum == 0 { u16::MAX } else { sum })
    })
}

/// The data of a UDP packet, read from an untrusted one. `None`: it is something else, in fragments, or its
/// lengths or checksum are wrong.
pub fn udp_data<'a>(packet: &'a [u8], parsed: &Parsed) -> Option<&'a [u8]> {
    let datagram = transport(packet, parsed, protocol::UDP)?;
    let (head, _) = datagram.split_first_chunk::<UDP_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let datagram = datagram.get(..length)?;
    // RFC 768: over IPv4 a sum of zero says that there is none; over IPv6 there is always one.
    let unsummed = parsed.is_ipv4() && head[6..8] == [0, 0];
    let sound = unsummed || sum_is_right(parsed, protocol::UDP, datagram);
    datagram.get(UDP_HEADER..).filter(|_| sound)
}

/// One TCP segment (RFC 9293 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpSegment<'a> {
    pub sequence: u32,
    pub acknowledged: u32,
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
    pub push: bool,
    pub window: u16,
    /// Written with a SYN only, and not read.
    pub mss: Option<u16>,
    pub data: &'a [u8],
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

impl<'a> TcpSegment<'a> {
    /// Makes a packet of it. `None`: the families differ, or it is too long for one packet.
    pub fn packet(&self, source: SocketAddr, destination: SocketAddr) -> Option<Box<[u8]>> {
        let head = TCP_HEADER + if self.mss.is_some() { MSS_OPTION } else { 0 };
        packet(source, destination, protocol::TCP, head.checked_add(self.data.len())?, |segment| {
            let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()];
            let flag = |set: bool, bit: u8| if set { bit } else { 0 };
            let flags = flag(self.fin, FIN) | flag(self.syn, SYN) | flag(self.rst, RST) | flag(self.push, PSH);
            let fixed = segment.first_chunk_mut::<TCP_HEADER>()?;
            fixed[..4].copy_from_slice(ports.as_flattened());
            fixed[4..8].copy_from_slice(&self.sequence.to_be_bytes());
            fixed[8..12].copy_from_slice(&self.acknowledged.to_be_bytes());
            fixed[12] = (head as u8 / 4) << 4;
            fixed[13] = flags | flag(self.ack, ACK);
            fixed[14..16].copy_from_slice(&self.window.to_be_bytes());
            if let Some(mss) = self.mss {
                let [high, low] = mss.to_be_bytes();
                segment.get_mut(TCP_HEADER..head)?.copy_from_slice(&[2, 4, high, low]);
            }
            segment.get_mut(head..)?.copy_from_slice(self.data);
            let sum = checksum(source, destination, protocol::TCP, segment);
            set(segment, 16, sum)
        })
    }

    /// Read from an untrusted packet. `None`: it is something else, in fragments, or its lengths or checksum
    /// are wrong.
    pub fn read(packet: &'a [u8], parsed: &Parsed) -> Option<TcpSegment<'a>> {
        let segment = transport(packet, parsed, protocol::TCP)?;
        let fixed = segment.first_chunk::<TCP_HEADER>()?;
        let head = usize::from(fixed[12] >> 4) * 4;
        let data = segment.get(head..).filter(|_| head >= TCP_HEADER)?;
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let flags = fixed[13];
        sum_is_right(parsed, protocol::TCP, segment).then_some(TcpSegment {
            sequence: word(4),
            acknowledged: word(8),
            syn: flags & SYN != 0,
            ack: flags & ACK != 0,
            fin: flags & FIN != 0,
            rst: flags & RST != 0,
            push: flags & PSH != 0,
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            mss: None,
            data,
        })
    }
}

fn packet(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    length: usize,
    write: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Option<Box<[u8]>> {
    // The longest header: that of IPv6.
    let mut room = vec![0; length.checked_add(super::IPV6_HEADER)?];
    let header = write_header(&mut room, source.ip(), destination.ip(), protocol, 0, length)?;
    room.truncate(header + length);
    write(room.get_mut(header..)?)?;
    Some(room.into_boxed_slice())
}

fn transport<'a>(packet: &'a [u8], parsed: &Parsed, protocol: u8) -> Option<&'a [u8]> {
    let whole = parsed.key.protocol == protocol && parsed.fragment == Fragment::Whole;
    packet.get(parsed.transport..parsed.total_len).filter(|_| whole)
}

fn checksum(source: SocketAddr, destination: SocketAddr, protocol: u8, bytes: &[u8]) -> u16 {
    Checksum::new().with_pseudo_header(source.ip(), destination.ip(), protocol, bytes.len()).with(bytes).finish()
}

fn sum_is_right(parsed: &Parsed, protocol: u8, bytes: &[u8]) -> bool {
    let key = &parsed.key;
    Checksum::new().with_pseudo_header(key.source, key.destination, protocol, bytes.len()).with(bytes).finish() == 0
}

fn set(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    bytes.get_mut(at..at.checked_add(2)?)?.copy_from_slice(&word.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;
    use crate::packet::parse;

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        let address = |last: u8| if v6 { format!("[2001:db8::{last}]") } else { format!("10.0.0.{last}") };
        let end = |last, port| format!("{}:{port}", address(last)).parse().unwrap();
        (end(1, 61_234), end(2, 53))
    }

    #[test]
    fn a_datagram_reads_back_here_and_in_etherparse() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let bytes = udp_packet(source, destination, b"odd").unwrap();
            let parsed = parse(&bytes).unwrap();
            assert_eq!((parsed.key.source_port, parsed.key.destination_port), (61_234, 53));
            assert_eq!(udp_data(&bytes, &parsed), Some(&b"odd"[..]));
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!() };
            let header = udp.to_header();
            let right = match (source.ip(), destination.ip()) {
                (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
                    header.calc_checksum_ipv4_raw(a.octets(), b.octets(), b"odd")
                }
                (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => {
                    header.calc_checksum_ipv6_raw(a.octets(), b.octets(), b"odd")
                }
                _ => unreachable!(),
            };
            assert_eq!(right.unwrap(), header.checksum);
        }
    }

    #[test]
    fn a_segment_reads_back_here_and_in_etherparse() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let segment = TcpSegment {
                sequence: 0xdead_beef,
                acknowledged: 7,
                syn: true,
                ack: true,
                window: 1_072,
                data: b"five!",
                ..TcpSegment::default()
            };
            let bytes = TcpSegment { mss: Some(536), ..segment }.packet(source, destination).unwrap();
            let parsed = parse(&bytes).unwrap();
            assert!(parsed.syn);
            assert_eq!(TcpSegment::read(&bytes, &parsed), Some(segment));
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!() };
            assert_eq!(
                (tcp.sequence_number(), tcp.options(), tcp.payload()),
                (0xdead_beef, &[2, 4, 2, 24][..], &b"five!"[..])
            );
        }
    }

    #[test]
    fn what_is_damaged_or_cut_is_not_read() {
        let (source, destination) = ends(false);
        let datagram = udp_packet(source, destination, b"data").unwrap();
        let segment =
            TcpSegment { ack: true, data: b"data", ..TcpSegment::default() }.packet(source, destination).unwrap();
        for (bytes, checked_from) in [(datagram, 20), (segment, 20)] {
            for at in checked_from..bytes.len() {
                let mut broken = bytes.to_vec();
                broken[at] ^= 0x41;
                let parsed = parse(&broken).unwrap();
                assert_eq!((udp_data(&broken, &parsed), TcpSegment::read(&broken, &parsed)), (None, None), "byte {at}");
            }
            let mut fragment = bytes.to_vec();
            fragment[6] = 0x20;
            let parsed = parse(&fragment).unwrap();
            assert_eq!((udp_data(&fragment, &parsed), TcpSegment::read(&fragment, &parsed)), (None, None));
        }
    }
}
