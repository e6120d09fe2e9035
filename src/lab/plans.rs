use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::address_block::AddressBlock;
use super::network;
use super::scenery::{LINKS, Line, POPS, Pop, mbps};
use crate::crypto::{DhGroup, Encryption, PrfAlgorithm};
use crate::edge::{
    CapPlan, ConnectorPlan, DataplanePlan, Destination, LabelledRange, LanPlan, LinkPlan, Mode, OnStop, Plan, PortPlan,
    ProbePlan, RolePlan, RoutePlan, SiteKind, SitePlan, SteeringPlan, TunnelPlan, UnderlayPlan,
};
use crate::forward::FLOWS_DEFAULT;
use crate::ha::Failback;
use crate::health::{Closeness, HealthSettings, Sensitivity};
use crate::ike::{Identity, Phase1, Phase2, Retransmission};
use crate::model::{ConnectorId, LinkId, PathId, Permille, Role, Secret, TrafficSelector, UnderlayId};
use crate::steer::{Action, Matcher, Rule, RuleSet};

/// How fast the demo's nodes measure and decide: several times faster than the defaults, so
/// that a run of half a minute shows everything.
const HEALTH: HealthSettings = HealthSettings {
    interval: Duration::from_millis(200),
    inner_interval: Duration::from_millis(200),
    need: 1,
    window: 10,
    down_after: 3,
    up_after: 3,
    // A single probe lost by chance, a tenth of the window, keeps no link out.
    loss_limit: match Permille::new(150) {
        Some(limit) => limit,
        None => Permille::FULL,
    },
    rtt_limit: Duration::from_millis(150),
    jitter_limit: Duration::from_millis(60),
    in_band: true,
    degraded_hold: Duration::from_secs(2),
    scrutiny: Closeness::Never,
    sensitivity: Sensitivity::Normal,
};

/// The least that the steering interval may be.
const STEERING: SteeringPlan = SteeringPlan { interval: Duration::from_secs(1) };

pub const FAILBACK_HOLD: Duration = Duration::from_secs(2);

/// Patient enough that a tunnel outlives every cut of the demo, as one outlives a short outage.
const RETRANSMISSION: Retransmission = Retransmission {
    first: Duration::from_millis(300),
    factor_percent: 150,
    longest: Duration::from_secs(1),
    tries: 60,
};

/// What fits over an underlay of 1,500 bytes. The loopback interface's own 65,536 would say
/// otherwise.
const INNER_MTU: u16 = 1400;

const REBUILD_INTERVAL: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(1);

/// The branch: three WAN links, and three tunnels to each of two PoPs.
pub fn branch(block: AddressBlock, psk: &Secret, directory: &Path) -> Plan {
    let links = (0u16..).zip(&LINKS).map(|(number, line)| LinkPlan {
        name: line.name.into(),
        underlay: UnderlayId(number),
        downstream: mbps(line.downstream),
        upstream: mbps(line.upstream),
        cap: CapPlan::default(),
        metered: false,
        last_resort: false,
        preference: 1,
        sensitivity: None,
    });
    let connector = ConnectorPlan {
        name: "cloud".into(),
        labels: vec![("environment".into(), "demo".into())],
        description: Some("two PoPs with the same services behind them".into()),
        mode: Mode::Initiator,
        ranges: vec![LabelledRange { label: "services".into(), range: network::SERVICES }],
        local_selectors: vec![TrafficSelector::of_network(network::LAN)],
        peer_selectors: vec![TrafficSelector::of_network(network::SERVICES)],
        mtu: Some(INNER_MTU),
        roles: Role::ALL.map(|role| Some(role_plan(role, first_tunnel(role)))),
        pmtu_discovery: false,
        outer_dscp: None,
        failback: Failback::After(FAILBACK_HOLD),
    };
    let tunnels = Role::ALL.into_iter().zip(0u8..).zip(&POPS).flat_map(|((role, number), pop)| {
        (0u8..).zip(&LINKS).map(move |(link, line)| TunnelPlan {
            destination: Some(Destination::Fqdn(pop.name.into())),
            local_id: Some(branch_id(line)),
            remote_id: Some(Identity::Fqdn(pop.name.into())),
            private_local: Some(private(number, link, Side::Branch)),
            private_remote: Some(private(number, link, Side::Pop)),
            probes: ProbePlan::icmp(network::PROBE_TARGET.into()),
            ..tunnel(role, link, line, psk)
        })
    });
    Plan {
        underlays: (0u8..).zip(&LINKS).map(|(link, _)| underlay(block.edge(link))).collect(),
        links: links.collect(),
        connectors: vec![connector],
        tunnels: tunnels.collect(),
        rules: Arc::new(RuleSet::new(vec![voice_rule()], Vec::new())),
        ..plan("branch", SiteKind::Branch, network::LAN, block, directory)
    }
}

