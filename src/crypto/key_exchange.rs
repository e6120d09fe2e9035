use std::fmt;

use zeroize::Zeroizing;

use super::modp::Exponent;
use super::{CryptoError, DhGroup};
use crate::model::{Chance, Secret};

/// Our half of one Diffie-Hellman exchange. It is used once: agreeing consumes it, and the
/// private part is wiped.
pub struct KeyExchange {
    private: Private,
    public: Vec<u8>,
}

enum Private {
    Modp2048(Exponent),
    Ecp256(p256::SecretKey),
    Ecp384(p384::SecretKey),
}

impl KeyExchange {
    /// Draws a private value. Costs a full public-key operation.
    pub fn generate(group: DhGroup, chance: &mut Chance) -> Result<KeyExchange, CryptoError> {
        let private = match group {
            DhGroup::Modp2048 => Private::Modp2048(Exponent::generate(chance)),
            DhGroup::Ecp256 => {
                Private::Ecp256(draw(chance, |bytes: &[u8; 32]| p256::SecretKey::from_slice(bytes).ok()))
            }
            DhGroup::Ecp384 => {
                Private::Ecp384(draw(chance, |bytes: &[u8; 48]| p384::SecretKey::from_slice(bytes).ok()))
            }
            DhGroup::Modp1024 | DhGroup::Modp1536 | DhGroup::Modp3072 | DhGroup::Modp4096 => {
                return Err(CryptoError::UnsupportedGroup(group));
            }
        };
        Ok(KeyExchange::of(private))
    }

    fn of(private: Private) -> KeyExchange {
        let public = match &private {
            Private::Modp2048(exponent) => exponent.public(),
            Private::Ecp256(key) => coordinates(&key.public_key().to_sec1_bytes()),
            Private::Ecp384(key) => coordinates(&key.public_key().to_sec1_bytes()),
        };
        KeyExchange { private, public }
    }

    pub fn group(&self) -> DhGroup {
        match self.private {
            Private::Modp2048(_) => DhGroup::Modp2048,
            Private::Ecp256(_) => DhGroup::Ecp256,
            Private::Ecp384(_) => DhGroup::Ecp384,
        }
    }

    /// Our public value as in a Key Exchange payload, `DhGroup::public_len` bytes.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret g^ir, padded to its full length: the power for MODP (RFC 7296 2.14), the
    /// x coordinate for ECP (RFC 5903 7).
    pub fn agree(self, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        match &self.private {
            Private::Modp2048(exponent) => exponent.agree(peer_public),
            Private::Ecp256(key) => {
                let point = uncompressed::<65>(peer_public)?;
                // Refuses what is not on the curve (RFC 6989 2.3); the cofactor is 1.
                let peer = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| CryptoError::PublicValue)?;
                Ok(Secret::new(key.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
            Private::Ecp384(key) => {
                let point = uncompressed::<97>(peer_public)?;
                let peer = p384::PublicKey::from_sec1_bytes(&point).map_err(|_| CryptoError::PublicValue)?;
                Ok(Secret::new(key.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
        }
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyExchange").field("group", &self.group()).finish_non_exhaustive()
    }
}

/// Draws until the bytes are a scalar between 1 and the order, which nearly all are: each is
/// equally likely.
fn draw<const N: usize, K>(chance: &mut Chance, key: impl Fn(&[u8; N]) -> Option<K>) -> K {
    loop {
        let bytes = Zeroizing::new(chance.bytes::<N>());
        if let Some(key) = key(&bytes) {
            return key;
        }
    }
}

/// IKE sends x and y alone (RFC 5903 7), where SEC 1 puts a 4 in front for "uncompressed".
fn coordinates(sec1: &[u8]) -> Vec<u8> {
    sec1.get(1..).unwrap_or_default().to_vec()
}

fn uncompressed<const N: usize>(coordinates: &[u8]) -> Result<[u8; N], CryptoError> {
    let mut point = [0; N];
    let (form, place) = point.split_at_mut(1);
    if place.len() != coordinates.len() {
        return Err(CryptoError::PublicValue);
    }
    form.fill(4);
    place.copy_from_slice(coordinates);
    Ok(point)
}
