use std::time::Duration;

/// Until a round-trip time is known, a probe counts as lost after this. Twice the initial
/// retransmission time of RFC 6298 2.1: a new path may be a satellite link.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
const FIRST_RESEND: Duration = Duration::from_secs(1);
/// Never sooner than this, however short the round trip: a busy peer may take a while.
const MIN_PATIENCE: Duration = Duration::from_millis(500);
/// A path that needs longer than this to answer carries nothing of use.
const MAX_PATIENCE: Duration = Duration::from_secs(5);
/// No round trip is longer: its probe was counted as lost long before.
pub(super) const LATEST: Duration = Duration::from_secs(10);
/// Clock granularity and scheduling on both ends (the G of RFC 6298 2.3).
const MARGIN: Duration = Duration::from_millis(20);
/// The same where answers are urgent: a timer's granularity and a thread's awakening on both ends.
const PROMPT_MARGIN: Duration = Duration::from_millis(10);
/// A peer that takes longer than this is not waited for by what has to be quick.
const SLOWEST: Duration = Duration::from_millis(500);
/// Enough doublings to get from any patience to the longest.
const MAX_BACKOFF: u32 = 7;

/// What is usual for the round trip of one kind of probe, and so how long to wait for an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct RttEstimate {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Not measured but the most that it can have been: the first measurement replaces it.
    guessed: bool,
    /// Doublings of the times below, until the next measurement.
    backoff: u32,
    ambiguous_in_row: u32,
    /// What answers have taken of late that may have been slow: a busy peer is not a dead one.
    slow: Duration,
}

impl RttEstimate {
    /// A measured round trip (the filters of RFC 6298 2.3).
    pub fn sample(&mut self, rtt: Duration) {
        self.backoff = 0;
        self.ambiguous_in_row = 0;
        self.slow = self.slow * 7 / 8;
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

    /// An answer of which it cannot be told which of several transmissions it is for: it came
    /// `since_first` and `since_latest` after them. Karn's algorithm (RFC 6298 3 and 5.7): such a
    /// time is no measurement, but wait longer before sending again, so that the next one is.
    ///
    /// Unlike for TCP, the ordinary case is a path that loses probes, where waiting would only
    /// measure less. So an answer that fits the latest transmission counts as ordinary, except
    /// for each third in a row: the path may have become slower by just that much.
    /// `within` is how long ago the first of the quick succession was sent that the latest is in.
    pub fn ambiguous(&mut self, since_first: Duration, since_latest: Duration, within: Duration) {
        if self.smoothed.is_none() {
            self.smoothed = Some(since_first);
            self.variation = since_first / 2;
            self.guessed = true;
            return;
        }
        self.slow = self.slow.max(within.min(SLOWEST));
        self.ambiguous_in_row = self.ambiguous_in_row.wrapping_add(1);
        let fits = since_latest >= self.plausible() && since_latest <= self.usual();
        if since_first > since_latest && (!fits || self.ambiguous_in_row.is_multiple_of(3)) {
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
        self.backed_off(self.usual())
    }

    /// An answer that comes later than this is late.
    fn usual(&self) -> Duration {
        match self.smoothed {
            Some(smoothed) => smoothed + (self.variation * 4).max(smoothed / 2) + MARGIN,
            None => FIRST_RESEND,
        }
    }

    /// An answer that comes later than this is worth asking again for, when it is urgent to know;
    /// a peer that was slow of late is given more. `None` until a round trip was measured.
    pub fn prompt(&self) -> Option<Duration> {
        Some(self.fitting()?.max(self.slow).min(MAX_PATIENCE))
    }

    /// The round trip and four times its variation (RFC 6298), with little more.
    pub fn fitting(&self) -> Option<Duration> {
        let smoothed = self.smoothed.filter(|_| !self.guessed)?;
        Some(smoothed + (self.variation * 4).max(smoothed / 4) + PROMPT_MARGIN)
    }

    /// A request of this age may well be the one that was answered.
    pub fn near(&self) -> Duration {
        self.smoothed.unwrap_or_default() * 5 / 4 + PROMPT_MARGIN
    }

    /// No answer comes sooner than this after its request.
    pub fn plausible(&self) -> Duration {
        if self.guessed { Duration::ZERO } else { self.smoothed.unwrap_or_default() / 2 }
    }

    fn backed_off(&self, base: Duration) -> Duration {
        base.min(MAX_PATIENCE).saturating_mul(1 << self.backoff).min(MAX_PATIENCE)
    }
}
