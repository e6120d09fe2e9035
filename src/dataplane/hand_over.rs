use crossbeam_queue::ArrayQueue;

use super::shaping::Cargo;
use crate::model::{PathId, WorkerId};
use crate::packet::{Parsed, SitePacket};

/// Super-packets that may wait for one worker: two batches of another's. Beyond it they are dropped and
/// counted, as a socket's full buffer would do.
const CAPACITY: usize = 128;

/// Packets of at most `SMALL` bytes that may wait for one worker besides: what arrives at 10,000 a
/// second while its core is busy with something else for 50 ms. Bulk in super-packets takes none of
/// their places.
const SMALL_CAPACITY: usize = 512;

/// Bytes of a packet of any usual MTU. It is copied, so that its place needs no room for more.
const SMALL: usize = 2_048;

/// What other workers leave for a path's home worker, which alone numbers and sends the path's
/// packets. Each worker has a bounded queue; buffers go round, and none is allocated later.
pub struct HandOver {
    queues: Box<[Queue]>,
}

struct Queue {
    filled: ArrayQueue<Handed>,
    spare: ArrayQueue<SitePacket>,
    small_spare: ArrayQueue<SitePacket>,
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
    pub cargo: Cargo,
}

impl HandOver {
    /// For as many workers; each buffer holds `packet_capacity` bytes.
    pub fn new(workers: usize, packet_capacity: usize) -> HandOver {
        // A single worker hands nothing over.
        let needed = workers > 1;
        let spares = |count, bytes| {
            let spares = ArrayQueue::new(count);
            for _ in (0..count).filter(|_| needed) {
                let _ = spares.push(SitePacket::with_capacity(bytes));
            }
            spares
        };
        let queue = || Queue {
            filled: ArrayQueue::new(CAPACITY + SMALL_CAPACITY),
            spare: spares(CAPACITY, packet_capacity),
            small_spare: spares(SMALL_CAPACITY, SMALL),
        };
        HandOver { queues: std::iter::repeat_with(queue).take(workers.max(1)).collect() }
    }

    pub fn workers(&self) -> usize {
        self.queues.len()
    }

    /// Leaves a packet for a worker, and perhaps another buffer in its place; `false` when too many
    /// of its kind wait for it already.
    pub fn give(&self, home: WorkerId, packet: &mut SitePacket, note: HandedNote) -> bool {
        let Some(queue) = self.queues.get(usize::from(home.0)) else { return false };
        let small = packet.packet.len() <= SMALL;
        let spares = if small { &queue.small_spare } else { &queue.spare };
        let Some(mut spare) = spares.pop() else { return false };
        let packet = if small {
            (spare.offload, spare.queue) = (packet.offload, packet.queue);
            if !spare.packet.fill(packet.packet.bytes()) {
                return false;
            }
            spare
        } else {
            std::mem::replace(packet, spare)
        };
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
            let small = packet.packet.capacity() <= SMALL;
            let spares = if small { &queue.small_spare } else { &queue.spare };
            let _ = spares.push(packet);
        }
    }
}
