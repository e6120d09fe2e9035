use std::collections::BTreeMap;

use crate::config::Scenario;
use crate::lab::score::contender::{Contender, Parcel};
use crate::lab::score::field::{Field, Way};
use crate::lab::score::fleet::{Fleet, pick, seconds};
use crate::lab::score::tracker::Habits;
use crate::model::{FlowKey, Moment};

/// `mwan3track` without settings: a ping each 10 s that waits for 4 s, down after 5, up after 5.
const HABITS: Habits = Habits { every: seconds(10), timeout: seconds(4), dies_after: 5, lives_after: 5, window: 5 };

/// OpenWrt's mwan3: members with weights, each flow marked with its own by connection tracking. The
/// table is flushed when an interface goes down (`flush_conntrack`), or its flows would be stuck.
pub struct Mwan3 {
    fleet: Fleet,
    marks: BTreeMap<FlowKey, Way>,
}

impl Mwan3 {
    pub fn new(scenario: &Scenario) -> Mwan3 {
        Mwan3 { fleet: Fleet::new(scenario, HABITS), marks: BTreeMap::new() }
    }
}

impl Contender for Mwan3 {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        self.fleet.advance(field, now);
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.fleet.poll_timeout()
    }

    fn route(&mut self, parcel: &Parcel, _: &Field, _: Moment) -> Option<Way> {
        let in_use = self.fleet.in_use();
        if let Some(way) = self.marks.get(&parcel.key).filter(|way| in_use.iter().any(|one| one.way == **way)) {
            return Some(*way);
        }
        let weighted: Vec<(Way, u64)> =
            in_use.iter().map(|tracker| (tracker.way, self.fleet.weight(tracker.way))).collect();
        let way = pick(&weighted, &parcel.key)?;
        self.marks.insert(parcel.key, way);
        Some(way)
    }

    fn forget(&mut self, key: &FlowKey) {
        self.marks.remove(key);
    }
}
