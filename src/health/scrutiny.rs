use std::time::Duration;

use super::habit::Traffic;
use super::trail::Trail;
use super::{ProbeBudget, Recent};
use crate::model::Moment;

/// At most so often, and after a loss so often for so long.
const QUICKEST: Duration = Duration::from_millis(100);
const SUSPECTED: Duration = Duration::from_millis(50);
const SUSPICION: Duration = Duration::from_secs(3);
/// One probe for so many packets of the site: a twentieth more.
const PACKETS_EACH: u32 = 20;
/// How often the packets are counted.
const COUNTING: Duration = Duration::from_secs(1);

/// Looks closely at a path that carries traffic which asks much of it: probes between the regular ones, in
/// proportion to what the path carries. They make no verdict; what they show is told as `Recent`.
#[derive(Debug)]
pub(super) struct Scrutiny {
    trail: Trail,
    counted: (u64, Moment),
    pace: Option<Duration>,
    suspected_until: Moment,
    next: Option<Moment>,
}

impl Scrutiny {
    pub fn new(now: Moment) -> Scrutiny {
        Scrutiny { trail: Trail::default(), counted: (0, now), pace: None, suspected_until: now, next: None }
    }

    /// What was measured is of another tunnel, or was an outage.
    pub fn restart(&mut self) {
        self.trail.clear();
    }

    /// A probe of the target was answered, or lost.
    pub fn handle_result(&mut self, result: Option<Duration>, now: Moment) {
        self.trail.push(result, now);
        // Where little is sent, a lossy link would be asked quickly for ever, and for nobody.
        if result.is_none() && self.pace.is_some() {
            self.suspected_until = now + SUSPICION;
            self.next = Some(self.next.map_or(now + SUSPECTED, |next| next.min(now + SUSPECTED)));
        }
    }

    /// Is it time for a probe? `interval` is that of the regular ones.
    pub fn is_due(&mut self, traffic: Traffic, interval: Duration, budget: &mut ProbeBudget, now: Moment) -> bool {
        let (before, at) = self.counted;
        let span = now.since(at);
        if span >= COUNTING {
            let sent = u32::try_from(traffic.sent.saturating_sub(before)).unwrap_or(u32::MAX);
            let each = (span * PACKETS_EACH).checked_div(sent).map(|each| each.max(QUICKEST));
            self.pace = each.filter(|each| *each < interval);
            self.counted = (traffic.sent, now);
        }
        let pace = if now < self.suspected_until { Some(SUSPECTED) } else { self.pace };
        let Some(pace) = pace else {
            self.next = None;
            return false;
        };
        let next = self.next.unwrap_or(now);
        let is_due = next <= now && budget.turn_now(now);
        self.next = Some(if next <= now { now + pace } else { next.min(now + pace) });
        is_due
    }

    pub fn next_event(&self) -> Moment {
        self.next.unwrap_or(self.counted.1 + COUNTING)
    }

    pub fn recent(&self) -> Option<Recent> {
        self.trail.recent()
    }
}
