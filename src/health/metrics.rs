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
    /// `None` until there are enough.
    pub recent: Option<Recent>,
    /// Median round-trip time of the newest few probes.
    pub latest: Option<Duration>,
    /// Whose probes `recent` and `latest` are of: the place of an inner target; `None`: IKE's.
    pub source: Option<u8>,
}

/// What the newest probes of the source that speaks for the path say by themselves: regular ones, and those
/// between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recent {
    /// Median.
    pub rtt: Duration,
    pub jitter: Duration,
    /// Of the last half minute.
    pub loss: Permille,
    /// The path loses more than this: with less, so many losses so close together come in one of a
    /// hundred cases.
    pub loss_least: Permille,
    /// It loses less than this: with more, so few losses would come in one of ten cases. From as many probes as it
    /// takes, so what is asked rarely is long in doubt.
    pub loss_most: Permille,
}
