use super::WireError;
use super::reader::Reader;

/// Bytes of the fixed IKE header (RFC 7296 3.1).
pub const HEADER_BYTES: usize = 28;

/// 16 KiB: a message with every payload that we can use stays below 2 KiB, peers with many
/// certificates reach some 10 KiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;
const VERSION_2_0: u8 = 0x20;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exchange {
    IkeSaInit,
    IkeAuth,
    CreateChildSa,
    Informational,
    Other(u8),
}

impl Exchange {
    pub const fn of_number(number: u8) -> Exchange {
        match number {
            34 => Exchange::IkeSaInit,
            35 => Exchange::IkeAuth,
            36 => Exchange::CreateChildSa,
            37 => Exchange::Informational,
            other => Exchange::Other(other),
        }
    }

    pub const fn number(self) -> u8 {
        match self {
            Exchange::IkeSaInit => 34,
            Exchange::IkeAuth => 35,
            Exchange::CreateChildSa => 36,
            Exchange::Informational => 37,
            Exchange::Other(other) => other,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Exchange::IkeSaInit => "IKE_SA_INIT",
            Exchange::IkeAuth => "IKE_AUTH",
            Exchange::CreateChildSa => "CREATE_CHILD_SA",
            Exchange::Informational => "INFORMATIONAL",
            Exchange::Other(_) => "an unknown exchange",
        }
    }
}

/// The fixed header without what follows from the message: version, next payload, length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub initiator_spi: u64,
    /// 0 in the first request of an IKE SA.
    pub responder_spi: u64,
    pub exchange: Exchange,
    /// The sender is the original initiator of the IKE SA.
    pub from_initiator: bool,
    pub response: bool,
    pub message_id: u32,
}

impl Header {
    /// The header of a whole datagram, and the type of its first payload. The length field must
    /// be that of the datagram.
    pub fn decode(datagram: &[u8]) -> Result<(Header, u8), WireError> {
        if datagram.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooMany);
        }
        let mut reader = Reader::new(datagram);
        let initiator_spi = reader.u64()?;
        let responder_spi = reader.u64()?;
        let first = reader.u8()?;
        let version = reader.u8()?;
        // RFC 7296 3.1: the minor version is to be ignored.
        if version >> 4 != 2 {
            return Err(WireError::Version(version >> 4));
        }
        let exchange = Exchange::of_number(reader.u8()?);
        let flags = reader.u8()?;
        let message_id = reader.u32()?;
        let length = reader.u32()?;
        if usize::try_from(length) != Ok(datagram.len()) {
            return Err(WireError::BadLength);
        }
        // RFC 7296 3.1: an initiator's SPI is never zero.
        if initiator_spi == 0 {
            return Err(WireError::BadValue);
        }
        let header = Header {
            initiator_spi,
            responder_spi,
            exchange,
            from_initiator: flags & FLAG_INITIATOR != 0,
            response: flags & FLAG_RESPONSE != 0,
            message_id,
        };
        Ok((header, first))
    }

    /// `length` is that of the whole message.
    pub fn encode(&self, first_payload: u8, length: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut flags = 0;
        if self.from_initiator {
            flags |= FLAG_INITIATOR;
        }
        if self.response {
            flags |= FLAG_RESPONSE;
        }
        bytes[0..8].copy_from_slice(&self.initiator_spi.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.responder_spi.to_be_bytes());
        bytes[16] = first_payload;
        bytes[17] = VERSION_2_0;
        bytes[18] = self.exchange.number();
        bytes[19] = flags;
        bytes[20..24].copy_from_slice(&self.message_id.to_be_bytes());
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}
