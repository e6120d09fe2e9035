use std::time::Duration;

/// Until a round-trip time is known, a probe counts as lost after this. Twice the initial
/// retransmission time of RFC 6298 2.1: a new path may be a satellite link.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
const FIRST_RESEND: Duration = Duration::from_secs(1);
/// Never sooner than this, however short the round trip: a busy peer may take a while.
const MIN_PATIENCE: Duration = Duration::from_millis(500);
/// A path that needs longer than this to answer carries nothing of use.
const MAX_PATIENCE: Duration = Duration::from_secs(5);
/// Clock granularity and scheduling on both ends (the G of RFC 6298 2.3).
const MARGIN: Duration = Duration::from_millis(20);
/// Enough doublings to get from any patience to the longest.
const MAX_BACKOFF: u32 = 7;

/// What is usual for the round trip of one kind of probe, and so how long to wait for an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct RttEstimate {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Not measured but the most that it can have been: the first measurement replaces it.
    guessed: bool,
    backoff: u32,
}

impl RttEstimate {
    /// A measured round trip (the filters of RFC 6298 2.3).
    pub fn sample(&mut self, rtt: Duration) {
        self.backoff = 0;
        match self.smoothed {
            Some(smoothed) if !self.guessed => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
            Some(_) | None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
                self.guessed = false;
            }
        }
    }

    /// An answer of which it cannot be told which of several transmissions it is for, but it
    /// came `at_most` after the first. Karn's algorithm (RFC 6298 3 and 5.7): such a time is no
    /// measurement; when it was we who sent `again`, wait longer before doing so the next time,
    /// so that the next answer is one.
    pub fn ambiguous(&mut self, at_most: Duration, again: bool) {
        if self.smoothed.is_none() {
            self.smoothed = Some(at_most);
            self.variation = at_most / 2;
            self.guessed = true;
        }
        if again {
            self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
        }
    }

    /// After so long without an answer a probe counts as lost.
    pub fn patience(&self) -> Duration {
        let base = match self.smoothed {
            Some(smoothed) => (smoothed * 4).max(smoothed + self.variation * 4).max(MIN_PATIENCE),
            None => FIRST_PATIENCE,
        };
        self.backed_off(base)
    }

    /// Before this an answer is not even late, and sending again would only blur which
    /// transmission was answered.
    pub fn resend_after(&self) -> Duration {
        let base = match self.smoothed {
            Some(smoothed) => smoothed + (self.variation * 4).max(smoothed / 2) + MARGIN,
            None => FIRST_RESEND,
        };
        self.backed_off(base)
    }

    /// No answer comes sooner than this after its request.
    pub fn plausible(&self) -> Duration {
        if self.guessed { Duration::ZERO } else { self.smoothed.unwrap_or_default() / 2 }
    }

    fn backed_off(&self, base: Duration) -> Duration {
        base.min(MAX_PATIENCE).saturating_mul(1 << self.backoff).min(MAX_PATIENCE)
    }
}
