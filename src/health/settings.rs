use std::time::Duration;

use super::{Closeness, Sensitivity};
use crate::model::Permille;

/// A target behind a tunnel, probed from the tunnel's private address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeTarget {
    /// For people.
    pub name: String,
    /// Fit for a burst of probes, 30 ms apart.
    pub light: bool,
}

/// What became of the probes of one target since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TargetCounts {
    pub sent: u64,
    /// In time, over the same path.
    pub answered: u64,
    /// The target said no.
    pub refused: u64,
    /// What follows changes no verdict and no measure: answers after their time,
    pub late: u64,
    /// over another tunnel,
    pub elsewhere: u64,
    /// a second time, or to nothing that was asked,
    pub unexpected: u64,
    /// and what cannot be read as an answer.
    pub malformed: u64,
}

/// How paths are measured and judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthSettings {
    /// Time between two probes of a kind; 100 ms to 60 s, 1 s by default (seed: each second).
    pub interval: Duration,
    /// The same of inner probes.
    pub inner_interval: Duration,
    /// So many of the inner targets that are answered over the path must be; at least 1. The path is taken to be
    /// as good as the best but this many less one.
    pub need: u8,
    /// Probes remembered for loss, round-trip time and jitter.
    pub window: u16,
    /// This many of a path's own probes lost in a row make it `Down`.
    pub down_after: u16,
    /// This many answered in a row bring it back from `Down`.
    pub up_after: u16,
    /// Beyond any of these a path is `Degraded`; it is `Healthy` again when those that were
    /// exceeded are below three quarters of it. The numbers are in `docs/steering.md`.
    pub loss_limit: Permille,
    pub rtt_limit: Duration,
    pub jitter_limit: Duration,
    /// A path stays `Degraded` at least so long, whatever its window shows: no flapping when a
    /// short interval fills the window in seconds. 10 s by default.
    pub degraded_hold: Duration,
    /// Rules ask more of paths than that they carry packets: they are looked at more closely while they
    /// carry some.
    pub scrutiny: Closeness,
    /// How nervously the path is watched for outages between the steady probes.
    pub sensitivity: Sensitivity,
    /// Where the peer is a Trefoil as well, measure each direction by itself.
    pub in_band: bool,
}

impl Default for HealthSettings {
    fn default() -> Self {
        HealthSettings {
            interval: Duration::from_secs(1),
            inner_interval: Duration::from_secs(1),
            need: 1,
            window: 30,
            down_after: 3,
            up_after: 3,
            loss_limit: Permille::new(50).unwrap_or(Permille::ZERO),
            rtt_limit: Duration::from_millis(400),
            jitter_limit: Duration::from_millis(60),
            degraded_hold: Duration::from_secs(10),
            scrutiny: Closeness::Never,
            sensitivity: Sensitivity::Normal,
            in_band: true,
        }
    }
}
