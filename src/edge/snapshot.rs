use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use ipnet::IpNet;

use super::plan::OUTER_MTU;
use super::steering::Steering;
use super::tunnel::Tunnel;
use super::{Plan, SiteKind, TunnelPlan, UnderlayFact};
use crate::forward::{
    BreakoutFace, Cap, ConnectorFace, Duty, Forwarding, LanTable, LinkFace, NameTable, PathFace, RouteTable, SaTable,
    SiteFace,
};
use crate::model::{ConnectorId, Leg, LinkId, OutboundSlot, PathId, Role, Selectors, Verdict, WeekMinute};
use crate::probe::Ask;
use crate::steer::{Candidate, Condition, SlaStanding};

/// The part of a tunnel whose change makes a new `Forwarding` necessary.
#[derive(PartialEq, Eq)]
pub struct Published {
    usable: bool,
    duty: Duty,
    verdict: Verdict,
    epoch: u32,
    settled: bool,
    sla: SlaStanding,
    score: Option<u32>,
    doubt: u32,
    condition: Condition,
    leg: Option<Leg>,
    path_mtu: Option<u16>,
    children: ArrayVec<(OutboundSlot, Arc<Selectors>), 4>,
}

impl Published {
    pub fn of(path: PathId, tunnel: &Tunnel, steering: &Steering) -> Published {
        let memory = steering.path(path);
        Published {
            usable: tunnel.usable(),
            duty: tunnel.duty(),
            verdict: tunnel.verdict(),
            epoch: epoch(path, tunnel, steering),
            settled: memory.is_some_and(|memory| memory.settled),
            sla: memory.map(|memory| memory.sla).unwrap_or_default(),
            score: memory.and_then(|memory| memory.score),
            doubt: memory.map_or(0, |memory| memory.doubt),
            condition: memory.map(|memory| memory.condition).unwrap_or_default(),
            leg: tunnel.leg(),
            path_mtu: tunnel.path_mtu(),
            children: tunnel.children().map(|lineage| (lineage.slot(), lineage.face().selectors)).take(4).collect(),
        }
    }

    /// What is published next has the present epoch, whatever else it has.
    pub fn follow_epoch(&mut self, path: PathId, tunnel: &Tunnel, steering: &Steering) {
        self.epoch = epoch(path, tunnel, steering);
    }
}

/// What a `Forwarding` is built from.
pub struct Sources<'a> {
    pub plan: &'a Plan,
    pub tunnels: &'a [Tunnel],
    pub steering: &'a Steering,
    /// By `ConnectorId`.
    pub active: &'a [Role],
    pub underlays: &'a [Option<UnderlayFact>],
    pub table: &'a Arc<SaTable>,
    pub links: &'a Arc<[LinkFace]>,
    /// The site's.
    pub cap: &'a Cap,
    pub generation: u64,
    pub policy_epoch: u32,
    pub minute: WeekMinute,
    pub lan: &'a Arc<LanTable>,
    pub breakouts: &'a [BreakoutFace],
    pub names: &'a Option<Arc<NameTable>>,
}

pub fn build(sources: Sources) -> Forwarding {
    let plan = sources.plan;
    let blank = blank(plan, sources.table);
    let active = |id: ConnectorId| sources.active.get(usize::from(id.0)).copied().unwrap_or(Role::Primary);
    let connectors = blank.connectors.into_iter().map(|face| ConnectorFace { active: active(face.id), ..face });
    let mtus: Vec<u16> = (0..plan.connectors.len() as u16)
        .map(|connector| inner_mtu(plan, ConnectorId(connector), sources.underlays))
        .collect();
    let paths = plan.tunnels.iter().zip(sources.tunnels).enumerate().map(|(index, (configured, tunnel))| {
        let mtu = mtus.get(usize::from(configured.connector.0)).copied().unwrap_or(OUTER_MTU);
        path_face(&sources, PathId(index as u16), configured, tunnel, mtu)
    });
    Forwarding {
        generation: sources.generation,
        policy_epoch: sources.policy_epoch,
        site: blank.site.capped(sources.cap.clone()),
        links: sources.links.clone(),
        connectors: connectors.collect(),
        paths: paths.collect(),
        minute: sources.minute,
        lan: sources.lan.clone(),
        names: sources.names.clone(),
        breakouts: sources.breakouts.iter().map(|face| breakout_face(&sources, face)).collect(),
        ..blank
    }
}

