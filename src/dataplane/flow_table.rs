use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::flow::{Flow, FlowEntry, Leaving};
use crate::forward::{FLOWS_DEFAULT, FlowReport, Forgetting, Forgotten, HeavyFlow, MoveCause, MoveOrder, Refused};
use crate::model::{Dscp, FlowKey, Moment, PathId};

/// Parts of the table, each with a lock of its own. A worker that goes through all flows holds one
/// for 256 of them in a full table, and for 4,096 of a million: some 3 and 50 µs. Fixed, so that a
/// simulation is the same on every machine.
pub(super) const SHARDS: usize = 256;

/// Where each flow goes; memory is taken as flows come. It belongs to the data plane and all workers share it; every method
/// locks one shard and lets go of it before it returns.
pub struct FlowTable {
    pub(super) shards: Box<[Shard]>,
    hash: FixedState,
    limit: usize,
    pub(super) count: AtomicUsize,
    pub(super) forgotten: Forgotten,
}

/// On cache lines of its own: workers lock different shards at the same time.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Shard(Mutex<Part>);

#[derive(Default)]
pub(super) struct Part {
    pub flows: HashTable<Flow>,
    /// When its flows were last seen, while the oldest are looked for; here to keep its memory.
    pub seen: Vec<Moment>,
}

impl FlowTable {
    /// Whoever knows `seed` can choose flows that collide, so production draws it at random; a
    /// simulation gives a number.
    pub fn new(seed: u64) -> FlowTable {
        FlowTable::with_limit(seed, FLOWS_DEFAULT)
    }

    /// For so many flows at most; when there are more, those that were idle longest go.
    pub fn with_limit(seed: u64, limit: usize) -> FlowTable {
        FlowTable {
            shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect(),
            hash: FixedState::with_seed(seed),
            limit,
            count: AtomicUsize::new(0),
            forgotten: Forgotten::default(),
        }
    }

