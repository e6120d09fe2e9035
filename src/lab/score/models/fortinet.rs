use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Scenario;
use crate::lab::score::contender::{Contender, Parcel};
use crate::lab::score::field::{Field, Way};
use crate::lab::score::fleet::{Fleet, pick};
use crate::lab::score::tracker::{Habits, Tracker};
use crate::model::{FlowKey, Moment};

/// A health check without settings: interval and probe-timeout 500 ms, failtime and recoverytime 5,
/// probe-count 30.
const HABITS: Habits = Habits {
    every: Duration::from_millis(500),
    timeout: Duration::from_millis(500),
    dies_after: 5,
    lives_after: 5,
    window: 30,
};

/// `link-cost-threshold`, in per cent: so much better must another member be.
const THRESHOLD: u32 = 10;

/// FortiOS SD-WAN: a best-quality rule for calls with its default factor, latency, and 10 % of
/// margin; everything else by the implicit rule with weights, and the members that are alive.
pub struct Fortinet {
    fleet: Fleet,
    best: Option<Way>,
    sessions: BTreeMap<FlowKey, Way>,
}

impl Fortinet {
    pub fn new(scenario: &Scenario) -> Fortinet {
        Fortinet { fleet: Fleet::new(scenario, HABITS), best: None, sessions: BTreeMap::new() }
    }

    fn choose_best(&mut self) {
        let in_use = self.fleet.in_use();
        let latency = |tracker: &Tracker| tracker.round_trip().unwrap_or(Duration::MAX);
        let present = in_use.iter().find(|tracker| Some(tracker.way) == self.best).map(|tracker| latency(tracker));
        let Some(least) = in_use.iter().copied().min_by_key(|tracker| latency(tracker)) else { return };
        let is_close =
            |present: Duration| present.saturating_mul(100) <= latency(least).saturating_mul(100 + THRESHOLD);
        if !present.is_some_and(is_close) {
            self.best = Some(least.way);
        }
    }
}

impl Contender for Fortinet {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        self.fleet.advance(field, now);
        self.choose_best();
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.fleet.poll_timeout()
    }

    fn route(&mut self, parcel: &Parcel, _: &Field, _: Moment) -> Option<Way> {
        if parcel.is_voice() {
            return self.best;
        }
        if let Some(way) = self.sessions.get(&parcel.key)
            && self.fleet.is_in_use(*way)
        {
            return Some(*way);
        }
        let weighted: Vec<(Way, u64)> =
            self.fleet.in_use().iter().map(|tracker| (tracker.way, self.fleet.weight(tracker.way))).collect();
        let way = pick(&weighted, &parcel.key)?;
        self.sessions.insert(parcel.key, way);
        Some(way)
    }

    fn forget(&mut self, key: &FlowKey) {
        self.sessions.remove(key);
    }
}
