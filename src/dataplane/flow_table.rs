use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::FixedState;

use crate::model::{FlowKey, Moment, PathId, RuleId};

/// 262,144 flows: about 50 MiB, and the size of a large office's NAT table. Further flows are
/// forwarded all the same, each packet by a decision of its own.
pub const MAX_FLOWS: usize = 262_144;

/// A flow without packets for this long is forgotten (RFC 4787 4.3 recommends 5 minutes for UDP
/// mappings). A TCP connection that wakes up later is decided anew, most often alike.
pub const FLOW_IDLE: Duration = Duration::from_secs(300);

/// In this time the sweep looks at every flow once, so that a busy worker forgets an idle flow
/// within two rounds.
const SWEEP_ROUND: Duration = Duration::from_secs(60);

/// Flows that one turn looks at, at most: some 10 µs.
const SWEEP_AT_ONCE: u64 = 64;

/// Flows that a new flow looks at, in search of an idle one, when the table is full.
const SWEEP_WHEN_FULL: usize = 4;

/// Locks within the table. Fixed, so that a simulation is the same on every machine.
const SHARDS: usize = 64;

/// What is remembered of a flow, under its key as it leaves the site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEntry {
    /// `None`: the flow has only arrived so far, and nothing has left.
    pub path: Option<PathId>,
    /// The choice holds while the path's epoch and the policy's are these.
    pub path_epoch: u32,
    pub policy_epoch: u32,
    /// The rule that matched.
    pub rule: Option<RuleId>,
    /// The rule named the path: where the flow arrives has no say.
    pub by_rule: bool,
    /// Index of the Child SA in the path's `children`.
    pub child: u8,
    pub arrived_on: Option<PathId>,
    pub last_seen: Moment,
    /// Inner bytes and packets that left.
    pub bytes: u64,
    pub packets: u64,
}

/// Where each flow goes. It belongs to the data plane and all workers share it; every method
/// locks one shard and lets go of it before it returns.
pub struct FlowTable {
    flows: DashMap<FlowKey, FlowEntry, FixedState>,
    limit: usize,
    count: AtomicUsize,
    unpinned: AtomicU64,
    /// Every flow of the table once, in the order in which they are looked at for expiry.
    round: SegQueue<FlowKey>,
}

impl FlowTable {
    /// Whoever knows `seed` can choose flows that collide, so production draws it at random; a
    /// simulation gives a number.
    pub fn new(seed: u64) -> FlowTable {
        FlowTable::with_limit(seed, MAX_FLOWS)
    }

    pub fn with_limit(seed: u64, limit: usize) -> FlowTable {
        FlowTable {
            flows: DashMap::with_hasher_and_shard_amount(FixedState::with_seed(seed), SHARDS),
            limit,
            count: AtomicUsize::new(0),
            unpinned: AtomicU64::new(0),
            round: SegQueue::new(),
        }
    }

    /// The flow's entry, after counting a packet that leaves.
    pub fn leave(&self, key: &FlowKey, bytes: u64, now: Moment) -> Option<FlowEntry> {
        let mut entry = self.flows.get_mut(key)?;
        entry.bytes = entry.bytes.saturating_add(bytes);
        entry.packets = entry.packets.saturating_add(1);
        entry.last_seen = now;
        Some(*entry)
    }

    /// Writes down the choice of a path for a flow. `false`, and counted, when the table is full:
    /// the flow's next packet will be decided anew.
    pub fn pin(&self, key: FlowKey, chosen: FlowEntry) -> bool {
        self.insert_or(key, chosen, |entry| {
            *entry = FlowEntry {
                arrived_on: entry.arrived_on,
                bytes: entry.bytes.max(chosen.bytes),
                packets: entry.packets.max(chosen.packets),
                ..chosen
            };
        })
    }

