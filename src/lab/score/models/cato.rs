use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Scenario;
use crate::lab::score::contender::{Contender, Parcel};
use crate::lab::score::field::{Field, Way};
use crate::lab::score::fleet::{Fleet, pick, seconds};
use crate::lab::score::tracker::{Habits, Tracker};
use crate::model::{FlowKey, Moment};

/// "The health metrics are re-calculated each second"; "it takes up to 30 seconds" to find a tunnel
/// down. A window of ten results is our reading.
const HABITS: Habits = Habits { every: seconds(1), timeout: seconds(1), dies_after: 30, lives_after: 3, window: 10 };

/// "Traffic is re-distributed to the best-performing link every 10 seconds".
const REDISTRIBUTE: Duration = seconds(10);

/// Beyond these a link is not healthy. The article gives none: they are the limits of our own
/// `Degraded`, so that the comparison is about what follows from them.
const LOSS: f64 = 0.05;
const ROUND_TRIP: Duration = Duration::from_millis(400);
const JITTER: Duration = Duration::from_millis(60);

/// The Cato article on IPsec sites with several active tunnels, read to the letter: new flows by
/// health and the ratio of the bandwidths; each 10 s what is on an unhealthy link goes to the one that
/// performs best; the other role only when all tunnels are down.
pub struct Cato {
    fleet: Fleet,
    flows: BTreeMap<FlowKey, Way>,
    next: Moment,
}

impl Cato {
    pub fn new(scenario: &Scenario) -> Cato {
        Cato { fleet: Fleet::new(scenario, HABITS), flows: BTreeMap::new(), next: Moment::ZERO + REDISTRIBUTE }
    }

    fn redistribute(&mut self) {
        let in_use = self.fleet.in_use();
        let Some(best) = in_use.iter().copied().min_by_key(|tracker| cost(tracker)) else { return };
        let healthy: Vec<Way> = in_use.iter().filter(|one| is_healthy(one)).map(|one| one.way).collect();
        let best = best.way;
        self.flows.values_mut().filter(|way| !healthy.contains(way)).for_each(|way| *way = best);
    }
}

impl Contender for Cato {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        self.fleet.advance(field, now);
        if now >= self.next {
            self.next = now + REDISTRIBUTE;
            self.redistribute();
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.fleet.poll_timeout().map(|at| at.min(self.next))
    }

    fn route(&mut self, parcel: &Parcel, _: &Field, _: Moment) -> Option<Way> {
        if let Some(way) = self.flows.get(&parcel.key)
            && self.fleet.is_in_use(*way)
        {
            return Some(*way);
        }
        let in_use = self.fleet.in_use();
        let weighted = |wanted: &dyn Fn(&Tracker) -> bool| -> Vec<(Way, u64)> {
            let some = in_use.iter().filter(|tracker| wanted(tracker));
            some.map(|tracker| (tracker.way, self.fleet.weight(tracker.way))).collect()
        };
        let healthy = weighted(&is_healthy);
        let ways = if healthy.is_empty() { weighted(&|_| true) } else { healthy };
        let way = pick(&ways, &parcel.key)?;
        self.flows.insert(parcel.key, way);
        Some(way)
    }

    fn forget(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }
}

fn is_healthy(tracker: &Tracker) -> bool {
    tracker.loss() < LOSS
        && tracker.round_trip().is_some_and(|round_trip| round_trip < ROUND_TRIP)
        && tracker.jitter().unwrap_or_default() < JITTER
}

/// Half the round trip, twice the jitter, and 10 ms for each thousandth of loss: our own measure.
fn cost(tracker: &Tracker) -> Duration {
    let Some(round_trip) = tracker.round_trip() else { return Duration::MAX };
    round_trip / 2 + 2 * tracker.jitter().unwrap_or_default() + Duration::from_secs_f64(tracker.loss() * 10.0)
}
