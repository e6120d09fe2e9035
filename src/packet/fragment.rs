use super::{Checksum, IPV4_HEADER};

/// Longest IPv4 header, options included.
const MAX_HEADER: usize = 60;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes (RFC 791 3.2) and hands over the
/// header and the data of each, in order, until `each` answers `false`. `false` when that
/// happened, when it is no IPv4 packet whose lengths agree, or when not even 8 bytes of data would
/// fit. The packet may be a fragment itself. Whether it may be cut (DF) is the caller's question.
pub fn fragment(packet: &[u8], mtu: usize, mut each: impl FnMut(&[u8], &[u8]) -> bool) -> bool {
    let Some((header, mut data)) = split(packet) else { return false };
    // Options are the same or fewer in later fragments: what fits the first fits all.
    let room = mtu.saturating_sub(header.len()) / 8 * 8;
    if room == 0 {
        return false;
    }
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let mut offset = flags_and_offset & OFFSET;
    // RFC 791 3.2: no datagram is that long. The offsets of its last pieces would have come around
    // to zero, as another beginning that no rule has seen.
    if usize::from(offset) * 8 + header.len() + data.len() > usize::from(u16::MAX) {
        return false;
    }
    let mut last = false;
    while !last {
        let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
        last = later.is_empty();
        let more = if last { flags_and_offset & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        let mut own = [0; MAX_HEADER];
        let Some(length) = write(&mut own, header, now.len(), offset, more) else { return false };
        let Some(own) = own.get(..length) else { return false };
        if !each(own, now) {
            return false;
        }
        // What was handed over is at most the whole, so its end is within the 13 bits.
        offset += (now.len() / 8) as u16;
        data = later;
    }
    true
}

fn split(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let fixed = packet.first_chunk::<IPV4_HEADER>()?;
    let length = usize::from(fixed[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let whole = packet.get(..total).filter(|_| fixed[0] >> 4 == 4 && length >= IPV4_HEADER)?;
    whole.split_at_checked(length)
}

/// Writes one fragment's header and returns its length.
fn write(out: &mut [u8; MAX_HEADER], header: &[u8], data: usize, offset: u16, more: u16) -> Option<usize> {
    let (fixed, options) = header.split_first_chunk::<IPV4_HEADER>()?;
    out.get_mut(..IPV4_HEADER)?.copy_from_slice(fixed);
    let mut length = IPV4_HEADER;
    if offset == 0 {
        out.get_mut(length..header.len())?.copy_from_slice(options);
        length = header.len();
    } else {
        let mut rest = options;
        while let Some((option, behind)) = next_option(rest) {
            // RFC 791 3.1: only options with the copied bit go into later fragments.
            if option.first().is_some_and(|kind| kind & 0x80 != 0) {
                out.get_mut(length..)?.get_mut(..option.len())?.copy_from_slice(option);
                length += option.len();
            }
            rest = behind;
        }
        // The rest of the last word is already zero: "end of options".
        length = length.next_multiple_of(4);
    }
    let total = u16::try_from(length.checked_add(data)?).ok()?;
    out[0] = 0x40 | (length / 4) as u8;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    out[6..8].copy_from_slice(&(more | offset).to_be_bytes());
    out[10..12].copy_from_slice(&[0, 0]);
    let checksum = Checksum::new().with(out.get(..length)?).finish();
    out[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(length)
}

/// The first option and what follows; `None` at the end, or where an option is malformed.
fn next_option(options: &[u8]) -> Option<(&[u8], &[u8])> {
    match *options.first()? {
        0 => None,
        1 => options.split_at_checked(1),
        _ => options.split_at_checked(usize::from(*options.get(1)?)).filter(|(option, _)| option.len() >= 2),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, Ipv4Header};
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8], data: &[u8], offset: u16, more: bool) -> Vec<u8> {
        let mut header = Ipv4Header::new(0, 9, etherparse::IpNumber::UDP, [1, 2, 3, 4], [5, 6, 7, 8]).unwrap();
        header.options = options.try_into().unwrap();
        header.set_payload_len(data.len()).unwrap();
        header.dont_fragment = false;
        header.identification = 4711;
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(data);
        bytes
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<(Ipv4Header, Vec<u8>)> {
        let mut pieces = Vec::new();
        fragment(packet, mtu, |header, data| {
            assert!(header.len() + data.len() <= mtu);
            let (read, _) = Ipv4Header::from_slice(header).unwrap();
            assert_eq!(read.header_checksum, read.calc_header_checksum());
            pieces.push((read, data.to_vec()));
            true
        });
        pieces
    }

    #[test]
    fn only_options_with_the_copied_bit_go_into_later_fragments() {
        // Record route (not copied), no operation, then stream identifier (copied).
        let options = [7, 3, 4, 1, 0x88, 4, 0, 9];
        let pieces = cut(&packet(&options, &[1; 100], 0, false), 80);
        assert_eq!(&pieces[0].0.options[..], &options);
        assert_eq!(&pieces[1].0.options[..], &options[4..]);
    }

    #[test]
    fn an_mtu_without_room_for_data_is_refused() {
        assert!(cut(&packet(&[], &[1; 100], 0, false), 27).is_empty());
    }

    #[test]
    fn what_is_no_ipv4_packet_is_not_cut() {
        for version in (0..16).filter(|version| *version != 4) {
            let mut other = packet(&[], &[1; 100], 0, false);
            other[0] = version << 4 | 5;
            assert!(!fragment(&other, 60, |_, _| panic!("version {version} was cut")));
        }
    }

    // Cut on, its end would come around as another beginning of the same datagram.
    #[test]
    fn a_fragment_that_reaches_beyond_the_longest_datagram_is_not_cut() {
        for data in [44, 100] {
            let beyond = packet(&[], &vec![1; data], 0x1ff8, false);
            assert!(!fragment(&beyond, 36, |_, _| panic!("{data} bytes were cut")));
        }
        let pieces = cut(&packet(&[], &[1; 43], 0x1ff8, false), 36);
        assert_eq!(pieces.last().map(|(header, _)| header.fragment_offset.value()), Some(0x1ffc));
    }

    proptest! {
        #[test]
        fn the_pieces_make_the_whole(
            data in proptest::collection::vec(any::<u8>(), 0..3000), mtu in 28_usize..1500, offset in 0_u16..500, more: bool,
        ) {
            let pieces = cut(&packet(&[], &data, offset, more), mtu);
            let mut joined: Vec<u8> = Vec::new();
            for (index, (header, piece)) in pieces.iter().enumerate() {
                prop_assert_eq!(usize::from(header.fragment_offset.value()) * 8, usize::from(offset) * 8 + joined.len());
                let is_last = index + 1 == pieces.len();
                prop_assert_eq!(header.more_fragments, more || !is_last);
                prop_assert!(is_last || piece.len() % 8 == 0);
                prop_assert_eq!(header.identification, 4711);
                joined.extend(piece);
            }
            prop_assert_eq!(joined, data);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), mtu in 0_usize..300) {
            let length = bytes.len() as u8;
            if let [first, _, high, low, ..] = &mut bytes[..] {
                *first = 0x40 | *first & 0x0f;
                (*high, *low) = (0, length);
            }
            fragment(&bytes, mtu, |_, _| true);
        }
    }
}
