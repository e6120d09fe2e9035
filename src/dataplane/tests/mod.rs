//! An edge with 3 + 1 tunnels and the PoP at their other ends, each with a worker on a world in
//! memory. What one sends, the other receives when a test says so.

mod arriving;
mod hostile;
mod leaving;
mod news;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice, icmpv4};
use proptest::prelude::*;

use super::{BATCH, FlowTable, RoadIo, Worker};
use crate::crypto::Encryption;
use crate::esp::{InboundSa, OutboundSa};
use crate::forward::{
    ChildFace, ConnectorFace, Forwarding, PathFace, ProbeOrder, RouteTable, SaTable, SiteFace, ToControl, ToWorker,
};
use crate::model::{
    ConnectorId, DropCounters, DropReason, Leg, LinkId, Moment, OutboundSlot, PathId, Role, Secret, Selectors, Spi,
    TrafficSelector, UnderlayId, Verdict, WorkerId,
};
use crate::packet::{Batch, Datagram, Ecn, PacketBuf, ProbeKey, parse};
use crate::steer::{Action, Matcher, Rule, RuleSet};

const PATHS: u16 = 4;
const SECONDARY: u16 = 3;
const MTU: u16 = 1_400;

#[derive(Default)]
struct MemoryIo {
    from_site: VecDeque<Vec<u8>>,
    to_site: Vec<Vec<u8>>,
    from_wan: VecDeque<(Leg, u8, Vec<u8>)>,
    to_wan: Vec<(Leg, u8, Vec<u8>)>,
    orders: VecDeque<ToWorker>,
    news: Vec<ToControl>,
    control_is_full: bool,
    broken: Option<(UnderlayId, i32)>,
}

impl RoadIo for MemoryIo {
    fn receive_site(&mut self, batch: &mut Batch<PacketBuf>) {
        while let Some(slot) = batch.next_free() {
            let Some(packet) = self.from_site.pop_front() else { return };
            slot.fill(&packet);
            batch.claim(1);
        }
    }

    fn send_site(&mut self, batch: &mut Batch<PacketBuf>) -> usize {
        self.to_site.extend(batch.filled().iter().map(|packet| packet.bytes().to_vec()));
        0
    }

    fn receive_wan(&mut self, batch: &mut Batch<Datagram>) {
        while let Some(slot) = batch.next_free() {
            let Some((leg, tos, bytes)) = self.from_wan.pop_front() else { return };
            (slot.leg, slot.tos) = (leg, tos);
            slot.packet.fill(&bytes);
            batch.claim(1);
        }
    }

    fn send_wan(&mut self, batch: &mut Batch<Datagram>, refused: &mut dyn FnMut(usize, i32)) {
        for (index, datagram) in batch.filled().iter().enumerate() {
            match self.broken {
                Some((underlay, errno)) if underlay == datagram.leg.underlay => refused(index, errno),
                _ => self.to_wan.push((datagram.leg, datagram.tos, datagram.packet.bytes().to_vec())),
            }
        }
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        self.orders.pop_front()
    }

    fn tell_control(&mut self, message: ToControl) -> bool {
        if !self.control_is_full {
            self.news.push(message);
        }
        !self.control_is_full
    }
}

/// One end: a worker, its world, and what was published to it.
struct End {
    worker: Worker,
    io: MemoryIo,
    published: Arc<ArcSwap<Forwarding>>,
    flows: Arc<FlowTable>,
    seen: Arc<AtomicU64>,
    drops: Arc<DropCounters>,
    now: Moment,
}

impl End {
    fn new(forwarding: Forwarding, key: u8) -> End {
        End::with_flows(forwarding, key, FlowTable::new(1))
    }

    fn with_flows(forwarding: Forwarding, key: u8, flows: FlowTable) -> End {
        let published = Arc::new(ArcSwap::from_pointee(forwarding));
        let flows = Arc::new(flows);
        let (seen, drops) = (Arc::new(AtomicU64::new(0)), Arc::new(DropCounters::default()));
        let worker = Worker::new(
            WorkerId(0),
            Arc::clone(&published),
            Arc::clone(&flows),
            Arc::clone(&seen),
            Arc::clone(&drops),
            ProbeKey::new([key; 32]),
        );
        let now = Moment::from_millis(10_000);
        End { worker, io: MemoryIo::default(), published, flows, seen, drops, now }
    }

