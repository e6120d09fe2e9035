//! Floor 2: ESP (RFC 4303) in tunnel mode with AES-GCM (RFC 4106): outbound and inbound SAs, the
//! replay window, and what encapsulation costs.

mod inbound;
mod outbound;
mod overhead;
mod replay;
#[cfg(test)]
mod tests;

pub use inbound::{InboundSa, Opened};
pub use outbound::OutboundSa;
pub use overhead::{esp_overhead, largest_inner};
pub use replay::WINDOW;

use crate::crypto::IV_LEN;

/// SPI and sequence number, which are authenticated and not encrypted (RFC 4106 5).
const AAD_LEN: usize = 8;
/// All in front of the encrypted part.
const HEADER_LEN: usize = AAD_LEN + IV_LEN;
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
