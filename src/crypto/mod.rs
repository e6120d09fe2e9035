//! Floor 1: keys in, bytes out. AEAD, pseudo-random functions and Diffie-Hellman groups, by the
//! names that configuration, IKE and ESP share. Secrets are wiped on drop.

mod aead;
mod algorithm;
mod error;
mod key_exchange;
mod modp;
mod prf;

pub use aead::{AeadKey, Backend, IV_LEN, NONCE_LEN, SALT_LEN, SaltedKey, TAG_LEN};
pub use algorithm::{DhGroup, Encryption, Integrity, PrfAlgorithm};
pub use error::{BadTag, CryptoError};
pub use key_exchange::KeyExchange;
pub use prf::{MAX_EXPANSION_BLOCKS, Prf};

#[cfg(test)]
pub(crate) mod hex;
