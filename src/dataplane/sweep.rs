use std::time::Duration;

use super::FlowTable;
use super::flow_table::SHARDS;
use crate::model::Moment;

/// In this time the sweep looks at every flow once, so that a busy worker forgets an idle flow
/// within two rounds.
const SWEEP_ROUND: Duration = Duration::from_secs(60);

/// A worker's part in forgetting idle flows: at most one shard a turn, at a pace that goes through
/// all in `SWEEP_ROUND`.
#[derive(Default)]
pub(super) struct Sweep {
    last: Moment,
    next: usize,
}

impl Sweep {
    pub fn turn(&mut self, table: &FlowTable, now: Moment) {
        if now.since(self.last) < SWEEP_ROUND / SHARDS as u32 {
            return;
        }
        self.last = now;
        table.expire(self.next, now);
        self.next = (self.next + 1) % SHARDS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::FLOW_IDLE;
    use crate::dataplane::flow::tests::{START, entry, key};

    #[test]
    fn idle_flows_are_forgotten_a_few_at_a_time_and_busy_ones_stay() {
        let table = FlowTable::new(1);
        for number in 0..1_000 {
            table.pin(key(number), entry(1), None, 100, START);
        }
        let mut sweep = Sweep::default();
        let mut now = START;
        sweep.turn(&table, now);
        while now.since(START) < FLOW_IDLE + 2 * SWEEP_ROUND {
            now = now + Duration::from_millis(200);
            let before = table.len();
            table.leave(&key(5), 1, now);
            sweep.turn(&table, now);
            assert!(before - table.len() <= 20);
        }
        assert_eq!(table.len(), 1);
        assert!(table.get(&key(5)).is_some());
    }
}