/// A PoP: the same engine as a gateway, which answers three tunnels on its one address.
pub fn pop(number: u8, pop: &Pop, block: AddressBlock, psk: &Secret, directory: &Path) -> Plan {
    let links = LINKS.iter().map(|line| LinkPlan {
        name: line.name.into(),
        underlay: UnderlayId(0),
        // What is downstream for the branch goes upstream here.
        downstream: mbps(line.upstream),
        upstream: mbps(line.downstream),
        cap: CapPlan::default(),
        metered: false,
        last_resort: false,
        preference: 1,
        sensitivity: None,
    });
    let connector = ConnectorPlan {
        name: "branch".into(),
        labels: Vec::new(),
        description: None,
        mode: Mode::Responder,
        ranges: vec![LabelledRange { label: "lan".into(), range: network::LAN }],
        local_selectors: vec![TrafficSelector::of_network(network::SERVICES)],
        peer_selectors: vec![TrafficSelector::of_network(network::LAN)],
        mtu: Some(INNER_MTU),
        roles: [Some(role_plan(Role::Primary, 0)), None],
        pmtu_discovery: false,
        outer_dscp: None,
        failback: Failback::After(FAILBACK_HOLD),
    };
    let tunnels = (0u8..).zip(&LINKS).map(|(link, line)| TunnelPlan {
        local_id: Some(Identity::Fqdn(pop.name.into())),
        remote_id: Some(branch_id(line)),
        private_local: Some(private(number, link, Side::Pop)),
        private_remote: Some(private(number, link, Side::Branch)),
        downstream: mbps(line.upstream),
        upstream: mbps(line.downstream),
        ..tunnel(Role::Primary, link, line, psk)
    });
    Plan {
        underlays: vec![underlay(block.pop(number))],
        links: links.collect(),
        connectors: vec![connector],
        tunnels: tunnels.collect(),
        ..plan(pop.name, SiteKind::CloudVpc, network::SERVICES, block, directory)
    }
}

/// Voice takes the first healthy of the links, whatever the others have to spare.
fn voice_rule() -> Rule {
    let matcher = Matcher { dscp: vec![network::VOICE_DSCP], ..Matcher::default() };
    let links: Vec<LinkId> = (0u16..).zip(&LINKS).map(|(number, _)| LinkId(number)).collect();
    Rule { name: "voice".into(), place: String::new(), matcher, action: Action::prefer(links) }
}

fn plan(name: &str, kind: SiteKind, native: IpNet, block: AddressBlock, directory: &Path) -> Plan {
    let ports = PortPlan { ike: block.ike_port(), natt: block.natt_port() };
    Plan {
        site: SitePlan {
            name: name.into(),
            kind,
            country: None,
            state: None,
            license: None,
            cap: CapPlan::default(),
            native: vec![native],
        },
        underlays: Vec::new(),
        links: Vec::new(),
        lan: LanPlan::default(),
        connectors: Vec::new(),
        tunnels: Vec::new(),
        rules: Arc::new(RuleSet::default()),
        health: HEALTH,
        steering: STEERING,
        local_ports: ports,
        remote_ports: ports,
        // The sites are in memory: nothing of this is made.
        routes: RoutePlan { device: "demo".into(), table: 0, rule_priority: 0, on_stop: OnStop::Release },
        dataplane: DataplanePlan {
            workers: NonZeroU16::MIN,
            pinned: false,
            aead_backend: None,
            flow_limit: FLOWS_DEFAULT,
        },
        resolvers: Vec::new(),
        control_socket: directory.join(format!("{name}.sock")),
        recording: None,
    }
}

