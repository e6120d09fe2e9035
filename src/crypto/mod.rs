//! Floor 1: keys in, bytes out. AEAD, pseudo-random functions and Diffie-Hellman groups, by the
//! names that configuration, IKE and ESP share. Secrets are wiped on drop.

mod algorithm;

pub use algorithm::{DhGroup, Encryption, Integrity, PrfAlgorithm};
