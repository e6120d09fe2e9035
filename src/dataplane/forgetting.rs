//! How flows leave the table: those that are idle, and when it is full, those that were idle longest.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::FlowTable;
use super::flow_table::{Part, SHARDS};
use crate::forward::Forgetting;
use crate::model::Moment;

/// A flow without packets for this long is forgotten (RFC 4787 4.3 recommends 5 minutes for UDP
/// mappings). A TCP connection that wakes up later is decided anew, most often alike.
pub const FLOW_IDLE: Duration = Duration::from_secs(300);

/// When the table is full, so much of a shard goes at once: to find the oldest of it costs a look at
/// all, which so many new flows share.
const PART_TO_GO: usize = 16;

/// A shard with fewer flows keeps its memory.
const SMALL_SHARD: usize = 256;

impl FlowTable {
    /// Forgets the idle flows of one shard, and gives back memory that a flood of flows has left.
    pub(super) fn expire(&self, shard: usize, now: Moment) {
        let Some(shard) = self.shards.get(shard) else { return };
        let part = &mut *shard.lock();
        let idle = self.forget(part, |seen| now.since(seen) >= FLOW_IDLE);
        self.forgotten.count(Forgetting::Idle, idle as u64);
        let wanted = (2 * part.flows.len()).max(SMALL_SHARD);
        if idle > 0 && part.flows.capacity() > 2 * wanted {
            part.flows.shrink_to(wanted, |flow| self.hash_of(flow));
            part.seen.shrink_to(wanted);
        }
    }

    /// Lets the flows of this shard go that were idle longest; those of another one where it has
    /// none. `false`: nobody has any, or somebody else looks at them.
    pub(super) fn make_room(&self, index: usize, part: &mut Part, now: Moment) -> bool {
        if self.let_oldest_go(part, now) {
            return true;
        }
        // With a lock in hand no other one may be waited for.
        let others = (1..SHARDS).filter_map(|step| self.shards.get((index + step) % SHARDS)?.try_lock());
        others.into_iter().any(|mut part| self.let_oldest_go(&mut part, now))
    }

    fn let_oldest_go(&self, part: &mut Part, now: Moment) -> bool {
        let idle = self.forget(part, |seen| now.since(seen) >= FLOW_IDLE);
        self.forgotten.count(Forgetting::Idle, idle as u64);
        let to_go = part.flows.len().div_ceil(PART_TO_GO);
        if idle >= to_go {
            return idle > 0;
        }
        let mut seen = std::mem::take(&mut part.seen);
        seen.clear();
        seen.extend(part.flows.iter().map(|flow| flow.last_seen()));
        let (_, last_to_go, _) = seen.select_nth_unstable(to_go - idle - 1);
        // Of those that were seen at one moment, no more than so many go.
        let last_to_go = *last_to_go;
        let older = seen.iter().filter(|moment| **moment < last_to_go).count();
        let mut alike = to_go - idle - older;
        let gone = self.forget(part, |seen| {
            let goes = seen < last_to_go || (seen == last_to_go && alike > 0);
            alike -= usize::from(goes && seen == last_to_go);
            goes
        });
        part.seen = seen;
        self.forgotten.count(Forgetting::Full, gone as u64);
        true
    }

