use std::fmt;

use super::cbc::CbcKey;
use super::integrity_key::IntegrityKey;
use super::{Backend, BadTag, CBC_BLOCK, CryptoError, IV_LEN, PacketSuite, SaltedKey, TAG_LEN};

/// Seals and opens packets in place, whatever the suite. A packet is its clear part, which is
/// authenticated and not encrypted, the initialization vector, the encrypted part and the
/// integrity check value, in this order and without gaps. Nothing is allocated per packet, every
/// key schedule is made once, and keys are wiped on drop.
pub struct PacketCipher {
    suite: PacketSuite,
    keys: Keys,
}

enum Keys {
    Aead(SaltedKey),
    CbcHmac { encryption: CbcKey, integrity: IntegrityKey },
}

impl PacketCipher {
    /// `keymat` has `PacketSuite::keymat_len` bytes, the encryption key first (RFC 7296 2.17).
    pub fn new(backend: Backend, suite: PacketSuite, keymat: &[u8]) -> Result<PacketCipher, CryptoError> {
        let wrong_length = CryptoError::KeyLength { expected: suite.keymat_len(), found: keymat.len() };
        if keymat.len() != suite.keymat_len() {
            return Err(wrong_length);
        }
        let encryption = suite.encryption();
        let keys = match suite.integrity() {
            None => Keys::Aead(SaltedKey::new(backend, encryption, keymat)?),
            Some(integrity) => {
                let (first, second) = keymat.split_at_checked(encryption.keymat_len()).ok_or(wrong_length)?;
                let encryption = CbcKey::new(backend, encryption, first)?;
                Keys::CbcHmac { encryption, integrity: IntegrityKey::new(backend, integrity, second)? }
            }
        };
        Ok(PacketCipher { suite, keys })
    }

    /// Encrypts and authenticates `packet`, of which the first `clear_len` bytes are the clear
    /// part; writes the initialization vector and the check value into their places. `sequence`
    /// must never repeat under one key. `None` when the packet has no room for them, is not
    /// aligned as its suite needs, or exceeds 64 GiB.
    pub fn seal(&self, sequence: u64, clear_len: usize, packet: &mut [u8]) -> Option<()> {
        match &self.keys {
            Keys::Aead(key) => {
                let (clear, rest) = packet.split_at_mut_checked(clear_len)?;
                let (iv, rest) = rest.split_first_chunk_mut::<IV_LEN>()?;
                let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
                // A number that never repeats is all that these need (RFC 4106 3.1, RFC 7634 2).
                *iv = sequence.to_be_bytes();
                *tag = key.seal(*iv, clear, body)?;
            }
            Keys::CbcHmac { encryption, integrity } => {
                let (message, icv) = split_icv(packet, self.suite.icv_len())?;
                let chain = message.get_mut(clear_len..)?;
                // RFC 3602 3: nobody may be able to predict the IV. So it is the number, encrypted
                // (NIST SP 800-38A, appendix C), which is what the chain makes of it when it
                // begins there instead of at the first block of the packet.
                let (iv, body) = chain.split_first_chunk_mut::<CBC_BLOCK>()?;
                if body.is_empty() || !body.len().is_multiple_of(CBC_BLOCK) {
                    return None;
                }
                *iv = u128::from(sequence).to_be_bytes();
                encryption.encrypt([0; CBC_BLOCK], chain)?;
                integrity.sign(message, icv)?;
            }
        }
        Some(())
    }

    /// Checks `packet` and gives its decrypted part. After a `BadTag` the contents of `packet`
    /// mean nothing.
    pub fn open<'a>(&self, clear_len: usize, packet: &'a mut [u8]) -> Result<&'a mut [u8], BadTag> {
        match &self.keys {
            Keys::Aead(key) => {
                let (clear, rest) = packet.split_at_mut_checked(clear_len).ok_or(BadTag)?;
                let (iv, rest) = rest.split_first_chunk_mut::<IV_LEN>().ok_or(BadTag)?;
                let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(BadTag)?;
                key.open(*iv, clear, body, tag)?;
                Ok(body)
            }
            Keys::CbcHmac { encryption, integrity } => {
                let (message, icv) = split_icv(packet, self.suite.icv_len()).ok_or(BadTag)?;
                // RFC 4303 3.4.4.1: the check comes first, so that nothing that a forger sends is
                // ever decrypted and no padding of his is looked at.
                integrity.verify(message, icv)?;
                let chain = message.get_mut(clear_len..).ok_or(BadTag)?;
                let (iv, body) = chain.split_first_chunk_mut::<CBC_BLOCK>().ok_or(BadTag)?;
                encryption.decrypt(*iv, body).ok_or(BadTag)?;
                Ok(body)
            }
        }
    }

    pub const fn suite(&self) -> PacketSuite {
        self.suite
    }
}

fn split_icv(packet: &mut [u8], icv_len: usize) -> Option<(&mut [u8], &mut [u8])> {
    packet.split_at_mut_checked(packet.len().checked_sub(icv_len)?)
}

impl fmt::Debug for PacketCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketCipher({})", self.suite)
    }
}