    /// Spreads flows evenly, in a way that nobody outside knows.
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hash.hash_one(key)
    }

    /// Counts a packet that leaves, of a known flow; with 0 bytes one that was counted before, and takes another path.
    pub fn leave(&self, key: &FlowKey, bytes: u64, now: Moment) -> Option<Leaving> {
        self.change(key, |flow| flow.leave(bytes, now))
    }

    /// Writes down the choice of a path for a flow, and if it has moved, why; `bytes` is the packet
    /// that the choice was made for. `false`, and counted, when other workers were quicker to take the
    /// last places: the flow's next packet will be decided anew.
    pub fn pin(&self, key: FlowKey, chosen: FlowEntry, moved: Option<MoveCause>, bytes: u64, now: Moment) -> bool {
        let new = || Flow::leaving(key, chosen, bytes, now);
        self.insert_or(key, now, new, |flow| flow.pin(chosen, moved, bytes, now))
    }

    /// The packet that `leave` has counted goes nowhere; of a flow that is not known nothing is remembered.
    pub fn refuse(&self, key: &FlowKey, refused: Refused, bytes: u64, now: Moment) {
        self.change(key, |flow| flow.refuse(refused, bytes, now));
    }

    /// A packet of the flow, given by its outgoing key, arrived on `path`. Returns the path that
    /// the flow leaves by, if it does.
    pub fn arrive(&self, key: &FlowKey, path: PathId, now: Moment) -> Option<PathId> {
        self.change(key, |flow| flow.arrive(path, now))?
    }

    /// Like `arrive`, and remembers a flow that is new, so that what answers it can leave by the
    /// path that it arrived on. When it comes to arrive on another path, what leaves is decided
    /// anew, unless a rule decided it.
    pub fn arrive_to_answer(&self, key: &FlowKey, path: PathId, now: Moment) -> Option<PathId> {
        let mut leaves_by = None;
        let new = || Flow::arriving(*key, path, now);
        self.insert_or(*key, now, new, |flow| leaves_by = flow.arrive_to_answer(path, now));
        leaves_by
    }

    /// A flow that is still on `from` shall move, when the time comes. `false`: it is not.
    pub fn order(&self, order: &MoveOrder) -> bool {
        self.change(&order.key, |flow| flow.order(order)).unwrap_or_default()
    }

    /// When the flow moved last.
    pub fn moved_at(&self, key: &FlowKey) -> Option<Moment> {
        self.change(key, |flow| flow.moved_at())?
    }

    /// Whether the flow's packet before went nowhere.
    pub fn is_refused(&self, key: &FlowKey) -> bool {
        self.change(key, |flow| flow.is_refused()).unwrap_or_default()
    }

    /// How the packet was marked that its way was chosen for.
    pub fn dscp(&self, key: &FlowKey) -> Option<Dscp> {
        self.change(key, |flow| flow.dscp())
    }

    pub fn get(&self, key: &FlowKey) -> Option<FlowReport> {
        self.change(key, |flow| flow.report())
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Flows that are not in the table any more, by reason.
    pub fn forgotten(&self) -> &Forgotten {
        &self.forgotten
    }

    /// Shows every flow of one shard. Whoever goes through all shards, one a turn, sees every flow
    /// that stays.
    pub(super) fn look_at(&self, shard: usize, mut see: impl FnMut(FlowReport)) {
        if let Some(shard) = self.shards.get(shard) {
            shard.lock().flows.iter().for_each(|flow| see(flow.report()));
        }
    }

    /// Measures every flow of one shard since the survey before, and shows those that may move and
    /// have sent at least `least` bytes a second.
    pub(super) fn survey(&self, shard: usize, least: u64, now: Moment, mut see: impl FnMut(HeavyFlow)) {
        let Some(shard) = self.shards.get(shard) else { return };
        shard.lock().flows.iter_mut().filter_map(|flow| flow.survey(least, now)).for_each(&mut see);
    }

    fn change<T>(&self, key: &FlowKey, change: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        let (hash, index) = self.place(key);
        self.shards[index].lock().flows.find_mut(hash, |flow| flow.key == *key).map(change)
    }

    /// Inserts a new flow or changes the present one.
    fn insert_or(&self, key: FlowKey, now: Moment, new: impl FnOnce() -> Flow, change: impl FnOnce(&mut Flow)) -> bool {
        let (hash, index) = self.place(&key);
        let part = &mut *self.shards[index].lock();
        if let Some(present) = part.flows.find_mut(hash, |flow| flow.key == key) {
            change(present);
            return true;
        }
        let has_place = self.claim() || self.make_room(index, part, now) && self.claim();
        if !has_place {
            self.forgotten.count(Forgetting::NoRoom, 1);
            return false;
        }
        if let Entry::Vacant(place) = part.flows.entry(hash, |flow| flow.key == key, |flow| self.hash_of(flow)) {
            place.insert(new());
        }
        true
    }

    /// Takes a place, if there is one left.
    fn claim(&self) -> bool {
        let more = |count: usize| (count < self.limit).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn hash_of(&self, flow: &Flow) -> u64 {
        self.hash.hash_one(flow.key)
    }

    /// The hash of a key and its shard, of which there are `SHARDS`.
    fn place(&self, key: &FlowKey) -> (u64, usize) {
        let hash = self.hash.hash_one(key);
        // The table within uses the lowest and the seven highest bits.
        (hash, (hash >> 40) as usize % SHARDS)
    }
}

impl Shard {
    pub fn lock(&self) -> MutexGuard<'_, Part> {
        // No method leaves a shard half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: somebody else holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Part>> {
        match self.0.try_lock() {
            Ok(part) => Some(part),
            Err(TryLockError::Poisoned(part)) => Some(part.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::flow::tests::{START, entry, key};
    use super::*;

    #[test]
    fn a_packet_that_leaves_is_counted_and_finds_its_path() {
        let table = FlowTable::new(1);
        assert_eq!(table.leave(&key(1), 100, START), None);
        assert!(table.pin(key(1), entry(3), None, 100, START));
        let found = table.leave(&key(1), 50, START + Duration::from_secs(1)).unwrap();
        let paused = Duration::from_secs(1);
        assert_eq!(found, Leaving { entry: entry(3), ordered: None, paused, began: START, answered: false });
        table.arrive(&key(1), PathId(3), START + paused);
        assert!(table.leave(&key(1), 0, START + paused).unwrap().answered);
        let told = table.get(&key(1)).unwrap();
        let counts = (told.path, told.bytes, told.packets);
        assert_eq!(counts, (Some(PathId(3)), 150, 2), "what leaves once more has no bytes, and was counted");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_flow_that_arrives_elsewhere_is_decided_anew_unless_a_rule_decided() {
        let table = FlowTable::new(1);
        assert_eq!(table.arrive_to_answer(&key(1), PathId(4), START), None);
        table.pin(key(1), entry(4), None, 100, START);
        assert_eq!(table.arrive_to_answer(&key(1), PathId(4), START), Some(PathId(4)));
        assert_eq!(table.get(&key(1)).unwrap().path, Some(PathId(4)));
        assert_eq!(table.arrive_to_answer(&key(1), PathId(5), START), Some(PathId(4)));
        assert_eq!(table.get(&key(1)).unwrap().path, None);

        table.pin(key(1), FlowEntry { by_rule: true, ..entry(4) }, None, 100, START);
        table.arrive_to_answer(&key(1), PathId(6), START);
        assert_eq!(table.get(&key(1)).unwrap().path, Some(PathId(4)));
    }

    #[test]
    fn arrival_alone_makes_no_entry_where_it_is_not_asked_for_and_no_order_does() {
        let table = FlowTable::new(1);
        assert_eq!(table.arrive(&key(1), PathId(4), START), None);
        let order = MoveOrder { key: key(1), from: PathId(1), to: PathId(2), gap: Duration::ZERO, by: START };
        assert!(!table.order(&order));
        assert!(table.is_empty());
    }

    #[test]
    fn the_shards_together_hold_every_flow_once() {
        let table = FlowTable::new(1);
        for number in 0..1_000 {
            table.pin(key(number), entry(1), None, 100, START);
        }
        let mut seen = Vec::new();
        (0..SHARDS).for_each(|shard| table.look_at(shard, |flow| seen.push(flow.key)));
        seen.sort();
        assert_eq!(seen, (0..1_000).map(key).collect::<Vec<_>>());
    }

    #[test]
    fn a_survey_tells_what_flows_have_sent_since_the_one_before() {
        let table = FlowTable::new(1);
        table.pin(key(1), entry(1), None, 0, START);
        table.pin(key(2), FlowEntry { peers: 0b010, ..entry(1) }, None, 0, START);
        let survey = |at: Moment| {
            let mut seen = Vec::new();
            (0..SHARDS).for_each(|shard| table.survey(shard, 1, at, |flow| seen.push((flow.key, flow.rate))));
            seen
        };
        let later = |seconds: u64| START + Duration::from_secs(seconds);
        table.leave(&key(1), 10_000, later(1));
        table.leave(&key(2), 10_000, later(1));
        assert_eq!(survey(later(10)), [(key(1), 1_000)], "the other one has nowhere to go");
        table.leave(&key(1), 50_000, later(11));
        assert_eq!(survey(later(20)), [(key(1), 5_000)]);
        assert_eq!(survey(later(30)), []);
    }
}
