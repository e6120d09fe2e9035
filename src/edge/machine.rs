use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::names::NameBook;
use super::steering::{self, Steering};
use super::timers::Timers;
use super::tunnel::{CHILDREN_LIMIT, Context, ProbeAnswer, Tunnel};
use super::watch::Watch;
use super::{Destination, Effect, Fact, Plan, ResolveFailure, SiteEvent, UnderlayFact, snapshot};
use crate::crypto::Backends;
use crate::forward::{BreakoutFace, Cap, Forwarding, LanTable, LinkFace, NameTable, SaTable, ToControl};
use crate::ha::RoleSelector;
use crate::health::{ProbeBudget, Trouble};
use crate::ike::{Endpoint, EndpointOptions};
use crate::model::{Chance, ConnectorId, InterfaceId, Leg, LinkId, Moment, PathId, Role, UnderlayId, WeekMinute};
use crate::steer::Quality;

/// What Linux says of a datagram that is larger than the path's MTU.
const EMSGSIZE: i32 = 90;

/// Half-open IKE SAs beyond which every initiator must return a cookie (RFC 7296 2.6).
const COOKIE_THRESHOLD: usize = 64;

/// Half-open IKE SAs at most, some 16 KiB each while one answers.
const HALF_OPEN_LIMIT: usize = 4_096;

/// Inbound places for each tunnel: two Child SAs of a rekey and some that linger.
const INBOUND_PER_TUNNEL: usize = 16;

/// Control's machine: a site's tunnels, roles and steering, without I/O. After every `handle_*`
/// call, drain `poll_transmit` and `poll_effect`, and sleep until `poll_timeout`.
pub struct Edge {
    pub(super) plan: Arc<Plan>,
    pub(super) endpoint: Endpoint,
    pub(super) tunnels: Vec<Tunnel>,
    /// When each tunnel has something to do.
    timers: Timers,
    /// Tunnels that have changed since everything was last brought in line.
    pub(super) touched: BTreeSet<usize>,
    pub(super) connectors: Vec<Connector>,
    /// By `UnderlayId`; `None` while it has no address.
    pub(super) underlays: Vec<Option<UnderlayFact>>,
    /// By `UnderlayId`; why it has none, once that is known.
    faults: Vec<Option<String>>,
    pub(super) table: Arc<SaTable>,
    pub(super) links: Arc<[LinkFace]>,
    pub(super) cap: Cap,
    /// Who seals and opens packets.
    backends: Backends,
    pub(super) effects: VecDeque<Effect>,
    probes: ProbeBudget,
    chance: Chance,
    export_keys: bool,
    pub(super) generation: u64,
    pub(super) policy_epoch: u32,
    pub(super) steering: Steering,
    /// While a flight recorder follows.
    pub(super) watch: Option<Watch>,
    /// Where the hours of the rules last changed.
    minute: WeekMinute,
    /// By which interfaces sources are reached.
    lan: (Vec<(IpNet, InterfaceId)>, Arc<LanTable>),
    /// By which links flows may leave outside of the tunnels, as far as the host is ready for it.
    pub(super) breakouts: Vec<BreakoutFace>,
    pub(super) names: NameBook,
    /// As it is published; `None` when no rule asks for names.
    name_table: Option<Arc<NameTable>>,
    next_steer: Moment,
    /// Bytes that each path had sent and received when it was last judged, and when that was.
    pub(super) tallied: (Vec<[u64; 2]>, Moment),
    /// What was last published of each tunnel, to see when to publish again.
    pub(super) published: Vec<snapshot::Published>,
    /// Tunnels whose peer is being called.
    pub(super) calling: BTreeSet<usize>,
    /// There is something new to publish.
    unpublished: bool,
    /// The MTU of paths comes from the underlays.
    pub(super) underlays_changed: bool,
    stopping: bool,
    /// The tunnels by their private addresses.
    askers: BTreeMap<IpAddr, PathId>,
}

