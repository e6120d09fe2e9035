use std::sync::LazyLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use zeroize::{Zeroize, Zeroizing};

use super::CryptoError;
use crate::model::{Chance, Secret};

const MODULUS_BITS: u32 = 2048;
const MODULUS_LEN: usize = 256;
/// The larger of the two exponent sizes that RFC 3526 8 estimates for the 2048-bit group.
const EXPONENT_BITS: u32 = 320;
const EXPONENT_LEN: usize = 40;

/// The prime of group 14: 2^2048 - 2^1984 - 1 + 2^64 * ([2^1918 pi] + 124476) (RFC 3526 3).
const MODP_2048: &str = concat!(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74",
    "020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437",
    "4fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed",
    "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf05",
    "98da48361c55d39a69163fa8fd24cf5f83655d23dca3ad961c62f356208552bb",
    "9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b",
    "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf695581718",
    "3995497cea956ae515d2261898fa051015728e5a8aacaa68ffffffffffffffff",
);

static PARAMETERS: LazyLock<BoxedMontyParams> = LazyLock::new(|| {
    let prime = BoxedUint::from_be_hex(MODP_2048, MODULUS_BITS).into_option().and_then(|p| Odd::new(p).into_option());
    BoxedMontyParams::new(prime.expect("the constant above is an odd number of 2048 bits"))
});

/// The private exponent of one exchange in group 14 (MODP-2048, generator 2). All arithmetic
/// with it is constant in time.
pub(super) struct Exponent(BoxedUint);

impl Exponent {
    pub(super) fn generate(chance: &mut Chance) -> Exponent {
        let bytes = Zeroizing::new(chance.bytes::<EXPONENT_LEN>());
        Exponent(BoxedUint::from_be_slice_truncated(bytes.as_slice(), EXPONENT_BITS))
    }

    /// 2^x mod p, padded on the left to the length of p (RFC 7296 3.4).
    pub(super) fn public(&self) -> Vec<u8> {
        let generator = BoxedUint::from_be_slice_truncated(&[2], MODULUS_BITS);
        self.power_of(generator)
    }

    /// y^x mod p, padded on the left to the length of p (RFC 7296 2.14).
    pub(super) fn agree(&self, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        if peer_public.len() != MODULUS_LEN {
            return Err(CryptoError::PublicValue);
        }
        let value = BoxedUint::from_be_slice_truncated(peer_public, MODULUS_BITS);
        // RFC 6989 2.1: 1 < y < p - 1. As p is a safe prime, that leaves no small subgroup.
        let one = BoxedUint::one_with_precision(MODULUS_BITS);
        let largest = PARAMETERS.modulus().as_ref().wrapping_sub(&one);
        if value <= one || value >= largest {
            return Err(CryptoError::PublicValue);
        }
        Ok(Secret::new(self.power_of(value)))
    }

    fn power_of(&self, base: BoxedUint) -> Vec<u8> {
        let mut power = BoxedMontyForm::new(base, &PARAMETERS).pow_bounded_exp(&self.0, EXPONENT_BITS);
        let mut value = power.retrieve();
        power.zeroize();
        let bytes = value.to_be_bytes().into_vec();
        value.zeroize();
        bytes
    }
}

impl Drop for Exponent {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex::hex;

