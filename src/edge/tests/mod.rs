//! Two machines that call each other over one link, without packets: both ends of one tunnel.

mod lineage;
mod pair;
mod published;
mod steering;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::crypto::{Backend, Backends, DhGroup, Encryption, PrfAlgorithm};
use crate::forward::{FLOWS_DEFAULT, Forgotten, Forwarding, ToControl, ToWorker};
use crate::ha::Failback;
use crate::health::HealthSettings;
use crate::ike::{ChildSa, Identity, Phase1, Phase2, Retransmission};
use crate::model::{
    Chance, ConnectorId, DropCounters, Leg, LinkId, Mbps, Moment, PathId, Role, Secret, Selectors, Spi,
    TrafficSelector, UnderlayId,
};
use crate::probe::MEASURE_BYTES;

const SECOND: Duration = Duration::from_secs(1);
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];

/// Both ends of one tunnel, and the link between them.
struct Pair {
    now: Moment,
    ends: [Edge; 2],
    /// By arrival: whose it is, and the datagram with the leg as the receiver sees it.
    on_the_way: BTreeMap<(Moment, u64), (usize, Leg, Vec<u8>)>,
    count: u64,
    cut: bool,
    events: [Vec<(Moment, SiteEvent)>; 2],
    published: [Vec<Arc<Forwarding>>; 2],
    /// When an end has said something in band, and whether the other one listened.
    said: [Vec<(Moment, bool)>; 2],
    /// Who has just said what.
    saying: Vec<(usize, [u8; MEASURE_BYTES])>,
}

const DELAY: Duration = Duration::from_millis(10);

impl Pair {
    fn new(plans: [Plan; 2]) -> Pair {
        let [left, right] = plans;
        let edge = |plan, seed| {
            Edge::new(
                Arc::new(plan),
                Backends::only(Backend::AwsLc),
                false,
                Chance::from_number(seed).bytes(),
                Moment::ZERO,
            )
            .0
        };
        let mut pair = Pair {
            now: Moment::ZERO,
            ends: [edge(left, 1), edge(right, 2)],
            on_the_way: BTreeMap::new(),
            count: 0,
            cut: false,
            events: [Vec::new(), Vec::new()],
            published: [Vec::new(), Vec::new()],
            said: [Vec::new(), Vec::new()],
            saying: Vec::new(),
        };
        for end in 0..2 {
            pair.ends[end].handle_underlay(UnderlayId(0), Some(fact(end, 1500)), Moment::ZERO);
            pair.drain(end);
        }
        pair
    }

    fn run(&mut self, span: Duration) -> &mut Pair {
        let until = self.now + span;
        loop {
            let timeouts = self.ends.iter().filter_map(Edge::poll_timeout);
            let arrivals = self.on_the_way.first_key_value().map(|(&(at, _), _)| at);
            let Some(next) = timeouts.chain(arrivals).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (end, leg, bytes) = entry.remove();
                self.ends[end].handle_datagram(leg, &bytes, self.now);
                self.drain(end);
            }
            for end in 0..2 {
                if self.ends[end].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.ends[end].handle_timeout(self.now);
                    assert!(self.ends[end].poll_timeout().is_none_or(|due| due > self.now), "a timeout that stays due");
                    self.drain(end);
                }
            }
            while let Some((end, bytes)) = self.saying.pop() {
                let measure = ToControl::Measure { path: PathId(0), at: self.now, bytes };
                self.ends[1 - end].handle_message(measure, self.now);
                self.drain(1 - end);
            }
        }
        self.now = until;
        self
    }

    fn drain(&mut self, end: usize) {
        while let Some(effect) = self.ends[end].poll_effect() {
            match effect {
                Effect::Publish(forwarding) => self.published[end].push(forwarding),
                Effect::Event(event) => self.events[end].push((self.now, event)),
                Effect::Order(_, ToWorker::Measure { bytes, .. }) => {
                    let listens = self.published[1 - end].last().is_some_and(|published| published.paths[0].kin);
                    self.said[end].push((self.now, listens));
                    if listens && !self.cut {
                        self.saying.push((end, bytes));
                    }
                }
                Effect::Order(..) | Effect::Resolve { .. } | Effect::Keys(_) | Effect::Record(..) => {}
            }
        }
        while let Some((leg, bytes)) = self.ends[end].poll_transmit() {
            if self.cut {
                continue;
            }
            self.count += 1;
            let arrives = Leg { local: leg.remote, remote: leg.local, ..leg };
            self.on_the_way.insert((self.now + DELAY, self.count), (1 - end, arrives, bytes));
        }
    }

    fn tunnel(&self, end: usize) -> TunnelStatus {
        let drops = DropCounters::default();
        let facts = StatusFacts {
            unix_ms_at_zero: 0,
            started: Moment::ZERO,
            drops: &drops,
            flows: 0,
            flow_limit: 0,
            forgotten: &Forgotten::default(),
            workers: &[],
        };
        self.ends[end].status(facts, self.now).connectors.remove(0).tunnels.remove(0)
    }

    fn both_healthy(&self) -> bool {
        (0..2).all(|end| self.tunnel(end).usable && self.tunnel(end).verdict == "healthy")
    }

    fn story(&self) -> String {
        format!("{:#?}\n{:#?}", self.events, [self.tunnel(0), self.tunnel(1)])
    }
}

