use std::net::IpAddr;

/// The Internet checksum (RFC 1071) over several pieces. Every piece but the last has an even
/// length. 32 bits hold the sum of 128 KiB, twice the longest IP packet.
#[derive(Clone, Copy, Default)]
pub struct Checksum(u32);

impl Checksum {
    pub fn new() -> Checksum {
        Checksum(0)
    }

    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Checksum {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let mut sum = self.0;
        for pair in pairs {
            sum = sum.wrapping_add(u32::from(u16::from_be_bytes(*pair)));
        }
        // RFC 1071 4.1: an odd last byte counts as if a zero followed it.
        if let Some(last) = rest.first() {
            sum = sum.wrapping_add(u32::from(*last) << 8);
        }
        Checksum(sum)
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

    /// The value for the checksum field. Over data that contains a correct checksum it is 0.
    pub fn finish(self) -> u16 {
        let folded = (self.0 & 0xffff) + (self.0 >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        !(folded as u16)
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

    proptest! {
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
