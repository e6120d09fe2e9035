use super::checksum::replace_word;
use super::{Fragment, IPV4_HEADER, IPV6_HEADER, Parsed};

const TCP_HEADER: usize = 20;
/// Where the checksum stands in a TCP header.
const CHECKSUM: usize = 16;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Lowers the maximum segment size that a SYN announces, so that the segments sent to its
/// sender fit `mtu` bytes with their headers (RFC 9293 3.7.1). Both directions need it: each end
/// announces its own. A SYN without the option promises 536 bytes and is left alone.
pub fn clamp_mss(packet: &mut [u8], parsed: &Parsed, mtu: u16) {
    if !parsed.syn || parsed.fragment == Fragment::Later {
        return;
    }
    let headers = if parsed.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER } + TCP_HEADER;
    let Some(limit) = usize::from(mtu).checked_sub(headers).filter(|limit| *limit > 0) else { return };
    let Some(segment) = packet.get_mut(parsed.transport..parsed.total_len) else { return };
    // `limit` is below 65,536 since `mtu` is.
    lower(segment, limit as u16);
}

fn lower(segment: &mut [u8], limit: u16) -> Option<()> {
    let header = usize::from(*segment.get(12)? >> 4) * 4;
    let mut at = TCP_HEADER;
    while at < header {
        let length = match *segment.get(at)? {
            END => return None,
            NO_OPERATION => 1,
            MAXIMUM_SEGMENT_SIZE => {
                let announced = segment.get_mut(at..header)?.first_chunk_mut::<4>().filter(|option| option[1] == 4)?;
                let old = [announced[2], announced[3]];
                if u16::from_be_bytes(old) <= limit {
                    return None;
                }
                let new = limit.to_be_bytes();
                [announced[2], announced[3]] = new;
                // RFC 1071 2 B: a word at an odd offset counts with its bytes swapped.
                let read = if at.is_multiple_of(2) { u16::from_be_bytes } else { u16::from_le_bytes };
                let field = segment.get_mut(CHECKSUM..)?.first_chunk_mut::<2>()?;
                *field = replace_word(u16::from_be_bytes(*field), read(old), read(new)).to_be_bytes();
                return Some(());
            }
            _ => usize::from(*segment.get(at + 1)?).max(2),
        };
        at += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement, TcpSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;

    fn syn(v6: bool, options: &[TcpOptionElement]) -> Vec<u8> {
        let mut packet = Vec::new();
        if v6 {
            let step = PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(1, 2, 3, 4).syn();
            step.options(options).unwrap().write(&mut packet, &[]).unwrap();
        } else {
            let step = PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9).tcp(1, 2, 3, 4).syn();
            step.options(options).unwrap().write(&mut packet, &[]).unwrap();
        }
        packet
    }

    fn announced(packet: &[u8]) -> Option<u16> {
        let parsed = parse(packet).unwrap();
        let tcp = TcpSlice::from_slice(&packet[parsed.transport..]).unwrap();
        let expected = match (parsed.key.source, parsed.key.destination) {
            (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => tcp.calc_checksum_ipv4(a.octets(), b.octets()),
            (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => tcp.calc_checksum_ipv6(a.octets(), b.octets()),
            _ => panic!("mixed families"),
        };
        assert_eq!(tcp.checksum(), expected.unwrap());
        tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
            _ => None,
        })
    }

    fn clamped(mut packet: Vec<u8>, mtu: u16) -> Option<u16> {
        let parsed = parse(&packet).unwrap();
        clamp_mss(&mut packet, &parsed, mtu);
        announced(&packet)
    }

    #[test]
    fn a_syn_announces_no_more_than_fits() {
        let mss = [TcpOptionElement::MaximumSegmentSize(1460)];
        assert_eq!(clamped(syn(false, &mss), 1400), Some(1360));
        assert_eq!(clamped(syn(true, &mss), 1400), Some(1340));
    }

    #[test]
    fn a_smaller_size_stays() {
        assert_eq!(clamped(syn(false, &[TcpOptionElement::MaximumSegmentSize(1200)]), 1400), Some(1200));
    }

    #[test]
    fn the_option_is_found_at_an_odd_offset() {
        use TcpOptionElement::{MaximumSegmentSize, Noop, WindowScale};
        assert_eq!(clamped(syn(false, &[WindowScale(7), MaximumSegmentSize(1460)]), 1401), Some(1361));
        assert_eq!(clamped(syn(true, &[Noop, MaximumSegmentSize(0xfffe)]), 1401), Some(1341));
    }

    #[test]
    fn a_syn_without_the_option_is_left_alone() {
        assert_eq!(clamped(syn(false, &[TcpOptionElement::SelectiveAcknowledgementPermitted]), 1400), None);
    }

    proptest! {
        #[test]
        fn arbitrary_options_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..44), header: u8, mtu: u16) {
            let mut packet = syn(false, &[]);
            packet.extend(bytes);
            let length = packet.len() as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[32] = header;
            let parsed = parse(&packet).unwrap();
            clamp_mss(&mut packet, &parsed, mtu);
        }
    }
}
