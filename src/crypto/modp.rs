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