/// Errors of sending that say that the way is not there. The others speak of the packet, or of a
/// queue that is full.
fn is_of_the_way(errno: i32) -> bool {
    const EPERM: i32 = 1;
    const EADDRNOTAVAIL: i32 = 99;
    /// ENETDOWN, ENETUNREACH and, beyond connections that were reset, EHOSTDOWN and EHOSTUNREACH.
    const NETWORK: [i32; 5] = [100, 101, 111, 112, 113];
    const ENODEV: i32 = 19;
    [EPERM, ENODEV, EADDRNOTAVAIL].contains(&errno) || NETWORK.contains(&errno)
}

/// A connector's part of the machine: which role carries its traffic.
pub(super) struct Connector {
    pub roles: RoleSelector,
    pub last_switch: Option<super::tunnel::Change>,
    told_alike: Option<Ipv4Addr>,
    /// Until then its flows are to choose again at each re-steer: something changed, and those that
    /// moved lately may follow only later.
    pub(super) steer_until: Moment,
}

impl Edge {
    /// The machine, and the value that workers start with.
    pub fn new(
        plan: Arc<Plan>,
        backends: Backends,
        export_keys: bool,
        seed: [u8; 32],
        now: Moment,
    ) -> (Edge, Arc<Forwarding>) {
        let mut chance = Chance::from_seed(seed);
        let places = (plan.tunnels.len() * INBOUND_PER_TUNNEL + 1).min(usize::from(u16::MAX));
        let table = Arc::new(SaTable::new(places + 1, plan.tunnels.len() * usize::from(CHILDREN_LIMIT)));
        let options = EndpointOptions {
            inbound_slots: u16::try_from(places).unwrap_or(u16::MAX),
            export_keys,
            cookie_threshold: COOKIE_THRESHOLD,
            half_open_limit: HALF_OPEN_LIMIT,
        };
        let endpoint = Endpoint::new(options, Chance::from_seed(chance.bytes()));
        let tunnels: Vec<Tunnel> =
            (0..plan.tunnels.len()).map(|index| Tunnel::new(PathId(index as u16), &plan, now, &mut chance)).collect();
        let connectors = plan
            .connectors
            .iter()
            .map(|connector| Connector {
                roles: RoleSelector::new(
                    Role::ALL.map(|role| connector.roles[role.index()].is_some()),
                    connector.failback,
                    now,
                ),
                last_switch: None,
                told_alike: None,
                steer_until: now,
            })
            .collect();
        let mut edge = Edge {
            underlays: vec![None; plan.underlays.len()],
            faults: vec![None; plan.underlays.len()],
            backends,
            endpoint,
            published: Vec::new(),
            timers: Timers::new(tunnels.iter().map(Tunnel::poll_timeout)),
            touched: (0..tunnels.len()).collect(),
            tunnels,
            connectors,
            probes: ProbeBudget::default(),
            links: snapshot::link_faces(&plan),
            cap: Cap::new(plan.site_cap().0, plan.site_cap().1),
            table,
            effects: VecDeque::new(),
            chance,
            export_keys,
            generation: 0,
            policy_epoch: 0,
            minute: WeekMinute::default(),
            lan: Default::default(),
            names: NameBook::new(plan.resolvers.clone()),
            name_table: (!plan.rules.names().is_empty()).then(Arc::default),
            breakouts: plan.breakouts().into_iter().map(BreakoutFace::new).collect(),
            next_steer: now + plan.steering.interval,
            tallied: (Vec::new(), now),
            steering: Steering::new(&plan, now),
            watch: None,
            calling: BTreeSet::new(),
            unpublished: false,
            underlays_changed: false,
            stopping: false,
            askers: (0..)
                .map(PathId)
                .zip(&plan.tunnels)
                .filter_map(|(path, tunnel)| Some((tunnel.private_local?.addr(), path)))
                .collect(),
            plan,
        };
        let first = edge.snapshot();
        (edge, first)
    }

