use std::time::Duration;

use crate::config::Scenario;
use crate::lab::score::contender::{Contender, Parcel};
use crate::lab::score::field::{Field, Way};
use crate::lab::score::fleet::{Fleet, pick, seconds};
use crate::lab::score::tracker::{Habits, Tracker};
use crate::model::Moment;

/// BFD: a hello each second, multiplier 7. Application-aware routing looks at the mean of its poll
/// intervals: 600 s each, as many as 6.
const HABITS: Habits =
    Habits { every: seconds(1), timeout: seconds(1), dies_after: 7, lives_after: 1, window: 6 * 600 };
const POLL: Duration = seconds(600);

/// The limits of the rule for calls: those of our own class `voice`, so that the comparison is about
/// what follows from them.
const LOSS: f64 = 0.01;
const ROUND_TRIP: Duration = Duration::from_millis(300);
const JITTER: Duration = Duration::from_millis(30);

/// Cisco Catalyst SD-WAN: flows hashed over equal tunnels, and an application-aware routing policy
/// that takes calls off tunnels beyond the limits.
pub struct Cisco {
    fleet: Fleet,
    next: Moment,
    /// Tunnels that met the limits at the last poll.
    fit: Option<Vec<Way>>,
}

impl Cisco {
    pub fn new(scenario: &Scenario) -> Cisco {
        Cisco { fleet: Fleet::new(scenario, HABITS), next: Moment::ZERO + POLL, fit: None }
    }
}

impl Contender for Cisco {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        self.fleet.advance(field, now);
        if now >= self.next {
            self.next = now + POLL;
            self.fit = Some(self.fleet.in_use().iter().filter(|one| is_fit(one)).map(|one| one.way).collect());
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.fleet.poll_timeout().map(|at| at.min(self.next))
    }

    fn route(&mut self, parcel: &Parcel, _: &Field, _: Moment) -> Option<Way> {
        let all: Vec<(Way, u64)> = self.fleet.in_use().iter().map(|tracker| (tracker.way, 1)).collect();
        let is_fit = |way: Way| !parcel.is_voice() || self.fit.as_ref().is_none_or(|fit| fit.contains(&way));
        let fit: Vec<(Way, u64)> = all.iter().copied().filter(|(way, _)| is_fit(*way)).collect();
        // Without a tunnel within the limits, any.
        pick(if fit.is_empty() { &all } else { &fit }, &parcel.key)
    }
}

fn is_fit(tracker: &Tracker) -> bool {
    tracker.loss() <= LOSS
        && tracker.round_trip().is_some_and(|round_trip| round_trip <= ROUND_TRIP)
        && tracker.jitter().unwrap_or_default() <= JITTER
}
