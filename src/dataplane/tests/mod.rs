//! An edge with 3 + 1 tunnels and the PoP at their other ends, each with a worker on a world in
//! memory. What one sends, the other receives when a test says so.

mod arriving;
mod hostile;
mod leaving;
mod measuring;
mod moving;
mod names;
mod news;
mod shaping;
mod trains;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice, icmpv4};
use proptest::prelude::*;

use super::road::{BATCH, WAN_BATCH};
use super::{Crew, FlowTable, RoadIo, Unsent, Worker};
use crate::crypto::Encryption;
use crate::esp::{InboundSa, OutboundSa};
use crate::forward::{
    Cap, ChildFace, ConnectorFace, Duty, FlowQuestion, FlowReport, Forwarding, InnerOrder, MoveCause, MoveOrder,
    PathFace, ProbeOrder, Refused, RouteTable, SaTable, SiteFace, ToControl, ToWorker,
};
use crate::model::{
    ConnectorId, DropCounters, DropReason, Dscp, Leg, LinkId, Moment, OutboundSlot, PathId, Role, RuleId, Secret,
    Selectors, Spi, TrafficSelector, UnderlayId, Verdict, WeekMinute, WorkerId, protocol,
};
use crate::packet::{Batch, Ecn, Offload, PacketBuf, ProbeKey, SiteOffloads, SitePacket, Train, parse};
use crate::steer::{Action, Links, Matcher, OnFailback, Rule, RuleSet, Steering, Why};

const PATHS: u16 = 4;
const SECONDARY: u16 = 3;
const MTU: u16 = 1_400;
/// Asked inside tunnels.
const ASKED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 254, 9, 1));

#[derive(Default)]
struct MemoryIo {
    from_site: VecDeque<Vec<u8>>,
    /// Come before `from_site`.
    super_packets: VecDeque<(Vec<u8>, Offload)>,
    to_site: Vec<Vec<u8>>,
    /// For each of `to_site`.
    to_site_by: Vec<(Offload, WorkerId)>,
    site_offloads: SiteOffloads,
    from_wan: VecDeque<(Leg, u8, Vec<u8>)>,
    /// Come before `from_wan`; with the length of each datagram.
    from_wan_trains: VecDeque<(Leg, u8, usize, Vec<u8>)>,
    to_wan: Vec<(Leg, u8, Vec<u8>)>,
    /// The lengths of the datagrams of each train.
    trains: Vec<Vec<usize>>,
    woken: Vec<WorkerId>,
    orders: VecDeque<ToWorker>,
    news: Vec<ToControl>,
    control_is_full: bool,
    broken: Option<(UnderlayId, i32)>,
    /// What left outside of the tunnels.
    broken_out: Vec<(LinkId, Vec<u8>)>,
}

impl RoadIo for MemoryIo {
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>) {
        while let Some(slot) = batch.next_free() {
            let plain = || Some((self.from_site.pop_front()?, Offload::default()));
            let Some((packet, offload)) = self.super_packets.pop_front().or_else(plain) else { return };
            slot.packet.fill(&packet);
            slot.offload = offload;
            batch.claim(1);
        }
    }

    fn site_offloads(&self) -> SiteOffloads {
        self.site_offloads
    }

    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize {
        self.to_site.extend(batch.filled().iter().map(|slot| slot.packet.bytes().to_vec()));
        self.to_site_by.extend(batch.filled().iter().map(|slot| (slot.offload, slot.queue)));
        0
    }

    fn receive_wan(&mut self, batch: &mut Batch<Train>) {
        while let Some(slot) = batch.next_free() {
            let lone = || self.from_wan.pop_front().map(|(leg, tos, bytes)| (leg, tos, bytes.len(), bytes));
            let Some((leg, tos, segment, bytes)) = self.from_wan_trains.pop_front().or_else(lone) else { return };
            (slot.leg, slot.tos, slot.segment) = (leg, tos, segment);
            slot.packet.fill(&bytes);
            batch.claim(1);
        }
    }

    fn send_wan(&mut self, batch: &mut Batch<Train>, refused: &mut dyn FnMut(Unsent)) {
        for (index, train) in batch.filled().iter().enumerate() {
            self.trains.push(train.datagrams().map(<[u8]>::len).collect());
            match self.broken {
                Some((underlay, errno)) if underlay == train.leg.underlay => {
                    refused(Unsent { index, datagrams: train.datagrams().count(), errno });
                }
                _ => {
                    let sent = train.datagrams().map(|datagram| (train.leg, train.tos, datagram.to_vec()));
                    self.to_wan.extend(sent);
                }
            }
        }
    }

    fn send_breakout(&mut self, link: LinkId, packet: &mut SitePacket) -> bool {
        self.broken_out.push((link, packet.packet.bytes().to_vec()));
        true
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

    fn wake(&mut self, worker: WorkerId) {
        self.woken.push(worker);
    }
}

