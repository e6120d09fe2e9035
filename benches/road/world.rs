//! A site in memory whose every batch waits at once: what the benches measure, and what the test
//! runs that looks for allocations.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use trefoil::crypto::Encryption;
use trefoil::dataplane::{BATCH, Crew, FlowTable, RoadIo, Unsent, Worker};
use trefoil::esp::{InboundSa, OutboundSa};
use trefoil::forward::{
    ChildFace, ConnectorFace, Duty, Forwarding, PathFace, RouteTable, SaTable, SiteFace, ToControl, ToWorker,
};
use trefoil::model::{
    ConnectorId, Leg, LinkId, OutboundSlot, PathId, Role, Secret, Selectors, Spi, TrafficSelector, UnderlayId, Verdict,
    WeekMinute, WorkerId, protocol,
};
use trefoil::packet::{Batch, Offload, ProbeKey, SiteOffloads, SitePacket, Train, write_header};
use trefoil::steer::RuleSet;

pub const PACKET: usize = 1_400;
pub const SPI: Spi = Spi::of_slot(1, 1);
pub const SUITE: Encryption = Encryption::AesGcm256;
/// Flows that a batch is made of: eight packets each.
pub const FLOWS: usize = BATCH / 8;

/// A world that always has a batch waiting on one side and takes whatever comes out.
#[derive(Default)]
pub struct Endless {
    pub from_site: Vec<Vec<u8>>,
    pub offload: Offload,
    /// Trains, each with the length of its datagrams.
    pub from_wan: Vec<(usize, Vec<u8>)>,
    pub out: usize,
}

impl RoadIo for Endless {
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>) {
        for (slot, packet) in batch.free().iter_mut().zip(&self.from_site) {
            slot.packet.fill(packet);
            slot.offload = self.offload;
        }
        batch.claim(self.from_site.len());
    }

    fn site_offloads(&self) -> SiteOffloads {
        SiteOffloads { tcp: true, udp: true }
    }

    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize {
        self.out += batch.filled().len();
        0
    }

    fn receive_wan(&mut self, batch: &mut Batch<Train>) {
        for (slot, (segment, train)) in batch.free().iter_mut().zip(&self.from_wan) {
            slot.leg = leg();
            slot.segment = *segment;
            slot.packet.fill(train);
        }
        batch.claim(self.from_wan.len());
    }

    fn send_wan(&mut self, batch: &mut Batch<Train>, _: &mut dyn FnMut(Unsent)) {
        self.out += batch.filled().iter().map(|train| train.datagrams().count()).sum::<usize>();
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        None
    }

    fn tell_control(&mut self, _: ToControl) -> bool {
        true
    }

    fn wake(&mut self, _: WorkerId) {}
}

pub fn leg() -> Leg {
    let (local, remote) = (([192, 0, 2, 1], 4500).into(), ([198, 51, 100, 1], 4500).into());
    Leg { underlay: UnderlayId(0), natt: true, local, remote }
}

pub fn key() -> Secret {
    Secret::new(vec![7; 36])
}

pub fn selectors() -> Arc<Selectors> {
    Arc::new(Selectors { local: [TrafficSelector::ANY_IPV4].into(), remote: [TrafficSelector::ANY_IPV4].into() })
}

pub fn outbound_sa() -> OutboundSa {
    OutboundSa::new(SPI, PathId(0), SUITE, &key()).expect("the key fits the suite")
}

pub fn inbound_sa() -> InboundSa {
    InboundSa::new(SPI, PathId(0), SUITE, &key(), selectors()).expect("the key fits the suite")
}

/// The UDP packet of a flow, from one site to the other.
pub fn packet(flow: usize, arrives: bool) -> Vec<u8> {
    let (near, far) = ([10, 1, 0, 1].into(), [10, 9, 0, 1].into());
    let (source, destination) = if arrives { (far, near) } else { (near, far) };
    let mut packet = vec![0; PACKET];
    let header = write_header(&mut packet, source, destination, protocol::UDP, 0, PACKET - 20).expect("it fits");
    packet[header..header + 2].copy_from_slice(&(flow as u16).to_be_bytes());
    packet
}

/// The packet with the room that sealing needs around it.
pub fn in_room(sa: &OutboundSa, packet: &[u8]) -> Vec<u8> {
    let mut room = vec![0; sa.sealed_len(packet.len())];
    room[sa.header_len()..][..packet.len()].copy_from_slice(packet);
    room
}

pub fn sealed(sa: &OutboundSa, flow: usize) -> Vec<u8> {
    let mut room = in_room(sa, &packet(flow, true));
    sa.seal(&mut room, PACKET).expect("a fresh SA seals");
    room
}

/// A batch that arrives: a train for each flow.
pub fn trains(sa: &OutboundSa) -> Vec<(usize, Vec<u8>)> {
    let train = |flow| (0..BATCH / FLOWS).map(|_| sealed(sa, flow)).collect::<Vec<_>>();
    (0..FLOWS).map(train).map(|train| (train[0].len(), train.concat())).collect()
}

/// A site with one connector and three paths of one role.
pub fn forwarding() -> Forwarding {
    let sas = SaTable::new(4, 4);
    sas.inbound(SPI).expect("place 1 of 4").store(Some(Arc::new(inbound_sa())));
    let face = |path: u16| {
        sas.outbound(OutboundSlot(path)).expect("place below 4").store(Some(Arc::new(outbound_sa())));
        PathFace {
            id: PathId(path),
            connector: ConnectorId(0),
            role: Role::Primary,
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
            leg: leg(),
            mtu: 1_420,
            outer_dscp: None,
            private: None,
            kin: false,
            children: [ChildFace { selectors: selectors(), slot: OutboundSlot(path) }].into(),
            live: Arc::default(),
        }
    };
    let paths = (0..3).map(face).collect();
    let mut routes = RouteTable::default();
    routes.insert("10.9.0.0/16".parse().expect("a network"), ConnectorId(0));
    Forwarding {
        generation: 1,
        policy_epoch: 1,
        dwell: Duration::from_secs(30),
        site: SiteFace::new(
            vec!["10.1.0.0/16".parse().expect("a network")],
            (1..=6).map(|last| [10, 254, 0, last].into()),
            std::iter::empty(),
            false,
        ),
        routes,
        connectors: [ConnectorFace {
            id: ConnectorId(0),
            active: Role::Primary,
            roles: [(0..3).map(PathId).collect(), Default::default()],
        }]
        .into(),
        paths,
        links: Arc::new([]),
        rules: Arc::new(RuleSet::default()),
        lan: Arc::default(),
        breakouts: Box::default(),
        names: None,
        minute: WeekMinute::default(),
        sas: Arc::new(sas),
    }
}

pub fn worker(published: &Arc<ArcSwap<Forwarding>>) -> Worker {
    Worker::new(WorkerId(0), Crew::new(1, Arc::clone(published), FlowTable::new(1), ProbeKey::new([7; 32])))
}
