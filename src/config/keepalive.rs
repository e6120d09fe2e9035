use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::Report;
use super::source::At;
use super::table::Table;
use crate::ike::Retransmission;

const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const RETRANSMIT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const DEAD_AFTER: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(3600);
const REBUILD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// A `[keepalive]` table as written: what it leaves out comes from the layer below. The layers
/// are the connector, its phase 1 profile, and the built-in values.
#[derive(Clone, Default)]
pub struct Keepalive {
    dpd: Option<bool>,
    interval: Option<At<Duration>>,
    retransmit_interval: Option<Duration>,
    retransmit_backoff_percent: Option<u16>,
    retransmit_longest: Option<Duration>,
    retransmissions: Option<u32>,
    dead_after: Option<At<Duration>>,
    rebuild_interval: Option<Duration>,
    /// Something that is written could not be read, which was reported.
    is_broken: bool,
}

/// All layers together.
pub struct KeepalivePlan {
    pub keepalive: Option<Duration>,
    pub retransmission: Retransmission,
    pub dead_after: Duration,
    pub rebuild_interval: Duration,
}

impl Keepalive {
    pub fn read(mut table: Table<'_>, report: &Report) -> Keepalive {
        let errors_before = report.error_count();
        let mut duration = |key, range: RangeInclusive<Duration>| {
            table.value(key).and_then(|value| Some(value.at(value.duration(range)?)))
        };
        let interval = duration("interval", INTERVAL);
        let retransmit_interval = duration("retransmit_interval", RETRANSMIT).map(|at| at.value);
        let retransmit_longest = duration("retransmit_longest", RETRANSMIT).map(|at| at.value);
        let dead_after = duration("dead_after", DEAD_AFTER);
        let rebuild_interval = duration("rebuild_interval", REBUILD).map(|at| at.value);
        let dpd = table.value("dpd").and_then(|value| value.boolean());
        let retransmissions = table.value("retransmissions").and_then(|value| value.number(1..=30, ""));
        let backoff = table.value("retransmit_backoff").and_then(|value| value.decimal(1.0..=4.0, ""));
        table.finish();
        let retransmit_backoff_percent = backoff.map(|factor| (factor * 100.0).round() as u16);
        Keepalive {
            dpd,
            interval,
            retransmit_interval,
            retransmit_backoff_percent,
            retransmit_longest,
            retransmissions,
            dead_after,
            rebuild_interval,
            is_broken: report.error_count() > errors_before,
        }
    }

    /// This layer, with what it leaves out taken from `below`.
    pub fn over(&self, below: &Keepalive) -> Keepalive {
        Keepalive {
            dpd: self.dpd.or(below.dpd),
            interval: self.interval.clone().or_else(|| below.interval.clone()),
            retransmit_interval: self.retransmit_interval.or(below.retransmit_interval),
            retransmit_backoff_percent: self.retransmit_backoff_percent.or(below.retransmit_backoff_percent),
            retransmit_longest: self.retransmit_longest.or(below.retransmit_longest),
            retransmissions: self.retransmissions.or(below.retransmissions),
            dead_after: self.dead_after.clone().or_else(|| below.dead_after.clone()),
            rebuild_interval: self.rebuild_interval.or(below.rebuild_interval),
            is_broken: self.is_broken || below.is_broken,
        }
    }

    /// The interval that leaves no room for an answer before the peer is taken for dead.
    pub fn interval_beyond_dead_after(&self) -> Option<(&At<Duration>, Duration)> {
        let dead_after = self.dead_after.as_ref();
        let written = self.interval.as_ref().or(dead_after)?;
        let (interval, dead_after) = (self.interval_or_default(), dead_after.map_or(Self::DEAD_AFTER, |at| at.value));
        (!self.is_broken && self.dpd != Some(false) && interval >= dead_after).then_some((written, dead_after))
    }

    /// Over the built-in values: quick retransmission and rebuild, F5's keepalive timer, Cato's
    /// limit of silence.
    pub fn plan(&self) -> KeepalivePlan {
        let first = self.retransmit_interval.unwrap_or(Duration::from_millis(500));
        let longest = self.retransmit_longest.unwrap_or(Duration::from_secs(4));
        KeepalivePlan {
            keepalive: self.dpd.unwrap_or(true).then(|| self.interval_or_default()),
            retransmission: Retransmission {
                first,
                factor_percent: self.retransmit_backoff_percent.unwrap_or(150),
                longest: longest.max(first),
                tries: self.retransmissions.unwrap_or(12),
            },
            dead_after: self.dead_after.as_ref().map_or(Self::DEAD_AFTER, |at| at.value),
            rebuild_interval: self.rebuild_interval.unwrap_or(Duration::from_secs(10)),
        }
    }

    const DEAD_AFTER: Duration = Duration::from_secs(60);

    fn interval_or_default(&self) -> Duration {
        self.interval.as_ref().map_or(Duration::from_secs(3), |at| at.value)
    }
}
