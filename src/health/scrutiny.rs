use std::time::Duration;

use super::ProbeBudget;
use super::habit::Traffic;
use crate::model::Moment;

/// After a loss it is asked quickly for so long.
const SUSPICION: Duration = Duration::from_secs(3);
/// How often the packets are counted.
const COUNTING: Duration = Duration::from_secs(1);

/// How closely a path is looked at while it carries traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Closeness {
    /// Nobody asks more of it than that it carries packets.
    #[default]
    Never,
    /// Each probe is paid for.
    Sparing,
    Close,
}

/// When to ask between the regular probes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Once for so many packets of the site, and no more often than this.
    packets: u32,
    quickest: Duration,
    suspected: Duration,
}

impl Closeness {
    const fn pace(self) -> Option<Pace> {
        match self {
            Closeness::Never => None,
            // Of a call one packet in twenty more, and each is smaller.
            Closeness::Sparing => {
                Some(Pace { packets: 20, quickest: Duration::from_millis(400), suspected: Duration::from_millis(100) })
            }
            Closeness::Close => {
                Some(Pace { packets: 10, quickest: Duration::from_millis(100), suspected: Duration::from_millis(50) })
            }
        }
    }
}

/// Looks closely at a path that carries traffic which asks much of it: says when a probe is due between the
/// regular ones, in proportion to what the path carries.
#[derive(Debug)]
pub(super) struct Scrutiny {
    pace: Pace,
    counted: (u64, Moment),
    /// As much as it carries now; `None`: too little.
    each: Option<Duration>,
    suspected_until: Moment,
    next: Option<Moment>,
}

impl Scrutiny {
    pub fn new(closeness: Closeness, now: Moment) -> Option<Scrutiny> {
        let pace = closeness.pace()?;
        Some(Scrutiny { pace, counted: (0, now), each: None, suspected_until: now, next: None })
    }

    /// A probe of the target was lost.
    pub fn handle_loss(&mut self, now: Moment) {
        // Where little is sent, a lossy link would be asked quickly for ever, and for nobody.
        if self.each.is_some() {
            let soon = now + self.pace.suspected;
            self.suspected_until = now + SUSPICION;
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
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
            let each = (span * self.pace.packets).checked_div(sent).map(|each| each.max(self.pace.quickest));
            self.each = each.filter(|each| *each < interval);
            self.counted = (traffic.sent, now);
        }
        let each = if now < self.suspected_until { Some(self.pace.suspected) } else { self.each };
        let Some(each) = each.filter(|_| somebody) else {
            self.next = None;
            return false;
        };
        let next = self.next.unwrap_or(now);
        if next > now {
            self.next = Some(next.min(now + each));
            return false;
        }
        let turn = budget.turn_between(now);
        self.next = Some(turn.err().unwrap_or(now + each));
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
        let mut scrutiny = Scrutiny::new(Closeness::Close, at(0)).expect("it looks closely");
        let sent = |sent| Traffic { sent, ..Traffic::default() };
        while budget.turn_between(at(1_000)).is_ok() {}
        assert!(!scrutiny.is_due(sent(200), Duration::from_secs(1), true, &mut budget, at(1_000)));
        assert_eq!(scrutiny.next_event(), at(1_001));
        assert!(scrutiny.is_due(sent(200), Duration::from_secs(1), true, &mut budget, at(1_001)));
        assert_eq!(scrutiny.next_event(), at(1_101));
    }
}
