use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};

use super::flow_table::Sweep;
use super::road::{BATCH, Exits, PACKET_CAPACITY, Road};
use super::{FlowTable, RoadIo};
use crate::forward::{Forwarding, ToWorker};
use crate::model::{DropCounters, Leg, Moment, UnderlayId, WorkerId};
use crate::packet::{Batch, Datagram, PacketBuf, ProbeKey};

/// Orders taken in one turn: probes for a few hundred tunnels leave within milliseconds, and the
/// packets of this turn do not wait for all of them.
const ORDERS_AT_ONCE: usize = 32;

/// One thread's part of the packet road. Production gives it a thread and descriptors, simulation
/// and demo call the same `turn`.
pub struct Worker {
    id: WorkerId,
    published: Cache<Arc<ArcSwap<Forwarding>>, Arc<Forwarding>>,
    flows: Arc<FlowTable>,
    seen: Arc<AtomicU64>,
    drops: Arc<DropCounters>,
    probe_key: ProbeKey,
    sweep: Sweep,
    from_site: Batch<PacketBuf>,
    from_wan: Batch<Datagram>,
    exits: Exits,
}

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// There was something to do, and perhaps more waits. After a turn without work a thread may
    /// wait for its descriptors.
    pub worked: bool,
}

impl Worker {
    /// `seen` is told the generation of the published value that the worker has come to use.
    /// `drops` counts what belongs to no path. `flows` and `probe_key` are shared by all workers
    /// of a site.
    pub fn new(
        id: WorkerId,
        published: Arc<ArcSwap<Forwarding>>,
        flows: Arc<FlowTable>,
        seen: Arc<AtomicU64>,
        drops: Arc<DropCounters>,
        probe_key: ProbeKey,
    ) -> Worker {
        let unspecified = ([0, 0, 0, 0], 0).into();
        let leg = Leg { underlay: UnderlayId(0), natt: false, local: unspecified, remote: unspecified };
        let packet = || PacketBuf::with_capacity(PACKET_CAPACITY);
        Worker {
            id,
            published: Cache::new(published),
            flows,
            seen,
            drops,
            probe_key,
            sweep: Sweep::default(),
            from_site: Batch::new(BATCH, packet),
            from_wan: Batch::new(BATCH, || Datagram { leg, tos: 0, packet: packet() }),
            exits: Exits::new(),
        }
    }

    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// The whole loop body: orders, then one batch from the WAN, then one from the site, so that
    /// neither waits for more than a batch of the other.
    pub fn turn(&mut self, io: &mut impl RoadIo, now: Moment) -> Turn {
        let Worker { published, flows, seen, drops, probe_key, sweep, from_site, from_wan, exits, .. } = self;
        let forwarding = published.load();
        // Everything of the turn before is sent: nothing of an older value is in use here.
        seen.store(forwarding.generation, Ordering::Release);
        let mut road = Road { forwarding, flows, drops, probe_key, exits, io, now };
        road.begin();
        let mut worked = false;

        for _ in 0..ORDERS_AT_ONCE {
            match road.io.next_order() {
                Some(ToWorker::Probe(order)) => road.probe(&order),
                None => break,
            }
            worked = true;
        }

        from_wan.clear();
        road.io.receive_wan(from_wan);
        for datagram in from_wan.filled_mut() {
            road.inbound(datagram);
            worked = true;
        }
        road.flush_site();

        from_site.clear();
        road.io.receive_site(from_site);
        for packet in from_site.filled_mut() {
            road.outbound(packet);
            worked = true;
        }
        road.flush_wan();
        road.flush_site();

        sweep.turn(flows, now);
        Turn { worked }
    }
}
