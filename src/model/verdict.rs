use std::fmt;

use serde::{Deserialize, Serialize};

/// What health says of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Measured, and within every threshold.
    Healthy,
    /// Nothing measured yet. Never treated as zero loss or zero latency.
    Unknown,
    /// Answers, but beyond a threshold of loss, round-trip time or jitter.
    Degraded,
    /// Does not answer: carries nothing.
    Down,
}

impl Verdict {
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Unknown => "unknown",
            Verdict::Degraded => "degraded",
            Verdict::Down => "down",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
