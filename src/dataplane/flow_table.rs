use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::forward::{
    FLOWS_DEFAULT, FlowMove, FlowReport, Forgetting, Forgotten, HeavyFlow, MOVES_KEPT, MoveCause, MoveOrder,
};
use crate::model::{Dscp, FlowKey, LinkId, Moment, PathId, RuleId};
use crate::steer::{KnownNames, Why};

/// Parts of the table, each with a lock of its own. A worker that goes through all flows holds one
/// for 256 of them in a full table, and for 4,096 of a million: some 3 and 50 µs. Fixed, so that a
/// simulation is the same on every machine.
pub(super) const SHARDS: usize = 256;

/// What a packet of a known flow needs to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEntry {
    /// `None`: the flow has only arrived so far, and nothing has left.
    pub path: Option<PathId>,
    /// It leaves by this link outside of the tunnels.
    pub breakout: Option<LinkId>,
    /// What was known of the destination's names.
    pub names: KnownNames,
    /// See `NameTable::epoch`.
    pub names_epoch: u32,
    /// The choice holds while the path's epoch and the policy's are these.
    pub path_epoch: u32,
    pub policy_epoch: u32,
    /// The rule that matched.
    pub rule: Option<RuleId>,
    /// The rule named the path: where the flow arrives has no say.
    pub by_rule: bool,
    /// It stays on the other role's path although traffic went back.
    pub kept: bool,
    /// It is about to leave its path, which is drained.
    pub draining: bool,
    /// What the rule marks the flow's packets with.
    pub mark: Option<Dscp>,
    /// Index of the Child SA in the path's `children`.
    pub child: u8,
    /// See `HeavyFlow::peers`.
    pub peers: u8,
    pub arrived_on: Option<PathId>,
    pub dscp: Dscp,
    pub why: Why,
}

/// A flow as it was when a packet of it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaving {
    pub entry: FlowEntry,
    /// It is to go over to this path, and now is the time.
    pub ordered: Option<PathId>,
    /// Since the packet before.
    pub paused: Duration,
    pub began: Moment,
    /// Something of it has arrived: there may be a connection.
    pub answered: bool,
}

/// What is remembered of a flow, under its key as it leaves the site.
pub(super) struct Flow {
    pub key: FlowKey,
    /// There is an order in `story`.
    ordered: bool,
    entry: FlowEntry,
    /// `Moment::ZERO` before the first.
    last_left: Moment,
    last_arrived: Moment,
    /// Inner bytes and packets that left.
    bytes: u64,
    packets: u64,
    /// `bytes` at the survey before, and when that was.
    surveyed: (u64, Moment),
    first: Moment,
    /// Of flows that have moved, or shall.
    story: Option<Box<Story>>,
}

#[derive(Default)]
struct Story {
    order: Option<MoveOrder>,
    moves: u32,
    history: ArrayVec<FlowMove, MOVES_KEPT>,
}

impl Story {
    /// When it moved, if it need not have. What an outage has moved may go back when that is over.
    fn chosen(&self) -> Option<Moment> {
        self.history.last().filter(|moved| !moved.cause.is_forced()).map(|moved| moved.at)
    }
}

impl Flow {
    pub fn last_seen(&self) -> Moment {
        self.last_left.max(self.last_arrived)
    }

    /// The path of an order that is due: the flow has paused for long enough, or it never does.
    fn due(&mut self, now: Moment) -> Option<PathId> {
        let order = self.story.as_ref()?.order?;
        let is_due = now.since(self.last_left) >= order.gap || now >= order.by;
        is_due.then(|| {
            self.drop_order();
            order.to
        })
    }

    fn drop_order(&mut self) {
        self.ordered = false;
        if let Some(story) = &mut self.story {
            story.order = None;
        }
    }

    fn remember(&mut self, moved: FlowMove) {
        let story = self.story.get_or_insert_default();
        story.moves = story.moves.saturating_add(1);
        if story.history.is_full() {
            story.history.remove(0);
        }
        story.history.push(moved);
    }