    // Computed with Python's pow(), which also proved p and (p - 1) / 2 prime.
    const PUBLIC_A: &str = "
        1d90c64c88205c79ac765703345a2df120fd347a7347eb7d89c3a015e2770d5d422f0b862abe0fb1ab10b31cf0c9f776
        cacaa466a4f21e6775b1479be650f30d821fe004a39e431642b7df94adccdce11d3c2d929d3c6dfe6fb1e4c163751859
        44ff8e238574b426af4f0af597e6401c81f631dd5d859164f726a104a09090401851e5b25c37b098f2eb9fb75cee4c34
        5c47dc33e0aeef6ad7497721f9df05462a81b399f055c73ebf62b833512166935bf2280d200921be60e2bbf61da2fe84
        95547f62305e268f10e8c039fa8782aee0cd23c2281f02d1e931b8100d1f7c0a0019e2608a349712eb3a40647ed43dbc
        238061e4b66b3dc1ad95564a30955304";
    const PUBLIC_B: &str = "
        ccdb2e4d68f6f1329bc724b3094a87a9bc0e310b26a06805fff741cbb15bab369658f0620220b9980e8b4e84f22d31df
        bed23fbcc02cf6c43a017c3659beaa0e1aaeb2ad0a0c8aff08734baef3a01487b705dd3defc7f88dea094abdbfb151fa
        76dad8e08dca5f7b90688ea4508613c700223d4f6cceb814d8a7ed014df9c83b6e475efddddccaf8987e54a36e43749f
        b84426107419fdfa1000d85ba54c3d8007f41de9b828f7a8680e95343048d9cb360bafc1c1ce80ee8bbcb2bd1f9017c4
        fcb90c5c777ed7e941606430330ab66677a07c32b4f21bf6c5fe438b23ba33aff294e46bc192257c7a7bbbb1a5887287
        29436c454c3e5ab3952736f143197bf7";
    const SHARED: &str = "
        b520389988066164513c46e05c5ffd40755146f886b9b693da1c3407ecdf5232242a164a5fcf00cce8af4a66c0735a89
        e6e50055d41ab8840b8dc28434680964216e11b34fa176b693aa7ec7d5349843fff06d90127f38d0151ebbfb27a5bda0
        64e7e96cb11f5b169b990cd81803ae86699408c1e969daf41d305328b4db226b1bac6364cf7aa80332192a6d389d1691
        39d09feaf0f05f3182c15cc794632200154178eb76b598d86ec556b1fa6bc99d0ac55cfa70e3877edcd8a11d4604c6cc
        43c4254c0e12ec142a69b5b7ee4e3f7789daa0b82d0b53abae7110b6a00121c7617b74e89e2b996eca9c91ac826ad6e0
        fe28cfe47a3295e699236e15eaa9c58d";
    // (g^a)^65, the first power of g^a that begins with a zero byte.
    const SHARED_WITH_LEADING_ZERO: &str = "
        00dd5b265be48c33d8c03ed4cf31615fa29fe0daa2a9efffe0ffa11393d00cbab1490cb1dae30c13d272b21f15d88d03
        ecdec6e5ef3d19e16fd9ab4cb51d4b17a469f214c5fd42b390085ad40a322f4ebfc5281aa1fb6265397f957613ec4110
        ab9d7328d2d1dc86bb593911707025dc6a40632c1178cda4280b624ff43843c57e9b129d004f193131b1ab134ef4ccc5
        f3ee1c04c2f5b3a3ddfb6ca95547c37413440720249fdf7baf4622db3ff7865da6ad97abb2688cb06357140253146c40
        e9d2d1a9f4310df82509291b1a65febde038a97e3a70fa8c95efabe5d8a4c96b816823ae23da44d0419043c849fb324b
        6356e07d6ebb12745db3f769cebce3f8";

    fn exponent(bytes: &[u8]) -> Exponent {
        Exponent(BoxedUint::from_be_slice_truncated(bytes, EXPONENT_BITS))
    }

    fn a() -> Exponent {
        exponent(&std::array::from_fn::<u8, EXPONENT_LEN, _>(|i| (0x11 * i + 5) as u8))
    }

    fn b() -> Exponent {
        exponent(&std::array::from_fn::<u8, EXPONENT_LEN, _>(|i| (0x2f * i + 9) as u8))
    }

    #[test]
    fn public_values_and_shared_secret_agree_with_an_independent_implementation() {
        assert_eq!(a().public(), hex(PUBLIC_A));
        assert_eq!(b().public(), hex(PUBLIC_B));
        assert_eq!(a().agree(&hex(PUBLIC_B)).expect("in the group").expose(), hex(SHARED));
        assert_eq!(b().agree(&hex(PUBLIC_A)).expect("in the group").expose(), hex(SHARED));
    }

    #[test]
    fn values_keep_their_leading_zeros() {
        let shared = exponent(&[65]).agree(&hex(PUBLIC_A)).expect("in the group");
        assert_eq!(shared.expose(), hex(SHARED_WITH_LEADING_ZERO));
        let mut two = vec![0; MODULUS_LEN];
        two[MODULUS_LEN - 1] = 2;
        assert_eq!(exponent(&[1]).public(), two);
    }

    #[test]
    fn values_outside_two_to_p_minus_two_are_refused() {
        let prime = hex(MODP_2048);
        let near_prime = |below: u8| {
            let mut value = prime.clone();
            value[MODULUS_LEN - 1] -= below;
            value
        };
        let small = |value: u8| {
            let mut bytes = vec![0; MODULUS_LEN];
            bytes[MODULUS_LEN - 1] = value;
            bytes
        };
        for refused in [small(0), small(1), near_prime(1), near_prime(0), vec![0xff; MODULUS_LEN]] {
            assert!(matches!(a().agree(&refused), Err(CryptoError::PublicValue)), "{refused:x?}");
        }
        for taken in [small(2), near_prime(2)] {
            assert!(a().agree(&taken).is_ok(), "{taken:x?}");
        }
        for refused in [&prime[1..], &[], &[&[0], prime.as_slice()].concat()] {
            assert!(matches!(a().agree(refused), Err(CryptoError::PublicValue)));
        }
    }
}