/// What a plan says by itself, with the primary roles active and no path known.
pub fn blank(plan: &Plan, sas: &Arc<SaTable>) -> Forwarding {
    let mut routes = RouteTable::default();
    for (index, connector) in plan.connectors.iter().enumerate() {
        let id = ConnectorId(index as u16);
        if connector.ranges.is_empty() {
            routes.insert(IpNet::V4(Default::default()), id);
            routes.insert(IpNet::V6(Default::default()), id);
        }
        for range in &connector.ranges {
            routes.insert(range.range, id);
        }
        // Probe targets and the peer's private addresses belong to it wherever they lie.
        for role in connector.roles.iter().flatten() {
            for path in &role.tunnels {
                let tunnel = &plan.tunnels[usize::from(path.0)];
                let targets = tunnel.probes.targets.iter().map(|target| target.address);
                for address in targets.chain(tunnel.private_remote.map(|private| private.addr())) {
                    routes.insert(IpNet::from(address), id);
                }
            }
        }
    }
    let connectors = plan
        .connectors
        .iter()
        .enumerate()
        .map(|(index, connector)| ConnectorFace {
            id: ConnectorId(index as u16),
            active: Role::Primary,
            roles: Role::ALL.map(|role| {
                let tunnels = connector.roles[role.index()].iter().flat_map(|role| &role.tunnels);
                tunnels.copied().take(3).collect::<ArrayVec<PathId, 3>>()
            }),
        })
        .collect();
    let targets = plan.tunnels.iter().flat_map(|tunnel| &tunnel.probes.targets);
    let asked = targets.filter(|target| target.ask != Ask::Icmp);
    Forwarding {
        generation: 0,
        policy_epoch: 0,
        dwell: plan.steering.dwell(),
        site: SiteFace::new(
            plan.site.native.clone(),
            plan.tunnels.iter().filter_map(|tunnel| tunnel.private_local).map(|private| private.addr()),
            asked.map(|target| target.address),
            plan.site.kind == SiteKind::CloudVpc,
        ),
        routes,
        connectors,
        paths: Box::default(),
        links: Arc::default(),
        rules: plan.rules.clone(),
        lan: Arc::default(),
        names: None,
        breakouts: plan.breakouts().into_iter().map(BreakoutFace::new).collect(),
        minute: WeekMinute::default(),
        sas: sas.clone(),
    }
}

/// The links with their caps, which last as long as the plan does.
pub fn link_faces(plan: &Plan) -> Arc<[LinkFace]> {
    let face = |link| {
        let (send, receive) = plan.link_cap(link);
        LinkFace { cap: Cap::new(send, receive), home: plan.link_home(link), live: Arc::default() }
    };
    (0..plan.links.len()).map(|index| face(LinkId(index as u16))).collect()
}

/// A link carries what is outside of the tunnels while its interface has an address, and unless its
/// tunnels are all gone while those over other links are not: then it is the link.
pub fn breakout_face(sources: &Sources, face: &BreakoutFace) -> BreakoutFace {
    let underlay = sources.plan.links.get(usize::from(face.link.0)).map(|link| usize::from(link.underlay.0));
    let has_address = underlay.and_then(|index| sources.underlays.get(index)).is_some_and(Option::is_some);
    let in_service = || {
        let all = sources.plan.tunnels.iter().zip(sources.tunnels);
        all.filter(|(_, tunnel)| tunnel.duty() != Duty::Down)
    };
    let mut own = in_service().filter(|(plan, _)| plan.link == face.link).peekable();
    let tells = own.peek().is_some() && in_service().any(|(_, tunnel)| tunnel.usable());
    let carries = !tells || own.any(|(_, tunnel)| tunnel.usable());
    BreakoutFace { usable: face.usable && has_address && carries, ..face.clone() }
}

