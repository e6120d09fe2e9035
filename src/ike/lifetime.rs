use std::time::Duration;

use crate::model::{Chance, Moment};

/// An SA is not ended sooner than this, however short its lifetime: a rekey that the peer puts off
/// (RFC 7296 2.25), or that a busy machine delays, still comes in time.
const EXPIRY_FLOOR: Duration = Duration::from_secs(30);

/// When an SA is to be rekeyed and when it ends. Both ends start within 85 to 95 % of the
/// lifetime; who set it up last starts earlier, so that both rarely start at once.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// `None` while a rekey is under way, or none is wanted any more.
    pub rekey_at: Option<Moment>,
    pub expires_at: Moment,
}

impl Lifetime {
    pub fn new(span: Duration, initiated: bool, chance: &mut Chance, now: Moment) -> Lifetime {
        let permille = if initiated { 850 } else { 900 } + chance.below(50);
        Lifetime {
            rekey_at: Some(now + span.saturating_mul(permille) / 1000),
            expires_at: now + span.max(EXPIRY_FLOOR),
        }
    }

    /// Of an IKE SA whose peer, and so its profile, is not known yet.
    pub fn unlimited() -> Lifetime {
        Lifetime { rekey_at: None, expires_at: Moment::from_nanos(u64::MAX) }
    }

    /// After a rekey that the peer could not do at this time (RFC 7296 2.25).
    pub fn retry(&mut self, chance: &mut Chance, now: Moment) {
        self.rekey_at = Some(now + Duration::from_millis(1000 + u64::from(chance.below(1000))));
    }

    pub fn poll_timeout(&self) -> Moment {
        self.rekey_at.map_or(self.expires_at, |rekey_at| rekey_at.min(self.expires_at))
    }
}