    /// A packet of the flow, given by its outgoing key, arrived on `path`. Returns the path that
    /// the flow leaves by, if it does.
    pub fn arrive(&self, key: &FlowKey, path: PathId, now: Moment) -> Option<PathId> {
        let mut entry = self.flows.get_mut(key)?;
        entry.arrived_on = Some(path);
        entry.last_seen = now;
        entry.path
    }

    /// Like `arrive`, and remembers a flow that is new, so that what answers it can leave by the
    /// path that it arrived on. When it comes to arrive on another path, what leaves is decided
    /// anew, unless a rule decided it.
    pub fn arrive_to_answer(&self, key: &FlowKey, path: PathId, now: Moment) -> Option<PathId> {
        let arrived = FlowEntry {
            path: None,
            path_epoch: 0,
            policy_epoch: 0,
            rule: None,
            by_rule: false,
            child: 0,
            arrived_on: Some(path),
            last_seen: now,
            bytes: 0,
            packets: 0,
        };
        let mut leaves_by = None;
        self.insert_or(*key, arrived, |entry| {
            leaves_by = entry.path;
            if entry.arrived_on != Some(path) && entry.path != Some(path) && !entry.by_rule {
                entry.path = None;
            }
            entry.arrived_on = Some(path);
            entry.last_seen = now;
        });
        leaves_by
    }

    pub fn get(&self, key: &FlowKey) -> Option<FlowEntry> {
        self.flows.get(key).map(|entry| *entry)
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a choice could not be written down because the table was full.
    pub fn unpinned(&self) -> u64 {
        self.unpinned.load(Ordering::Relaxed)
    }

    /// Up to `limit` flows after the first `skip`. The order holds only while no flow comes or
    /// goes, so slices taken over time may repeat or miss some.
    pub fn slice(&self, skip: usize, limit: usize) -> Vec<(FlowKey, FlowEntry)> {
        self.flows.iter().skip(skip).take(limit).map(|flow| (*flow.key(), *flow.value())).collect()
    }

    /// Inserts a new flow or changes the present one.
    fn insert_or(&self, key: FlowKey, new: FlowEntry, mut change: impl FnMut(&mut FlowEntry)) -> bool {
        if let Some(mut present) = self.flows.get_mut(&key) {
            change(&mut present);
            return true;
        }
        if self.len() >= self.limit {
            for _ in 0..SWEEP_WHEN_FULL {
                self.expire_next(new.last_seen);
            }
        }
        match self.flows.entry(key) {
            Entry::Occupied(mut present) => change(present.get_mut()),
            Entry::Vacant(vacant) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= self.limit {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    self.unpinned.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                vacant.insert(new);
                self.round.push(key);
            }
        }
        true
    }

    /// Looks at the flow that waits longest and forgets it when it is idle; otherwise it waits
    /// for another round.
    fn expire_next(&self, now: Moment) {
        let Some(key) = self.round.pop() else { return };
        if self.flows.remove_if(&key, |_, entry| now.since(entry.last_seen) >= FLOW_IDLE).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.round.push(key);
        }
    }
}

/// A worker's part in forgetting idle flows: a few at each turn, at a pace that looks at every
/// flow once in `SWEEP_ROUND`.
#[derive(Default)]
pub struct Sweep {
    last: Moment,
    /// Flows in the table when this round began, and how many of them are still to look at.
    round: u64,
    left: u64,
    /// Time passed, times `round`: one `SWEEP_ROUND` of it pays for one flow. Less than 2^18
    /// flows times 2^36 ns.
    credit: u64,
}

