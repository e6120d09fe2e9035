use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::crypto::Backend;
use crate::esp;
use crate::ha::Failback;
use crate::health::{HealthSettings, Sensitivity};
use crate::ike::{Identity, Phase1, Phase2, Retransmission};
use crate::model::{
    ConnectorId, Dscp, InterfaceId, LinkId, Mbps, PathId, Role, Secret, TrafficSelector, UnderlayId, WorkerId,
};
use crate::probe::Target;
use crate::steer::{Action, Rule, RuleSet};

/// What a site shall be: the checked outcome of its files. Whoever holds a `Plan` need not
/// check anything again.
#[derive(Clone, Debug)]
pub struct Plan {
    pub site: SitePlan,
    /// By `UnderlayId`.
    pub underlays: Vec<UnderlayPlan>,
    /// By `LinkId`.
    pub links: Vec<LinkPlan>,
    pub lan: LanPlan,
    /// By `ConnectorId`.
    pub connectors: Vec<ConnectorPlan>,
    /// By `PathId`.
    pub tunnels: Vec<TunnelPlan>,
    pub rules: Arc<RuleSet>,
    /// Whose DNS answers tell rules the names of addresses; empty: of whomever a host asks.
    pub resolvers: Vec<IpNet>,
    pub health: HealthSettings,
    pub steering: SteeringPlan,
    pub local_ports: PortPlan,
    pub remote_ports: PortPlan,
    pub routes: RoutePlan,
    pub dataplane: DataplanePlan,
    /// Unix socket of `trefoil status`.
    pub control_socket: PathBuf,
    /// `None`: no flight recorder.
    pub recording: Option<RecordingPlan>,
}

/// The flight recorder's ring of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordingPlan {
    pub directory: PathBuf,
    /// Of all files together, at most.
    pub bytes: u64,
    /// What is older, in time that the daemon ran, is forgotten.
    pub age: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataplanePlan {
    /// Threads that carry packets.
    pub workers: NonZeroU16,
    /// Each of the threads stays on a core of its own.
    pub pinned: bool,
    /// Whose ciphers seal and open packets; `None`: whose are the fastest here.
    pub aead_backend: Option<Backend>,
    /// Flows that are remembered at a time; of more, those that were idle longest are forgotten.
    pub flow_limit: usize,
}

/// The largest outer packet, in bytes, wherever no interface says less.
pub const OUTER_MTU: u16 = 1500;

impl Plan {
    /// The worker that numbers and sends a tunnel's packets. Tunnels go round, so that those of
    /// one role are at home with different workers; what shares a shaper is at home together.
    pub fn home(&self, path: PathId) -> WorkerId {
        let link = self.tunnels.get(usize::from(path.0)).map(|tunnel| tunnel.link);
        match link.filter(|link| self.is_shaped(*link)) {
            Some(link) => self.link_home(link),
            None => WorkerId(path.0 % self.dataplane.workers),
        }
    }

    /// The home of a shaped link's tunnels.
    pub fn link_home(&self, link: LinkId) -> WorkerId {
        let all_together = self.site_cap().0.is_some();
        WorkerId(if all_together { 0 } else { link.0 % self.dataplane.workers })
    }

    /// What is sent over the link waits in a queue.
    pub fn is_shaped(&self, link: LinkId) -> bool {
        self.site_cap().0.is_some() || self.link_cap(link).0.is_some()
    }

    /// What arrives over the link is policed.
    pub fn is_policed(&self, link: LinkId) -> bool {
        self.site_cap().1.is_some() || self.link_cap(link).1.is_some()
    }

    /// What is sent over a link, and what arrives, is held to these.
    pub fn link_cap(&self, link: LinkId) -> (Option<Mbps>, Option<Mbps>) {
        let link = self.links.get(usize::from(link.0));
        link.map_or((None, None), |link| self.cap(link.cap, link.upstream, link.downstream))
    }

    /// The same over all links together.
    pub fn site_cap(&self) -> (Option<Mbps>, Option<Mbps>) {
        self.site.license.map_or((None, None), |license| self.cap(self.site.cap, license, license))
    }

    fn cap(&self, cap: CapPlan, upstream: Mbps, downstream: Mbps) -> (Option<Mbps>, Option<Mbps>) {
        let (upstream, downstream) = (cap.upstream.then_some(upstream), cap.downstream.then_some(downstream));
        match self.site.kind {
            SiteKind::Branch => (upstream, downstream),
            // A gateway sends downstream.
            SiteKind::CloudVpc => (downstream, upstream),
        }
    }

