use std::fmt;

use super::{CBC_BLOCK, CryptoError, Encryption, Integrity, TAG_LEN};

/// What protects the packets of a Child SA: an AEAD, or CBC encryption with an integrity
/// algorithm beside it. No other combination exists as a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketSuite {
    encryption: Encryption,
    integrity: Option<Integrity>,
}

impl PacketSuite {
    /// Every suite there is, the AEADs first.
    pub const ALL: [PacketSuite; 11] = [
        aead(Encryption::AesGcm256),
        aead(Encryption::AesGcm128),
        aead(Encryption::ChaCha20Poly1305),
        cbc(Encryption::AesCbc256, Integrity::Sha512),
        cbc(Encryption::AesCbc256, Integrity::Sha384),
        cbc(Encryption::AesCbc256, Integrity::Sha256),
        cbc(Encryption::AesCbc256, Integrity::Sha1),
        cbc(Encryption::AesCbc128, Integrity::Sha512),
        cbc(Encryption::AesCbc128, Integrity::Sha384),
        cbc(Encryption::AesCbc128, Integrity::Sha256),
        cbc(Encryption::AesCbc128, Integrity::Sha1),
    ];

    /// An AEAD takes no integrity algorithm, CBC must have one (RFC 7296 3.3.3, RFC 8221 5).
    pub fn new(encryption: Encryption, integrity: Option<Integrity>) -> Result<PacketSuite, CryptoError> {
        if encryption.is_aead() == integrity.is_none() {
            Ok(PacketSuite { encryption, integrity })
        } else {
            Err(CryptoError::Integrity(encryption))
        }
    }

    pub const fn encryption(self) -> Encryption {
        self.encryption
    }

    pub const fn integrity(self) -> Option<Integrity> {
        self.integrity
    }

    /// Bytes to derive for each direction: the encryption key with its salt, then the integrity
    /// key (RFC 7296 2.17).
    pub const fn keymat_len(self) -> usize {
        match self.integrity {
            None => self.encryption.keymat_len(),
            Some(integrity) => self.encryption.keymat_len() + integrity.key_len(),
        }
    }

    /// Bytes of initialization vector between the clear part and the encrypted part.
    pub const fn iv_len(self) -> usize {
        self.encryption.iv_len()
    }

    /// The encrypted part of an ESP packet has a multiple of as many bytes: whole blocks, and
    /// never less than 4 bytes (RFC 4303 2.4, RFC 3602 2.4).
    pub const fn alignment(self) -> usize {
        match self.integrity {
            None => 4,
            Some(_) => CBC_BLOCK,
        }
    }

    /// Bytes of integrity check value at the end.
    pub const fn icv_len(self) -> usize {
        match self.integrity {
            None => TAG_LEN,
            Some(integrity) => integrity.icv_len(),
        }
    }
}

const fn aead(encryption: Encryption) -> PacketSuite {
    PacketSuite { encryption, integrity: None }
}

const fn cbc(encryption: Encryption, integrity: Integrity) -> PacketSuite {
    PacketSuite { encryption, integrity: Some(integrity) }
}

impl fmt::Display for PacketSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.integrity {
            None => f.write_str(self.encryption.name()),
            Some(integrity) => write!(f, "{} with {}", self.encryption.name(), integrity.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_are_the_legal_combinations_and_each_is_there_once() {
        let mut legal = BTreeSet::new();
        for encryption in Encryption::ALL {
            let beside = Integrity::ALL.iter().map(|one| Some(*one)).chain([None]);
            for integrity in beside {
                match PacketSuite::new(*encryption, integrity) {
                    Ok(suite) => assert!(legal.insert(suite)),
                    Err(error) => assert_eq!(error, CryptoError::Integrity(*encryption)),
                }
            }
        }
        assert_eq!(legal, PacketSuite::ALL.into_iter().collect());
        assert_eq!(legal.len(), PacketSuite::ALL.len());
    }

    // RFC 4106 4 to 8, RFC 7634 2, RFC 3602 2 and 5.1, RFC 2404, RFC 4868 2.6.
    #[test]
    fn lengths_are_those_of_the_rfcs() {
        let lengths = |encryption, integrity| {
            let suite = PacketSuite::new(encryption, integrity).expect("they go together");
            (suite.keymat_len(), suite.iv_len(), suite.alignment(), suite.icv_len())
        };
        assert_eq!(lengths(Encryption::AesGcm128, None), (20, 8, 4, 16));
        assert_eq!(lengths(Encryption::AesGcm256, None), (36, 8, 4, 16));
        assert_eq!(lengths(Encryption::ChaCha20Poly1305, None), (36, 8, 4, 16));
        assert_eq!(lengths(Encryption::AesCbc128, Some(Integrity::Sha1)), (36, 16, 16, 12));
        assert_eq!(lengths(Encryption::AesCbc128, Some(Integrity::Sha256)), (48, 16, 16, 16));
        assert_eq!(lengths(Encryption::AesCbc256, Some(Integrity::Sha384)), (80, 16, 16, 24));
        assert_eq!(lengths(Encryption::AesCbc256, Some(Integrity::Sha512)), (96, 16, 16, 32));
    }

    #[test]
    fn a_suite_is_shown_by_the_names_of_its_parts() {
        let shown = PacketSuite::ALL.map(|suite| suite.to_string());
        assert_eq!(shown[0], "aes-gcm-256");
        assert_eq!(shown[5], "aes-cbc-256 with sha2-256");
    }
}
