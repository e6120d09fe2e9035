use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::simulated_recorder::SimulatedRecorder;
use crate::crypto::{Backend, Backends};
use crate::dataplane::{Crew, FlowTable, RoadIo, Unsent, Worker};
use crate::edge::{Edge, Effect, Explanation, Plan, SiteEvent, SiteStatus, StatusFacts, UnderlayFact};
use crate::forward::{FlowReport, ToControl, ToWorker};
use crate::model::{Chance, Dscp, FlowKey, Leg, Moment, Spi, UnderlayId, WorkerId};
use crate::packet::{Batch, Offload, ProbeKey, SiteOffloads, SitePacket, Train};
use crate::recording::News;
use arc_swap::ArcSwap;

/// Turns of both planes at one moment beyond which they go round in circles.
const TURNS_MAX: usize = 1_000;

/// A datagram on its way, by its addresses.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InFlight {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub tos: u8,
    pub bytes: Vec<u8>,
}

/// One machine in simulated time: both planes as production runs them, with queues for devices.
pub struct SimulatedNode {
    pub edge: Edge,
    workers: Vec<(Worker, MemoryRoad)>,
    /// When something that waits in a worker may leave.
    due: Option<Moment>,
    crew: Crew,
    addresses: Vec<Ipv4Addr>,
    pub events: Vec<(Moment, SiteEvent)>,
    recorder: Option<SimulatedRecorder>,
}

/// One worker's queues.
#[derive(Default)]
struct MemoryRoad {
    from_site: VecDeque<Vec<u8>>,
    to_site: VecDeque<Vec<u8>>,
    from_wan: VecDeque<InFlight>,
    to_wan: Vec<InFlight>,
    orders: VecDeque<ToWorker>,
    messages: VecDeque<ToControl>,
    /// By `UnderlayId`.
    addresses: Vec<Ipv4Addr>,
}

impl SimulatedNode {
    pub fn new(plan: Plan, seed: u64) -> SimulatedNode {
        let addresses: Vec<Ipv4Addr> = plan.underlays.iter().filter_map(|underlay| underlay.address).collect();
        let now = Moment::ZERO;
        let (count, flow_limit) = (plan.dataplane.workers.get(), plan.dataplane.flow_limit);
        let (mut edge, first) =
            Edge::new(Arc::new(plan), Backends::only(Backend::AwsLc), false, Chance::from_number(seed).bytes(), now);
        for (index, address) in addresses.iter().enumerate() {
            let fact = UnderlayFact { address: *address, ike_port: 500, natt_port: 4500, mtu: 1500 };
            edge.handle_underlay(UnderlayId(index as u16), Some(fact), now);
        }
        let probe_key = ProbeKey::new(Chance::from_number(seed).bytes());
        let published = Arc::new(ArcSwap::new(first));
        let mut crew = Crew::new(usize::from(count), published, FlowTable::with_limit(seed, flow_limit), probe_key);
        crew.notes = Some(Arc::default());
        let worker = |id| {
            let road = MemoryRoad { addresses: addresses.clone(), ..MemoryRoad::default() };
            (Worker::new(WorkerId(id), crew.clone()), road)
        };
        let workers = (0..count).map(worker).collect();
        SimulatedNode { edge, workers, due: None, crew, addresses, events: Vec::new(), recorder: None }
    }

    /// Follows all that it decides from now on; `unix_ms_at_zero` is the time of day at moment zero.
    pub fn record(&mut self, directory: &Path, unix_ms_at_zero: u64, now: Moment) {
        let first = self.crew.published.load_full();
        // What was noted before has nothing to rest on.
        while self.crew.notes.as_ref().is_some_and(|notes| notes.take().is_some()) {}
        self.recorder = Some(SimulatedRecorder::start(self.edge.plan(), first, directory, unix_ms_at_zero));
        self.edge.record(now);
    }

    /// Of the recording, if there is one.
    pub fn recorder(&mut self) -> Option<&mut SimulatedRecorder> {
        self.recorder.as_mut()
    }

    /// A packet of the site comes out of the device queue that its flow has.
    pub fn send(&mut self, packet: Vec<u8>) {
        let queue = packet.get(20..24).map_or(0, |ports| ports.iter().map(|byte| usize::from(*byte)).sum());
        let count = self.workers.len();
        self.workers[queue % count].1.from_site.push_back(packet);
    }

