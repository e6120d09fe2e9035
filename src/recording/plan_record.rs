use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::edge::{
    CapPlan, ConnectorPlan, DataplanePlan, LabelledRange, LanPlan, LinkPlan, Mode, OnStop, Plan, PortPlan, ProbePlan,
    RolePlan, RoutePlan, SiteKind, SitePlan, SteeringPlan, TunnelPlan,
};
use crate::forward::FLOWS_DEFAULT;
use crate::ha::Failback;
use crate::health::HealthSettings;
use crate::ike::{Phase1, Phase2, Retransmission};
use crate::model::{ConnectorId, LinkId, Mbps, PathId, Role, Secret, UnderlayId};
use crate::probe::Target;
use crate::steer::{Elsewhere, Rule, RuleSet, SLA_CLASSES_MAX, SlaClass};

/// As many as the configuration allows: a recording with more was not made by a daemon.
const RULES_MAX: usize = 16_384;
const TUNNELS_MAX: usize = u16::MAX as usize;
const ROLE_TUNNELS_MAX: usize = 3;

/// The part of a plan that decisions rest on. Keys, identities and addresses of peers are not in it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlanRecord {
    pub site: String,
    pub gateway: bool,
    pub native: Vec<IpNet>,
    pub links: Vec<LinkRecord>,
    pub connectors: Vec<ConnectorRecord>,
    pub tunnels: Vec<TunnelRecord>,
    pub rules: Vec<Rule>,
    /// Those of the same files that are for other sites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    pub sla_classes: Vec<SlaClass>,
    pub steering_interval: Duration,
    #[serde(default = "one")]
    pub workers: NonZeroU16,
    /// Of the rules' hours.
    #[serde(default)]
    pub utc_offset_minutes: i16,
    /// By `InterfaceId::index`.
    #[serde(default)]
    pub interfaces: Vec<String>,
}

