use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};

use super::census::Census;
use super::road::{BATCH, Exits, PACKET_CAPACITY, Road, WAN_BATCH};
use super::sweep::Sweep;
use super::{FlowTable, HandOver, RoadIo};
use crate::forward::{Forwarding, Notebook, ToWorker, WorkerCounters};
use crate::model::{DropCounters, Moment, WorkerId};
use crate::packet::{Batch, ProbeKey, SitePacket, TRAIN_CAPACITY, Train};

/// Orders taken in one turn: probes for a few hundred tunnels leave within milliseconds, and the
/// packets of this turn do not wait for all of them.
const ORDERS_AT_ONCE: usize = 32;

/// What the workers of one site share.
#[derive(Clone)]
pub struct Crew {
    pub published: Arc<ArcSwap<Forwarding>>,
    pub flows: Arc<FlowTable>,
    pub hand_over: Arc<HandOver>,
    /// By `WorkerId`: the generation of the published value that each has come to use.
    pub seen: Arc<[AtomicU64]>,
    /// Counts what belongs to no path.
    pub drops: Arc<DropCounters>,
    /// By `WorkerId`.
    pub counters: Arc<[WorkerCounters]>,
    pub probe_key: ProbeKey,
    /// Where decisions are noted, while a flight recorder follows.
    pub notes: Option<Arc<Notebook>>,
}

impl Crew {
    /// For `workers` workers, at least one.
    pub fn new(workers: usize, published: Arc<ArcSwap<Forwarding>>, flows: FlowTable, probe_key: ProbeKey) -> Crew {
        let workers = workers.max(1);
        Crew {
            published,
            flows: Arc::new(flows),
            hand_over: Arc::new(HandOver::new(workers, PACKET_CAPACITY)),
            seen: std::iter::repeat_with(AtomicU64::default).take(workers).collect(),
            drops: Arc::default(),
            counters: std::iter::repeat_with(WorkerCounters::default).take(workers).collect(),
            probe_key,
            notes: None,
        }
    }

    /// The oldest generation that any worker may still use.
    pub fn oldest_seen(&self) -> u64 {
        self.seen.iter().map(|seen| seen.load(Ordering::Acquire)).min().unwrap_or_default()
    }

    pub fn workers(&self) -> usize {
        self.seen.len()
    }
}

/// One thread's part of the packet road. Production gives it a thread and descriptors, simulation
/// and demo call the same `turn`.
pub struct Worker {
    id: WorkerId,
    crew: Crew,
    published: Cache<Arc<ArcSwap<Forwarding>>, Arc<Forwarding>>,
    sweep: Sweep,
    census: Census,
    from_site: Batch<SitePacket>,
    from_wan: Batch<Train>,
    exits: Exits,
}

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// There was something to do.
    pub worked: bool,
    /// A listing goes on: the next turn shall come without waiting for anything.
    pub unfinished: bool,
    /// When the next turn shall come at the latest: something waits that may leave then.
    pub due: Option<Moment>,
}

impl Worker {
    pub fn new(id: WorkerId, crew: Crew) -> Worker {
        Worker {
            id,
            published: Cache::new(Arc::clone(&crew.published)),
            crew,
            sweep: Sweep::default(),
            census: Census::default(),
            from_site: Batch::new(BATCH, || SitePacket::with_capacity(PACKET_CAPACITY)),
            from_wan: Batch::new(WAN_BATCH, || Train::with_capacity(TRAIN_CAPACITY)),
            exits: Exits::new(),
        }
    }

    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Its thread is about to wait until there is something to do.
    pub fn waits(&self) {
        if let Some(counters) = self.crew.counters.get(usize::from(self.id.0)) {
            counters.waited();
        }
    }

    /// The whole loop body: orders, what other workers left, then one batch from the WAN, then
    /// one from the site, so that neither waits for more than a batch of the other.
    pub fn turn(&mut self, io: &mut impl RoadIo, now: Moment) -> Turn {
        let Worker { id, crew, published, sweep, census, from_site, from_wan, exits } = self;
        let forwarding = published.load();
        let Some(counters) = crew.counters.get(usize::from(id.0)) else {
            return Turn { worked: false, unfinished: false, due: None };
        };
        if let Some(seen) = crew.seen.get(usize::from(id.0)) {
            // Everything of the turn before is sent: nothing of an older value is in use here.
            seen.store(forwarding.generation, Ordering::Release);
        }
        let mut road = Road {
            worker: *id,
            forwarding,
            flows: &crew.flows,
            hand_over: &crew.hand_over,
            drops: &crew.drops,
            counters,
            probe_key: &crew.probe_key,
            notes: crew.notes.as_deref(),
            exits,
            io,
            now,
        };
        road.begin();
        let mut worked = false;

        for _ in 0..ORDERS_AT_ONCE {
            match road.io.next_order() {
                Some(ToWorker::Probe(order)) => road.probe(&order),
                Some(ToWorker::Inner(order)) => road.inner(&order),
                Some(ToWorker::Measure { path, mut bytes }) => road.measure(path, &mut bytes),
                Some(ToWorker::Move(order)) => {
                    crew.flows.order(&order);
                }
                Some(ToWorker::Survey { number }) => census.begin_survey(number),
                Some(ToWorker::List(question)) => census.begin_list(question),
                None => break,
            }
            worked = true;
        }
        worked |= road.handed();
        road.inbound_early();

        from_wan.clear();
        road.io.receive_wan(from_wan);
        for train in from_wan.filled_mut() {
            road.inbound(train);
            worked = true;
        }
        road.flush_tally();
        road.flush_site();

        from_site.clear();
        road.io.receive_site(from_site);
        for packet in from_site.filled_mut() {
            road.outbound(packet);
            worked = true;
        }
        worked |= road.drain_shaper();
        road.flush_wan();
        road.flush_site();

        sweep.turn(&crew.flows, now);
        let unfinished = census.turn(&mut road);
        worked |= unfinished;
        let due = road.exits.shaper.due();
        counters.turned();
        Turn { worked, unfinished, due }
    }
}
