//! Floor 1: keys in, bytes out. Packet ciphers, AEAD, pseudo-random functions and Diffie-Hellman
//! groups, by the names that configuration, IKE and ESP share. Secrets are wiped on drop.

mod aead;
mod algorithm;
mod backend;
mod backends;
mod cbc;
mod error;
mod integrity_key;
mod key_exchange;
mod modp;
mod packet_cipher;
mod prf;
mod suite;

pub use aead::{AeadKey, IV_LEN, NONCE_LEN, SALT_LEN, SaltedKey, TAG_LEN};
pub use algorithm::{DhGroup, Encryption, Integrity, PrfAlgorithm};
pub use backend::Backend;
pub use backends::{Backends, Served};
pub use cbc::CBC_BLOCK;
pub use error::{BadTag, CryptoError};
pub use key_exchange::KeyExchange;
pub use packet_cipher::PacketCipher;
pub use prf::{MAX_EXPANSION_BLOCKS, Prf};
pub use suite::PacketSuite;

#[cfg(test)]
pub(crate) mod hex;
#[cfg(test)]
mod tests;