    /// From now on what decisions rest on is told as `Effect::Record`; when called again, everything is
    /// told anew, for something was lost.
    pub fn record(&mut self, now: Moment) {
        self.watch.get_or_insert_default().start_over(now);
    }

    /// Tells the flight recorder, if one follows.
    pub(super) fn note(&mut self, fact: Fact, now: Moment) {
        if self.watch.is_some() {
            self.effects.push_back(Effect::Record(now, fact));
        }
    }

    /// An underlay has this address and these ports now, or none.
    pub fn handle_underlay(&mut self, underlay: UnderlayId, fact: Option<UnderlayFact>, now: Moment) {
        let Some(known) = self.underlays.get_mut(usize::from(underlay.0)) else { return };
        self.underlays_changed |= *known != fact;
        *known = fact;
        if let Some(fault) = self.faults.get_mut(usize::from(underlay.0)) {
            *fault = None;
        }
        self.underlay_changed(underlay, now);
    }

    /// An underlay has no sockets, for this reason.
    pub fn handle_underlay_fault(&mut self, underlay: UnderlayId, reason: String, now: Moment) {
        let Some(known) = self.underlays.get_mut(usize::from(underlay.0)) else { return };
        let Some(fault) = self.faults.get_mut(usize::from(underlay.0)) else { return };
        let news = known.take().is_some() || fault.as_ref() != Some(&reason);
        *fault = Some(reason);
        if news {
            self.underlay_changed(underlay, now);
        }
    }

    fn underlay_changed(&mut self, underlay: UnderlayId, now: Moment) {
        for index in 0..self.tunnels.len() {
            let link = self.plan.tunnels[index].link;
            if self.plan.links[usize::from(link.0)].underlay == underlay {
                self.with_tunnel(index, now, |tunnel, context| tunnel.handle_underlay(context));
            }
        }
        self.settle(now);
    }

    /// The time of day, in milliseconds since the Unix epoch: to be told once a second, so that a clock
    /// that is set does no harm. Where the hours of rules begin or end, every flow chooses again.
    pub fn handle_time_of_day(&mut self, unix_ms: u64) {
        let minute = self.plan.rules.hours_at(unix_ms);
        if minute != self.minute {
            self.minute = minute;
            self.policy_epoch = self.policy_epoch.wrapping_add(1);
            self.publish();
        }
    }

    /// By which of the interfaces that rules ask for the host reaches which networks, the longest prefix
    /// deciding. When that has changed, every flow chooses again.
    pub fn handle_lan(&mut self, routes: Vec<(IpNet, InterfaceId)>) {
        if routes != self.lan.0 {
            let table = Arc::new(LanTable::new(&routes));
            self.lan = (routes, table);
            self.policy_epoch = self.policy_epoch.wrapping_add(1);
            self.publish();
        }
    }

    pub(super) fn publish_names(&mut self, now: Moment) {
        if let Some(table) = self.names.poll_table(now) {
            self.name_table = Some(table);
            self.publish();
        }
    }

    /// An address has this name, for a day: what a rehearsal says in place of DNS.
    pub fn handle_name(&mut self, address: IpAddr, name: &str, now: Moment) {
        self.names.handle_name(address, name, self.plan.rules.names(), now);
    }

    /// As they are published.
    pub(super) fn breakouts(&self) -> Vec<BreakoutFace> {
        let active = self.active_roles();
        let sources = self.sources(&active);
        self.breakouts.iter().map(|face| snapshot::breakout_face(&sources, face)).collect()
    }

    /// The links by which the host lets flows out of the tunnels at present, with the link's address.
    pub fn handle_breakouts(&mut self, ready: &[LinkId]) {
        for face in &mut self.breakouts {
            let usable = ready.contains(&face.link);
            self.unpublished |= face.usable != usable;
            face.usable = usable;
        }
    }

