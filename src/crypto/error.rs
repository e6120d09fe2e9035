use thiserror::Error;

use super::{DhGroup, Encryption};

/// What can go wrong with keys. Only `PublicValue` and a forged tag are the peer's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CryptoError {
    #[error("Diffie-Hellman group {0} is not supported")]
    UnsupportedGroup(DhGroup),
    #[error("{} is not supported here", .0.name())]
    UnsupportedEncryption(Encryption),
    /// An AEAD with an integrity algorithm beside it, or CBC without one.
    #[error("{} takes {} integrity algorithm beside it", .0.name(), if .0.is_aead() { "no" } else { "an" })]
    Integrity(Encryption),
    /// Our own mistake, or a derivation that does not fit the algorithm.
    #[error("a key of {found} bytes where {expected} are needed")]
    KeyLength { expected: usize, found: usize },
    /// The peer's public value has the wrong length, lies outside the group or off the curve
    /// (RFC 6989 2).
    #[error("the peer's public value is not an element of the group")]
    PublicValue,
}

/// The integrity check failed: forged, damaged, or under another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the integrity check failed")]
pub struct BadTag;