fn fact(end: usize, mtu: u16) -> UnderlayFact {
    UnderlayFact { address: ADDRESSES[end], ike_port: 500, natt_port: 4500, mtu }
}

fn network(end: usize) -> TrafficSelector {
    TrafficSelector::of_network(["10.0.0.0/16", "10.1.0.0/16"][end].parse().unwrap())
}

/// A site with one tunnel to the other end.
fn plan(end: usize, mode: Mode) -> Plan {
    let far = 1 - end;
    let mbps = Mbps::new(100).unwrap();
    let tunnel = TunnelPlan {
        name: "fibre".to_owned(),
        connector: ConnectorId(0),
        role: Role::Primary,
        link: LinkId(0),
        destination: (mode != Mode::Responder).then_some(Destination::Ipv4(ADDRESSES[far])),
        local_id: Some(Identity::Fqdn(format!("end{end}"))),
        remote_id: Some(Identity::Fqdn(format!("end{far}"))),
        public_ip: None,
        psk: Secret::new(b"a secret of both ends".to_vec()),
        private_local: None,
        private_remote: None,
        downstream: mbps,
        upstream: mbps,
        probes: ProbePlan::NONE,
        phase1: Arc::new(Phase1 {
            encryption: vec![Encryption::AesGcm256],
            integrity: Vec::new(),
            prf: vec![PrfAlgorithm::Sha256],
            groups: vec![DhGroup::Ecp256],
            lifetime: Duration::from_secs(14_400),
        }),
        phase2: Arc::new(Phase2 {
            encryption: vec![Encryption::AesGcm256],
            integrity: Vec::new(),
            groups: vec![DhGroup::Ecp256],
            lifetime: Duration::from_secs(3_600),
        }),
        retransmission: Retransmission {
            first: Duration::from_millis(500),
            factor_percent: 150,
            longest: Duration::from_secs(4),
            tries: 12,
        },
        keepalive: Some(Duration::from_secs(3)),
        rebuild_interval: Duration::from_secs(10),
        dead_after: Duration::from_secs(60),
    };
    Plan {
        site: SitePlan {
            name: format!("end{end}"),
            kind: SiteKind::Branch,
            country: None,
            state: None,
            license: None,
            cap: Default::default(),
            native: Vec::new(),
        },
        underlays: vec![UnderlayPlan { interface: None, address: Some(ADDRESSES[end]) }],
        lan: LanPlan::default(),
        links: vec![LinkPlan {
            name: "fibre".to_owned(),
            underlay: UnderlayId(0),
            downstream: mbps,
            upstream: mbps,
            cap: Default::default(),
            metered: false,
            last_resort: false,
            preference: 1,
            sensitivity: None,
        }],
        connectors: vec![ConnectorPlan {
            name: "far".to_owned(),
            labels: Vec::new(),
            description: None,
            mode,
            ranges: Vec::new(),
            local_selectors: vec![network(end)],
            peer_selectors: vec![network(far)],
            mtu: None,
            roles: [Some(RolePlan { pop_location: None, tunnels: vec![PathId(0)] }), None],
            pmtu_discovery: false,
            outer_dscp: None,
            failback: Failback::After(15 * SECOND),
        }],
        tunnels: vec![tunnel],
        rules: Arc::default(),
        health: HealthSettings::default(),
        steering: SteeringPlan { interval: Duration::from_secs(10) },
        local_ports: PortPlan { ike: 500, natt: 4500 },
        remote_ports: PortPlan { ike: 500, natt: 4500 },
        routes: RoutePlan { device: "none".to_owned(), table: 1, rule_priority: 1, on_stop: OnStop::Release },
        dataplane: DataplanePlan {
            workers: NonZeroU16::MIN,
            pinned: false,
            aead_backend: None,
            flow_limit: FLOWS_DEFAULT,
        },
        resolvers: Vec::new(),
        control_socket: PathBuf::new(),
        recording: None,
    }
}

/// A Child SA as IKE reports it.
fn child(inbound: Spi, replaces: Option<Spi>, selectors: [TrafficSelector; 2]) -> ChildSa {
    let [local, remote] = selectors;
    ChildSa {
        inbound,
        outbound: Spi(inbound.0 ^ 0x0000_ffff),
        encryption: Encryption::AesGcm256,
        inbound_key: Secret::new(vec![1; 36]),
        outbound_key: Secret::new(vec![2; 36]),
        selectors: Selectors { local: [local].as_slice().into(), remote: [remote].as_slice().into() },
        replaces,
        initiator: true,
        lifetime: Duration::from_secs(3_600),
    }
}
