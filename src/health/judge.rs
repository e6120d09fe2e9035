use std::fmt;
use std::time::Duration;

use super::window::Window;
use super::{HealthSettings, Metrics};
use crate::model::Permille;

/// The newest results that are looked at by themselves, so that a path turns `Degraded` sooner
/// than the whole window would show.
const RECENT: usize = 10;
/// A limit counts as exceeded only on this many lost probes, or differences above it.
const MIN_EVIDENCE: usize = 3;
/// Below this chance that a path which loses exactly the limit shows so many losses, its loss is
/// taken to be above the limit. At 1 % and the default limit of 5 %: 4 lost of the newest 10, or
/// 6 of 30.
const SIGNIFICANCE: f64 = 0.01;

/// Compares windows with the limits.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    settings: HealthSettings,
    window: usize,
    recent: usize,
    /// So many lost of the newest `recent`, and of the whole window, are too many.
    lost_recent: usize,
    lost_window: usize,
}

/// What is beyond its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Worse {
    Loss {
        lost: usize,
        of: usize,
        limit: Permille,
    },
    Rtt {
        median: Duration,
        limit: Duration,
    },
    Jitter {
        mean: Duration,
        limit: Duration,
    },
    /// Every inner target that used to answer is silent, and IKE is not.
    Inner,
}

impl Worse {
    /// The path delivers, but late.
    pub fn is_slowness(self) -> bool {
        match self {
            Worse::Rtt { .. } | Worse::Jitter { .. } => true,
            Worse::Loss { .. } | Worse::Inner => false,
        }
    }
}

impl Judge {
    pub fn new(settings: HealthSettings, window: usize) -> Judge {
        let recent = RECENT.min(window);
        Judge {
            settings,
            window,
            recent,
            lost_recent: too_many(recent, settings.loss_limit),
            lost_window: too_many(window, settings.loss_limit),
        }
    }

    /// Why a path whose whole window shows this loss may be `Healthy`; `None` where it needs no reason.
    pub fn unsure(&self, loss: Permille) -> Option<String> {
        let Judge { settings, window, recent, lost_recent, lost_window } = self;
        (loss > settings.loss_limit).then(|| {
            format!(
                "loss {loss} over the window is above the limit of {}, but of too few probes to be sure: degraded when \
                 {lost_recent} of the newest {recent} are lost, or {lost_window} of {window}",
                settings.loss_limit
            )
        })
    }

    /// What makes a path with this window `Degraded`.
    pub fn worse(&self, window: &Window) -> Option<Worse> {
        let limit = self.settings.loss_limit;
        let lost = window.lost(self.recent);
        if lost >= self.lost_recent {
            return Some(Worse::Loss { lost, of: window.len().min(self.recent), limit });
        }
        let lost = window.lost(window.len());
        if lost >= self.lost_window {
            return Some(Worse::Loss { lost, of: window.len(), limit });
        }
        if window.rtts(self.recent).count() < MIN_EVIDENCE {
            return None;
        }
        let limit = self.settings.rtt_limit;
        if let Some(median) = window.median_rtt(self.recent).filter(|median| *median > limit) {
            return Some(Worse::Rtt { median, limit });
        }
        // One late answer makes two differences: no reason to leave.
        let limit = self.settings.jitter_limit;
        let beyond = window.differences(self.recent).filter(|difference| *difference > limit).count();
        let mean = window.jitter(self.recent).filter(|mean| *mean > limit && beyond >= MIN_EVIDENCE)?;
        Some(Worse::Jitter { mean, limit })
    }

    /// Whether nothing is beyond its limit, and over the whole window that which was is below
    /// three quarters of it.
    pub fn better(&self, window: &Window, exceeded: Exceeded) -> bool {
        let measured = metrics(window);
        let loss_limit = self.settings.loss_limit.value();
        window.len() > 0
            && self.worse(window).is_none()
            // The smallest limits can only be met, not undercut.
            // The targets' own windows show what they lost while they were silent.
            && (!(exceeded.loss || exceeded.inner) || measured.loss.is_some_and(|loss| loss.value() == 0 || loss.value() * 4 < loss_limit * 3))
            && (!exceeded.rtt || measured.rtt.is_some_and(|rtt| rtt * 4 < self.settings.rtt_limit * 3))
            && (!exceeded.jitter || measured.jitter.is_some_and(|jitter| jitter * 4 < self.settings.jitter_limit * 3))
    }
}