    /// Largest inner packet of a connector's tunnels, in bytes, over underlays of this MTU: as
    /// configured, else what encapsulation leaves of it, whichever of the suites that are allowed to
    /// any tunnel of its two roles is negotiated. So a flow fits wherever it moves.
    pub fn inner_mtu(&self, connector: ConnectorId, outer: u16) -> u16 {
        let connector = self.connectors.get(usize::from(connector.0));
        let configured = connector.and_then(|connector| connector.mtu);
        let outer = usize::from(outer.min(OUTER_MTU));
        let paths = connector.into_iter().flat_map(|connector| connector.roles.iter().flatten());
        let tunnels = paths.flat_map(|role| &role.tunnels).filter_map(|path| self.tunnels.get(usize::from(path.0)));
        let suites = tunnels.flat_map(|tunnel| tunnel.phase2.suites());
        let left = suites.map(|suite| esp::largest_inner_with(suite, outer, true)).min();
        let left = || left.unwrap_or_else(|| esp::largest_inner(outer, true));
        configured.unwrap_or_else(|| u16::try_from(left()).unwrap_or(OUTER_MTU))
    }

    /// The MTU of the site device: what fits into the tunnels of the connector that carries most,
    /// since the routes to the others say less; of all, where one route leads to several.
    pub fn device_mtu(&self, outer: u16) -> u16 {
        let (smallest, largest) = self.inner_mtus(outer);
        if self.is_route_based() { smallest } else { largest }
    }

    /// What fits into the tunnels of every connector.
    pub fn smallest_inner_mtu(&self, outer: u16) -> u16 {
        self.inner_mtus(outer).0
    }

    /// The network ranges to which less fits than into the site device.
    pub fn narrow_ranges(&self, outer: u16) -> Vec<(IpNet, u16)> {
        let device = self.device_mtu(outer);
        let each = (0..).map(ConnectorId).zip(&self.connectors);
        let narrow =
            each.map(|(id, connector)| (self.inner_mtu(id, outer), connector)).filter(|(mtu, _)| *mtu < device);
        narrow.flat_map(|(mtu, connector)| connector.ranges.iter().map(move |range| (range.range, mtu))).collect()
    }

    /// The links by which rules let flows out of the tunnels, in order.
    pub fn breakouts(&self) -> Vec<LinkId> {
        let of_rule = |rule: &Rule| match &rule.action {
            Action::BreakOut(breakout) => breakout.links.clone(),
            Action::Steer(_) | Action::Drop => Vec::new(),
        };
        let links: BTreeSet<LinkId> = self.rules.rules().iter().flat_map(of_rule).collect();
        links.into_iter().collect()
    }

    /// Some connector has no network ranges of its own, and so everything is led into the tunnels.
    pub fn is_route_based(&self) -> bool {
        self.connectors.iter().any(|connector| connector.ranges.is_empty())
    }

    /// The smallest and the largest of the connectors' inner MTUs.
    fn inner_mtus(&self, outer: u16) -> (u16, u16) {
        let mtus = || (0..self.connectors.len()).map(|index| self.inner_mtu(ConnectorId(index as u16), outer));
        (mtus().min().unwrap_or(OUTER_MTU), mtus().max().unwrap_or(OUTER_MTU))
    }
}

#[derive(Clone, Debug)]
pub struct SitePlan {
    pub name: String,
    pub kind: SiteKind,
    pub country: Option<String>,
    pub state: Option<String>,
    pub license: Option<Mbps>,
    /// Which directions the license holds all links together to.
    pub cap: CapPlan,
    pub native: Vec<IpNet>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SiteKind {
    Branch,
    /// A gateway: also accepts tunnels and steers downstream.
    CloudVpc,
}

/// The directions in which a bandwidth is a cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapPlan {
    pub downstream: bool,
    pub upstream: bool,
}

/// One interface and address with its UDP sockets. At least one of the two is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnderlayPlan {
    pub interface: Option<String>,
    /// `None`: the interface's present IPv4 address.
    pub address: Option<Ipv4Addr>,
}

/// What rules know of the site's own side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LanPlan {
    /// Names of the host's interfaces that the site file or a rule names, by `InterfaceId::index`.
    pub interfaces: Vec<String>,
    pub segments: Vec<SegmentPlan>,
}

/// Interfaces that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPlan {
    pub name: String,
    pub interfaces: Vec<InterfaceId>,
}

impl LanPlan {
    /// `lan1 (segments guests, all)`; `None` of an interface that nobody has named.
    pub fn in_words(&self, id: InterfaceId) -> Option<String> {
        let name = self.interfaces.get(id.index()?)?;
        let of = self.segments.iter().filter(|segment| segment.interfaces.contains(&id));
        let segments: Vec<&str> = of.map(|segment| segment.name.as_str()).collect();
        Some(match segments[..] {
            [] => name.clone(),
            [one] => format!("{name} (segment {one})"),
            _ => format!("{name} (segments {})", segments.join(", ")),
        })
    }
}

#[derive(Clone, Debug)]
pub struct LinkPlan {
    pub name: String,
    pub underlay: UnderlayId,
    pub downstream: Mbps,
    pub upstream: Mbps,
    /// Which directions the link is held to its bandwidth in.
    pub cap: CapPlan,
    pub metered: bool,
    /// For use only while no other path of its role is up, unless a rule names the link.
    pub last_resort: bool,
    /// 1 is first. Defaults to 1, for metered links to 2.
    pub preference: u8,
    /// `None`: as for the whole site.
    pub sensitivity: Option<Sensitivity>,
}

