use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Scenario;
use crate::lab::relay::Direction;
use crate::lab::score::contender::{Contender, Parcel};
use crate::lab::score::field::{Field, Way};
use crate::lab::score::transfer::PACKET;
use crate::model::{FlowKey, Moment, Role};

/// So far ahead must a way be open for a flow to be sent over it.
const AHEAD: Duration = Duration::from_millis(500);
/// Transfers are placed anew so often, and go where so much more is gained, in bits a second.
const PLACE: Duration = Duration::from_millis(200);
const LEAST_GAIN: f64 = 300e3;
/// Where all gain the same, each goes where it gets most.
const OWN_PART: f64 = 0.1;
/// A call changes when another way is so much better: less would not be heard.
const VOICE_MARGIN: Duration = Duration::from_millis(15);
/// What loss costs a call: see `Quality::score` of `steer`.
const LOSS_COST: Duration = Duration::from_millis(10);

/// Knows what every line does now and soon, without probes, and moves flows for nothing. Like all
/// others it has one way for a flow at a time.
pub struct Oracle {
    links: usize,
    calls: BTreeMap<FlowKey, Way>,
    /// With their direction: true from the site.
    transfers: BTreeMap<FlowKey, (Way, bool)>,
    next: Moment,
}

impl Oracle {
    pub fn new(scenario: &Scenario) -> Oracle {
        let links = scenario.links.len();
        Oracle { links, calls: BTreeMap::new(), transfers: BTreeMap::new(), next: Moment::ZERO }
    }

    /// Ways that are open now and soon; the primary PoP's if there are any.
    fn open(&self, field: &Field, now: Moment) -> Vec<Way> {
        let is_open = |way: &Way| {
            let both = |at| Direction::ALL.iter().all(|direction| field.is_open(*way, *direction, at));
            both(now) && both(now + AHEAD)
        };
        let of = |role: Role| -> Vec<Way> {
            (0..self.links).map(|link| Way { link, pop: role.index() }).filter(is_open).collect()
        };
        let primary = of(Role::Primary);
        if primary.is_empty() { of(Role::Secondary) } else { primary }
    }

    fn call(&mut self, key: &FlowKey, field: &Field, now: Moment) -> Option<Way> {
        let open = self.open(field, now);
        let present = self.calls.get(key).copied();
        let cost = |way: Way| {
            let cost = Direction::ALL.map(|direction| {
                let loss = field.line_model(way.link, direction).map_or(0, |model| model.loss.value());
                field.delay(way, direction, now) + LOSS_COST * u32::from(loss)
            });
            cost[0] + cost[1]
        };
        let best = open.iter().copied().min_by_key(|way| cost(*way)).or(present)?;
        let stays = present.filter(|way| open.contains(way) && cost(*way) <= cost(best) + VOICE_MARGIN);
        let way = stays.unwrap_or(best);
        self.calls.insert(*key, way);
        Some(way)
    }

    /// Puts each transfer where it gets most, beside those that are there.
    fn place(&mut self, field: &Field, now: Moment) {
        let open = self.open(field, now);
        let keys: Vec<FlowKey> = self.transfers.keys().copied().collect();
        for key in keys {
            let Some((present, upload)) = self.transfers.remove(&key) else { continue };
            if let Some(way) = self.best_for_transfer(&open, field, Some(present), upload) {
                self.transfers.insert(key, (way, upload));
            }
        }
    }

    fn best_for_transfer(&self, open: &[Way], field: &Field, present: Option<Way>, upload: bool) -> Option<Way> {
        // What all transfers together gain by one more there, and a little of what it gets itself.
        let gain = |way: Way| {
            let others = self.transfers.values().filter(|(one, up)| one.link == way.link && *up == upload).count();
            let (line, alone) = rates(field, way, upload);
            let together = |count: usize| line.min(alone * count as f64);
            let all = together(others + 1);
            all - together(others) + OWN_PART * all / (others + 1) as f64
        };
        let best = open.iter().copied().max_by(|a, b| gain(*a).total_cmp(&gain(*b))).or(present)?;
        let stays = present.filter(|way| open.contains(way) && gain(best) < gain(*way) + LEAST_GAIN);
        Some(stays.unwrap_or(best))
    }
}

impl Contender for Oracle {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        if now >= self.next {
            self.next = now + PLACE;
            self.place(field, now);
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        Some(self.next)
    }

    fn route(&mut self, parcel: &Parcel, field: &Field, now: Moment) -> Option<Way> {
        if parcel.is_voice() {
            return self.call(&parcel.key, field, now);
        }
        let both = |way: Way| Direction::ALL.iter().all(|direction| field.is_open(way, *direction, now));
        if let Some((way, _)) = self.transfers.get(&parcel.key)
            && both(*way)
        {
            return Some(*way);
        }
        let present = self.transfers.remove(&parcel.key).map(|(way, _)| way);
        let way = self.best_for_transfer(&self.open(field, now), field, present, parcel.upload)?;
        self.transfers.insert(parcel.key, (way, parcel.upload));
        Some(way)
    }

    fn forget(&mut self, key: &FlowKey) {
        self.calls.remove(key);
        self.transfers.remove(key);
    }
}

/// The line's rate, and what loss leaves of it to a single transfer (Mathis et al. 1997: 1.22 packets
/// a round trip over the root of the loss), in bits a second.
fn rates(field: &Field, way: Way, upload: bool) -> (f64, f64) {
    let lines = Direction::ALL.map(|direction| field.line_model(way.link, direction));
    let [Some(up), Some(down)] = lines else { return (0.0, 0.0) };
    let carries = if upload { up } else { down };
    let line = f64::from(carries.rate.value()) * 1e6;
    let loss = f64::from(carries.loss.value()) / 1000.0;
    let round_trip = (up.delay + down.delay + (up.jitter + down.jitter) / 2).as_secs_f64().max(1e-3);
    let alone = if loss > 0.0 { PACKET as f64 * 8.0 * 1.22 / (round_trip * loss.sqrt()) } else { line };
    (line, alone.min(line))
}