    fn publish(&self, change: impl FnOnce(&mut Forwarding)) {
        let mut next = Forwarding::clone(&self.published.load());
        next.generation += 1;
        change(&mut next);
        self.published.store(Arc::new(next));
    }

    fn turn(&mut self) {
        while self.worker.turn(&mut self.io, self.now).worked {}
    }

    /// Sends packets from the site and returns the paths that they left by.
    fn send(&mut self, packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<u16> {
        let before = self.io.to_wan.len();
        self.io.from_site.extend(packets);
        self.turn();
        self.io.to_wan[before..].iter().map(|(leg, ..)| leg.underlay.0).collect()
    }

    fn sent_by(&mut self, packet: Vec<u8>) -> Option<u16> {
        self.send([packet]).first().copied()
    }

    /// What was sent to the site since the last time.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.io.to_site)
    }

    fn path(&self, path: u16) -> PathFace {
        self.published.load().paths[usize::from(path)].clone()
    }

    /// All drops of packets on the way in, on paths and elsewhere, as (reason, number).
    fn drops_in(&self) -> Vec<(DropReason, u64)> {
        self.drops_by(|path| &path.live.drops_in)
    }

    fn drops_out(&self) -> Vec<(DropReason, u64)> {
        self.drops_by(|path| &path.live.drops_out)
    }

    fn drops_by(&self, of: impl Fn(&PathFace) -> &DropCounters) -> Vec<(DropReason, u64)> {
        let forwarding = self.published.load();
        let sum =
            |reason| self.drops.get(reason) + forwarding.paths.iter().map(|path| of(path).get(reason)).sum::<u64>();
        DropReason::ALL.iter().map(|reason| (*reason, sum(*reason))).filter(|(_, count)| *count > 0).collect()
    }
}

/// Carries over all that `from` has sent, and lets `to` work on it.
fn cross(from: &mut End, to: &mut End) {
    for (leg, tos, bytes) in std::mem::take(&mut from.io.to_wan) {
        to.io.from_wan.push_back((flipped(leg), tos, bytes));
    }
    to.turn();
}

fn flipped(leg: Leg) -> Leg {
    Leg { local: leg.remote, remote: leg.local, ..leg }
}

fn leg(path: u16) -> Leg {
    let edge = SocketAddr::from(([192, 0, 2, path as u8 + 1], 4500));
    let pop = SocketAddr::from(([198, 51, 100, 1], 4500));
    Leg { underlay: UnderlayId(path), natt: true, local: edge, remote: pop }
}

fn private(pop: bool, path: u16) -> IpAddr {
    [10, 254, if pop { 9 } else { 1 }, path as u8 + 1].into()
}

fn spi(path: u16) -> Spi {
    Spi::of_slot(path + 1, 0x4711)
}

fn key(pop: bool, path: u16) -> Secret {
    Secret::new(vec![path as u8 * 2 + u8::from(pop); 36])
}

fn range(text: &str) -> TrafficSelector {
    TrafficSelector::of_network(text.parse().unwrap())
}