/// What has been beyond its limit since the path turned `Degraded`. Only that must fall clearly
/// below the limit again: a path that has always been just within another one is no worse for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Exceeded {
    loss: bool,
    rtt: bool,
    jitter: bool,
    inner: bool,
}

impl Exceeded {
    pub fn add(&mut self, worse: Worse) {
        match worse {
            Worse::Loss { .. } => self.loss = true,
            Worse::Rtt { .. } => self.rtt = true,
            Worse::Jitter { .. } => self.jitter = true,
            Worse::Inner => self.inner = true,
        }
    }

    pub fn is_slowness_alone(self) -> bool {
        !self.loss && !self.inner
    }

    /// What is well again, in plain words.
    pub fn over(self) -> &'static str {
        match self {
            Exceeded { inner: true, .. } => "inner probes are answered again, and below three quarters of the limits",
            _ => "below three quarters of the limits again",
        }
    }
}

pub(super) fn metrics(window: &Window) -> Metrics {
    let all = window.len();
    Metrics { loss: window.loss(), rtt: window.median_rtt(all), jitter: window.jitter(all), ..Metrics::default() }
}

/// The smallest number of losses among `count` probes that a path losing exactly `limit` would
/// show with a chance of at most `SIGNIFICANCE`; at least `MIN_EVIDENCE`, at most all of them.
fn too_many(count: usize, limit: Permille) -> usize {
    if limit == Permille::FULL {
        return usize::MAX;
    }
    let loss = f64::from(limit.value()) / 1000.0;
    // Binomial distribution: the chance of exactly `lost`, from that of one fewer.
    let mut exactly = 1.0;
    for _ in 0..count {
        exactly *= 1.0 - loss;
    }
    let mut at_least = 1.0;
    let mut lost = 0;
    while lost < count && at_least > SIGNIFICANCE {
        at_least -= exactly;
        exactly *= (count - lost) as f64 / (lost + 1) as f64 * loss / (1.0 - loss);
        lost += 1;
    }
    lost.max(MIN_EVIDENCE.min(count))
}

/// Rounded up to tenths, so that what is above a limit also looks so.
fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e4).ceil() / 10.0
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Worse::Loss { lost, of, limit } => write!(f, "{lost} of the last {of} probes lost, limit {limit}"),
            Worse::Rtt { median, limit } => {
                write!(f, "round-trip time {:.1} ms, above the limit of {} ms", ms(*median), limit.as_millis())
            }
            Worse::Jitter { mean, limit } => {
                write!(f, "jitter {:.1} ms, above the limit of {} ms", ms(*mean), limit.as_millis())
            }
            Worse::Inner => write!(f, "IKE answers, inner probes do not any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_limit_looks_so() {
        let worse = Worse::Jitter { mean: Duration::from_micros(1_010), limit: Duration::from_millis(1) };
        assert_eq!(worse.to_string(), "jitter 1.1 ms, above the limit of 1 ms");
    }

    #[test]
    fn the_numbers_of_lost_probes_are_those_of_the_documentation() {
        let table = [(10, 50, 4), (30, 50, 6), (10, 10, 3), (30, 10, 3), (10, 200, 6), (100, 50, 12), (3, 500, 3)];
        for (count, limit, expected) in table {
            let found = too_many(count, Permille::new(limit).unwrap());
            assert_eq!(found, expected, "{count} probes, limit {limit}");
        }
        assert_eq!(too_many(10, Permille::ZERO), 3);
        assert_eq!(too_many(1, Permille::new(50).unwrap()), 1);
        assert_eq!(too_many(10, Permille::FULL), usize::MAX);
    }
}
