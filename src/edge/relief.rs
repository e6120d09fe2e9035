use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Moment;

/// A survey before its time is asked for no sooner than this after the last: what flows send cannot be
/// told in less. Each further one of a role waits twice as long, up to the interval.
pub const RELIEF_PAUSE: Duration = Duration::from_secs(2);

/// A flow that is worth moving sends a packet, and so chooses again, within this time.
const OFFER_PAUSE: Duration = Duration::from_millis(300);

/// What was crowded again and again begins anew after so long in which it was not.
const CALM: Duration = Duration::from_secs(10);

/// Of one role of a connector: a link has so much to carry, and another so little, that its flows should not wait
/// for the next re-steer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Relief {
    crowded: bool,
    /// The first judgement that said so after a survey for it.
    calm_since: Option<Moment>,
    /// When there may be a survey for it, and how long to wait for the one after.
    at: Moment,
    pause: Duration,
}

impl Relief {
    pub fn judge(&mut self, crowded: bool, now: Moment) {
        self.crowded = crowded;
        if crowded || self.pause.is_zero() {
            self.calm_since = None;
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.since(since) >= CALM {
            self.pause = Duration::ZERO;
        }
    }

    /// A path of it has become better, and takes flows: once they have chosen again, which is then, others can be
    /// told to.
    pub fn offer(&mut self, now: Moment) -> Moment {
        self.at = now + OFFER_PAUSE;
        self.at
    }

    pub fn is_wanted(&self, now: Moment) -> bool {
        self.crowded && now >= self.at
    }

    /// There is a survey for it now. `most`: between two re-steers.
    pub fn begin(&mut self, most: Duration, now: Moment) {
        let pause = self.pause.max(RELIEF_PAUSE);
        (self.at, self.pause) = (now + pause, pause.saturating_mul(2).min(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(10);

    /// When there were surveys, judged once a second.
    fn surveys(seconds: u64, crowded: impl Fn(u64) -> bool, better: impl Fn(u64) -> bool) -> Vec<u64> {
        let (mut relief, mut told) = (Relief::default(), Vec::new());
        for second in 0..seconds {
            let now = Moment::from_millis(second * 1_000 + 500);
            if better(second) {
                relief.offer(now - Duration::from_millis(400));
            }
            relief.judge(crowded(second), now);
            if relief.is_wanted(now) {
                relief.begin(MOST, now);
                told.push(second);
            }
        }
        told
    }

    #[test]
    fn what_stays_crowded_is_surveyed_ever_more_rarely() {
        assert_eq!(surveys(40, |_| true, |_| false), [0, 2, 6, 14, 24, 34]);
    }

    #[test]
    fn a_moment_s_room_does_not_begin_it_anew_and_ten_seconds_of_it_do() {
        assert_eq!(surveys(40, |second| second % 3 != 2, |_| false), [0, 3, 7, 15, 25, 36]);
        assert_eq!(surveys(40, |second| !(16..26).contains(&second), |_| false), [0, 2, 6, 14, 26, 36]);
        assert_eq!(surveys(44, |second| !(16..28).contains(&second), |_| false), [0, 2, 6, 14, 28, 30, 34, 42]);
    }

    #[test]
    fn a_path_that_is_back_is_made_use_of_at_once_and_the_pause_is_kept() {
        assert_eq!(surveys(40, |_| true, |second| second == 16), [0, 2, 6, 14, 16, 26, 36]);
    }
}
