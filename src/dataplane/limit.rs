use std::time::Duration;

use crate::model::Moment;

/// A token bucket: so many events a second, and so many at once after a pause.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// Time that one event uses up.
    cost: Duration,
    most: Duration,
    credit: Duration,
    last: Moment,
}

impl Limit {
    pub fn per_second(events: u32, at_once: u32) -> Limit {
        let cost = Duration::from_secs(1) / events.max(1);
        let most = cost * at_once;
        Limit { cost, most, credit: most, last: Moment::ZERO }
    }

    pub fn allows(&mut self, now: Moment) -> bool {
        self.credit = self.credit.saturating_add(now.since(self.last)).min(self.most);
        self.last = self.last.max(now);
        match self.credit.checked_sub(self.cost) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut limit = Limit::per_second(10, 5);
        let start = Moment::from_millis(5_000);
        assert_eq!((0..20).filter(|_| limit.allows(start)).count(), 5);
        let later = start + Duration::from_millis(300);
        assert_eq!((0..20).filter(|_| limit.allows(later)).count(), 3);
        assert!(!limit.allows(start), "time does not run backwards to earn twice");
    }
}
