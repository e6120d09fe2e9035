use std::time::Duration;

use crate::model::Moment;

/// Probes that confirm a suspicion, a second, over all paths of a site: 1,000 tunnels that are cut at
/// once are confirmed within some two seconds, at 5 Mbit/s and a few per cent of a core. The steady
/// probes do not count.
const CONFIRMING: Rate = Rate { per_second: 2_000, at_once: 200 };
/// Probes between the regular ones, a second: fifty busy paths at their quickest after a loss. They have their own, so
/// that no curiosity delays a verdict.
const BETWEEN: Rate = Rate { per_second: 1_000, at_once: 100 };

/// What all paths of a site share of quick probes. Each asks for its turn once, and gets the
/// next one that is free, so that none is passed over.
#[derive(Clone, Debug, Default)]
pub struct ProbeBudget {
    /// When each bucket will be full again.
    confirming: Moment,
    between: Moment,
}

#[derive(Clone, Copy)]
struct Rate {
    per_second: u32,
    /// So many may leave at once: the tunnels of a hundred links.
    at_once: u32,
}

impl ProbeBudget {
    /// When the asker's probe may leave: now, or later.
    pub fn turn(&mut self, now: Moment) -> Moment {
        CONFIRMING.take(&mut self.confirming, now)
    }

    /// Takes a turn if there is one now; otherwise tells when to ask again.
    pub fn turn_now(&mut self, now: Moment) -> Result<(), Moment> {
        CONFIRMING.take_now(&mut self.confirming, now)
    }

    /// The same of a probe that confirms nothing.
    pub fn turn_between(&mut self, now: Moment) -> Result<(), Moment> {
        BETWEEN.take_now(&mut self.between, now)
    }
}

impl Rate {
    fn take(self, full_at: &mut Moment, now: Moment) -> Moment {
        let turn = self.next(*full_at, now);
        *full_at = (*full_at).max(now) + Duration::from_secs(1) / self.per_second;
        turn
    }

    fn take_now(self, full_at: &mut Moment, now: Moment) -> Result<(), Moment> {
        let next = self.next(*full_at, now);
        if next > now {
            return Err(next);
        }
        self.take(full_at, now);
        Ok(())
    }

    fn next(self, full_at: Moment, now: Moment) -> Moment {
        let bucket = Duration::from_secs(1) / self.per_second * self.at_once;
        now.max(full_at - bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_askers_at_once_get_turns_one_after_the_other() {
        let mut budget = ProbeBudget::default();
        let now = Moment::from_millis(5_000);
        let turns: Vec<Duration> = (0..1_000).map(|_| budget.turn(now).since(now)).collect();
        assert_eq!(turns.iter().filter(|turn| turn.is_zero()).count(), 201);
        assert!(turns.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(turns[999], Duration::from_micros(399_500));
        assert_eq!(budget.turn_now(now), Err(now + Duration::from_millis(400)));
        assert_eq!(budget.turn_now(now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn what_is_asked_out_of_curiosity_takes_no_turn_of_a_verdict_s() {
        let mut budget = ProbeBudget::default();
        let now = Moment::from_millis(5_000);
        while budget.turn_between(now).is_ok() {}
        assert_eq!((budget.turn(now), budget.turn_now(now)), (now, Ok(())));
    }
}