    /// In which the hours of rules are looked at.
    pub(super) fn rule_minute(&self) -> WeekMinute {
        self.minute
    }

    /// A message of a worker.
    pub fn handle_message(&mut self, message: ToControl, now: Moment) {
        match message {
            ToControl::Ike { leg, bytes, at } => self.handle_datagram(leg, &bytes, at),
            ToControl::Probe { id, target, sent_on, arrived_on, sent, at, length } => {
                let same_path = sent_on == arrived_on;
                let answer = ProbeAnswer { id, target, same_path, rtt: at.since(sent), length };
                self.with_tunnel(usize::from(sent_on.0), now, |tunnel, context| tunnel.handle_echo(answer, context));
            }
            ToControl::Inner { arrived_on, at, packet } => self.handle_inner(arrived_on, at, &packet, now),
            ToControl::Measure { path, at, bytes } => {
                self.with_tunnel(usize::from(path.0), now, |tunnel, _| tunnel.handle_measure(&bytes, at));
            }
            ToControl::FirstUse { spi } => {
                if let Some(path) = self.path_of(spi) {
                    self.with_tunnel(usize::from(path.0), now, |tunnel, context| tunnel.handle_first_use(spi, context));
                }
            }
            ToControl::SoftLimit { spi, path } => {
                self.with_tunnel(usize::from(path.0), now, |tunnel, context| tunnel.handle_soft_limit(spi, context));
            }
            ToControl::Rebind { spi, path, leg } => {
                self.with_tunnel(usize::from(path.0), now, |tunnel, _| tunnel.handle_rebind(spi, leg));
            }
            ToControl::SendError { leg, errno: EMSGSIZE } => {
                for index in 0..self.tunnels.len() {
                    let same = |other: Leg| (other.underlay, other.remote) == (leg.underlay, leg.remote);
                    if self.tunnels[index].leg().is_some_and(same) {
                        self.with_tunnel(index, now, |tunnel, context| tunnel.handle_too_big(context));
                    }
                }
            }
            ToControl::SendError { leg, errno } => {
                if is_of_the_way(errno) {
                    self.suspect(Trouble::SendFailed, now, |tunnel, _| tunnel.sends_by(leg));
                }
            }
            ToControl::Survey { number, flows } => self.handle_survey(number, &flows, now),
            ToControl::Dns { at, packet } => {
                self.names.handle_message(&packet, self.plan.rules.names(), at);
            }
            // Whoever asked takes it before it comes here.
            ToControl::Flows { .. } => {}
        }
        self.settle(now);
    }

    /// The interface of an underlay has lost its carrier, or was taken down.
    pub fn handle_link_down(&mut self, underlay: UnderlayId, now: Moment) {
        self.suspect(Trouble::LinkDown, now, |tunnel, plan| tunnel.underlay_id(plan) == underlay);
        self.settle(now);
    }

    /// An ICMP message said that what we sent from `local` cannot reach `remote`.
    pub fn handle_unreachable(&mut self, local: SocketAddr, remote: SocketAddr, now: Moment) {
        self.suspect(Trouble::Unreachable, now, |tunnel, _| {
            tunnel.leg().is_some_and(|leg| leg.remote == remote && leg.local.port() == local.port())
        });
        self.settle(now);
    }

    fn suspect(&mut self, trouble: Trouble, now: Moment, concerned: impl Fn(&Tunnel, &Plan) -> bool) {
        for index in 0..self.tunnels.len() {
            if self.tunnels.get(index).is_some_and(|tunnel| concerned(tunnel, &self.plan)) {
                self.with_tunnel(index, now, |tunnel, _| tunnel.handle_trouble(trouble, now));
            }
        }
    }

    /// An IKE message, without its non-ESP marker.
    pub fn handle_datagram(&mut self, leg: Leg, bytes: &[u8], now: Moment) {
        self.endpoint.handle_datagram(leg, bytes, now);
        self.settle(now);
    }

