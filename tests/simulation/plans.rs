use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trefoil::crypto::{DhGroup, Encryption, PrfAlgorithm};
use trefoil::edge::{
    ConnectorPlan, DataplanePlan, Destination, LanPlan, LinkPlan, Mode, OnStop, Plan, PortPlan, ProbePlan, RolePlan,
    RoutePlan, SiteKind, SitePlan, SteeringPlan, TunnelPlan, UnderlayPlan,
};
use trefoil::forward::FLOWS_DEFAULT;
use trefoil::ha::Failback;
use trefoil::health::HealthSettings;
use trefoil::ike::{Identity, Phase1, Phase2, Retransmission};
use trefoil::model::{ConnectorId, LinkId, Mbps, PathId, Role, Secret, TrafficSelector, UnderlayId};
use trefoil::steer::RuleSet;

pub const LINKS: [(&str, Ipv4Addr, u32); 3] = [
    ("fibre", Ipv4Addr::new(10, 1, 0, 1), 60),
    ("dsl", Ipv4Addr::new(10, 2, 0, 1), 30),
    ("lte", Ipv4Addr::new(10, 3, 0, 1), 10),
];

/// More than one, so that packets are handed over, and not as many as there are tunnels of a role
/// and links.
pub const WORKERS: NonZeroU16 = NonZeroU16::new(2).unwrap();

pub const POPS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];

/// Lifetimes that a scenario may shorten so that rekeys fall into it.
#[derive(Clone, Copy)]
pub struct Lifetimes {
    pub ike: Duration,
    pub child: Duration,
}

impl Lifetimes {
    pub const LONG: Lifetimes = Lifetimes { ike: Duration::from_secs(14_400), child: Duration::from_secs(3_600) };
}

pub fn branch(lifetimes: Lifetimes, rules: RuleSet) -> Plan {
    let mut plan = site("branch", SiteKind::Branch, "10.20.0.0/16");
    plan.rules = Arc::new(rules);
    for (index, (name, address, mbps)) in LINKS.iter().enumerate() {
        plan.underlays.push(UnderlayPlan { interface: None, address: Some(*address) });
        plan.links.push(link(name, index as u16, *mbps));
    }
    let mut roles = [None, None];
    for role in Role::ALL {
        let mut tunnels = Vec::new();
        for (index, (name, _, mbps)) in LINKS.iter().enumerate() {
            tunnels.push(PathId(plan.tunnels.len() as u16));
            let number = (role.index() * 3 + index) as u8;
            plan.tunnels.push(TunnelPlan {
                link: LinkId(index as u16),
                destination: Some(Destination::Ipv4(POPS[role.index()])),
                local_id: Some(Identity::Fqdn(format!("{name}.{role}.branch"))),
                remote_id: Some(Identity::Fqdn(format!("{role}.pop"))),
                private_local: Some(format!("169.254.{number}.2/30").parse().unwrap()),
                private_remote: Some(format!("169.254.{number}.1/30").parse().unwrap()),
                probes: ProbePlan::icmp(format!("169.254.{number}.1").parse().unwrap()),
                ..tunnel(name, role, *mbps, lifetimes)
            });
        }
        roles[role.index()] = Some(RolePlan { pop_location: None, tunnels });
    }
    plan.connectors.push(connector("pop", Mode::Initiator, "10.20.0.0/16", "10.90.0.0/16", roles));
    plan
}

pub fn pop(role: Role, lifetimes: Lifetimes) -> Plan {
    let mut plan = site(&format!("{role}-pop"), SiteKind::CloudVpc, "10.90.0.0/16");
    plan.underlays.push(UnderlayPlan { interface: None, address: Some(POPS[role.index()]) });
    plan.links.push(link("uplink", 0, 1_000));
    for (index, (name, _, mbps)) in LINKS.iter().enumerate() {
        let number = (role.index() * 3 + index) as u8;
        plan.tunnels.push(TunnelPlan {
            local_id: Some(Identity::Fqdn(format!("{role}.pop"))),
            remote_id: Some(Identity::Fqdn(format!("{name}.{role}.branch"))),
            private_local: Some(format!("169.254.{number}.1/30").parse().unwrap()),
            private_remote: Some(format!("169.254.{number}.2/30").parse().unwrap()),
            ..tunnel(name, Role::Primary, *mbps, lifetimes)
        });
    }
    let tunnels = (0..3).map(PathId).collect();
    let roles = [Some(RolePlan { pop_location: None, tunnels }), None];
    plan.connectors.push(connector("branch", Mode::Responder, "10.90.0.0/16", "10.20.0.0/16", roles));
    plan
}

fn site(name: &str, kind: SiteKind, native: &str) -> Plan {
    Plan {
        site: SitePlan {
            name: name.to_owned(),
            kind,
            country: None,
            state: None,
            license: None,
            cap: Default::default(),
            native: vec![native.parse().unwrap()],
        },
        underlays: Vec::new(),
        links: Vec::new(),
        lan: LanPlan::default(),
        connectors: Vec::new(),
        tunnels: Vec::new(),
        rules: Arc::default(),
        health: HealthSettings::default(),
        steering: SteeringPlan { interval: Duration::from_secs(10) },
        local_ports: PortPlan { ike: 500, natt: 4500 },
        remote_ports: PortPlan { ike: 500, natt: 4500 },
        routes: RoutePlan { device: "none".to_owned(), table: 1, rule_priority: 1, on_stop: OnStop::Release },
        dataplane: DataplanePlan { workers: WORKERS, pinned: false, aead_backend: None, flow_limit: FLOWS_DEFAULT },
        resolvers: Vec::new(),
        control_socket: PathBuf::new(),
        recording: None,
    }
}