impl Sweep {
    pub fn turn(&mut self, table: &FlowTable, now: Moment) {
        if self.left == 0 {
            self.round = table.len() as u64;
            self.left = self.round;
        }
        let whole = SWEEP_ROUND.as_nanos() as u64;
        let passed = (now.since(self.last).as_nanos() as u64).min(whole);
        self.last = now;
        self.credit = self.credit.saturating_add(passed.saturating_mul(self.round));
        let due = (self.credit / whole).min(SWEEP_AT_ONCE).min(self.left);
        // What could not be spent at once is not saved up.
        self.credit %= whole;
        self.left -= due;
        for _ in 0..due {
            table.expire_next(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> FlowKey {
        FlowKey {
            segment: 0,
            protocol: 17,
            source: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            destination: [10, 9, 0, 1].into(),
            source_port: 1000,
            destination_port: 53,
        }
    }

    fn entry(path: u16, now: Moment) -> FlowEntry {
        FlowEntry {
            path: Some(PathId(path)),
            path_epoch: 1,
            policy_epoch: 1,
            rule: None,
            by_rule: false,
            child: 0,
            arrived_on: None,
            last_seen: now,
            bytes: 100,
            packets: 1,
        }
    }

    const START: Moment = Moment::from_millis(1_000);

    #[test]
    fn a_packet_that_leaves_is_counted_and_finds_its_path() {
        let table = FlowTable::new(1);
        assert_eq!(table.leave(&key(1), 100, START), None);
        assert!(table.pin(key(1), entry(3, START)));
        let found = table.leave(&key(1), 50, START + Duration::from_secs(1)).unwrap();
        assert_eq!((found.path, found.bytes, found.packets), (Some(PathId(3)), 150, 2));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_pins_no_more_and_says_so() {
        let table = FlowTable::with_limit(1, 8);
        for number in 0..10 {
            assert_eq!(table.pin(key(number), entry(1, START)), number < 8);
        }
        assert_eq!((table.len(), table.unpinned()), (8, 2));
        assert!(table.pin(key(7), entry(2, START)), "a flow that is there can still be moved");
    }

    #[test]
    fn a_full_table_makes_room_where_flows_are_idle() {
        let table = FlowTable::with_limit(1, 8);
        for number in 0..8 {
            table.pin(key(number), entry(1, START));
        }
        assert!(table.pin(key(100), entry(1, START + FLOW_IDLE)));
        assert!(table.len() < 8);
    }

    #[test]
    fn idle_flows_are_forgotten_a_few_at_a_time_and_busy_ones_stay() {
        let table = FlowTable::new(1);
        for number in 0..1_000 {
            table.pin(key(number), entry(1, START));
        }
        let mut sweep = Sweep::default();
        let mut now = START;
        sweep.turn(&table, now);
        while now.since(START) < FLOW_IDLE + 2 * SWEEP_ROUND {
            now = now + Duration::from_millis(500);
            let before = table.len();
            table.leave(&key(5), 1, now);
            sweep.turn(&table, now);
            assert!(before - table.len() <= SWEEP_AT_ONCE as usize);
        }
        assert_eq!(table.len(), 1);
        assert!(table.get(&key(5)).is_some());
    }

    #[test]
    fn a_flow_that_arrives_elsewhere_is_decided_anew_unless_a_rule_decided() {
        let table = FlowTable::new(1);
        assert_eq!(table.arrive_to_answer(&key(1), PathId(4), START), None);
        table.pin(key(1), entry(4, START));
        assert_eq!(table.arrive_to_answer(&key(1), PathId(4), START), Some(PathId(4)));
        assert_eq!(table.get(&key(1)).unwrap().path, Some(PathId(4)));
        assert_eq!(table.arrive_to_answer(&key(1), PathId(5), START), Some(PathId(4)));
        assert_eq!(table.get(&key(1)).unwrap().path, None);

        table.pin(key(1), FlowEntry { by_rule: true, ..entry(4, START) });
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
    fn slices_list_every_flow_once() {
        let table = FlowTable::new(1);
        for number in 0..100 {
            table.pin(key(number), entry(1, START));
        }
        let mut listed: Vec<_> =
            (0..100).step_by(30).flat_map(|skip| table.slice(skip, 30)).map(|flow| flow.0).collect();
        listed.sort();
        assert_eq!(listed, (0..100).map(key).collect::<Vec<_>>());
    }
}
