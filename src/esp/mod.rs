//! Floor 2: ESP (RFC 4303) in tunnel mode with AES-GCM (RFC 4106), ChaCha20-Poly1305 (RFC 7634) and
//! AES-CBC with HMAC (RFC 3602, RFC 4868): outbound and inbound SAs, the replay window, and what
//! encapsulation costs.

mod inbound;
mod outbound;
mod overhead;
mod replay;
#[cfg(test)]
mod suites;
#[cfg(test)]
mod tests;

pub use inbound::{InboundSa, Opened};
pub use outbound::OutboundSa;
pub use overhead::{OUTER_HEADERS, esp_overhead, largest_inner, largest_inner_with};
pub use replay::WINDOW;

/// SPI and sequence number, which are authenticated and not encrypted (RFC 4303 3.3.2).
const AAD_LEN: usize = 8;
/// Pad length and next header, the end of the encrypted part.
const TRAILER_LEN: usize = 2;

/// Next Header: an IPv4 packet, an IPv6 packet, nothing (RFC 4303 2.6).
const NEXT_IPV4: u8 = 4;
const NEXT_IPV6: u8 = 41;
const NEXT_NONE: u8 = 59;

/// The Next Header that goes with the version of an inner packet.
fn next_header(inner: &[u8]) -> Option<u8> {
    match inner.first()? >> 4 {
        4 => Some(NEXT_IPV4),
        6 => Some(NEXT_IPV6),
        _ => None,
    }
}
