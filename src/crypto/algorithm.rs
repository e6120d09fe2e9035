use std::fmt;

/// Encryption algorithms that the seeds name (IKEv2 transform type 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Encryption {
    AesGcm128,
    AesGcm256,
    AesCbc128,
    AesCbc256,
}

impl Encryption {
    pub const ALL: &[Encryption] =
        &[Encryption::AesGcm256, Encryption::AesGcm128, Encryption::AesCbc256, Encryption::AesCbc128];

    pub const fn name(self) -> &'static str {
        match self {
            Encryption::AesGcm128 => "aes-gcm-128",
            Encryption::AesGcm256 => "aes-gcm-256",
            Encryption::AesCbc128 => "aes-cbc-128",
            Encryption::AesCbc256 => "aes-cbc-256",
        }
    }

    /// Encrypts and authenticates in one step, so that it takes no integrity algorithm.
    pub const fn is_aead(self) -> bool {
        matches!(self, Encryption::AesGcm128 | Encryption::AesGcm256)
    }

    pub const fn key_bits(self) -> u16 {
        match self {
            Encryption::AesGcm128 | Encryption::AesCbc128 => 128,
            Encryption::AesGcm256 | Encryption::AesCbc256 => 256,
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

    /// The group's number in IKEv2, which is also its name in profiles and in the seeds.
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
