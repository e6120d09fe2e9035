//! Both ends rekey the same SA at once (RFC 7296 2.8.1, 2.8.2): two successors come to be, and
//! the one whose exchange used the lowest of the four nonces is deleted by the end that asked
//! for it.

use super::ike_sa::IkeSa;
use crate::model::Spi;

/// The IKE SA of the peer's rekey, while our own rekey is on its way.
pub struct Rival {
    pub sa: IkeSa,
    pub lowest_nonce: Vec<u8>,
}

/// The Child SA of the peer's rekey, while our own rekey of the same one is on its way.
pub struct ChildRival {
    pub inbound: Spi,
    pub lowest_nonce: Vec<u8>,
}

/// The lower nonce, octet by octet; of two that begin alike, the shorter one.
pub fn lowest<'a>(one: &'a [u8], other: &'a [u8]) -> &'a [u8] {
    one.min(other)
}

/// Whether the successor of our own exchange is the redundant one.
pub fn ours_is_redundant(our_lowest: &[u8], rival_lowest: &[u8]) -> bool {
    our_lowest < rival_lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_compare_octet_by_octet() {
        assert_eq!(lowest(&[1, 255], &[2, 0]), &[1, 255]);
        assert_eq!(lowest(&[1, 2], &[1]), &[1]);
        assert!(ours_is_redundant(&[0x7f, 0xff], &[0x80]));
        assert!(!ours_is_redundant(&[0x80], &[0x7f, 0xff]));
    }
}
