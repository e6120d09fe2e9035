use super::WireError;
use super::reader::Reader;

/// 64 proposals in an SA payload: strongSwan's defaults are 2 to 4, Windows sends some 20.
pub const PROPOSALS_MAX: usize = 64;
/// 128 transforms in a proposal: strongSwan's defaults are some 40.
pub const TRANSFORMS_MAX: usize = 128;

/// Values of the protocol field (RFC 7296 3.3.1).
pub mod protocol_id {
    pub const NONE: u8 = 0;
    pub const IKE: u8 = 1;
    pub const AH: u8 = 2;
    pub const ESP: u8 = 3;
}

/// Transform types (RFC 7296 3.3.2).
pub mod transform_type {
    pub const ENCRYPTION: u8 = 1;
    pub const PRF: u8 = 2;
    pub const INTEGRITY: u8 = 3;
    pub const KEY_EXCHANGE: u8 = 4;
    pub const ESN: u8 = 5;
}

const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;
const ATTRIBUTE_SHORT: u16 = 0x8000;
const ATTRIBUTE_KEY_LENGTH: u16 = 14;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Counts from 1; an answer carries the number of the chosen one.
    pub number: u8,
    pub protocol: u8,
    /// Empty in IKE_SA_INIT, 8 bytes in an IKE SA rekey, 4 bytes for ESP.
    pub spi: Vec<u8>,
    pub transforms: Vec<Transform>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transform {
    pub kind: u8,
    pub id: u16,
    pub key_bits: Option<u16>,
    /// It has an attribute that we do not know: never to be chosen (RFC 7296 3.3.6).
    pub foreign: bool,
}

impl Transform {
    pub const fn new(kind: u8, id: u16) -> Transform {
        Transform { kind, id, key_bits: None, foreign: false }
    }
}

pub(super) fn decode(body: &[u8]) -> Result<Vec<Proposal>, WireError> {
    let mut reader = Reader::new(body);
    let mut proposals = Vec::new();
    loop {
        if proposals.len() == PROPOSALS_MAX {
            return Err(WireError::TooMany);
        }
        let more = reader.u8()?;
        reader.u8()?;
        let length = reader.u16()?;
        let mut inner = reader.sub(length, 4)?;
        proposals.push(decode_proposal(&mut inner)?);
        match (more, reader.is_empty()) {
            (0, true) => return Ok(proposals),
            (MORE_PROPOSALS, false) => {}
            _ => return Err(WireError::BadLength),
        }
    }
}

fn decode_proposal(reader: &mut Reader<'_>) -> Result<Proposal, WireError> {
    let number = reader.u8()?;
    let protocol = reader.u8()?;
    let spi_bytes = reader.u8()?;
    let count = usize::from(reader.u8()?);
    if count > TRANSFORMS_MAX {
        return Err(WireError::TooMany);
    }
    let spi = reader.take(usize::from(spi_bytes))?.to_vec();
    let mut transforms = Vec::with_capacity(count);
    for index in 1..=count {
        let more = reader.u8()?;
        let expected = if index == count { 0 } else { MORE_TRANSFORMS };
        if more != expected {
            return Err(WireError::BadLength);
        }
        reader.u8()?;
        let length = reader.u16()?;
        let mut inner = reader.sub(length, 4)?;
        transforms.push(decode_transform(&mut inner)?);
    }
    if !reader.is_empty() {
        return Err(WireError::BadLength);
    }
    Ok(Proposal { number, protocol, spi, transforms })
}

fn decode_transform(reader: &mut Reader<'_>) -> Result<Transform, WireError> {
    let kind = reader.u8()?;
    reader.u8()?;
    let mut transform = Transform::new(kind, reader.u16()?);
    while !reader.is_empty() {
        let attribute = reader.u16()?;
        let value = reader.u16()?;
        if attribute == ATTRIBUTE_SHORT | ATTRIBUTE_KEY_LENGTH && transform.key_bits.is_none() {
            transform.key_bits = Some(value);
            continue;
        }
        transform.foreign = true;
        if attribute & ATTRIBUTE_SHORT == 0 {
            // The long form: what was read as the value is the length of what follows.
            reader.take(usize::from(value))?;
        }
    }
    Ok(transform)
}

pub(super) fn encode(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (index, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        out.push(if index + 1 == proposals.len() { 0 } else { MORE_PROPOSALS });
        out.extend_from_slice(&[0, 0, 0, proposal.number, proposal.protocol]);
        out.push(proposal.spi.len() as u8);
        out.push(proposal.transforms.len() as u8);
        out.extend_from_slice(&proposal.spi);
        for (index, transform) in proposal.transforms.iter().enumerate() {
            let more = if index + 1 == proposal.transforms.len() { 0 } else { MORE_TRANSFORMS };
            let length: u16 = if transform.key_bits.is_some() { 12 } else { 8 };
            out.extend_from_slice(&[more, 0]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&[transform.kind, 0]);
            out.extend_from_slice(&transform.id.to_be_bytes());
            if let Some(bits) = transform.key_bits {
                out.extend_from_slice(&(ATTRIBUTE_SHORT | ATTRIBUTE_KEY_LENGTH).to_be_bytes());
                out.extend_from_slice(&bits.to_be_bytes());
            }
        }
        let length = ((out.len() - start) as u16).to_be_bytes();
        out[start + 2..start + 4].copy_from_slice(&length);
    }
}
