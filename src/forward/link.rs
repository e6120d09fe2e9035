use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::{Mbps, WorkerId};
use crate::qos::Policer;

/// What the packet road must know of a WAN link.
#[derive(Clone, Debug)]
pub struct LinkFace {
    pub cap: Cap,
    /// Where the paths of a link that is shaped are all at home.
    pub home: WorkerId,
    pub live: Arc<LinkCounters>,
}

/// What a bandwidth is held to, on the wire; in the direction seen from here, whatever the site calls it.
#[derive(Clone, Debug, Default)]
pub struct Cap {
    /// What is sent is shaped to this.
    pub send: Option<Mbps>,
    /// What arrives is policed to this.
    pub receive: Option<Arc<Policer>>,
}

impl Cap {
    pub fn new(send: Option<Mbps>, receive: Option<Mbps>) -> Cap {
        Cap { send, receive: receive.map(|rate| Arc::new(Policer::new(rate))) }
    }
}

/// Counted by workers, read by control.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// What waits at present: packets, perhaps super-packets, and inner bytes.
    queued_packets: AtomicU64,
    queued_bytes: AtomicU64,
    /// Nanoseconds that what left lately has waited.
    waited: AtomicU64,
    /// Packets sent with the mark of congestion instead of being dropped, and let in with it.
    pub marked_out: AtomicU64,
    pub marked_in: AtomicU64,
    pub dropped_out: AtomicU64,
    pub dropped_in: AtomicU64,
}

impl LinkCounters {
    pub fn set_queue(&self, packets: usize, bytes: u64, waited: Duration) {
        self.queued_packets.store(packets as u64, Ordering::Relaxed);
        self.queued_bytes.store(bytes, Ordering::Relaxed);
        self.waited.store(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// As `set_queue` was last told.
    pub fn queue(&self) -> (u64, u64, Duration) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.queued_packets), read(&self.queued_bytes), Duration::from_nanos(read(&self.waited)))
    }
}
