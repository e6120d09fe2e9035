use super::key_schedule::IkeKeySet;
use super::proposal::IkeSuite;
use super::wire::{Encrypted, HEADER_BYTES, Header, Payload, encode_payloads, payload_type};
use crate::crypto::{Backend, CryptoError, IV_LEN, SaltedKey, TAG_LEN};

/// Bytes of the encrypted payload's generic header.
const GENERIC_HEADER_BYTES: usize = 4;

/// Seals and opens the encrypted payload (RFC 7296 3.14) with an AEAD (RFC 5282). Suites of
/// cipher and integrity algorithm would be a second kind of this.
pub struct Protection {
    ours: SaltedKey,
    theirs: SaltedKey,
    /// The next IV: a counter never repeats (RFC 5282 3.1).
    next_iv: u64,
}

impl Protection {
    pub fn new(suite: &IkeSuite, keys: &IkeKeySet, we_initiated: bool) -> Result<Protection, CryptoError> {
        let initiator = SaltedKey::new(Backend::RustCrypto, suite.encryption, keys.encryption_initiator.expose())?;
        let responder = SaltedKey::new(Backend::RustCrypto, suite.encryption, keys.encryption_responder.expose())?;
        let (ours, theirs) = if we_initiated { (initiator, responder) } else { (responder, initiator) };
        Ok(Protection { ours, theirs, next_iv: 0 })
    }

    /// A whole message.
    pub fn seal(&mut self, header: &Header, payloads: &[Payload]) -> Vec<u8> {
        let (first, mut body) = encode_payloads(payloads);
        // No padding: an AEAD in counter mode needs none, only its length byte (RFC 5282 3).
        body.push(0);
        let payload_bytes = GENERIC_HEADER_BYTES + IV_LEN + body.len() + TAG_LEN;
        let total = HEADER_BYTES + payload_bytes;
        let iv = self.next_iv.to_be_bytes();
        // At a billion messages a second it wraps after 500 years.
        self.next_iv = self.next_iv.wrapping_add(1);
        let mut message = Vec::with_capacity(total);
        message.extend_from_slice(&header.encode(payload_type::SK, total as u32));
        message.extend_from_slice(&[first, 0]);
        message.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        // RFC 5282 5.1: the associated data reaches to the end of the generic header.
        let Some(tag) = self.ours.seal(iv, &message, &mut body) else {
            unreachable!("our messages are kilobytes, the cipher's limit is 64 GiB")
        };
        message.extend_from_slice(&iv);
        message.extend_from_slice(&body);
        message.extend_from_slice(&tag);
        message
    }

    /// The payload chain inside; `None` when it was not sealed by the peer.
    pub fn open(&self, datagram: &[u8], encrypted: &Encrypted) -> Option<Vec<u8>> {
        let associated = datagram.get(..encrypted.body.start)?;
        let (iv, rest) = datagram.get(encrypted.body.clone())?.split_first_chunk::<IV_LEN>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let mut plain = ciphertext.to_vec();
        self.theirs.open(*iv, associated, &mut plain, tag).ok()?;
        let padding = usize::from(plain.pop()?);
        plain.truncate(plain.len().checked_sub(padding)?);
        Some(plain)
    }
}
