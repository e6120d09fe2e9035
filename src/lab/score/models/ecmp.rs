use crate::config::Scenario;
use crate::lab::score::contender::{Contender, Parcel};
use crate::lab::score::field::{Field, Way};
use crate::lab::score::fleet::{Fleet, pick, seconds};
use crate::lab::score::tracker::Habits;
use crate::model::Moment;

/// Three equal routes into IPsec tunnels; a tunnel's route goes when dead peer detection fires: 30 s
/// of silence, asked each 10 s, as AWS's Site-to-Site VPN has it by default.
const HABITS: Habits = Habits { every: seconds(10), timeout: seconds(10), dies_after: 3, lives_after: 1, window: 3 };

/// Equal-cost routes and a hash of each flow.
pub struct Ecmp {
    fleet: Fleet,
}

impl Ecmp {
    pub fn new(scenario: &Scenario) -> Ecmp {
        Ecmp { fleet: Fleet::new(scenario, HABITS) }
    }
}

impl Contender for Ecmp {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        self.fleet.advance(field, now);
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.fleet.poll_timeout()
    }

    fn route(&mut self, parcel: &Parcel, _: &Field, _: Moment) -> Option<Way> {
        let equal: Vec<(Way, u64)> = self.fleet.in_use().iter().map(|tracker| (tracker.way, 1)).collect();
        pick(&equal, &parcel.key)
    }
}
