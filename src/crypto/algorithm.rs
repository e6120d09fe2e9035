use std::fmt;

use super::{CBC_BLOCK, IV_LEN, SALT_LEN};

/// Encryption algorithms that the seeds name, and ChaCha20-Poly1305 for peers without AES in their
/// hardware (IKEv2 transform type 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Encryption {
    AesGcm128,
    AesGcm256,
    ChaCha20Poly1305,
    AesCbc128,
    AesCbc256,
}

impl Encryption {
    pub const ALL: &[Encryption] = &[
        Encryption::AesGcm256,
        Encryption::AesGcm128,
        Encryption::ChaCha20Poly1305,
        Encryption::AesCbc256,
        Encryption::AesCbc128,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Encryption::AesGcm128 => "aes-gcm-128",
            Encryption::AesGcm256 => "aes-gcm-256",
            Encryption::ChaCha20Poly1305 => "chacha20-poly1305",
            Encryption::AesCbc128 => "aes-cbc-128",
            Encryption::AesCbc256 => "aes-cbc-256",
        }
    }

    /// Encrypts and authenticates in one step, so that it takes no integrity algorithm.
    pub const fn is_aead(self) -> bool {
        match self {
            Encryption::AesGcm128 | Encryption::AesGcm256 | Encryption::ChaCha20Poly1305 => true,
            Encryption::AesCbc128 | Encryption::AesCbc256 => false,
        }
    }

    pub const fn key_bits(self) -> u16 {
        match self {
            Encryption::AesGcm128 | Encryption::AesCbc128 => 128,
            Encryption::AesGcm256 | Encryption::ChaCha20Poly1305 | Encryption::AesCbc256 => 256,
        }
    }

    /// What can be negotiated today; `PacketCipher` can do all.
    pub const SUPPORTED: &[Encryption] = &[Encryption::AesGcm256, Encryption::AesGcm128];

    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// IKEv2 transform number; see `key_length_attribute`. AES-GCM is meant with a 16-byte tag
    /// (RFC 5282, RFC 4106).
    pub const fn transform_id(self) -> u16 {
        match self {
            Encryption::AesCbc128 | Encryption::AesCbc256 => 12,
            Encryption::AesGcm128 | Encryption::AesGcm256 => 20,
            Encryption::ChaCha20Poly1305 => 28,
        }
    }

    /// The key length attribute that the transform must have, in bits (RFC 7296 3.3.5), or must
    /// not have (RFC 7634 4).
    pub const fn key_length_attribute(self) -> Option<u16> {
        match self {
            Encryption::AesGcm128 | Encryption::AesGcm256 | Encryption::AesCbc128 | Encryption::AesCbc256 => {
                Some(self.key_bits())
            }
            Encryption::ChaCha20Poly1305 => None,
        }
    }

    /// `None` for what we have no name for, and for AES without its key length attribute.
    pub fn from_transform(id: u16, key_bits: Option<u16>) -> Option<Encryption> {
        Self::ALL.iter().copied().find(|one| one.transform_id() == id && one.key_length_attribute() == key_bits)
    }

    /// Bytes of the key alone.
    pub const fn key_len(self) -> usize {
        (self.key_bits() / 8) as usize
    }

    /// Bytes to derive for each direction: the key and, for an AEAD, the 4-byte salt that
    /// follows it (RFC 4106 8.1, RFC 5282 7.1, RFC 7634 2).
    pub const fn keymat_len(self) -> usize {
        match self {
            Encryption::AesGcm128 | Encryption::AesGcm256 | Encryption::ChaCha20Poly1305 => self.key_len() + SALT_LEN,
            Encryption::AesCbc128 | Encryption::AesCbc256 => self.key_len(),
        }
    }

    /// Bytes of the initialization vector in each message.
    pub const fn iv_len(self) -> usize {
        match self {
            Encryption::AesGcm128 | Encryption::AesGcm256 | Encryption::ChaCha20Poly1305 => IV_LEN,
            Encryption::AesCbc128 | Encryption::AesCbc256 => CBC_BLOCK,
        }
    }
}

/// Integrity algorithms that the seeds name (IKEv2 transform type 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Integrity {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Integrity {
    pub const ALL: &[Integrity] = &[Integrity::Sha512, Integrity::Sha384, Integrity::Sha256, Integrity::Sha1];

    pub const fn name(self) -> &'static str {
        match self {
            Integrity::Sha1 => "sha1",
            Integrity::Sha256 => "sha2-256",
            Integrity::Sha384 => "sha2-384",
            Integrity::Sha512 => "sha2-512",
        }
    }

    /// What can be negotiated today: none, as an integrity algorithm belongs to CBC encryption.
    pub const SUPPORTED: &[Integrity] = &[];

    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// IKEv2 transform number: AUTH_HMAC_SHA1_96 (RFC 2404), and SHA2 truncated to half of its
    /// output (RFC 4868).
    pub const fn transform_id(self) -> u16 {
        match self {
            Integrity::Sha1 => 2,
            Integrity::Sha256 => 12,
            Integrity::Sha384 => 13,
            Integrity::Sha512 => 14,
        }
    }

    pub fn from_transform(id: u16) -> Option<Integrity> {
        Self::ALL.iter().copied().find(|one| one.transform_id() == id)
    }

    /// Bytes of the key: those of the whole hash (RFC 2404 3, RFC 4868 2.1.1).
    pub const fn key_len(self) -> usize {
        match self {
            Integrity::Sha1 => 20,
            Integrity::Sha256 => 32,
            Integrity::Sha384 => 48,
            Integrity::Sha512 => 64,
        }
    }

    /// Bytes of the integrity check value: 96 bits of SHA-1, half of a SHA-2 hash.
    pub const fn icv_len(self) -> usize {
        match self {
            Integrity::Sha1 => 12,
            Integrity::Sha256 => 16,
            Integrity::Sha384 => 24,
            Integrity::Sha512 => 32,
        }
    }
}

