use super::{AAD_LEN, HEADER_LEN, TRAILER_LEN};
use crate::crypto::{Encryption, TAG_LEN};

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// RFC 4303 2.4: what is encrypted ends on a 4-byte boundary, whatever the cipher.
const ALIGNMENT: usize = 4;
const CBC_BLOCK: usize = 16;
/// SHA2-512's integrity check value, the longest that goes with CBC (RFC 4868 2.3).
const CBC_LONGEST_ICV: usize = 32;

/// Bytes that ESP adds to an inner packet of `inner_len` bytes; with CBC at most.
pub const fn esp_overhead(encryption: Encryption, inner_len: usize) -> usize {
    let (alignment, tag) = match encryption {
        Encryption::AesGcm128 | Encryption::AesGcm256 | Encryption::ChaCha20Poly1305 => (ALIGNMENT, TAG_LEN),
        Encryption::AesCbc128 | Encryption::AesCbc256 => (CBC_BLOCK, CBC_LONGEST_ICV),
    };
    AAD_LEN + encryption.iv_len() + pad_len(inner_len, alignment) + TRAILER_LEN + tag
}

/// The largest inner packet that an IPv4 underlay of `outer_mtu` bytes carries in one piece with
/// AES-GCM, with or without UDP encapsulation (RFC 3948); 0 when none fits.
pub const fn largest_inner(outer_mtu: usize, natt: bool) -> usize {
    let around = IPV4_HEADER + if natt { UDP_HEADER } else { 0 } + HEADER_LEN + TAG_LEN;
    let room = outer_mtu.saturating_sub(around);
    (room - room % ALIGNMENT).saturating_sub(TRAILER_LEN)
}

/// Bytes of padding with which packet and trailer end on a boundary.
pub(super) const fn pad_len(inner_len: usize, alignment: usize) -> usize {
    (alignment - (inner_len + TRAILER_LEN) % alignment) % alignment
}

/// The padding of AES-GCM.
pub(super) const fn gcm_pad_len(inner_len: usize) -> usize {
    pad_len(inner_len, ALIGNMENT)
}
