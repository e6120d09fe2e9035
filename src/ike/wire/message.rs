use std::ops::Range;

use super::WireError;
use super::header::{HEADER_BYTES, Header};
use super::payload::{PAYLOADS_MAX, Payload, decode_payload, encode_payloads, next_framed, payload_type};
use super::reader::Reader;

/// A whole datagram as it was on the wire: the payloads in clear, and where the encrypted one is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub header: Header,
    pub payloads: Vec<Payload>,
    pub encrypted: Option<Encrypted>,
}

/// The encrypted payload (RFC 7296 3.14), always the last one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// Type of the first payload inside.
    pub first: u8,
    /// Where its body stands in the datagram: IV, ciphertext, integrity check value.
    pub body: Range<usize>,
}

impl Message {
    /// Decodes any datagram. Never panics; allocates in proportion to the datagram at most.
    pub fn decode(datagram: &[u8]) -> Result<Message, WireError> {
        let (header, first) = Header::decode(datagram)?;
        let mut reader = Reader::new(datagram);
        reader.take(HEADER_BYTES)?;
        let mut payloads = Vec::new();
        let mut kind = first;
        while kind != payload_type::NONE {
            if payloads.len() == PAYLOADS_MAX {
                return Err(WireError::TooMany);
            }
            let framed = next_framed(kind, &mut reader)?;
            if kind == payload_type::SK {
                // Its "next payload" is the first one inside, so it ends the chain.
                if !reader.is_empty() {
                    return Err(WireError::AfterEncrypted);
                }
                let body = datagram.len() - framed.body.len()..datagram.len();
                return Ok(Message { header, payloads, encrypted: Some(Encrypted { first: framed.next, body }) });
            }
            kind = framed.next;
            payloads.push(decode_payload(&framed)?);
        }
        if !reader.is_empty() {
            return Err(WireError::BadLength);
        }
        Ok(Message { header, payloads, encrypted: None })
    }
}

/// A message without an encrypted payload, as IKE_SA_INIT uses it.
pub fn encode_clear(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let (first, body) = encode_payloads(payloads);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header.encode(first, (HEADER_BYTES + body.len()) as u32));
    bytes.extend_from_slice(&body);
    bytes
}