fn link(name: &str, underlay: u16, mbps: u32) -> LinkPlan {
    LinkPlan {
        name: name.to_owned(),
        underlay: UnderlayId(underlay),
        downstream: Mbps::new(mbps).unwrap(),
        upstream: Mbps::new(mbps).unwrap(),
        cap: Default::default(),
        metered: false,
        last_resort: false,
        preference: 1,
        sensitivity: None,
    }
}

fn connector(name: &str, mode: Mode, local: &str, range: &str, roles: [Option<RolePlan>; 2]) -> ConnectorPlan {
    ConnectorPlan {
        name: name.to_owned(),
        labels: Vec::new(),
        description: None,
        mode,
        ranges: vec![trefoil::edge::LabelledRange { label: "far".to_owned(), range: range.parse().unwrap() }],
        local_selectors: vec![TrafficSelector::of_network(local.parse().unwrap())],
        peer_selectors: vec![TrafficSelector::of_network(range.parse().unwrap())],
        mtu: None,
        roles,
        pmtu_discovery: false,
        outer_dscp: None,
        failback: Failback::After(Duration::from_secs(15)),
    }
}

fn tunnel(name: &str, role: Role, mbps: u32, lifetimes: Lifetimes) -> TunnelPlan {
    TunnelPlan {
        name: name.to_owned(),
        connector: ConnectorId(0),
        role,
        link: LinkId(0),
        destination: None,
        local_id: None,
        remote_id: None,
        public_ip: None,
        psk: Secret::new(b"a secret for the simulation".to_vec()),
        private_local: None,
        private_remote: None,
        downstream: Mbps::new(mbps).unwrap(),
        upstream: Mbps::new(mbps).unwrap(),
        probes: ProbePlan::NONE,
        phase1: Arc::new(Phase1 {
            encryption: vec![Encryption::AesGcm256],
            integrity: Vec::new(),
            prf: vec![PrfAlgorithm::Sha256],
            groups: vec![DhGroup::Ecp256],
            lifetime: lifetimes.ike,
        }),
        phase2: Arc::new(Phase2 {
            encryption: vec![Encryption::AesGcm256],
            integrity: Vec::new(),
            groups: vec![DhGroup::Ecp256],
            lifetime: lifetimes.child,
        }),
        retransmission: Retransmission {
            first: Duration::from_millis(500),
            factor_percent: 180,
            longest: Duration::from_secs(10),
            tries: 7,
        },
        keepalive: Some(Duration::from_secs(10)),
        rebuild_interval: Duration::from_secs(30),
        dead_after: Duration::from_secs(60),
    }
}

/// Where all sites of a fleet call.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The WAN addresses of a site of a fleet, one a link.
fn fleet_address(site: usize, link: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x6440_0000 + (site * 4 + link) as u32)
}

/// The number of who has the address: 0 is the gateway, sites follow.
pub fn site_with(address: std::net::IpAddr) -> usize {
    match address {
        std::net::IpAddr::V4(address) if address != GATEWAY => (u32::from(address) - 0x6440_0000) as usize / 4 + 1,
        _ => 0,
    }
}

fn fleet_range(site: usize) -> String {
    format!("10.{}.{}.0/24", 100 + site / 256, site % 256)
}

/// A gateway with one connector of three tunnels for each site.
pub fn gateway_of(sites: usize) -> Plan {
    let mut plan = site("gateway", SiteKind::CloudVpc, "10.90.0.0/16");
    plan.underlays.push(UnderlayPlan { interface: None, address: Some(GATEWAY) });
    for (name, _, mbps) in LINKS {
        plan.links.push(link(name, 0, mbps));
    }
    let phases = tunnel("", Role::Primary, 1, Lifetimes::LONG);
    for number in 0..sites {
        let first = plan.tunnels.len() as u16;
        for (index, (name, _, mbps)) in LINKS.iter().enumerate() {
            plan.tunnels.push(TunnelPlan {
                connector: ConnectorId(number as u16),
                link: LinkId(index as u16),
                local_id: Some(Identity::Fqdn("gateway".to_owned())),
                remote_id: Some(Identity::Fqdn(format!("{name}.site{number}"))),
                phase1: phases.phase1.clone(),
                phase2: phases.phase2.clone(),
                ..tunnel(name, Role::Primary, *mbps, Lifetimes::LONG)
            });
        }
        let tunnels = (first..first + 3).map(PathId).collect();
        let roles = [Some(RolePlan { pop_location: None, tunnels }), None];
        let range = fleet_range(number);
        plan.connectors.push(connector(&format!("site{number}"), Mode::Responder, "10.90.0.0/16", &range, roles));
    }
    plan
}

/// One site of the fleet.
pub fn site_of(number: usize) -> Plan {
    let range = fleet_range(number);
    let mut plan = site(&format!("site{number}"), SiteKind::Branch, &range);
    for (index, (name, _, mbps)) in LINKS.iter().enumerate() {
        plan.underlays.push(UnderlayPlan { interface: None, address: Some(fleet_address(number, index)) });
        plan.links.push(link(name, index as u16, *mbps));
        plan.tunnels.push(TunnelPlan {
            link: LinkId(index as u16),
            destination: Some(Destination::Ipv4(GATEWAY)),
            local_id: Some(Identity::Fqdn(format!("{name}.site{number}"))),
            remote_id: Some(Identity::Fqdn("gateway".to_owned())),
            ..tunnel(name, Role::Primary, *mbps, Lifetimes::LONG)
        });
    }
    let roles = [Some(RolePlan { pop_location: None, tunnels: (0..3).map(PathId).collect() }), None];
    plan.connectors.push(connector("gateway", Mode::Initiator, &range, "10.90.0.0/16", roles));
    plan
}
