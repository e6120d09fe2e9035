use std::net::IpAddr;

/// The Internet checksum (RFC 1071) over several pieces. Every piece but the last has an even
/// length. Words are summed in the machine's own byte order (RFC 1071 2 B), two at a time; 64 bits
/// hold the sum of 16 GiB.
#[derive(Clone, Copy, Default)]
pub struct Checksum(u64);

/// Bytes summed at once, each four of them in a lane of their own: the compiler turns the lanes
/// into vector registers.
const BLOCK: usize = 64;
const LANES: usize = BLOCK / 4;

impl Checksum {
    pub const fn new() -> Checksum {
        Checksum(0)
    }

    #[must_use]
    #[inline]
    pub fn with(self, bytes: &[u8]) -> Checksum {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut lanes = [0_u64; LANES];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = self.0 + lanes.iter().sum::<u64>();
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let (pairs, last) = rest.as_chunks::<2>();
        if let Some(pair) = pairs.first() {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        // RFC 1071 4.1: an odd last byte counts as if a zero followed it.
        if let Some(last) = last.first() {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Checksum(sum)
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub fn with_word(self, word: u16) -> Checksum {
        Checksum(self.0 + u64::from(word.to_be()))
    }

    /// Takes one 16-bit word away again: in this arithmetic its complement is its negative.
    #[must_use]
    pub fn without_word(self, word: u16) -> Checksum {
        self.with_word(!word)
    }

    /// The pseudo-header that TCP, UDP (RFC 793 3.1) and ICMPv6 (RFC 8200 8.1) cover; `length`
    /// is that of the transport header and data.
    #[must_use]
    pub fn with_pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Checksum {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.with_address(source).with_address(destination).with(&length).with(&[0, protocol])
    }

    fn with_address(self, address: IpAddr) -> Checksum {
        match address {
            IpAddr::V4(address) => self.with(&address.octets()),
            IpAddr::V6(address) => self.with(&address.octets()),
        }
    }

    /// The sum so far, not complemented: what a checksum field holds while the sum over the rest
    /// is left to others.
    pub fn sum(self) -> u16 {
        let mut folded = self.0;
        while folded > 0xffff {
            folded = (folded & 0xffff) + (folded >> 16);
        }
        (folded as u16).to_be()
    }

    /// The value for the checksum field. Over data that contains a correct checksum it is 0.
    pub fn finish(self) -> u16 {
        !self.sum()
    }
}

/// The checksum after one 16-bit word of the data, at an even offset, has changed (RFC 1624 3).
/// For a word at an odd offset pass both values with their bytes swapped (RFC 1071 2 B).
pub fn replace_word(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_its_value() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Checksum::new().with(&data).finish(), !0xddf2);
    }

    /// RFC 1071 1, word by word.
    fn plain_sum(data: &[u8]) -> u16 {
        data.chunks(2).fold(0_u16, |sum, pair| {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    #[test]
    fn the_largest_words_carry_as_they_should() {
        for length in [2, 3, 63, 64, 66, 130, 65_535] {
            assert_eq!(Checksum::new().with(&vec![0xff; length]).sum(), plain_sum(&vec![0xff; length]), "{length}");
        }
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_words_one_by_one(
            data in proptest::collection::vec(any::<u8>(), 0..700), cut in 0_usize..350, word: u16,
        ) {
            let sum = Checksum::new().with(&data);
            prop_assert_eq!(sum.sum(), plain_sum(&data));
            let (front, back) = data.split_at((cut * 2).min(data.len() / 2 * 2));
            prop_assert_eq!(Checksum::new().with(front).with(back).sum(), plain_sum(&data));
            prop_assert_eq!(sum.with_word(word).sum(), plain_sum(&[&word.to_be_bytes()[..], &data].concat()));
            if plain_sum(&data) != 0 {
                prop_assert_eq!(sum.with_word(word).without_word(word).sum(), plain_sum(&data));
            }
        }

        #[test]
        fn data_with_its_checksum_sums_to_zero(mut data in proptest::collection::vec(any::<u8>(), 2..200)) {
            data[0] = 0;
            data[1] = 0;
            let value = Checksum::new().with(&data).finish();
            data[..2].copy_from_slice(&value.to_be_bytes());
            prop_assert_eq!(Checksum::new().with(&data).finish(), 0);
        }

        #[test]
        fn an_incremental_change_equals_a_new_sum(
            mut data in proptest::collection::vec(any::<u8>(), 8..64),
            at in 0_usize..6,
            new: u16,
        ) {
            // All-zero data is the one case in which both representations of zero differ.
            data[7] |= 1;
            let before = Checksum::new().with(&data).finish();
            let old = u16::from_be_bytes([data[at], data[at + 1]]);
            data[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let after = Checksum::new().with(&data).finish();
            let changed = if at % 2 == 0 {
                replace_word(before, old, new)
            } else {
                replace_word(before, old.swap_bytes(), new.swap_bytes())
            };
            prop_assert_eq!(changed, after);
        }
    }
}