    /// The answer to `Effect::Resolve`.
    pub fn handle_resolved(&mut self, path: PathId, answer: Result<Vec<Ipv4Addr>, ResolveFailure>, now: Moment) {
        self.with_tunnel(usize::from(path.0), now, |tunnel, context| tunnel.handle_resolved(answer, context));
        self.look_for_alike_roles(path);
        self.settle(now);
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        self.names.handle_timeout(now);
        self.endpoint.handle_timeout(now);
        if !self.stopping {
            for index in self.timers.due(now) {
                self.with_tunnel(index, now, |tunnel, context| tunnel.handle_timeout(context));
                self.look_after(index, now);
            }
            for (index, connector) in (0..).zip(&mut self.connectors) {
                let is_due = connector.roles.poll_timeout().is_some_and(|due| due <= now);
                connector.roles.handle_timeout(now);
                if is_due && self.watch.is_some() {
                    let active = connector.roles.active();
                    let fact = Fact::RoleTimeout { connector: ConnectorId(index), active };
                    self.effects.push_back(Effect::Record(now, fact));
                }
            }
            if now >= self.next_steer {
                self.next_steer = now + self.plan.steering.interval;
                self.resteer(now);
            }
        }
        self.settle(now);
    }

    /// Deletes every IKE SA; the peers are told by what `poll_transmit` then yields.
    pub fn stop(&mut self, now: Moment) {
        self.stopping = true;
        for index in 0..self.tunnels.len() {
            self.with_tunnel(index, now, |tunnel, context| tunnel.stop(context));
        }
        self.settle(now);
    }

