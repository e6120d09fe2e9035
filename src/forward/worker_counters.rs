use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{DropCounters, DropReason};

/// What one worker has done: counted by it alone, read by control. Each stands on cache lines of
/// its own, so that workers do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    turns: AtomicU64,
    waits: AtomicU64,
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    handed_over: AtomicU64,
    taken_over: AtomicU64,
    drops: DropCounters,
}

/// The counters at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WorkerTotals {
    pub turns: u64,
    /// How often its thread waited for something to do.
    pub waits: u64,
    /// Inner packets of the site that it sent to the WAN, and their bytes.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Inner packets that it opened and let through, and their bytes.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// Packets, perhaps super-packets, that it left for the home worker of their path.
    pub handed_over: u64,
    /// Packets that other workers left for it.
    pub taken_over: u64,
}

impl WorkerCounters {
    pub fn turned(&self) {
        add(&self.turns, 1);
    }

    pub fn waited(&self) {
        add(&self.waits, 1);
    }

    pub fn sent(&self, packets: u64, bytes: u64) {
        add(&self.packets_out, packets);
        add(&self.bytes_out, bytes);
    }

    pub fn received(&self, packets: u64, bytes: u64) {
        add(&self.packets_in, packets);
        add(&self.bytes_in, bytes);
    }

    pub fn handed_over(&self) {
        add(&self.handed_over, 1);
    }

    pub fn taken_over(&self) {
        add(&self.taken_over, 1);
    }

    pub fn dropped(&self, reason: DropReason, packets: u64) {
        self.drops.count_many(reason, packets);
    }

    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    pub fn totals(&self) -> WorkerTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerTotals {
            turns: read(&self.turns),
            waits: read(&self.waits),
            packets_out: read(&self.packets_out),
            bytes_out: read(&self.bytes_out),
            packets_in: read(&self.packets_in),
            bytes_in: read(&self.bytes_in),
            handed_over: read(&self.handed_over),
            taken_over: read(&self.taken_over),
        }
    }
}

/// Only one thread writes, so nothing is lost between reading and writing, and the bus is not locked.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_counted_is_read_again() {
        let counters = WorkerCounters::default();
        counters.turned();
        counters.turned();
        counters.waited();
        counters.sent(3, 300);
        counters.received(4, 400);
        counters.handed_over();
        counters.taken_over();
        counters.dropped(DropReason::BadTag, 5);
        let expected = WorkerTotals {
            turns: 2,
            waits: 1,
            packets_out: 3,
            bytes_out: 300,
            packets_in: 4,
            bytes_in: 400,
            handed_over: 1,
            taken_over: 1,
        };
        assert_eq!((counters.totals(), counters.drops().get(DropReason::BadTag)), (expected, 5));
    }
}
