use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When traffic that the secondary role has taken over goes back to the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failback {
    /// As soon as the primary role has a usable tunnel.
    Immediate,
    /// When the primary role has been usable for so long without a break.
    After(Duration),
    /// When an operator says so.
    Manual,
}

/// Long enough that a PoP which restarts twice moves the traffic once.
pub const FAILBACK_DEFAULT: Failback = Failback::After(Duration::from_secs(60));

impl Failback {
    /// How long the primary role must have been usable; `None`: traffic does not go back by itself.
    pub const fn hold(self) -> Option<Duration> {
        match self {
            Failback::Immediate => Some(Duration::ZERO),
            Failback::After(hold) => Some(hold),
            Failback::Manual => None,
        }
    }
}

/// What it comes to, to follow "traffic goes back to the primary role".
impl fmt::Display for Failback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failback::Immediate => f.write_str("as soon as it has a usable tunnel"),
            Failback::After(hold) => write!(f, "when it has been usable for {hold:?}"),
            Failback::Manual => f.write_str("when an operator says so"),
        }
    }
}