/// The view of one end. The site of the edge is 10.1.0.0/16, that of the PoP 10.9.0.0/16.
fn view(pop: bool) -> Forwarding {
    let (edge, gateway) = (["10.1.0.0/16", "2001:db8:1::/48"], ["10.9.0.0/16", "2001:db8:9::/48"]);
    let (own_site, far_site) = if pop { (gateway, edge) } else { (edge, gateway) };
    let sas = Arc::new(SaTable::new(16, 16));
    let face = |path: u16| {
        let selectors = Arc::new(Selectors {
            local: [range(own_site[0]), range(own_site[1]), host(private(pop, path))].into(),
            remote: [range(far_site[0]), range(far_site[1]), host(private(!pop, path))].into(),
        });
        let suite = Encryption::AesGcm256;
        let outbound = OutboundSa::new(spi(path), PathId(path), suite, &key(pop, path)).unwrap();
        let inbound = InboundSa::new(spi(path), PathId(path), suite, &key(!pop, path), Arc::clone(&selectors)).unwrap();
        sas.outbound(OutboundSlot(path)).unwrap().store(Some(Arc::new(outbound)));
        sas.inbound(spi(path)).unwrap().store(Some(Arc::new(inbound)));
        PathFace {
            id: PathId(path),
            connector: ConnectorId(0),
            role: if path == SECONDARY { Role::Secondary } else { Role::Primary },
            epoch: 1,
            usable: true,
            verdict: Verdict::Healthy,
            link: LinkId(path),
            preference: 1,
            weight: 100,
            home: WorkerId(0),
            leg: if pop { flipped(leg(path)) } else { leg(path) },
            mtu: MTU,
            private: Some(private(pop, path)),
            children: [ChildFace { selectors, slot: OutboundSlot(path) }].into(),
            live: Arc::default(),
        }
    };
    let paths: Box<[PathFace]> = (0..PATHS).map(face).collect();
    let mut routes = RouteTable::default();
    far_site.iter().for_each(|network| routes.insert(network.parse().unwrap(), ConnectorId(0)));
    Forwarding {
        generation: 1,
        policy_epoch: 1,
        site: SiteFace {
            native: own_site.iter().map(|network| network.parse().unwrap()).collect(),
            own: (0..PATHS).map(|path| private(pop, path)).collect(),
            answer_on_arrival: pop,
        },
        routes,
        connectors: [ConnectorFace {
            id: ConnectorId(0),
            active: Role::Primary,
            roles: [(0..SECONDARY).map(PathId).collect(), [PathId(SECONDARY)].into_iter().collect()],
        }]
        .into(),
        paths,
        rules: Arc::new(RuleSet::default()),
        sas,
    }
}

fn host(address: IpAddr) -> TrafficSelector {
    TrafficSelector::new(0, (0, u16::MAX), address, address).unwrap()
}

fn pair() -> (End, End) {
    (End::new(view(false), 1), End::new(view(true), 2))
}

fn udp_between(source: [u8; 4], destination: [u8; 4], source_port: u16, port: u16, length: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(source, destination, 20).udp(source_port, port);
    builder.write(&mut packet, &vec![source_port as u8; length]).unwrap();
    packet
}

/// A packet of the flow with this number, from the edge's site to the PoP's.
fn udp(flow: u16) -> Vec<u8> {
    udp_between([10, 1, 0, 5], [10, 9, 0, 7], flow, 53, 100)
}

/// A packet of the same flow back.
fn udp_back(flow: u16) -> Vec<u8> {
    udp_between([10, 9, 0, 7], [10, 1, 0, 5], 53, flow, 100)
}

fn with_rule(end: &End, action: Action) {
    let matcher = Matcher { destination_ports: vec![(53, 53)], ..Matcher::default() };
    let rules = RuleSet { rules: vec![Rule { name: "dns".into(), matcher, action }] };
    end.publish(|next| {
        next.policy_epoch += 1;
        next.rules = Arc::new(rules);
    });
}

fn unreachable_code(packet: &[u8]) -> Option<icmpv4::DestUnreachableHeader> {
    match SlicedPacket::from_ip(packet).unwrap().transport {
        Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
            Icmpv4Type::DestinationUnreachable(code) => Some(code),
            _ => None,
        },
        _ => None,
    }
}

fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let (mut header, _) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
    header.header_checksum = header.calc_header_checksum();
    packet[..20].copy_from_slice(&header.to_bytes());
    packet
}

/// A PoP that does not check what it sends.
struct CarelessPop {
    path: u16,
    sa: OutboundSa,
}

impl CarelessPop {
    fn on(path: u16) -> CarelessPop {
        let sa = OutboundSa::new(spi(path), PathId(path), Encryption::AesGcm256, &key(true, path));
        CarelessPop { path, sa: sa.unwrap() }
    }

    fn sends(&self, inner: &[u8]) -> (Leg, u8, Vec<u8>) {
        let mut packet = PacketBuf::with_capacity(2_048);
        packet.fill(inner);
        self.sa.seal(&mut packet).unwrap();
        (leg(self.path), 0, packet.bytes().to_vec())
    }
}
