//! IKE messages as bytes and as values (RFC 7296 3). Decoding is strict about lengths, bounded
//! in counts, and tolerant where the RFC asks for it (reserved bits, unknown payloads).

mod error;
mod header;
mod identity;
mod message;
mod notify;
mod payload;
mod reader;
mod sa;
mod selector;
#[cfg(test)]
mod tests;

pub use error::WireError;
pub use header::{Exchange, HEADER_BYTES, Header, MESSAGE_BYTES_MAX};
pub use identity::IdBody;
pub use message::{Encrypted, Message, encode_clear};
pub use notify::{Notify, NotifyType};
pub use payload::{
    DELETE_SPIS_MAX, NONCE_BYTES_MAX, NONCE_BYTES_MIN, PAYLOADS_MAX, Payload, decode_payloads, encode_payloads,
    payload_type,
};
pub use sa::{PROPOSALS_MAX, Proposal, TRANSFORMS_MAX, Transform, protocol_id, transform_type};