    /// All peers have answered our DELETE, or do not answer.
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.tunnels.iter().all(|tunnel| tunnel.leg().is_none())
    }

    /// Whether `stop` was called: what ends from now on ends because we said so.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub fn poll_transmit(&mut self) -> Option<(Leg, Vec<u8>)> {
        self.endpoint.poll_transmit()
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        // Once for all that was handled since: of thousands of tunnels it takes some time.
        if std::mem::take(&mut self.unpublished) {
            return Some(Effect::Publish(self.snapshot()));
        }
        self.effects.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        let endpoint = self.endpoint.poll_timeout();
        if self.stopping {
            return endpoint;
        }
        let tunnels = self.timers.next();
        let roles = self.connectors.iter().filter_map(|connector| connector.roles.poll_timeout()).min();
        let watch = self.watch.as_ref().map(Watch::poll_timeout);
        let names = self.names.poll_timeout();
        let steering = [Some(self.next_steer), Some(self.steering.poll_timeout()), watch, names];
        [endpoint, tunnels, roles].into_iter().chain(steering).flatten().min()
    }

    /// What was measured of a tunnel.
    pub(super) fn metrics(&self, path: PathId, now: Moment) -> Quality {
        self.tunnels.get(usize::from(path.0)).map(|tunnel| steering::quality(tunnel, true, now)).unwrap_or_default()
    }

    /// What is known of an underlay that has sockets.
    pub(super) fn underlay(&self, underlay: UnderlayId) -> Option<UnderlayFact> {
        self.underlays.get(usize::from(underlay.0)).copied().flatten()
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(super) fn with_tunnel(&mut self, index: usize, now: Moment, act: impl FnOnce(&mut Tunnel, &mut Context)) {
        let peer_signs = self.peer_signs(index);
        let Some(tunnel) = self.tunnels.get_mut(index) else { return };
        let mut context = Context {
            plan: &self.plan,
            endpoint: &mut self.endpoint,
            table: &self.table,
            effects: &mut self.effects,
            chance: &mut self.chance,
            underlays: &self.underlays,
            faults: &self.faults,
            backends: &self.backends,
            export_keys: self.export_keys,
            peer_signs,
            probes: &mut self.probes,
            now,
        };
        act(tunnel, &mut context);
        self.timers.set(index, tunnel.poll_timeout());
        self.touched.insert(index);
    }

    /// By role, the tunnels that can carry traffic. Drained ones count only where nothing else is left.
    pub(super) fn usable(&self, connector: usize) -> [usize; 2] {
        let in_service = self.count(connector, Tunnel::serves);
        if in_service == [0; 2] { self.count(connector, Tunnel::usable) } else { in_service }
    }

    /// By role, how many of a connector's tunnels are so.
    pub(super) fn count(&self, connector: usize, wanted: impl Fn(&Tunnel) -> bool) -> [usize; 2] {
        let plan = self.plan.connectors.get(connector);
        Role::ALL.map(|role| {
            let of_role = plan.and_then(|plan| plan.roles[role.index()].as_ref());
            let paths = of_role.map_or(&[][..], |role| &role.tunnels);
            paths.iter().filter(|path| self.tunnels.get(usize::from(path.0)).is_some_and(&wanted)).count()
        })
    }

    /// Every flow chooses again at its next packet.
    pub(super) fn choose_again(&mut self) {
        self.policy_epoch = self.policy_epoch.wrapping_add(1);
    }

    pub(super) fn active_roles(&self) -> Vec<Role> {
        self.connectors.iter().map(|connector| connector.roles.active()).collect()
    }

    pub(super) fn publish(&mut self) {
        self.unpublished = true;
    }

    fn snapshot(&mut self) -> Arc<Forwarding> {
        self.generation += 1;
        let active = self.active_roles();
        Arc::new(snapshot::build(self.sources(&active)))
    }

    fn sources<'a>(&'a self, active: &'a [Role]) -> snapshot::Sources<'a> {
        snapshot::Sources {
            plan: &self.plan,
            tunnels: &self.tunnels,
            steering: &self.steering,
            active,
            underlays: &self.underlays,
            table: &self.table,
            links: &self.links,
            cap: &self.cap,
            generation: self.generation,
            policy_epoch: self.policy_epoch,
            minute: self.minute,
            lan: &self.lan.1,
            breakouts: &self.breakouts,
            names: &self.name_table,
        }
    }

    /// Whose private address it is.
    pub(super) fn asker(&self, private: IpAddr) -> Option<PathId> {
        self.askers.get(&private).copied()
    }

    fn path_of(&self, spi: crate::model::Spi) -> Option<PathId> {
        let sa = self.table.inbound(spi)?.load_full()?;
        (sa.spi() == spi).then(|| sa.path())
    }

    /// Tells once when both roles' names lead to one address: it is a loss of redundancy, not a
    /// reason to tear anything down.
    fn look_for_alike_roles(&mut self, path: PathId) {
        let Some(tunnel) = self.plan.tunnels.get(usize::from(path.0)) else { return };
        let connector = tunnel.connector;
        let addresses = |role: Role| -> BTreeSet<Ipv4Addr> {
            let tunnels = self.plan.connectors[usize::from(connector.0)].roles[role.index()].iter();
            tunnels
                .flat_map(|role| &role.tunnels)
                .filter_map(|path| match &self.plan.tunnels[usize::from(path.0)].destination {
                    Some(Destination::Ipv4(address)) => Some(*address),
                    Some(Destination::Fqdn(_)) => self.tunnels[usize::from(path.0)].last_good(),
                    None => None,
                })
                .collect()
        };
        let primary = addresses(Role::Primary);
        let shared = addresses(Role::Secondary).into_iter().find(|address| primary.contains(address));
        let told = &mut self.connectors[usize::from(connector.0)].told_alike;
        if let Some(address) = shared.filter(|address| *told != Some(*address)) {
            self.effects.push_back(Effect::Event(SiteEvent::RolesAlike { connector, address }));
        }
        *told = shared;
    }
}
