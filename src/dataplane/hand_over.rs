use crossbeam_queue::ArrayQueue;

use crate::model::{PathId, WorkerId};
use crate::packet::{Parsed, SitePacket};

/// Packets that may wait for one worker: two batches of another's. Beyond it they are dropped and
/// counted, as a socket's full buffer would do.
const CAPACITY: usize = 128;

/// What other workers leave for a path's home worker, which alone numbers and sends the path's
/// packets. Each worker has a bounded queue; buffers go round, and none is allocated later.
pub struct HandOver {
    queues: Box<[Queue]>,
}

struct Queue {
    filled: ArrayQueue<Handed>,
    spare: ArrayQueue<SitePacket>,
}

/// A packet whose way has been decided.
pub struct Handed {
    pub packet: SitePacket,
    pub note: HandedNote,
}

#[derive(Clone, Copy, Debug)]
pub struct HandedNote {
    pub parsed: Parsed,
    pub path: PathId,
    /// Index of the Child SA in the path's `children`.
    pub child: u8,
    /// Traffic of the site, rather than a packet made here.
    pub traffic: bool,
}

impl HandOver {
    /// For as many workers; each buffer holds `packet_capacity` bytes.
    pub fn new(workers: usize, packet_capacity: usize) -> HandOver {
        // A single worker hands nothing over.
        let spares = if workers > 1 { CAPACITY } else { 0 };
        let queue = || {
            let spare = ArrayQueue::new(CAPACITY);
            for _ in 0..spares {
                let _ = spare.push(SitePacket::with_capacity(packet_capacity));
            }
            Queue { filled: ArrayQueue::new(CAPACITY), spare }
        };
        HandOver { queues: std::iter::repeat_with(queue).take(workers.max(1)).collect() }
    }

    pub fn workers(&self) -> usize {
        self.queues.len()
    }

    /// Leaves a packet for a worker and another buffer in its place; `false` when too many wait
    /// for it already.
    pub fn give(&self, home: WorkerId, packet: &mut SitePacket, note: HandedNote) -> bool {
        let Some(queue) = self.queues.get(usize::from(home.0)) else { return false };
        let Some(spare) = queue.spare.pop() else { return false };
        let packet = std::mem::replace(packet, spare);
        // Buffers are as many as places, so there is one.
        queue.filled.push(Handed { packet, note }).is_ok()
    }

    /// The next packet that waits for this worker.
    pub fn take(&self, worker: WorkerId) -> Option<Handed> {
        self.queues.get(usize::from(worker.0))?.filled.pop()
    }

    pub fn is_waiting(&self, worker: WorkerId) -> bool {
        self.queues.get(usize::from(worker.0)).is_some_and(|queue| !queue.filled.is_empty())
    }

    /// Returns the buffer of a packet that `take` gave, for the next one.
    pub fn give_back(&self, worker: WorkerId, packet: SitePacket) {
        if let Some(queue) = self.queues.get(usize::from(worker.0)) {
            let _ = queue.spare.push(packet);
        }
    }
}
