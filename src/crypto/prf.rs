use std::iter::once;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroize;

use super::PrfAlgorithm;
use crate::model::Secret;

/// The block counter of prf+ is one byte (RFC 7296 2.13).
pub const MAX_EXPANSION_BLOCKS: usize = 255;

/// The pseudo-random function of an IKE SA: HMAC with one of the SHA functions, at full length
/// (RFC 2404, RFC 4868).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prf(PrfAlgorithm);

impl Prf {
    pub const fn new(algorithm: PrfAlgorithm) -> Prf {
        Prf(algorithm)
    }

    pub const fn algorithm(self) -> PrfAlgorithm {
        self.0
    }

    /// Bytes of one output; also the preferred key length, and so the length of SK_d, SK_pi and
    /// SK_pr (RFC 7296 2.14).
    pub const fn output_len(self) -> usize {
        self.0.output_len()
    }

    /// prf(key, data), where the data is the concatenation of `parts`. Keys of any length are
    /// fine.
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        match self.0 {
            PrfAlgorithm::Sha1 => hmac::<Hmac<Sha1>>(key, parts),
            PrfAlgorithm::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
            PrfAlgorithm::Sha384 => hmac::<Hmac<Sha384>>(key, parts),
            PrfAlgorithm::Sha512 => hmac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// prf+(key, seed) of RFC 7296 2.13, cut to `length` bytes; `None` when that takes more than
    /// `MAX_EXPANSION_BLOCKS`.
    pub fn expand(self, key: &[u8], seed: &[&[u8]], length: usize) -> Option<Secret> {
        if length > self.output_len().saturating_mul(MAX_EXPANSION_BLOCKS) {
            return None;
        }
        let mut output = vec![0; length];
        let mut block = Secret::new(Vec::new());
        for (place, counter) in output.chunks_mut(self.output_len()).zip(1..=u8::MAX) {
            // T1 = prf(key, seed | 0x01), Tn = prf(key, Tn-1 | seed | n)
            let counter = [counter];
            let parts: Vec<&[u8]> =
                once(block.expose()).chain(seed.iter().copied()).chain(once(counter.as_slice())).collect();
            let next = self.compute(key, &parts);
            for (to, from) in place.iter_mut().zip(next.expose()) {
                *to = *from;
            }
            block = next;
        }
        Some(Secret::new(output))
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length (RFC 2104 2)")
    };
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize().into_bytes();
    let secret = Secret::new(output.to_vec());
    output.as_mut_slice().zeroize();
    secret
}