    /// Forgets flows by when they were last seen, and tells how many.
    fn forget(&self, part: &mut Part, mut goes: impl FnMut(Moment) -> bool) -> usize {
        let before = part.flows.len();
        part.flows.retain(|flow| !goes(flow.last_seen()));
        let gone = before - part.flows.len();
        self.count.fetch_sub(gone, Ordering::Relaxed);
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::flow::tests::{START, entry, key};
    use super::*;
    use crate::forward::FLOWS_DEFAULT;

    fn counted(table: &FlowTable) -> [u64; 3] {
        [Forgetting::Idle, Forgetting::Full, Forgetting::NoRoom].map(|reason| table.forgotten().get(reason))
    }

    fn later(seconds: u64) -> Moment {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn at_the_default_limit_idle_flows_make_room_and_busy_ones_stay() {
        let (table, limit) = (FlowTable::new(1), FLOWS_DEFAULT as u32);
        for number in 0..limit {
            assert!(table.pin(key(number), entry(1), None, 100, START));
        }
        assert_eq!((table.len(), counted(&table)), (FLOWS_DEFAULT, [0; 3]));
        let busy = || (0..limit).step_by(2);
        for number in busy() {
            table.leave(&key(number), 100, later(1)).expect("it is there");
        }
        // An eighth of the table comes anew.
        for number in limit..limit + limit / 8 {
            assert!(table.pin(key(number), entry(2), None, 100, later(2)));
            assert!(table.len() <= FLOWS_DEFAULT);
        }
        assert!(busy().all(|number| table.get(&key(number)).is_some()), "a busy flow went before an idle one");
        assert!((limit..limit + limit / 8).all(|number| table.get(&key(number)).is_some()));
        let [idle, full, no_room] = counted(&table);
        assert_eq!((idle, no_room), (0, 0));
        let gone = u64::from(limit + limit / 8) - table.len() as u64;
        assert!(full == gone && gone < u64::from(limit / 8 + limit / 16), "{full} of {gone} went");
    }

    #[test]
    fn in_a_full_table_what_is_idle_for_long_goes_as_such() {
        let table = FlowTable::with_limit(1, 4_096);
        for number in 0..4_096 {
            assert!(table.pin(key(number), entry(1), None, 100, START));
        }
        assert!(table.pin(key(5_000), entry(1), None, 100, START + FLOW_IDLE));
        let [idle, full, no_room] = counted(&table);
        assert!(idle > 0 && table.len() < 4_096);
        assert_eq!((full, no_room), (0, 0));
    }

    #[test]
    fn a_flow_whose_part_of_the_table_is_empty_finds_room_in_another() {
        let table = FlowTable::with_limit(1, 8);
        for number in 0..100 {
            assert!(table.pin(key(number), entry(1), None, 100, later(number.into())));
            assert!(table.len() <= 8);
        }
        assert_eq!(counted(&table), [0, 92, 0]);
        assert!(table.pin(key(99), entry(2), None, 100, later(100)), "a flow that is there can still be moved");
    }

    #[test]
    fn nothing_is_held_where_nothing_may_be() {
        let table = FlowTable::with_limit(1, 0);
        assert!(!table.pin(key(1), entry(1), None, 100, START));
        assert_eq!((table.len(), counted(&table)), (0, [0, 0, 1]));
    }

    #[test]
    fn the_memory_of_a_flood_is_given_back() {
        let table = FlowTable::with_limit(1, 1 << 20);
        let room = || table.shards.iter().map(|shard| shard.lock().flows.capacity()).sum::<usize>();
        assert_eq!(room(), 0, "memory is taken as flows come");
        for number in 0..400_000 {
            table.pin(key(number), entry(1), None, 100, START);
        }
        let flooded = room();
        (0..SHARDS).for_each(|shard| table.expire(shard, START + FLOW_IDLE));
        assert_eq!(table.len(), 0);
        assert!(room() < flooded / 3, "{} of {flooded} places are kept", room());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pin(u32),
        Leave(u32),
        Arrive(u32),
        Expire(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..3_000).prop_map(Step::Pin),
            2 => (0u32..3_000).prop_map(Step::Leave),
            1 => (0u32..3_000).prop_map(Step::Arrive),
            1 => (0..SHARDS).prop_map(Step::Expire),
        ]
    }

    /// When each flow of the table was last seen, by shard.
    fn seen(table: &FlowTable) -> Vec<BTreeMap<crate::model::FlowKey, Moment>> {
        let of = |shard: &super::super::flow_table::Shard| {
            shard.lock().flows.iter().map(|flow| (flow.key, flow.last_seen())).collect()
        };
        table.shards.iter().map(of).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever happens: never more than the limit, every flow that went is counted, and none goes
        /// before one of its part of the table that was idle longer.
        #[test]
        fn the_oldest_go_first_and_all_are_counted(
            limit in 0usize..1_500,
            steps in proptest::collection::vec((step(), 0u64..2_000), 1..2_500),
        ) {
            let table = FlowTable::with_limit(7, limit);
            let (mut now, mut made) = (START, 0);
            for (number, (step, pause_ms)) in steps.into_iter().enumerate() {
                now = now + Duration::from_millis(pause_ms);
                // Each look at all flows costs a while.
                let before = (number % 16 == 0).then(|| seen(&table));
                let held = table.len();
                let gone = counted(&table);
                match step {
                    Step::Pin(flow) => {
                        let known = table.get(&key(flow)).is_some();
                        let pinned = table.pin(key(flow), entry(1), None, 1, now);
                        prop_assert_eq!(pinned, known || limit > 0);
                        made += usize::from(pinned && !known);
                    }
                    Step::Leave(flow) => {
                        table.leave(&key(flow), 1, now);
                    }
                    Step::Arrive(flow) => {
                        table.arrive(&key(flow), crate::model::PathId(2), now);
                    }
                    Step::Expire(shard) => table.expire(shard, now),
                }
                let [idle, full, _] = counted(&table);
                prop_assert!(table.len() <= limit);
                prop_assert_eq!(made, table.len() + (idle + full) as usize);
                prop_assert!(full == gone[1] || held == limit, "nothing goes while there is room");
                let Some(before) = before else { continue };
                let after = seen(&table);
                prop_assert_eq!(after.iter().map(BTreeMap::len).sum::<usize>(), table.len());
                for (before, after) in before.iter().zip(&after) {
                    let gone = before.iter().filter(|(key, _)| !after.contains_key(key)).map(|(_, seen)| *seen).max();
                    let stayed = after.iter().filter(|(key, _)| before.contains_key(key)).map(|(_, seen)| *seen).min();
                    prop_assert!(gone.zip(stayed).is_none_or(|(gone, stayed)| gone <= stayed));
                }
            }
        }
    }
}
