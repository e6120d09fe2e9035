use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::field::{Field, Way};
use super::tracker::{Habits, Tracker};
use crate::config::Scenario;
use crate::model::{FlowKey, Moment, Role};

/// The probed ways of a site, of which those to the primary PoP are in use while one of them lives,
/// and else those to the secondary: backup routes, members of a higher metric, a standby hub. What
/// the modelled products have in common.
pub struct Fleet {
    trackers: Vec<Tracker>,
    /// By link: its upstream bandwidth.
    weights: Vec<u64>,
}

impl Fleet {
    pub fn new(scenario: &Scenario, habits: Habits) -> Fleet {
        let weights: Vec<u64> = scenario.links.iter().map(|link| u64::from(link.up.rate.value())).collect();
        let ways = Role::ALL.iter().flat_map(|role| (0..weights.len()).map(|link| Way { link, pop: role.index() }));
        let count = u32::try_from(2 * weights.len().max(1)).unwrap_or(u32::MAX);
        let tracker = |(number, way)| Tracker::new(way, habits, habits.every * number / count);
        let trackers = (0u32..).zip(ways).map(tracker).collect();
        Fleet { trackers, weights }
    }

    pub fn advance(&mut self, field: &mut Field, now: Moment) {
        self.trackers.iter_mut().for_each(|tracker| tracker.advance(field, now));
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        self.trackers.iter().map(Tracker::poll_timeout).min()
    }

    /// Those that live and are in use.
    pub fn in_use(&self) -> Vec<&Tracker> {
        let of = |role: Role| -> Vec<&Tracker> {
            self.trackers.iter().filter(|tracker| tracker.is_alive() && tracker.way.role() == role).collect()
        };
        let primary = of(Role::Primary);
        if primary.is_empty() { of(Role::Secondary) } else { primary }
    }

    pub fn is_in_use(&self, way: Way) -> bool {
        self.in_use().iter().any(|tracker| tracker.way == way)
    }

    pub fn weight(&self, way: Way) -> u64 {
        self.weights.get(way.link).copied().unwrap_or(1)
    }
}

/// A flow's hash falls to one of the ways, in proportion to the weights, as with ranges of a hash (RFC
/// 2992) or chance of a weight.
pub fn pick(ways: &[(Way, u64)], key: &FlowKey) -> Option<Way> {
    let whole: u64 = ways.iter().map(|(_, weight)| weight).sum();
    let hash = FixedState::with_seed(7).hash_one(key);
    let point = (u128::from(hash) * u128::from(whole)) >> 64;
    let mut upto = 0u128;
    ways.iter().find_map(|(way, weight)| {
        upto += u128::from(*weight);
        (point < upto).then_some(*way)
    })
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
