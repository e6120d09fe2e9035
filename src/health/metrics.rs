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
}
