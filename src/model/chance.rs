use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The source of randomness, handed in like the time is: production seeds it from the operating
/// system, a simulation from a number, so that every run can be replayed. It is a
/// cryptographic generator (ChaCha20), fit for keys, nonces and SPIs.
pub struct Chance(ChaCha20Rng);

impl Chance {
    pub fn from_seed(seed: [u8; 32]) -> Chance {
        Chance(ChaCha20Rng::from_seed(seed))
    }

    /// A replayable source for tests and simulations only.
    pub fn from_number(number: u64) -> Chance {
        Chance(ChaCha20Rng::seed_from_u64(number))
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`; 0 when `limit` is 0. The bias is below 2^-32 for the small
    /// limits used here (jitter, choice among a few).
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(limit)) >> 32) as u32
    }
}
