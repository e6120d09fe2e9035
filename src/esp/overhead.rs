use super::{AAD_LEN, TRAILER_LEN};
use crate::crypto::PacketSuite;

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Every AEAD adds the same; which one it is does not matter here.
const AEAD: PacketSuite = PacketSuite::ALL[0];

/// Bytes that stand around ESP on the underlay: an IPv4 header, and UDP for NAT traversal (RFC 3948).
pub const OUTER_HEADERS: usize = IPV4_HEADER + UDP_HEADER;

/// Bytes that ESP adds to an inner packet of `inner_len` bytes.
pub const fn esp_overhead(suite: PacketSuite, inner_len: usize) -> usize {
    header_len(suite) + pad_len(inner_len, suite.alignment()) + TRAILER_LEN + suite.icv_len()
}

/// The largest inner packet that an IPv4 underlay of `outer_mtu` bytes carries in one piece with
/// any AEAD, with or without UDP encapsulation (RFC 3948); 0 when none fits.
pub const fn largest_inner(outer_mtu: usize, natt: bool) -> usize {
    largest_inner_with(AEAD, outer_mtu, natt)
}

/// The same with this suite. CBC costs up to 40 bytes more.
pub const fn largest_inner_with(suite: PacketSuite, outer_mtu: usize, natt: bool) -> usize {
    let around = IPV4_HEADER + if natt { UDP_HEADER } else { 0 } + header_len(suite) + suite.icv_len();
    let room = outer_mtu.saturating_sub(around);
    (room - room % suite.alignment()).saturating_sub(TRAILER_LEN)
}

/// Bytes in front of the encrypted part.
pub(super) const fn header_len(suite: PacketSuite) -> usize {
    AAD_LEN + suite.iv_len()
}

/// Bytes of padding with which packet and trailer end on a boundary, which is a power of two.
pub(super) const fn pad_len(inner_len: usize, alignment: usize) -> usize {
    (inner_len + TRAILER_LEN).wrapping_neg() & (alignment - 1)
}
