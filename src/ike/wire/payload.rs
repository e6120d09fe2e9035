use super::identity::IdBody;
use super::notify::{Notify, NotifyType};
use super::reader::Reader;
use super::sa::Proposal;
use super::{WireError, sa, selector};
use crate::model::TrafficSelector;

/// 64 payloads in a message: the fullest that we have seen has some 20.
pub const PAYLOADS_MAX: usize = 64;
/// 512 SPIs in a DELETE: an IKE SA here has at most a handful of Child SAs.
pub const DELETE_SPIS_MAX: usize = 512;
/// Nonces have 16 to 256 bytes (RFC 7296 3.9).
pub const NONCE_BYTES_MIN: usize = 16;
pub const NONCE_BYTES_MAX: usize = 256;

const CRITICAL: u8 = 0x80;

/// Payload types (RFC 7296 3.2).
pub mod payload_type {
    pub const NONE: u8 = 0;
    pub const SA: u8 = 33;
    pub const KE: u8 = 34;
    pub const IDI: u8 = 35;
    pub const IDR: u8 = 36;
    pub const CERT: u8 = 37;
    pub const AUTH: u8 = 39;
    pub const NONCE: u8 = 40;
    pub const NOTIFY: u8 = 41;
    pub const DELETE: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const TSI: u8 = 44;
    pub const TSR: u8 = 45;
    pub const SK: u8 = 46;
    pub const EAP: u8 = 48;
}

/// A payload of an IKE message, without the encrypted one, which is a frame around others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    Sa(Vec<Proposal>),
    KeyExchange {
        group: u16,
        data: Vec<u8>,
    },
    IdInitiator(IdBody),
    IdResponder(IdBody),
    Auth {
        method: u8,
        data: Vec<u8>,
    },
    Nonce(Vec<u8>),
    Notify(Notify),
    Delete {
        protocol: u8,
        spis: Vec<u32>,
    },
    Vendor(Vec<u8>),
    SelectorsInitiator(Vec<TrafficSelector>),
    SelectorsResponder(Vec<TrafficSelector>),
    /// Certificates, configuration, EAP, and unknown types that are not critical: carried, unread.
    Other {
        kind: u8,
        body: Vec<u8>,
    },
}

impl Payload {
    pub fn kind(&self) -> u8 {
        match self {
            Payload::Sa(_) => payload_type::SA,
            Payload::KeyExchange { .. } => payload_type::KE,
            Payload::IdInitiator(_) => payload_type::IDI,
            Payload::IdResponder(_) => payload_type::IDR,
            Payload::Auth { .. } => payload_type::AUTH,
            Payload::Nonce(_) => payload_type::NONCE,
            Payload::Notify(_) => payload_type::NOTIFY,
            Payload::Delete { .. } => payload_type::DELETE,
            Payload::Vendor(_) => payload_type::VENDOR,
            Payload::SelectorsInitiator(_) => payload_type::TSI,
            Payload::SelectorsResponder(_) => payload_type::TSR,
            Payload::Other { kind, .. } => *kind,
        }
    }

    pub fn notify(kind: NotifyType) -> Payload {
        Payload::Notify(Notify::new(kind))
    }
}

/// One generic payload header and its body (RFC 7296 3.2).
pub(super) struct Framed<'a> {
    pub kind: u8,
    pub next: u8,
    pub critical: bool,
    pub body: &'a [u8],
}

pub(super) fn next_framed<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Framed<'a>, WireError> {
    let next = reader.u8()?;
    let critical = reader.u8()? & CRITICAL != 0;
    let length = reader.u16()?;
    let body = reader.sub(length, 4)?.rest();
    Ok(Framed { kind, next, critical, body })
}

/// The chain of payloads of a decrypted body; the first has type `first`.
pub fn decode_payloads(first: u8, bytes: &[u8]) -> Result<Vec<Payload>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut payloads = Vec::new();
    let mut kind = first;
    while kind != payload_type::NONE {
        if payloads.len() == PAYLOADS_MAX {
            return Err(WireError::TooMany);
        }
        let framed = next_framed(kind, &mut reader)?;
        kind = framed.next;
        payloads.push(decode_payload(&framed)?);
    }
    if !reader.is_empty() {
        return Err(WireError::BadLength);
    }
    Ok(payloads)
}

