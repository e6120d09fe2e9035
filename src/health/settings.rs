use std::net::IpAddr;
use std::time::Duration;

use super::Sensitivity;
use crate::model::Permille;

/// An ICMP echo target behind a tunnel, probed from the tunnel's private address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeTarget {
    pub address: IpAddr,
}

/// How paths are measured and judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthSettings {
    /// Time between two probes of a kind; 100 ms to 60 s, 1 s by default (seed: each second).
    pub interval: Duration,
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
    /// How nervously the path is watched for outages between the steady probes.
    pub sensitivity: Sensitivity,
}

impl Default for HealthSettings {
    fn default() -> Self {
        HealthSettings {
            interval: Duration::from_secs(1),
            window: 30,
            down_after: 3,
            up_after: 3,
            loss_limit: Permille::new(50).unwrap_or(Permille::ZERO),
            rtt_limit: Duration::from_millis(400),
            jitter_limit: Duration::from_millis(60),
            degraded_hold: Duration::from_secs(10),
            sensitivity: Sensitivity::Normal,
        }
    }
}