/// Pseudo-random functions that the seeds name (IKEv2 transform type 2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PrfAlgorithm {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl PrfAlgorithm {
    pub const ALL: &[PrfAlgorithm] =
        &[PrfAlgorithm::Sha512, PrfAlgorithm::Sha384, PrfAlgorithm::Sha256, PrfAlgorithm::Sha1];

    pub const fn name(self) -> &'static str {
        match self {
            PrfAlgorithm::Sha1 => "sha1",
            PrfAlgorithm::Sha256 => "sha2-256",
            PrfAlgorithm::Sha384 => "sha2-384",
            PrfAlgorithm::Sha512 => "sha2-512",
        }
    }

    pub const SUPPORTED: &[PrfAlgorithm] = PrfAlgorithm::ALL;

    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// IKEv2 transform number of PRF_HMAC_* (RFC 7296 3.3.2, RFC 4868).
    pub const fn transform_id(self) -> u16 {
        match self {
            PrfAlgorithm::Sha1 => 2,
            PrfAlgorithm::Sha256 => 5,
            PrfAlgorithm::Sha384 => 6,
            PrfAlgorithm::Sha512 => 7,
        }
    }

    pub fn from_transform(id: u16) -> Option<PrfAlgorithm> {
        Self::ALL.iter().copied().find(|one| one.transform_id() == id)
    }

    /// Bytes of one output, and of the preferred key.
    pub const fn output_len(self) -> usize {
        match self {
            PrfAlgorithm::Sha1 => 20,
            PrfAlgorithm::Sha256 => 32,
            PrfAlgorithm::Sha384 => 48,
            PrfAlgorithm::Sha512 => 64,
        }
    }
}

/// Diffie-Hellman groups that the seeds name (IKEv2 transform type 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DhGroup {
    Modp1024,
    Modp1536,
    Modp2048,
    Modp3072,
    Modp4096,
    Ecp256,
    Ecp384,
}

impl DhGroup {
    pub const ALL: &[DhGroup] = &[
        DhGroup::Ecp256,
        DhGroup::Ecp384,
        DhGroup::Modp2048,
        DhGroup::Modp3072,
        DhGroup::Modp4096,
        DhGroup::Modp1536,
        DhGroup::Modp1024,
    ];

    /// What `KeyExchange` can do today.
    pub const SUPPORTED: &[DhGroup] = &[DhGroup::Ecp256, DhGroup::Ecp384, DhGroup::Modp2048];

    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// The group of an IKEv2 transform or Key Exchange payload; `None` for what we have no name for.
    pub fn from_transform(id: u16) -> Option<DhGroup> {
        Self::ALL.iter().copied().find(|group| group.number() == id)
    }

    /// Bytes of a public value on the wire: the length of the modulus, or of x and y (RFC 5903 7).
    pub const fn public_len(self) -> usize {
        match self {
            DhGroup::Modp1024 => 128,
            DhGroup::Modp1536 => 192,
            DhGroup::Modp2048 => 256,
            DhGroup::Modp3072 => 384,
            DhGroup::Modp4096 => 512,
            DhGroup::Ecp256 => 64,
            DhGroup::Ecp384 => 96,
        }
    }

    /// The group's number in IKEv2 (transform type 4), which is also its name in profiles and in the seeds.
    pub const fn number(self) -> u16 {
        match self {
            DhGroup::Modp1024 => 2,
            DhGroup::Modp1536 => 5,
            DhGroup::Modp2048 => 14,
            DhGroup::Modp3072 => 15,
            DhGroup::Modp4096 => 16,
            DhGroup::Ecp256 => 19,
            DhGroup::Ecp384 => 20,
        }
    }
}

impl fmt::Display for DhGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_found_again_by_its_transform() {
        for one in Encryption::ALL {
            assert_eq!(Encryption::from_transform(one.transform_id(), one.key_length_attribute()), Some(*one));
        }
        for one in Integrity::ALL {
            assert_eq!(Integrity::from_transform(one.transform_id()), Some(*one));
        }
        for one in PrfAlgorithm::ALL {
            assert_eq!(PrfAlgorithm::from_transform(one.transform_id()), Some(*one));
        }
        for one in DhGroup::ALL {
            assert_eq!(DhGroup::from_transform(one.number()), Some(*one));
        }
    }

    #[test]
    fn aes_without_its_key_length_is_no_algorithm_of_ours() {
        for key_bits in [None, Some(0), Some(192), Some(512)] {
            assert_eq!(Encryption::from_transform(20, key_bits), None);
        }
        // AES-GCM with 8 and 12 bytes of tag, ChaCha20-Poly1305 with an attribute that it must not have.
        for other in [18, 19, 28] {
            assert_eq!(Encryption::from_transform(other, Some(256)), None);
        }
    }
}