fn one() -> NonZeroU16 {
    NonZeroU16::MIN
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkRecord {
    pub name: String,
    pub downstream: Mbps,
    pub upstream: Mbps,
    pub preference: u8,
    pub metered: bool,
    pub last_resort: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConnectorRecord {
    pub name: String,
    /// None: everything.
    pub ranges: Vec<IpNet>,
    /// By `Role::index`; `None` where there is no such role.
    pub roles: [Option<Vec<PathId>>; 2],
    pub failback: Failback,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TunnelRecord {
    pub name: String,
    pub connector: ConnectorId,
    pub role: Role,
    pub link: LinkId,
    pub downstream: Mbps,
    pub upstream: Mbps,
    pub private_local: Option<IpNet>,
    pub private_remote: Option<IpNet>,
    #[serde(default)]
    pub probes: Vec<std::net::IpAddr>,
}

impl PlanRecord {
    pub fn of(plan: &Plan) -> PlanRecord {
        PlanRecord {
            site: plan.site.name.clone(),
            gateway: plan.site.kind == SiteKind::CloudVpc,
            native: plan.site.native.clone(),
            links: plan
                .links
                .iter()
                .map(|link| LinkRecord {
                    name: link.name.clone(),
                    downstream: link.downstream,
                    upstream: link.upstream,
                    preference: link.preference,
                    metered: link.metered,
                    last_resort: link.last_resort,
                })
                .collect(),
            connectors: plan
                .connectors
                .iter()
                .map(|connector| ConnectorRecord {
                    name: connector.name.clone(),
                    ranges: connector.ranges.iter().map(|range| range.range).collect(),
                    roles: connector.roles.each_ref().map(|role| Some(role.as_ref()?.tunnels.clone())),
                    failback: connector.failback,
                })
                .collect(),
            tunnels: plan
                .tunnels
                .iter()
                .map(|tunnel| TunnelRecord {
                    name: tunnel.name.clone(),
                    connector: tunnel.connector,
                    role: tunnel.role,
                    link: tunnel.link,
                    downstream: tunnel.downstream,
                    upstream: tunnel.upstream,
                    private_local: tunnel.private_local,
                    private_remote: tunnel.private_remote,
                    probes: tunnel.probes.targets.iter().map(|target| target.address).collect(),
                })
                .collect(),
            rules: plan.rules.rules().to_vec(),
            elsewhere: plan.rules.elsewhere().to_vec(),
            sla_classes: plan.rules.sla_classes().to_vec(),
            steering_interval: plan.steering.interval,
            workers: plan.dataplane.workers,
            utc_offset_minutes: plan.rules.utc_offset_minutes(),
            interfaces: plan.lan.interfaces.clone(),
        }
    }

    /// The plan again, as far as decisions rest on it: what was not recorded stands empty, so nothing
    /// can be run by it. `None` when its parts do not go together.
    pub(super) fn into_plan(self) -> Option<Plan> {
        if !self.is_sound() {
            return None;
        }
        let nothing = (Arc::new(phase1()), Arc::new(phase2()));
        let ports = PortPlan { ike: 0, natt: 0 };
        let tunnels = self.tunnels.into_iter().map(|tunnel| hollow(tunnel, &nothing)).collect();
        Some(Plan {
            site: SitePlan {
                name: self.site,
                kind: if self.gateway { SiteKind::CloudVpc } else { SiteKind::Branch },
                country: None,
                state: None,
                license: None,
                cap: CapPlan::default(),
                native: self.native,
            },
            underlays: Vec::new(),
            links: self.links.into_iter().map(link).collect(),
            lan: LanPlan { interfaces: self.interfaces, segments: Vec::new() },
            connectors: self.connectors.into_iter().map(connector).collect(),
            tunnels,
            rules: Arc::new(
                RuleSet::new(self.rules, self.sla_classes)
                    .with_elsewhere(self.elsewhere)
                    .with_utc_offset(self.utc_offset_minutes),
            ),
            resolvers: Vec::new(),
            health: HealthSettings::default(),
            steering: SteeringPlan { interval: self.steering_interval },
            local_ports: ports,
            remote_ports: ports,
            routes: RoutePlan { device: String::new(), table: 0, rule_priority: 0, on_stop: OnStop::Block },
            dataplane: DataplanePlan {
                workers: self.workers,
                pinned: false,
                aead_backend: None,
                flow_limit: FLOWS_DEFAULT,
            },
            control_socket: PathBuf::new(),
            recording: None,
        })
    }

    /// Every number names something that is there, and no limit of the configuration is passed.
    fn is_sound(&self) -> bool {
        let tunnel = |path: &PathId| self.tunnels.get(usize::from(path.0));
        let roles = self.connectors.iter().flat_map(|connector| connector.roles.iter().flatten());
        let interval = Duration::from_secs(1)..=Duration::from_secs(3_600);
        self.tunnels.len() <= TUNNELS_MAX
            && self.rules.len() + self.elsewhere.len() <= RULES_MAX
            && self.sla_classes.len() <= SLA_CLASSES_MAX
            && self.connectors.len() <= TUNNELS_MAX
            && interval.contains(&self.steering_interval)
            && roles
                .into_iter()
                .all(|paths| paths.len() <= ROLE_TUNNELS_MAX && paths.iter().all(|path| tunnel(path).is_some()))
            && self.tunnels.iter().all(|tunnel| {
                usize::from(tunnel.connector.0) < self.connectors.len() && usize::from(tunnel.link.0) < self.links.len()
            })
    }
}

fn link(link: LinkRecord) -> LinkPlan {
    LinkPlan {
        name: link.name,
        underlay: UnderlayId(0),
        downstream: link.downstream,
        upstream: link.upstream,
        cap: CapPlan::default(),
        metered: link.metered,
        last_resort: link.last_resort,
        preference: link.preference,
        sensitivity: None,
    }
}

fn connector(connector: ConnectorRecord) -> ConnectorPlan {
    let range = |range| LabelledRange { label: String::new(), range };
    ConnectorPlan {
        name: connector.name,
        labels: Vec::new(),
        description: None,
        mode: Mode::Initiator,
        ranges: connector.ranges.into_iter().map(range).collect(),
        local_selectors: Vec::new(),
        peer_selectors: Vec::new(),
        mtu: None,
        pmtu_discovery: false,
        outer_dscp: None,
        roles: connector.roles.map(|role| Some(RolePlan { pop_location: None, tunnels: role? })),
        failback: connector.failback,
    }
}

fn hollow(tunnel: TunnelRecord, (phase1, phase2): &(Arc<Phase1>, Arc<Phase2>)) -> TunnelPlan {
    TunnelPlan {
        name: tunnel.name,
        connector: tunnel.connector,
        role: tunnel.role,
        link: tunnel.link,
        destination: None,
        local_id: None,
        remote_id: None,
        public_ip: None,
        psk: Secret::new(Vec::new()),
        private_local: tunnel.private_local,
        private_remote: tunnel.private_remote,
        downstream: tunnel.downstream,
        upstream: tunnel.upstream,
        // Where they are asked is kept from ordinary traffic; how they are asked decides nothing here.
        probes: ProbePlan { targets: tunnel.probes.into_iter().map(Target::icmp).collect(), ..ProbePlan::NONE },
        phase1: phase1.clone(),
        phase2: phase2.clone(),
        retransmission: Retransmission {
            first: Duration::ZERO,
            factor_percent: 100,
            longest: Duration::ZERO,
            tries: 0,
        },
        keepalive: None,
        rebuild_interval: Duration::ZERO,
        dead_after: Duration::ZERO,
    }
}

fn phase1() -> Phase1 {
    Phase1 {
        encryption: Vec::new(),
        integrity: Vec::new(),
        prf: Vec::new(),
        groups: Vec::new(),
        lifetime: Duration::ZERO,
    }
}

fn phase2() -> Phase2 {
    Phase2 { encryption: Vec::new(), integrity: Vec::new(), groups: Vec::new(), lifetime: Duration::ZERO }
}
