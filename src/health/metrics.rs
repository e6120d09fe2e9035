use std::time::Duration;

use crate::model::Permille;

/// What was measured over the window. `None` means not measured: never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    pub loss: Option<Permille>,
    /// Median round-trip time.
    pub rtt: Option<Duration>,
    /// Mean difference of successive round-trip times (RFC 3550 6.4.1 without its smoothing).
    pub jitter: Option<Duration>,
    /// `None` where no target is probed more often than the window tells.
    pub recent: Option<Recent>,
}

/// What the newest probes of one target say by themselves: regular ones, and those between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recent {
    /// Median.
    pub rtt: Duration,
    pub jitter: Duration,
    /// Of all that is remembered.
    pub loss: Permille,
    /// The path loses more than this: with less, so many losses so close together come in one of a
    /// hundred cases.
    pub loss_least: Permille,
}
