use std::time::Duration;

use crate::model::Moment;

/// Probes that confirm a suspicion, a second, over all paths of a site: 1,000 tunnels that are cut at
/// once are confirmed within some two seconds, at 5 Mbit/s and a few per cent of a core. The steady
/// probes do not count.
const PER_SECOND: u32 = 2_000;
/// So many may leave at once: the tunnels of a hundred links.
const AT_ONCE: u32 = 200;

/// What all paths of a site share of confirming probes. Each asks for its turn once, and gets the
/// next one that is free, so that none is passed over.
#[derive(Clone, Debug, Default)]
pub struct ProbeBudget {
    /// When the bucket will be full again.
    full_at: Moment,
}

impl ProbeBudget {
    /// When the asker's probe may leave: now, or later.
    pub fn turn(&mut self, now: Moment) -> Moment {
        let cost = Duration::from_secs(1) / PER_SECOND;
        let turn = self.next(now);
        self.full_at = self.full_at.max(now) + cost;
        turn
    }

    /// Takes a turn if there is one now.
    pub fn turn_now(&mut self, now: Moment) -> bool {
        let free = self.next(now) <= now;
        if free {
            self.turn(now);
        }
        free
    }

    fn next(&self, now: Moment) -> Moment {
        let bucket = Duration::from_secs(1) / PER_SECOND * AT_ONCE;
        now.max(self.full_at - bucket)
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
        assert!(!budget.turn_now(now));
        assert!(budget.turn_now(now + Duration::from_secs(1)));
    }
}
