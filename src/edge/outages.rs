use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Moment;

/// Nothing for calls for so long after a second outage; twice as long after each further one (as routes
/// that flap are damped, RFC 2439), up to the most.
const CALLS_HOLD: Duration = Duration::from_secs(30);
/// The same for all flows, where the path was up for less than `BRIEF` before: it is lost again before they
/// have gained anything.
const ALL_HOLD: Duration = Duration::from_secs(10);
const BRIEF: Duration = Duration::from_secs(10);
const CALLS_HOLD_MOST: Duration = Duration::from_secs(300);
const ALL_HOLD_MOST: Duration = Duration::from_secs(60);
/// A path that was up for so long begins anew.
const FORGIVEN: Duration = Duration::from_secs(600);

/// Who was up for less before its first outage has not shown yet that this is not its way: a window of probes.
const KNOWN: Duration = Duration::from_secs(30);

/// How often a path was down of late. A single outage is held against nobody who is known.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outages {
    /// Outages in a row, with less than `FORGIVEN` between them.
    row: u32,
    /// When it was up again.
    since: Option<Moment>,
    steady_at: Moment,
    useful_at: Moment,
    brief: bool,
}

impl Outages {
    pub fn fall(&mut self, now: Moment) {
        let Some(since) = self.since.take() else { return };
        let lasted = now.since(since);
        self.row = match self.row {
            0 if lasted < KNOWN => 2,
            row if lasted < FORGIVEN => row.saturating_add(1),
            _ => 1,
        };
        self.brief = lasted < BRIEF;
    }

    pub fn rise(&mut self, now: Moment) {
        if self.since.is_some() {
            return;
        }
        self.since = Some(now);
        let Some(more) = self.row.checked_sub(2) else { return };
        let hold = |first: Duration, most: Duration| first.saturating_mul(1 << more.min(8)).min(most);
        self.steady_at = now + hold(CALLS_HOLD, CALLS_HOLD_MOST);
        if self.brief {
            self.useful_at = now + hold(ALL_HOLD, ALL_HOLD_MOST);
        }
    }

    /// It is up, and has been since then.
    pub fn up_since(&self) -> Option<Moment> {
        self.since
    }

    /// It is not to be relied on.
    pub fn is_unsteady(&self, now: Moment) -> bool {
        now < self.steady_at
    }

    /// It was lost again too soon to be of use to any flow.
    pub fn is_fleeting(&self, now: Moment) -> bool {
        now < self.useful_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::from_millis(second * 1_000)
    }

    #[test]
    fn one_outage_is_not_held_against_a_path_and_each_further_one_twice_as_long() {
        let mut outages = Outages::default();
        outages.rise(at(0));
        outages.fall(at(100));
        outages.rise(at(104));
        assert!(!outages.is_unsteady(at(104)));
        for (fall, hold) in [(120, 30), (140, 60), (160, 120), (180, 240), (200, 300), (220, 300)] {
            outages.fall(at(fall));
            let back = fall + 4;
            outages.rise(at(back));
            assert!(outages.is_unsteady(at(back + hold - 1)) && !outages.is_unsteady(at(back + hold)), "{fall}");
            assert!(!outages.is_fleeting(at(back)), "it was up for 16 s");
        }
        outages.fall(at(224 + 600));
        outages.rise(at(224 + 604));
        assert!(!outages.is_unsteady(at(224 + 604)), "forgiven");
    }

    #[test]
    fn the_first_outage_of_a_path_that_has_only_just_come_up_is_held_against_it() {
        for (up_for, held) in [(3, true), (29, true), (30, false)] {
            let mut outages = Outages::default();
            outages.rise(at(100));
            outages.fall(at(100 + up_for));
            outages.rise(at(200));
            assert_eq!(outages.is_unsteady(at(200)), held, "up for {up_for} s");
            assert_eq!(outages.is_fleeting(at(200)), up_for < 10, "up for {up_for} s");
        }
    }

    #[test]
    fn a_path_that_is_never_up_for_ten_seconds_is_of_no_use() {
        let mut outages = Outages::default();
        outages.rise(at(0));
        for round in 0..4 {
            outages.fall(at(100 + round * 10));
            outages.rise(at(104 + round * 10));
        }
        assert!(outages.is_fleeting(at(134 + 39)) && !outages.is_fleeting(at(134 + 40)));
    }
}