/// One end: a worker and its world, others with theirs, and what they share.
struct End {
    worker: Worker,
    io: MemoryIo,
    others: Vec<(Worker, MemoryIo)>,
    crew: Crew,
    now: Moment,
}

impl End {
    fn new(forwarding: Forwarding, key: u8) -> End {
        End::with(forwarding, key, FlowTable::new(1), 1)
    }

    fn with(forwarding: Forwarding, key: u8, flows: FlowTable, workers: u16) -> End {
        let published = Arc::new(ArcSwap::from_pointee(forwarding));
        let crew = Crew::new(usize::from(workers), published, flows, ProbeKey::new([key; 32]));
        let worker = |id| Worker::new(WorkerId(id), crew.clone());
        let others = (1..workers).map(|id| (worker(id), MemoryIo::default())).collect();
        End { worker: worker(0), io: MemoryIo::default(), others, crew, now: Moment::from_millis(10_000) }
    }

    fn publish(&self, change: impl FnOnce(&mut Forwarding)) {
        let mut next = Forwarding::clone(&self.crew.published.load());
        next.generation += 1;
        change(&mut next);
        self.crew.published.store(Arc::new(next));
    }

    fn turn(&mut self) {
        loop {
            let mut worked = self.worker.turn(&mut self.io, self.now).worked;
            for (worker, io) in &mut self.others {
                worked |= worker.turn(io, self.now).worked;
            }
            if !worked {
                return;
            }
        }
    }

    /// Sends packets from the site and returns the paths that they left by.
    fn send(&mut self, packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<u16> {
        let before = self.io.to_wan.len();
        for packet in packets {
            // One a turn: those of one turn leave path by path.
            self.io.from_site.push_back(packet);
            self.turn();
        }
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
        self.crew.published.load().paths[usize::from(path)].clone()
    }

    /// All drops of packets on the way in, on paths and elsewhere, as (reason, number).
    fn drops_in(&self) -> Vec<(DropReason, u64)> {
        self.drops_by(|path| &path.live.drops_in)
    }

    fn drops_out(&self) -> Vec<(DropReason, u64)> {
        self.drops_by(|path| &path.live.drops_out)
    }

    fn drops_by(&self, of: impl Fn(&PathFace) -> &DropCounters) -> Vec<(DropReason, u64)> {
        let forwarding = self.crew.published.load();
        let sum = |reason| {
            self.crew.drops.get(reason) + forwarding.paths.iter().map(|path| of(path).get(reason)).sum::<u64>()
        };
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
            duty: Duty::InService,
            verdict: Verdict::Healthy,
            link: LinkId(path),
            shaped: false,
            policed: false,
            preference: 1,
            weight: 100,
            metered: false,
            last_resort: false,
            settled: true,
            sla: Default::default(),
            score: None,
            doubt: 0,
            condition: Default::default(),
            home: WorkerId(0),
            leg: if pop { flipped(leg(path)) } else { leg(path) },
            mtu: MTU,
            outer_dscp: None,
            private: Some(private(pop, path)),
            kin: true,
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
        dwell: Duration::from_secs(30),
        site: SiteFace::new(
            own_site.iter().map(|network| network.parse().unwrap()).collect(),
            (0..PATHS).map(|path| private(pop, path)),
            [ASKED].into_iter(),
            pop,
        ),
        routes,
        connectors: [ConnectorFace {
            id: ConnectorId(0),
            active: Role::Primary,
            roles: [(0..SECONDARY).map(PathId).collect(), [PathId(SECONDARY)].into_iter().collect()],
        }]
        .into(),
        paths,
        links: Arc::new([]),
        rules: Arc::new(RuleSet::default()),
        lan: Arc::default(),
        breakouts: Box::default(),
        names: None,
        minute: WeekMinute::default(),
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
    let rules = RuleSet::new(vec![Rule { name: "dns".into(), place: String::new(), matcher, action }], Vec::new());
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

    /// In a packet that says that there is nothing in it.
    fn sends_as_nothing(&self, content: &[u8]) -> (Leg, u8, Vec<u8>) {
        let mut packet = vec![0; self.sa.sealed_len(content.len())];
        packet[self.sa.header_len()..][..content.len()].copy_from_slice(content);
        assert_eq!(self.sa.seal_nothing(&mut packet, content.len()), Ok(packet.len()));
        (leg(self.path), 0, packet)
    }

    fn sends(&self, inner: &[u8]) -> (Leg, u8, Vec<u8>) {
        let mut packet = vec![0; self.sa.sealed_len(inner.len())];
        packet[self.sa.header_len()..][..inner.len()].copy_from_slice(inner);
        assert_eq!(self.sa.seal(&mut packet, inner.len()), Ok(packet.len()));
        (leg(self.path), 0, packet)
    }
}