fn path_face(sources: &Sources, id: PathId, configured: &TunnelPlan, tunnel: &Tunnel, mtu: u16) -> PathFace {
    let link = &sources.plan.links[usize::from(configured.link.0)];
    let candidate = candidate(sources.plan, id, tunnel, sources.steering);
    PathFace {
        id,
        connector: configured.connector,
        role: configured.role,
        epoch: epoch(id, tunnel, sources.steering),
        usable: tunnel.usable(),
        verdict: tunnel.verdict(),
        duty: tunnel.duty(),
        link: configured.link,
        shaped: sources.plan.is_shaped(configured.link),
        policed: sources.plan.is_policed(configured.link),
        preference: candidate.preference,
        weight: candidate.weight,
        metered: candidate.metered,
        last_resort: candidate.last_resort,
        settled: candidate.settled,
        sla: candidate.sla,
        score: candidate.score,
        doubt: candidate.doubt,
        condition: candidate.condition,
        home: sources.plan.home(id),
        leg: tunnel.leg().unwrap_or(Leg {
            underlay: link.underlay,
            natt: true,
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        }),
        mtu: mtu.min(tunnel.path_mtu().unwrap_or(u16::MAX)),
        outer_dscp: sources.plan.connectors[usize::from(configured.connector.0)].outer_dscp,
        private: configured.private_local.map(|private| private.addr()),
        kin: tunnel.is_kin(),
        children: tunnel.children().map(|lineage| lineage.face()).collect(),
        live: tunnel.counters().clone(),
    }
}

/// The tunnel as steering sees it.
pub fn candidate(plan: &Plan, path: PathId, tunnel: &Tunnel, steering: &Steering) -> Candidate {
    let configured = &plan.tunnels[usize::from(path.0)];
    let link = &plan.links[usize::from(configured.link.0)];
    let plain = Candidate::new(path, configured.link, tunnel.verdict(), link.preference, weight(plan, configured));
    let memory = steering.path(path);
    Candidate {
        metered: link.metered,
        last_resort: link.last_resort,
        drained: tunnel.duty().is_drained(),
        settled: memory.is_some_and(|memory| memory.settled),
        sla: memory.map(|memory| memory.sla).unwrap_or_default(),
        score: memory.and_then(|memory| memory.score),
        doubt: memory.map_or(0, |memory| memory.doubt),
        condition: memory.map(|memory| memory.condition).unwrap_or_default(),
        ..plain
    }
}

/// Flows choose again when the tunnel asks them to, or when it comes to miss an SLA class.
fn epoch(path: PathId, tunnel: &Tunnel, steering: &Steering) -> u32 {
    tunnel.epoch().wrapping_add(steering.path(path).map_or(0, |memory| memory.epoch))
}

/// A branch sends up its links, a gateway down them.
pub fn weight(plan: &Plan, tunnel: &TunnelPlan) -> u32 {
    match plan.site.kind {
        SiteKind::Branch => tunnel.upstream.value(),
        SiteKind::CloudVpc => tunnel.downstream.value(),
    }
}

/// The connector's part of the MTU of the host's device: what fits through the smallest underlay of
/// the connector, since flows move between its tunnels.
pub fn inner_mtu(plan: &Plan, connector: ConnectorId, underlays: &[Option<UnderlayFact>]) -> u16 {
    let roles = plan.connectors.get(usize::from(connector.0)).into_iter().flat_map(|connector| &connector.roles);
    let paths = roles.flatten().flat_map(|role| &role.tunnels);
    let links = paths.filter_map(|path| plan.tunnels.get(usize::from(path.0))).map(|tunnel| tunnel.link);
    let outer = links.filter_map(|link: LinkId| {
        let underlay = plan.links[usize::from(link.0)].underlay;
        underlays.get(usize::from(underlay.0)).copied().flatten().map(|fact| fact.mtu)
    });
    plan.inner_mtu(connector, outer.min().unwrap_or(OUTER_MTU))
}