fn role_plan(role: Role, first: u16) -> RolePlan {
    let place = POPS.get(role.index()).map(|pop| pop.place.into());
    RolePlan { pop_location: place, tunnels: (first..).zip(&LINKS).map(|(number, _)| PathId(number)).collect() }
}

/// The tunnels of the primary role come first.
fn first_tunnel(role: Role) -> u16 {
    match role {
        Role::Primary => 0,
        Role::Secondary => LINKS.len() as u16,
    }
}

fn tunnel(role: Role, link: u8, line: &Line, psk: &Secret) -> TunnelPlan {
    TunnelPlan {
        name: line.name.into(),
        connector: ConnectorId(0),
        role,
        link: LinkId(link.into()),
        destination: None,
        local_id: None,
        remote_id: None,
        public_ip: None,
        psk: psk.clone(),
        private_local: None,
        private_remote: None,
        downstream: mbps(line.downstream),
        upstream: mbps(line.upstream),
        probes: ProbePlan::NONE,
        phase1: Arc::new(Phase1 {
            encryption: vec![Encryption::AesGcm256],
            integrity: Vec::new(),
            prf: vec![PrfAlgorithm::Sha256],
            groups: vec![DhGroup::Ecp256],
            lifetime: Duration::from_secs(4 * 3600),
        }),
        phase2: Arc::new(Phase2 {
            encryption: vec![Encryption::AesGcm128],
            integrity: Vec::new(),
            groups: vec![DhGroup::Ecp256],
            lifetime: Duration::from_secs(3600),
        }),
        retransmission: RETRANSMISSION,
        keepalive: Some(KEEPALIVE),
        rebuild_interval: REBUILD_INTERVAL,
        dead_after: DEAD_AFTER,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Branch,
    Pop,
}

/// Each tunnel has a /30 of its own, as cloud gateways give out.
fn private(pop: u8, link: u8, side: Side) -> IpNet {
    let host = 4 * link + if side == Side::Branch { 1 } else { 2 };
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 10 + pop, host), 30))
}

fn branch_id(line: &Line) -> Identity {
    Identity::Fqdn(format!("{}.branch.demo.example", line.name))
}

fn underlay(address: Ipv4Addr) -> UnderlayPlan {
    UnderlayPlan { interface: None, address: Some(address) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plans() -> (Plan, Vec<Plan>) {
        let (block, psk) = (AddressBlock::nth(0, 0), Secret::new(b"demo".to_vec()));
        let pops = (0u8..).zip(&POPS).map(|(number, place)| pop(number, place, block, &psk, Path::new("/tmp")));
        (branch(block, &psk, Path::new("/tmp")), pops.collect())
    }

    #[test]
    fn each_tunnel_of_the_branch_has_its_counterpart_at_its_pop() {
        let (branch, pops) = plans();
        assert_eq!(branch.tunnels.len(), 6);
        for (ours, number) in branch.tunnels.iter().zip(0..) {
            let theirs = &pops[ours.role.index()].tunnels[number % 3];
            assert_eq!((&ours.local_id, &ours.remote_id), (&theirs.remote_id, &theirs.local_id));
            assert_eq!((ours.private_local, ours.private_remote), (theirs.private_remote, theirs.private_local));
            assert_eq!((ours.upstream, ours.downstream), (theirs.downstream, theirs.upstream));
            assert_eq!(ours.link, theirs.link);
            let role = branch.connectors[0].roles[ours.role.index()].as_ref();
            assert!(role.is_some_and(|role| role.tunnels.contains(&PathId(number as u16))));
        }
    }

    #[test]
    fn every_tunnel_has_private_addresses_and_identities_of_its_own() {
        let (branch, _) = plans();
        let private: BTreeSet<_> = branch.tunnels.iter().map(|tunnel| tunnel.private_local).collect();
        let identities: BTreeSet<_> =
            branch.tunnels.iter().map(|tunnel| (&tunnel.local_id, &tunnel.remote_id)).collect();
        assert_eq!((private.len(), identities.len()), (6, 6));
    }
}