#[derive(Clone, Debug)]
pub struct ConnectorPlan {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub description: Option<String>,
    pub mode: Mode,
    /// None means everything (route-based).
    pub ranges: Vec<LabelledRange>,
    /// Offered in every Child SA besides each tunnel's private addresses; never empty.
    pub local_selectors: Vec<TrafficSelector>,
    pub peer_selectors: Vec<TrafficSelector>,
    /// Inner MTU; computed when `None`.
    pub mtu: Option<u16>,
    /// Look for the largest packet that each tunnel's path carries (RFC 8899).
    pub pmtu_discovery: bool,
    /// The outer header's code point; that of the inner packet when `None`.
    pub outer_dscp: Option<Dscp>,
    /// By `Role::index`. A connector has at least one.
    pub roles: [Option<RolePlan>; 2],
    /// When traffic goes back to the primary role.
    pub failback: Failback,
}

/// Who opens the tunnels (seeds: Responder Only and Bidirectional; Initiator and Responder).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Initiator,
    Responder,
    Bidirectional,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelledRange {
    pub label: String,
    pub range: IpNet,
}

#[derive(Clone, Debug)]
pub struct RolePlan {
    pub pop_location: Option<String>,
    /// 1 to 3.
    pub tunnels: Vec<PathId>,
}

#[derive(Clone, Debug)]
pub struct TunnelPlan {
    pub name: String,
    pub connector: ConnectorId,
    pub role: Role,
    pub link: LinkId,
    /// `None` only where the connector's mode is `Responder`: whoever authenticates.
    pub destination: Option<Destination>,
    /// `None`: the public IP, else the source address, as an IPv4 identity (seed default).
    pub local_id: Option<Identity>,
    /// `None`: the destination's address as an IPv4 identity (seed default).
    pub remote_id: Option<Identity>,
    /// Our address as the peer sees it behind a 1:1 NAT.
    pub public_ip: Option<Ipv4Addr>,
    pub psk: Secret,
    /// The tunnel's private addresses with their prefix.
    pub private_local: Option<IpNet>,
    pub private_remote: Option<IpNet>,
    /// Last-mile bandwidth of this tunnel: its own, or its part of the link's.
    pub downstream: Mbps,
    pub upstream: Mbps,
    pub probes: ProbePlan,
    pub phase1: Arc<Phase1>,
    pub phase2: Arc<Phase2>,
    pub retransmission: Retransmission,
    /// Silence after which an empty request asks whether the peer is alive (RFC 7296 2.4; seeds:
    /// keep-alive check, DPD). `None`: dead peer detection is off.
    pub keepalive: Option<Duration>,
    /// Seed: a tunnel that is down and fails to come up is tried again at this interval.
    pub rebuild_interval: Duration,
    /// Seed: no data and no answer for this long tears the tunnel down for a rebuild.
    pub dead_after: Duration,
}

impl TunnelPlan {
    /// `connector/role/tunnel`: how logs, status and errors call it.
    pub fn full_name(&self, connectors: &[ConnectorPlan]) -> String {
        let connector = connectors.get(usize::from(self.connector.0)).map_or("?", |connector| &connector.name);
        format!("{connector}/{}/{}", self.role, self.name)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Destination {
    Fqdn(String),
    Ipv4(Ipv4Addr),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Fqdn(name) => f.write_str(name),
            Destination::Ipv4(address) => write!(f, "{address}"),
        }
    }
}

/// Who is asked inside a tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbePlan {
    /// At most `health::MAX_TARGETS`.
    pub targets: Vec<Target>,
    /// So many of them must answer.
    pub need: u8,
    /// `None`: as often as the path's IKE is asked.
    pub interval: Option<Duration>,
}

impl ProbePlan {
    pub const NONE: ProbePlan = ProbePlan { targets: Vec::new(), need: 1, interval: None };

    /// One address that is sent ICMP echo requests.
    pub fn icmp(target: IpAddr) -> ProbePlan {
        ProbePlan { targets: vec![Target::icmp(target)], ..ProbePlan::NONE }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SteeringPlan {
    /// Time between re-steers: 10 s by default (seed), from 1 s.
    pub interval: Duration,
}

impl SteeringPlan {
    /// Flows that are well enough elsewhere come over to a path only when it has been well for this
    /// long: a path that comes and goes would draw them to and fro.
    pub fn hold_down(&self) -> Duration {
        self.interval
    }

    /// A flow stays at least so long on a path that is well enough, so that it is not moved for what
    /// the next re-steer may undo.
    pub fn dwell(&self) -> Duration {
        self.interval * 3
    }

    /// What was sent in this time counts when shares are brought in line, and as much time is looked
    /// ahead: by default the shares are true over a minute.
    pub fn horizon(&self) -> Duration {
        self.interval * 3
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortPlan {
    pub ike: u16,
    pub natt: u16,
}

/// What the daemon does to the host's routing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoutePlan {
    pub device: String,
    pub table: u32,
    /// The first of the priorities of our own rules.
    pub rule_priority: u32,
    pub on_stop: OnStop,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStop {
    /// Leave a blackhole for the network ranges: traffic never leaks in clear.
    Block,
    Release,
}
