use std::time::Duration;

use super::ProbeBudget;
use super::habit::Traffic;
use crate::model::Moment;

/// At most so often, and after a loss so often for so long.
const QUICKEST: Duration = Duration::from_millis(100);
const SUSPECTED: Duration = Duration::from_millis(50);
const SUSPICION: Duration = Duration::from_secs(3);
/// One probe for so many packets of the site: a tenth more.
const PACKETS_EACH: u32 = 10;
/// How often the packets are counted.
const COUNTING: Duration = Duration::from_secs(1);

/// Looks closely at a path that carries traffic which asks much of it: says when a probe is due between the
/// regular ones, in proportion to what the path carries.
#[derive(Debug)]
pub(super) struct Scrutiny {
    counted: (u64, Moment),
    pace: Option<Duration>,
    suspected_until: Moment,
    next: Option<Moment>,
}

impl Scrutiny {
    pub fn new(now: Moment) -> Scrutiny {
        Scrutiny { counted: (0, now), pace: None, suspected_until: now, next: None }
    }

    /// A probe of the target was lost.
    pub fn handle_loss(&mut self, now: Moment) {
        // Where little is sent, a lossy link would be asked quickly for ever, and for nobody.
        if self.pace.is_some() {
            self.suspected_until = now + SUSPICION;
            self.next = Some(self.next.map_or(now + SUSPECTED, |next| next.min(now + SUSPECTED)));
        }
    }

    /// Is it time for a probe, where there is somebody to ask? `interval` is that of the regular ones.
    pub fn is_due(
        &mut self,
        traffic: Traffic,
        interval: Duration,
        somebody: bool,
        budget: &mut ProbeBudget,
        now: Moment,
    ) -> bool {
        let (before, at) = self.counted;
        let span = now.since(at);
        if span >= COUNTING {
            let sent = u32::try_from(traffic.sent.saturating_sub(before)).unwrap_or(u32::MAX);
            let each = (span * PACKETS_EACH).checked_div(sent).map(|each| each.max(QUICKEST));
            self.pace = each.filter(|each| *each < interval);
            self.counted = (traffic.sent, now);
        }
        let pace = if now < self.suspected_until { Some(SUSPECTED) } else { self.pace };
        let Some(pace) = pace.filter(|_| somebody) else {
            self.next = None;
            return false;
        };
        let next = self.next.unwrap_or(now);
        if next > now {
            self.next = Some(next.min(now + pace));
            return false;
        }
        let turn = budget.turn_between(now);
        self.next = Some(turn.err().unwrap_or(now + pace));
        turn.is_ok()
    }

    /// Does the path carry enough to be asked between the regular probes?
    pub fn is_close(&self) -> bool {
        self.next.is_some()
    }

    pub fn next_event(&self) -> Moment {
        self.next.unwrap_or(self.counted.1 + COUNTING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_got_no_turn_is_due_when_there_is_one_and_not_an_interval_later() {
        let at = Moment::from_millis;
        let mut budget = ProbeBudget::default();
        let mut scrutiny = Scrutiny::new(at(0));
        let sent = |sent| Traffic { sent, ..Traffic::default() };
        while budget.turn_between(at(1_000)).is_ok() {}
        assert!(!scrutiny.is_due(sent(200), Duration::from_secs(1), true, &mut budget, at(1_000)));
        assert_eq!(scrutiny.next_event(), at(1_001));
        assert!(scrutiny.is_due(sent(200), Duration::from_secs(1), true, &mut budget, at(1_001)));
        assert_eq!(scrutiny.next_event(), at(1_101));
    }
}
