use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use trefoil::dataplane::{FlowTable, RoadIo, Worker};
use trefoil::edge::{Edge, Effect, Plan, SiteEvent, StatusFacts, UnderlayFact};
use trefoil::forward::{Forwarding, ToControl, ToWorker};
use trefoil::model::{Chance, DropCounters, Leg, Moment, UnderlayId, WorkerId};
use trefoil::packet::{Batch, Datagram, PacketBuf, ProbeKey};

use super::network::{InFlight, Network};

/// One machine of the simulation: both planes as production runs them, with queues for devices.
pub struct Node {
    pub edge: Edge,
    worker: Worker,
    published: Arc<ArcSwap<Forwarding>>,
    pub io: MemoryRoad,
    addresses: Vec<Ipv4Addr>,
    pub events: Vec<(Moment, SiteEvent)>,
    pub drops: Arc<DropCounters>,
    flows: Arc<FlowTable>,
}

#[derive(Default)]
pub struct MemoryRoad {
    pub from_site: VecDeque<Vec<u8>>,
    pub to_site: VecDeque<Vec<u8>>,
    from_wan: VecDeque<(Leg, u8, Vec<u8>)>,
    to_wan: Vec<(Leg, u8, Vec<u8>)>,
    orders: VecDeque<ToWorker>,
    messages: VecDeque<ToControl>,
}

impl Node {
    pub fn new(plan: Plan, seed: u64) -> Node {
        let addresses: Vec<Ipv4Addr> = plan.underlays.iter().filter_map(|underlay| underlay.address).collect();
        let now = Moment::ZERO;
        let (mut edge, first) = Edge::new(Arc::new(plan), false, Chance::from_number(seed).bytes(), now);
        let published = Arc::new(ArcSwap::new(first));
        for (index, address) in addresses.iter().enumerate() {
            let fact = UnderlayFact { address: *address, ike_port: 500, natt_port: 4500, mtu: 1500 };
            edge.handle_underlay(UnderlayId(index as u16), Some(fact), now);
        }
        let drops = Arc::new(DropCounters::default());
        let flows = Arc::new(FlowTable::new(seed));
        let seen = Arc::new(AtomicU64::new(0));
        let worker = Worker::new(
            WorkerId(0),
            published.clone(),
            flows.clone(),
            seen,
            drops.clone(),
            ProbeKey::new(Chance::from_number(seed).bytes()),
        );
        Node { edge, worker, published, io: MemoryRoad::default(), addresses, events: Vec::new(), drops, flows }
    }

    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| IpAddr::V4(*own) == address)
    }

    pub fn deliver(&mut self, datagram: InFlight) {
        let Some(index) = self.addresses.iter().position(|own| IpAddr::V4(*own) == datagram.destination.ip()) else {
            return;
        };
        let leg = Leg {
            underlay: UnderlayId(index as u16),
            natt: datagram.destination.port() == 4500,
            local: datagram.destination,
            remote: datagram.source,
        };
        self.io.from_wan.push_back((leg, datagram.tos, datagram.bytes));
    }

    /// Both planes until neither has anything to do at this moment.
    pub fn run(&mut self, network: &mut Network, now: Moment) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 1_000, "the node finds no rest at {now:?}; due {:?}", self.edge.poll_timeout());
            let worked = self.worker.turn(&mut self.io, now).worked;
            let mut heard = false;
            while let Some(message) = self.io.messages.pop_front() {
                heard = true;
                self.edge.handle_message(message, now);
                self.carry_out(network, now);
            }
            let due = self.edge.poll_timeout().is_some_and(|due| due <= now);
            if due {
                self.edge.handle_timeout(now);
            }
            self.carry_out(network, now);
            for (leg, tos, bytes) in self.io.to_wan.drain(..) {
                network.send(InFlight { source: leg.local, destination: leg.remote, tos, bytes }, now);
            }
            if !worked && !heard && !due {
                return;
            }
        }
    }

    fn carry_out(&mut self, network: &mut Network, now: Moment) {
        while let Some(effect) = self.edge.poll_effect() {
            match effect {
                Effect::Publish(forwarding) => self.published.store(forwarding),
                Effect::Order(_, order) => self.io.orders.push_back(order),
                Effect::Event(event) => self.events.push((now, event)),
                Effect::Resolve { .. } | Effect::Keys(_) => {}
            }
        }
        while let Some((leg, mut bytes)) = self.edge.poll_transmit() {
            if leg.natt {
                bytes.splice(0..0, [0; 4]);
            }
            let source = SocketAddr::new(leg.local.ip(), if leg.natt { 4500 } else { 500 });
            network.send(InFlight { source, destination: leg.remote, tos: 0, bytes }, now);
        }
    }

    pub fn status(&self, now: Moment) -> trefoil::edge::SiteStatus {
        let facts = StatusFacts {
            unix_ms_at_zero: 0,
            started: Moment::ZERO,
            drops: &self.drops,
            flows: self.flows.len() as u64,
        };
        self.edge.status(facts, now)
    }
}

impl RoadIo for MemoryRoad {
    fn receive_site(&mut self, batch: &mut Batch<PacketBuf>) {
        while let Some(slot) = batch.next_free() {
            let Some(bytes) = self.from_site.pop_front() else { return };
            if slot.fill(&bytes) {
                batch.claim(1);
            }
        }
    }

    fn send_site(&mut self, batch: &mut Batch<PacketBuf>) -> usize {
        self.to_site.extend(batch.filled().iter().map(|packet| packet.bytes().to_vec()));
        0
    }

    fn receive_wan(&mut self, batch: &mut Batch<Datagram>) {
        while let Some(slot) = batch.next_free() {
            let Some((leg, tos, bytes)) = self.from_wan.pop_front() else { return };
            slot.leg = leg;
            slot.tos = tos;
            if slot.packet.fill(&bytes) {
                batch.claim(1);
            }
        }
    }

    fn send_wan(&mut self, batch: &mut Batch<Datagram>, _refused: &mut dyn FnMut(usize, i32)) {
        let sent = batch.filled().iter().map(|datagram| (datagram.leg, datagram.tos, datagram.packet.bytes().to_vec()));
        self.to_wan.extend(sent);
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        self.orders.pop_front()
    }

    fn tell_control(&mut self, message: ToControl) -> bool {
        self.messages.push_back(message);
        true
    }
}