    fn report(&self) -> FlowReport {
        let story = self.story.as_deref();
        FlowReport {
            key: self.key,
            dscp: self.entry.dscp,
            path: self.entry.path,
            breakout: self.entry.breakout,
            names: self.entry.names,
            arrived_on: self.entry.arrived_on,
            rule: self.entry.rule,
            why: self.entry.why,
            first: self.first,
            last: self.last_seen(),
            bytes: self.bytes,
            packets: self.packets,
            moves: story.map_or(0, |story| story.moves),
            history: story.map(|story| story.history.clone()).unwrap_or_default(),
        }
    }
}

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
        self.change(key, |flow| {
            let ordered = if flow.ordered { flow.due(now) } else { None };
            let paused = now.since(flow.last_left);
            flow.bytes = flow.bytes.saturating_add(bytes);
            // One that is sent once more, by another path, has been counted.
            flow.packets = flow.packets.saturating_add(u64::from(bytes > 0));
            flow.last_left = now;
            let answered = flow.last_arrived != Moment::ZERO;
            Leaving { entry: flow.entry, ordered, paused, began: flow.first, answered }
        })
    }

    /// Writes down the choice of a path for a flow, and if it has moved, why; `bytes` is the packet
    /// that the choice was made for. `false`, and counted, when other workers were quicker to take the
    /// last places: the flow's next packet will be decided anew.
    pub fn pin(&self, key: FlowKey, chosen: FlowEntry, moved: Option<MoveCause>, bytes: u64, now: Moment) -> bool {
        let new = || Flow { last_left: now, bytes, packets: 1, ..Flow::new(key, chosen, now) };
        self.insert_or(key, now, new, |flow| {
            if let (Some(cause), Some(from), Some(to)) = (moved, flow.entry.path, chosen.path) {
                flow.remember(FlowMove { at: now, from, to, cause });
                flow.drop_order();
            }
            flow.entry = FlowEntry { arrived_on: flow.entry.arrived_on, ..chosen };
            flow.bytes = flow.bytes.max(bytes);
            flow.packets = flow.packets.max(1);
            flow.last_left = now;
        })
    }

    /// A packet of the flow, given by its outgoing key, arrived on `path`. Returns the path that
    /// the flow leaves by, if it does.
    pub fn arrive(&self, key: &FlowKey, path: PathId, now: Moment) -> Option<PathId> {
        self.change(key, |flow| {
            flow.entry.arrived_on = Some(path);
            flow.last_arrived = now;
            flow.entry.path
        })?
    }

    /// Like `arrive`, and remembers a flow that is new, so that what answers it can leave by the
    /// path that it arrived on. When it comes to arrive on another path, what leaves is decided
    /// anew, unless a rule decided it.
    pub fn arrive_to_answer(&self, key: &FlowKey, path: PathId, now: Moment) -> Option<PathId> {
        let arrived = FlowEntry {
            path: None,
            breakout: None,
            names: Default::default(),
            names_epoch: 0,
            path_epoch: 0,
            policy_epoch: 0,
            rule: None,
            by_rule: false,
            kept: false,
            draining: false,
            mark: None,
            child: 0,
            peers: 0,
            arrived_on: Some(path),
            dscp: Dscp::DEFAULT,
            why: Why::NoCandidate,
        };
        let mut leaves_by = None;
        let new = || Flow { last_arrived: now, ..Flow::new(*key, arrived, now) };
        self.insert_or(*key, now, new, |flow| {
            let entry = &mut flow.entry;
            leaves_by = entry.path;
            if entry.arrived_on != Some(path)
                && let Some(from) = entry.path.filter(|from| *from != path && !entry.by_rule)
            {
                entry.path = None;
                flow.remember(FlowMove { at: now, from, to: path, cause: MoveCause::Arrival });
            }
            flow.entry.arrived_on = Some(path);
            flow.last_arrived = now;
        });
        leaves_by
    }

    /// A flow that is still on `from` shall move, when the time comes. `false`: it is not.
    pub fn order(&self, order: &MoveOrder) -> bool {
        let taken = self.change(&order.key, |flow| {
            let stays_so = flow.entry.path == Some(order.from) && flow.entry.peers != 0;
            if stays_so {
                flow.story.get_or_insert_default().order = Some(*order);
                flow.ordered = true;
            }
            stays_so
        });
        taken.unwrap_or_default()
    }

    /// When the flow moved last.
    pub fn moved_at(&self, key: &FlowKey) -> Option<Moment> {
        self.change(key, |flow| flow.story.as_ref()?.history.last().map(|moved| moved.at))?
    }

    /// How the packet was marked that its way was chosen for.
    pub fn dscp(&self, key: &FlowKey) -> Option<Dscp> {
        self.change(key, |flow| flow.entry.dscp)
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
        for flow in &mut shard.lock().flows {
            let (bytes, at) = std::mem::replace(&mut flow.surveyed, (flow.bytes, now));
            // A flow that is younger than this says nothing about a second.
            let span = now.since(at).max(Duration::from_secs(1)).as_nanos();
            let sent = u128::from(flow.bytes.saturating_sub(bytes)) * 1_000_000_000;
            let rate = u64::try_from(sent / span).unwrap_or(u64::MAX);
            // One bit is its own path.
            let movable = flow.entry.peers.count_ones() > 1 && !flow.ordered && rate >= least;
            if let Some(path) = flow.entry.path.filter(|_| movable) {
                let moved_at = flow.story.as_ref().and_then(|story| story.chosen());
                see(HeavyFlow { key: flow.key, path, peers: flow.entry.peers, rate, moved_at });
            }
        }
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

impl Flow {
    fn new(key: FlowKey, entry: FlowEntry, now: Moment) -> Flow {
        Flow {
            key,
            ordered: false,
            entry,
            last_left: Moment::ZERO,
            last_arrived: Moment::ZERO,
            bytes: 0,
            packets: 0,
            surveyed: (0, now),
            first: now,
            story: None,
        }
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
pub(super) mod tests {
    use super::*;

    pub fn key(number: u32) -> FlowKey {
        FlowKey {
            segment: 0,
            protocol: 17,
            source: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            destination: [10, 9, 0, 1].into(),
            source_port: 1000,
            destination_port: 53,
        }
    }

    pub fn entry(path: u16) -> FlowEntry {
        FlowEntry {
            path: Some(PathId(path)),
            breakout: None,
            names: Default::default(),
            names_epoch: 0,
            path_epoch: 1,
            policy_epoch: 1,
            rule: None,
            by_rule: false,
            kept: false,
            draining: false,
            mark: None,
            child: 0,
            peers: 0b111,
            arrived_on: None,
            dscp: Dscp::DEFAULT,
            why: Why::OnlyCandidate,
        }
    }

    pub const START: Moment = Moment::from_millis(1_000);

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
    fn arrival_alone_makes_no_entry_where_it_is_not_asked_for() {
        let table = FlowTable::new(1);
        assert_eq!(table.arrive(&key(1), PathId(4), START), None);
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

    fn order(to: u16, gap_ms: u64, by_ms: u64) -> MoveOrder {
        MoveOrder {
            key: key(1),
            from: PathId(1),
            to: PathId(to),
            gap: Duration::from_millis(gap_ms),
            by: START + Duration::from_millis(by_ms),
        }
    }

    /// When a flow with a packet each `every_ms` is let go after an order at `START`.
    fn let_go_after(every_ms: u64, order: MoveOrder) -> u64 {
        let table = FlowTable::new(1);
        table.pin(key(1), entry(1), None, 100, START);
        assert!(table.order(&order));
        let mut passed = 0;
        loop {
            passed += every_ms;
            let left = table.leave(&key(1), 100, START + Duration::from_millis(passed)).unwrap();
            if left.ordered.is_some() {
                assert_eq!(left.ordered, Some(order.to));
                let next = table.leave(&key(1), 100, START + Duration::from_millis(passed + 500)).unwrap();
                assert_eq!(next.ordered, None, "told once");
                return passed;
            }
        }
    }

    #[test]
    fn an_ordered_flow_goes_at_its_first_pause_or_when_patience_ends() {
        assert_eq!(let_go_after(50, order(2, 20, 900)), 50);
        assert_eq!(let_go_after(10, order(2, 20, 900)), 900);
        assert_eq!(let_go_after(10, order(2, 0, 900)), 10, "nothing can be overtaken");
    }

    #[test]
    fn an_order_that_the_flow_has_left_behind_is_not_taken() {
        let table = FlowTable::new(1);
        assert!(!table.order(&order(2, 0, 0)), "no such flow");
        table.pin(key(1), entry(3), None, 100, START);
        assert!(!table.order(&order(2, 0, 0)), "it is elsewhere already");
        table.pin(key(1), FlowEntry { peers: 0, ..entry(1) }, None, 100, START);
        assert!(!table.order(&order(2, 0, 0)), "its rule holds it");
    }

    #[test]
    fn moves_are_remembered_the_latest_ones_with_their_causes() {
        let table = FlowTable::new(1);
        table.pin(key(1), entry(0), None, 100, START);
        for number in 1..=20 {
            let at = START + Duration::from_secs(number);
            table.pin(key(1), entry((number % 3) as u16), Some(MoveCause::Health), 100, at);
        }
        let told = table.get(&key(1)).unwrap();
        assert_eq!((told.moves, told.history.len()), (20, MOVES_KEPT));
        let last = told.history.last().unwrap();
        assert_eq!((last.from, last.to, last.cause), (PathId(1), PathId(2), MoveCause::Health));
        assert_eq!(table.moved_at(&key(1)), Some(START + Duration::from_secs(20)));
    }

    #[test]
    fn a_survey_tells_of_moves_that_need_not_have_been() {
        let table = FlowTable::new(1);
        let mut told = Vec::new();
        for (seconds, cause) in [(10, MoveCause::Shares), (20, MoveCause::PathLost), (30, MoveCause::Shares)] {
            let at = START + Duration::from_secs(seconds);
            table.pin(key(1), entry(seconds as u16 / 10), Some(cause), 0, at);
            if seconds == 10 {
                table.pin(key(1), entry(7), Some(cause), 0, at);
            }
            table.leave(&key(1), 10_000, at + Duration::from_secs(1));
            (0..SHARDS)
                .for_each(|shard| table.survey(shard, 1, at + Duration::from_secs(2), |flow| told.push(flow.moved_at)));
        }
        let at = |seconds: u64| Some(START + Duration::from_secs(seconds));
        assert_eq!(told, [at(10), None, at(30)]);
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