pub(super) fn decode_payload(framed: &Framed<'_>) -> Result<Payload, WireError> {
    let mut body = Reader::new(framed.body);
    Ok(match framed.kind {
        payload_type::SA => Payload::Sa(sa::decode(framed.body)?),
        payload_type::KE => {
            let group = body.u16()?;
            body.u16()?;
            Payload::KeyExchange { group, data: body.rest().to_vec() }
        }
        payload_type::IDI => Payload::IdInitiator(decode_id(&mut body)?),
        payload_type::IDR => Payload::IdResponder(decode_id(&mut body)?),
        payload_type::AUTH => {
            let method = body.u8()?;
            body.take(3)?;
            Payload::Auth { method, data: body.rest().to_vec() }
        }
        payload_type::NONCE => {
            if !(NONCE_BYTES_MIN..=NONCE_BYTES_MAX).contains(&framed.body.len()) {
                return Err(WireError::BadLength);
            }
            Payload::Nonce(framed.body.to_vec())
        }
        payload_type::NOTIFY => {
            let protocol = body.u8()?;
            let spi_bytes = body.u8()?;
            let kind = NotifyType(body.u16()?);
            let spi = body.take(usize::from(spi_bytes))?.to_vec();
            Payload::Notify(Notify { protocol, spi, kind, data: body.rest().to_vec() })
        }
        payload_type::DELETE => decode_delete(&mut body)?,
        payload_type::VENDOR => Payload::Vendor(framed.body.to_vec()),
        payload_type::TSI => Payload::SelectorsInitiator(selector::decode(framed.body)?),
        payload_type::TSR => Payload::SelectorsResponder(selector::decode(framed.body)?),
        payload_type::SK => return Err(WireError::NestedEncrypted),
        // RFC 7296 2.5: the critical bit of types that the RFC defines is ignored; an unknown
        // critical payload rejects the message.
        kind => {
            if framed.critical && !(payload_type::SA..=payload_type::EAP).contains(&kind) {
                return Err(WireError::UnsupportedCritical(kind));
            }
            Payload::Other { kind, body: framed.body.to_vec() }
        }
    })
}

fn decode_id(body: &mut Reader<'_>) -> Result<IdBody, WireError> {
    let kind = body.u8()?;
    let reserved = body.array()?;
    Ok(IdBody { kind, reserved, data: body.rest().to_vec() })
}

fn decode_delete(body: &mut Reader<'_>) -> Result<Payload, WireError> {
    let protocol = body.u8()?;
    let spi_bytes = body.u8()?;
    let count = usize::from(body.u16()?);
    if count > DELETE_SPIS_MAX {
        return Err(WireError::TooMany);
    }
    let spis = match (protocol, spi_bytes) {
        // RFC 7296 3.11: an IKE SA is named by the message's own header.
        (sa::protocol_id::IKE, 0) if count == 0 => Vec::new(),
        (sa::protocol_id::AH | sa::protocol_id::ESP, 4) => {
            (0..count).map(|_| body.u32()).collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(WireError::BadValue),
    };
    if !body.is_empty() {
        return Err(WireError::BadLength);
    }
    Ok(Payload::Delete { protocol, spis })
}

/// The type of the first payload, and the chain.
pub fn encode_payloads(payloads: &[Payload]) -> (u8, Vec<u8>) {
    let mut out = Vec::with_capacity(256);
    for (index, payload) in payloads.iter().enumerate() {
        let start = out.len();
        let next = payloads.get(index + 1).map_or(payload_type::NONE, Payload::kind);
        out.extend_from_slice(&[next, 0, 0, 0]);
        encode_body(payload, &mut out);
        let length = ((out.len() - start) as u16).to_be_bytes();
        out[start + 2..start + 4].copy_from_slice(&length);
    }
    (payloads.first().map_or(payload_type::NONE, Payload::kind), out)
}

fn encode_body(payload: &Payload, out: &mut Vec<u8>) {
    match payload {
        Payload::Sa(proposals) => sa::encode(proposals, out),
        Payload::KeyExchange { group, data } => {
            out.extend_from_slice(&group.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(data);
        }
        Payload::IdInitiator(body) | Payload::IdResponder(body) => out.extend_from_slice(&body.encode()),
        Payload::Auth { method, data } => {
            out.extend_from_slice(&[*method, 0, 0, 0]);
            out.extend_from_slice(data);
        }
        Payload::Nonce(body) | Payload::Vendor(body) | Payload::Other { body, .. } => out.extend_from_slice(body),
        Payload::Notify(notify) => {
            out.extend_from_slice(&[notify.protocol, notify.spi.len() as u8]);
            out.extend_from_slice(&notify.kind.0.to_be_bytes());
            out.extend_from_slice(&notify.spi);
            out.extend_from_slice(&notify.data);
        }
        Payload::Delete { protocol, spis } => {
            let spi_bytes = if *protocol == sa::protocol_id::IKE { 0 } else { 4 };
            out.extend_from_slice(&[*protocol, spi_bytes]);
            out.extend_from_slice(&(spis.len() as u16).to_be_bytes());
            for spi in spis {
                out.extend_from_slice(&spi.to_be_bytes());
            }
        }
        Payload::SelectorsInitiator(selectors) | Payload::SelectorsResponder(selectors) => {
            selector::encode(selectors, out);
        }
    }
}