    /// The packets that have reached the site.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        self.workers.iter_mut().flat_map(|(_, road)| road.to_site.drain(..)).collect()
    }

    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| IpAddr::V4(*own) == address)
    }

    /// A datagram comes to the worker that opens its SPI; IKE to the first.
    pub fn deliver(&mut self, datagram: InFlight) {
        let spi = datagram.bytes.first_chunk::<4>().map_or(Spi(0), |spi| Spi(u32::from_be_bytes(*spi)));
        let worker = if datagram.destination.port() == 4500 { spi.slot() % self.workers.len() } else { 0 };
        self.workers[worker].1.from_wan.push_back(datagram);
    }

    /// Both planes until neither has anything to do at this moment.
    pub fn run(&mut self, now: Moment, send: &mut dyn FnMut(InFlight)) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < TURNS_MAX, "the node finds no rest at {now:?}; due {:?}", self.edge.poll_timeout());
            let mut busy = false;
            self.due = None;
            for index in 0..self.workers.len() {
                let (worker, road) = &mut self.workers[index];
                let turn = worker.turn(road, now);
                busy |= turn.worked;
                self.due = self.due.into_iter().chain(turn.due).min();
                while let Some(message) = self.workers[index].1.messages.pop_front() {
                    busy = true;
                    self.edge.handle_message(message, now);
                    self.carry_out(now, send);
                }
            }
            if self.edge.poll_timeout().is_some_and(|due| due <= now) {
                busy = true;
                self.edge.handle_timeout(now);
            }
            self.carry_out(now, send);
            for (_, road) in &mut self.workers {
                road.to_wan.drain(..).for_each(&mut *send);
            }
            if let (Some(recorder), Some(notes)) = (&mut self.recorder, &self.crew.notes) {
                let left_out = notes.left_out();
                recorder.take(std::iter::from_fn(|| notes.take()).collect(), left_out, now);
            }
            if !busy {
                return;
            }
        }
    }

    /// When it has something to do by itself.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.due.into_iter().chain(self.edge.poll_timeout()).min()
    }

    fn carry_out(&mut self, now: Moment, send: &mut dyn FnMut(InFlight)) {
        while let Some(effect) = self.edge.poll_effect() {
            match effect {
                Effect::Publish(forwarding) => {
                    self.tell(now, News::Published(forwarding.clone()));
                    self.crew.published.store(forwarding);
                }
                Effect::Record(at, fact) => self.tell(at, News::Fact(Box::new(fact))),
                Effect::Order(worker, order) => self.workers[usize::from(worker.0)].1.orders.push_back(order),
                Effect::Event(event) => {
                    self.tell(now, News::Event(Box::new(event.clone())));
                    self.events.push((now, event));
                }
                Effect::Resolve { .. } | Effect::Keys(_) => {}
            }
        }
        while let Some((leg, mut bytes)) = self.edge.poll_transmit() {
            if leg.natt {
                bytes.splice(0..0, [0; 4]);
            }
            let source = SocketAddr::new(leg.local.ip(), if leg.natt { 4500 } else { 500 });
            send(InFlight { source, destination: leg.remote, tos: 0, bytes });
        }
    }

    /// What steers its packets at present, and the flows that it knows.
    pub fn crew(&self) -> &Crew {
        &self.crew
    }

    fn tell(&mut self, at: Moment, news: News) {
        if let Some(recorder) = &mut self.recorder {
            recorder.news.push((at, news));
        }
    }

    /// What its data plane remembers of a flow.
    pub fn flow(&self, key: &FlowKey) -> Option<FlowReport> {
        self.crew.flows.get(key)
    }

    pub fn status(&self, now: Moment) -> SiteStatus {
        self.edge.status(self.facts(), now)
    }

    /// Where a flow goes at present, and why.
    pub fn explain(&self, key: FlowKey, dscp: Dscp, now: Moment) -> Explanation {
        let forwarding = self.crew.published.load();
        self.edge.explain(&forwarding, key, Some(dscp), self.flow(&key).as_ref(), &self.facts(), now)
    }

    fn facts(&self) -> StatusFacts<'_> {
        StatusFacts {
            unix_ms_at_zero: 0,
            started: Moment::ZERO,
            drops: &self.crew.drops,
            flows: self.crew.flows.len() as u64,
            flow_limit: self.crew.flows.limit() as u64,
            forgotten: self.crew.flows.forgotten(),
            workers: &self.crew.counters,
        }
    }
}

impl RoadIo for MemoryRoad {
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>) {
        while let Some(slot) = batch.next_free() {
            let Some(bytes) = self.from_site.pop_front() else { return };
            slot.offload = Offload::default();
            if slot.packet.fill(&bytes) {
                batch.claim(1);
            }
        }
    }

    fn site_offloads(&self) -> SiteOffloads {
        SiteOffloads::default()
    }

    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize {
        self.to_site.extend(batch.filled().iter().map(|slot| slot.packet.bytes().to_vec()));
        0
    }

    fn receive_wan(&mut self, batch: &mut Batch<Train>) {
        while let Some(slot) = batch.next_free() {
            let Some(InFlight { source, destination, tos, bytes }) = self.from_wan.pop_front() else { return };
            let underlay = self.addresses.iter().position(|own| IpAddr::V4(*own) == destination.ip());
            let Some(underlay) = underlay else { continue };
            slot.leg = Leg {
                underlay: UnderlayId(underlay as u16),
                natt: destination.port() == 4500,
                local: destination,
                remote: source,
            };
            (slot.tos, slot.segment) = (tos, bytes.len());
            if slot.packet.fill(&bytes) {
                batch.claim(1);
            }
        }
    }

    fn send_wan(&mut self, batch: &mut Batch<Train>, _refused: &mut dyn FnMut(Unsent)) {
        for train in batch.filled() {
            let (source, destination, tos) = (train.leg.local, train.leg.remote, train.tos);
            let bytes = train.datagrams().map(<[u8]>::to_vec);
            self.to_wan.extend(bytes.map(|bytes| InFlight { source, destination, tos, bytes }));
        }
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        self.orders.pop_front()
    }

    fn tell_control(&mut self, message: ToControl) -> bool {
        self.messages.push_back(message);
        true
    }

    fn wake(&mut self, _: WorkerId) {
        // Every worker has its turn until all rest.
    }
}
