use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::child::ChildLineage;
use super::{
    Destination, Effect, KeyRecord, Mode, Plan, ResolveFailure, SiteEvent, TunnelPlan, TunnelState, UnderlayFact,
};
use crate::forward::{PathCounters, ProbeOrder, SaTable, ToWorker};
use crate::health::{PathHealth, ProbeKind, ProbeTarget};
use crate::ike::{ChildSa, CloseReason, Endpoint, Event, Identity, Legs, Peer, SaId};
use crate::model::{Chance, Leg, LinkId, Moment, OutboundSlot, PathId, Spi, TrafficSelector, Verdict, WorkerId};

/// Child SAs side by side in one tunnel; a peer that wants more is refused the rest.
pub const CHILDREN_LIMIT: u16 = 4;

/// A tunnel that is down this long although its IKE SA has not been given up is set up anew
/// beside it: the peer may have restarted and forgotten it.
const REBUILD_GRACE: Duration = Duration::from_secs(2);

/// The first pause after a failed attempt; doubled after each further one, up to the profile's
/// rebuild interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The first pause when the peer refused us: that takes a person to mend.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// The pause before a name is looked up again that gave no address.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);

/// A look-up that nobody answers by then has failed.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(20);

/// One configured tunnel over its whole life: attempts, the IKE SA that is up, its Child SAs,
/// its health.
pub struct Tunnel {
    path: PathId,
    /// We may open it; otherwise only the peer does.
    initiates: bool,
    attempt: Attempt,
    failures: u32,
    live: Option<Live>,
    /// Of IKE SAs that have ended, still opening late packets.
    retired: Vec<ChildLineage>,
    last_good: Option<Ipv4Addr>,
    health: PathHealth,
    down_since: Option<Moment>,
    /// See `PathFace::epoch`.
    epoch: u32,
    counters: Arc<PathCounters>,
    state: TunnelState,
    rekeys: u64,
    last_change: Option<Change>,
}

/// What was last told of a tunnel.
#[derive(Clone, Debug)]
pub struct Change {
    pub at: Moment,
    pub from: String,
    pub to: String,
    pub reason: String,
}

enum Attempt {
    /// Up, or only the peer may open it.
    Idle,
    Waiting {
        until: Moment,
    },
    Resolving {
        until: Moment,
    },
    Connecting {
        sa: SaId,
    },
}

struct Live {
    sa: SaId,
    leg: Leg,
    /// Set by the peer's authenticated messages rather than by our configuration.
    follows_peer: bool,
    children: Vec<ChildLineage>,
    last_answer: Moment,
}

/// What a tunnel works with; all of it is the edge's.
pub struct Context<'a> {
    pub plan: &'a Plan,
    pub endpoint: &'a mut Endpoint,
    pub table: &'a SaTable,
    pub effects: &'a mut VecDeque<Effect>,
    pub chance: &'a mut Chance,
    /// By `UnderlayId`.
    pub underlays: &'a [Option<UnderlayFact>],
    pub export_keys: bool,
    pub now: Moment,
}

impl Tunnel {
    pub fn new(path: PathId, plan: &Plan, now: Moment, chance: &mut Chance) -> Tunnel {
        let configured = &plan.tunnels[usize::from(path.0)];
        let targets: Vec<ProbeTarget> =
            configured.probes.iter().map(|probe| ProbeTarget { address: probe.target }).collect();
        let initiates = initiates(plan, configured);
        Tunnel {
            path,
            initiates,
            attempt: if initiates { Attempt::Waiting { until: now } } else { Attempt::Idle },
            failures: 0,
            live: None,
            retired: Vec::new(),
            last_good: None,
            health: PathHealth::new(plan.health, &targets, now, chance),
            down_since: None,
            epoch: 0,
            counters: Arc::default(),
            state: if initiates { TunnelState::Waiting } else { TunnelState::Listening },
            rekeys: 0,
            last_change: None,
        }
    }

    pub fn state(&self) -> TunnelState {
        self.state
    }

    pub fn verdict(&self) -> Verdict {
        match self.live {
            Some(_) => self.health.verdict(),
            None => Verdict::Down,
        }
    }

    /// A live Child SA and a verdict that is not `Down`.
    pub fn usable(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.children.is_empty()) && self.verdict() != Verdict::Down
    }

    pub fn health(&self) -> &PathHealth {
        &self.health
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn counters(&self) -> &Arc<PathCounters> {
        &self.counters
    }

    pub fn last_change(&self) -> Option<&Change> {
        self.last_change.as_ref()
    }

    pub fn rekeys(&self) -> u64 {
        self.rekeys
    }

    pub fn leg(&self) -> Option<Leg> {
        self.live.as_ref().map(|live| live.leg)
    }

    pub fn children(&self) -> impl Iterator<Item = &ChildLineage> {
        self.live.iter().flat_map(|live| &live.children)
    }

    /// The address that its name last resolved to.
    pub fn last_good(&self) -> Option<Ipv4Addr> {
        self.last_good
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        let attempt = match self.attempt {
            Attempt::Waiting { until } | Attempt::Resolving { until } => Some(until),
            Attempt::Idle | Attempt::Connecting { .. } => None,
        };
        let rebuild = match (self.down_since, &self.attempt) {
            (Some(since), Attempt::Idle) if self.initiates => Some(since + REBUILD_GRACE),
            _ => None,
        };
        let live = self.live.as_ref().map(|_| self.health.poll_timeout());
        let linger = self.children().chain(&self.retired).filter_map(ChildLineage::next_expiry).min();
        [attempt, rebuild, live, linger].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, context: &mut Context) {
        let now = context.now;
        if self.live.is_some() {
            self.health.handle_timeout(now);
            self.report_verdict(context);
            self.give_up_when_dead(context);
            self.send_probes(context);
        }
        match self.attempt {
            Attempt::Idle => {
                let rebuild = self.down_since.is_some_and(|since| now >= since + REBUILD_GRACE);
                if rebuild && self.initiates {
                    self.begin(context);
                }
            }
            Attempt::Waiting { until } if now >= until => self.begin(context),
            Attempt::Resolving { until } if now >= until => {
                self.handle_resolved(Err(ResolveFailure::Unavailable("no answer".to_owned())), context)
            }
            Attempt::Waiting { .. } | Attempt::Resolving { .. } | Attempt::Connecting { .. } => {}
        }
        let endpoint = &mut *context.endpoint;
        let lineages = self.live.iter_mut().flat_map(|live| &mut live.children).chain(&mut self.retired);
        for lineage in lineages {
            lineage.expire(now, context.table, |spi| endpoint.release_spi(spi));
        }
        self.retired.retain(|lineage| !lineage.is_gone());
    }

    /// Answers to `Effect::Resolve`.
    pub fn handle_resolved(&mut self, answer: Result<Vec<Ipv4Addr>, ResolveFailure>, context: &mut Context) {
        if !matches!(self.attempt, Attempt::Resolving { .. }) {
            return;
        }
        let name = match &self.plan(context.plan).destination {
            Some(Destination::Fqdn(name)) => name.clone(),
            Some(Destination::Ipv4(_)) | None => return,
        };
        let failure = match answer {
            Ok(addresses) => {
                match self.last_good.filter(|good| addresses.contains(good)).or(addresses.first().copied()) {
                    Some(address) => {
                        if let Some(from) = self.last_good.replace(address).filter(|from| *from != address) {
                            let event = SiteEvent::AddressChanged { path: self.path, name, from, to: address };
                            context.effects.push_back(Effect::Event(event));
                        }
                        return self.connect(address, context);
                    }
                    None => ResolveFailure::Unavailable("the answer is empty".to_owned()),
                }
            }
            Err(failure) => failure,
        };
        let reason = failure.reason();
        let event =
            SiteEvent::ResolutionFailed { path: self.path, name, reason: reason.clone(), fallback: self.last_good };
        context.effects.push_back(Effect::Event(event));
        match self.last_good {
            Some(address) => self.connect(address, context),
            None => self.wait(RESOLVE_PAUSE, reason, context),
        }
    }

    pub fn handle_echo(&mut self, id: u64, target: IpAddr, same_path: bool, rtt: Duration, context: &mut Context) {
        if self.live.is_some() {
            self.health.handle_echo(id, target, same_path, rtt, context.now);
            self.report_verdict(context);
        }
    }

    pub fn handle_first_use(&mut self, spi: Spi, context: &mut Context) {
        for lineage in self.live.iter_mut().flat_map(|live| &mut live.children) {
            lineage.handle_first_use(spi, context.table);
        }
    }

    /// The outbound SA with this SPI nears the end of its sequence numbers.
    pub fn handle_soft_limit(&mut self, outbound: Spi, context: &mut Context) {
        let Some(live) = &self.live else { return };
        if let Some(lineage) = live.children.iter().find(|lineage| lineage.sends_with(outbound)) {
            context.endpoint.rekey_child(live.sa, lineage.current(), context.now);
        }
    }

    /// An authenticated packet came from a new address of the peer's (RFC 7296 2.23). Only who
    /// was called follows: who has configured where the peer is does not.
    pub fn handle_rebind(&mut self, leg: Leg) {
        if let Some(live) = self.live.as_mut().filter(|live| live.follows_peer) {
            live.leg = leg;
        }
    }

    /// The underlay has an address now, or another one.
    pub fn handle_underlay(&mut self, context: &mut Context) {
        self.announce_peer(context);
        if let Attempt::Waiting { until } = &mut self.attempt {
            *until = context.now;
        }
    }

    pub fn handle_ike_event(&mut self, sa: SaId, event: Event, context: &mut Context) {
        match event {
            Event::Established { leg, initiator, .. } => self.established(sa, leg, initiator, context),
            Event::ChildEstablished(child) => self.child_established(sa, &child, context),
            Event::ChildDeleted { inbound, reason } => self.child_deleted(sa, inbound, &reason, context),
            Event::Rekeyed { .. } => {
                self.rekeys += 1;
                context.effects.push_back(Effect::Event(SiteEvent::Rekeyed { path: self.path, what: "IKE SA" }));
            }
            Event::Answered { first_sent, transmissions, .. } => {
                if let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) {
                    live.last_answer = context.now;
                    let rtt = (transmissions == 1).then(|| context.now.since(first_sent));
                    self.health.handle_liveness(rtt, context.now);
                    self.report_verdict(context);
                }
            }
            Event::Moved { leg } => {
                if let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) {
                    live.leg = leg;
                }
            }
            Event::Closed { reason } => self.closed(sa, &reason, context),
            Event::Keys(keys) => context.effects.push_back(Effect::Keys(KeyRecord::Ike(keys))),
        }
    }

    /// Tells the peer that we stop.
    pub fn stop(&mut self, context: &mut Context) {
        if let Attempt::Connecting { sa } = self.attempt {
            context.endpoint.abandon(sa, "the daemon stops");
        }
        self.attempt = Attempt::Idle;
        if let Some(live) = &self.live {
            context.endpoint.close(live.sa, "the daemon stops", context.now);
        }
    }

    /// Tells IKE whom to expect. A responder must know before the peer calls; identities that
    /// default to addresses are known only with the underlay.
    pub fn announce_peer(&mut self, context: &mut Context) {
        let plan = self.plan(context.plan);
        let remote = match &plan.destination {
            Some(Destination::Ipv4(address)) => Some(*address),
            Some(Destination::Fqdn(_)) => self.last_good,
            None => None,
        };
        if let Some(peer) = self.peer(remote, context) {
            context.endpoint.set_peer(self.path, Arc::new(peer));
        }
    }

    fn begin(&mut self, context: &mut Context) {
        match &self.plan(context.plan).destination {
            Some(Destination::Ipv4(address)) => self.connect(*address, context),
            Some(Destination::Fqdn(name)) => {
                let underlay = context.plan.links[usize::from(self.link(context.plan).0)].underlay;
                context.effects.push_back(Effect::Resolve { path: self.path, name: name.clone(), underlay });
                self.attempt = Attempt::Resolving { until: context.now + RESOLVE_PATIENCE };
                self.report_state("looking its PoP up by name".to_owned(), context);
            }
            None => self.attempt = Attempt::Idle,
        }
    }

    fn connect(&mut self, remote: Ipv4Addr, context: &mut Context) {
        let link = &context.plan.links[usize::from(self.link(context.plan).0)];
        let underlay = link.underlay;
        let Some(fact) = context.underlays.get(usize::from(underlay.0)).copied().flatten() else {
            let reason = format!("WAN link {} has no IPv4 address", link.name);
            return self.wait(RESOLVE_PAUSE, reason, context);
        };
        let leg = |natt: bool| {
            let ports = context.plan.remote_ports;
            let (local, remote_port) = if natt { (fact.natt_port, ports.natt) } else { (fact.ike_port, ports.ike) };
            Leg {
                underlay,
                natt,
                local: SocketAddr::new(IpAddr::V4(fact.address), local),
                remote: SocketAddr::new(IpAddr::V4(remote), remote_port),
            }
        };
        let legs = Legs { ike: leg(false), natt: leg(true) };
        if let Some(peer) = self.peer(Some(remote), context) {
            context.endpoint.set_peer(self.path, Arc::new(peer));
        }
        match context.endpoint.initiate(self.path, legs, context.now) {
            Some(sa) => {
                self.attempt = Attempt::Connecting { sa };
                self.report_state(format!("calling {remote}"), context);
            }
            None => self.wait(REFUSED_PAUSE, "too many IKE SAs: the limit is reached".to_owned(), context),
        }
    }

    fn wait(&mut self, first: Duration, reason: String, context: &mut Context) {
        let limit = self.plan(context.plan).rebuild_interval;
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(limit).max(FIRST_PAUSE);
        // Up to a quarter more, so that the tunnels of many sites do not call at the same moment.
        let spread = context.chance.below(u32::try_from(pause.as_millis() / 4).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.attempt = Attempt::Waiting { until: context.now + pause + Duration::from_millis(u64::from(spread)) };
        self.report_state(reason, context);
    }

    fn established(&mut self, sa: SaId, leg: Leg, initiator: bool, context: &mut Context) {
        if let Attempt::Connecting { sa: ours } = self.attempt
            && ours != sa
        {
            // The peer was quicker; of two IKE SAs for one tunnel the newer stays.
            context.endpoint.abandon(ours, "the peer opened the tunnel first");
        }
        self.attempt = Attempt::Idle;
        if let Some(old) = self.live.take() {
            self.retire(old.children, context);
            if old.sa != sa {
                context.endpoint.close(old.sa, "replaced by a new IKE SA", context.now);
            }
        }
        self.failures = 0;
        self.down_since = None;
        self.live = Some(Live { sa, leg, follows_peer: !initiator, children: Vec::new(), last_answer: context.now });
        self.health.handle_restart(context.now);
        self.epoch = self.epoch.wrapping_add(1);
    }

    fn child_established(&mut self, sa: SaId, child: &ChildSa, context: &mut Context) {
        let path = self.path;
        let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) else { return };
        if context.export_keys {
            export_child(child, live.leg, context.effects);
        }
        let predecessor = child.replaces.and_then(|old| live.children.iter_mut().find(|lineage| lineage.owns(old)));
        let installed = match predecessor {
            Some(lineage) => {
                self.rekeys += 1;
                context.effects.push_back(Effect::Event(SiteEvent::Rekeyed { path, what: "Child SA" }));
                lineage.succeed(child, path, context.table)
            }
            None => {
                let base = path.0 * CHILDREN_LIMIT;
                let free = (base..base + CHILDREN_LIMIT)
                    .map(OutboundSlot)
                    .find(|slot| live.children.iter().all(|lineage| lineage.slot() != *slot));
                free.and_then(|slot| ChildLineage::establish(child, path, slot, context.table))
                    .map(|lineage| live.children.push(lineage))
            }
        };
        if installed.is_none() {
            // Beyond the limit, or keys that fit no algorithm: the IKE SA goes, so that both
            // ends agree on what there is.
            context.endpoint.close(sa, "a Child SA cannot be installed", context.now);
        }
        self.report_state("Child SA established".to_owned(), context);
    }

    fn child_deleted(&mut self, sa: SaId, inbound: Spi, reason: &str, context: &mut Context) {
        let now = context.now;
        let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) else { return };
        let Some(position) = live.children.iter().position(|lineage| lineage.owns(inbound)) else { return };
        if live.children[position].handle_deleted(inbound, now, context.table) {
            return;
        }
        let ended = live.children.remove(position);
        self.retired.push(ended);
        if self.live.as_ref().is_some_and(|live| live.children.is_empty()) {
            self.report_state(format!("its Child SA was deleted: {reason}"), context);
            // Without a Child SA the IKE SA is of no use: start over.
            context.endpoint.close(sa, "no Child SA is left", now);
        }
    }

    fn closed(&mut self, sa: SaId, reason: &CloseReason, context: &mut Context) {
        if matches!(self.attempt, Attempt::Connecting { sa: ours } if ours == sa) {
            let pause = if is_refusal(reason) { REFUSED_PAUSE } else { FIRST_PAUSE };
            return self.wait(pause, reason.to_string(), context);
        }
        if self.live.as_ref().is_some_and(|live| live.sa == sa) {
            if let Some(old) = self.live.take() {
                self.retire(old.children, context);
            }
            self.down_since = None;
            self.epoch = self.epoch.wrapping_add(1);
            if matches!(self.attempt, Attempt::Idle) && self.initiates {
                self.wait(FIRST_PAUSE, reason.to_string(), context);
            } else {
                self.report_state(reason.to_string(), context);
            }
        } else if matches!(self.attempt, Attempt::Idle) && self.live.is_none() && is_refusal(reason) {
            // A peer called us and was refused, or refused us: say why the tunnel is not there.
            self.last_change = Some(Change {
                at: context.now,
                from: self.state.to_string(),
                to: self.state.to_string(),
                reason: reason.to_string(),
            });
            context.effects.push_back(Effect::Event(SiteEvent::TunnelState {
                path: self.path,
                from: self.state,
                to: self.state,
                reason: reason.to_string(),
            }));
        }
    }

    /// Child SAs whose IKE SA has ended: they send no more, and open what is still on its way.
    fn retire(&mut self, children: Vec<ChildLineage>, context: &mut Context) {
        for mut lineage in children {
            lineage.delete_all(context.now, context.table);
            self.retired.push(lineage);
        }
    }

    /// Seed: no data and no answer for so long tears the tunnel down for a rebuild.
    fn give_up_when_dead(&mut self, context: &mut Context) {
        let dead_after = self.plan(context.plan).dead_after;
        let Some(live) = &self.live else { return };
        let last_in = Moment::from_nanos(self.counters.last_in.load(Ordering::Relaxed));
        let silent = context.now.since(live.last_answer.max(last_in));
        if silent >= dead_after {
            let sa = live.sa;
            context.endpoint.abandon(sa, &format!("nothing heard for {} s", silent.as_secs()));
        }
    }

    fn send_probes(&mut self, context: &mut Context) {
        let source = self.plan(context.plan).private_local.map(|private| private.addr());
        let Some(live) = &self.live else { return };
        while let Some(probe) = self.health.poll_probe(context.now) {
            match probe.kind {
                ProbeKind::Liveness => context.endpoint.check_liveness(live.sa, context.now),
                ProbeKind::Echo(target) => {
                    if let Some(source) = source {
                        let order = ProbeOrder { path: self.path, id: probe.id, source, target };
                        context.effects.push_back(Effect::Order(WorkerId(0), ToWorker::Probe(order)));
                    }
                }
            }
        }
    }

    fn report_verdict(&mut self, context: &mut Context) {
        while let Some(change) = self.health.poll_change() {
            match change.to {
                Verdict::Down => {
                    self.down_since = Some(change.at);
                    self.epoch = self.epoch.wrapping_add(1);
                }
                // An unhealthy path loses its flows at once; a better one gains them at the re-steer.
                Verdict::Degraded => {
                    self.down_since = None;
                    self.epoch = self.epoch.wrapping_add(1);
                }
                Verdict::Healthy | Verdict::Unknown => self.down_since = None,
            }
            if self.down_since.is_none() && self.live.is_some() {
                self.cancel_attempt(context);
            }
            self.last_change = Some(Change {
                at: change.at,
                from: change.from.to_string(),
                to: change.to.to_string(),
                reason: change.reason.clone(),
            });
            context.effects.push_back(Effect::Event(SiteEvent::Verdict {
                path: self.path,
                from: change.from,
                to: change.to,
                reason: change.reason,
            }));
        }
    }

    /// The tunnel answers again: the attempt to set it up anew is not needed.
    fn cancel_attempt(&mut self, context: &mut Context) {
        let attempt = std::mem::replace(&mut self.attempt, Attempt::Idle);
        if let Attempt::Connecting { sa } = attempt {
            context.endpoint.abandon(sa, "the tunnel answers again");
        }
        self.failures = 0;
    }

    fn report_state(&mut self, reason: String, context: &mut Context) {
        let to = if self.live.as_ref().is_some_and(|live| !live.children.is_empty()) {
            TunnelState::Up
        } else {
            match self.attempt {
                Attempt::Idle if self.initiates => TunnelState::Connecting,
                Attempt::Idle => TunnelState::Listening,
                Attempt::Waiting { .. } => TunnelState::Waiting,
                Attempt::Resolving { .. } => TunnelState::Resolving,
                Attempt::Connecting { .. } => TunnelState::Connecting,
            }
        };
        let from = std::mem::replace(&mut self.state, to);
        let worth_telling = from != to
            || (to == TunnelState::Waiting && self.last_change.as_ref().is_none_or(|last| last.reason != reason));
        if worth_telling {
            self.last_change =
                Some(Change { at: context.now, from: from.to_string(), to: to.to_string(), reason: reason.clone() });
            context.effects.push_back(Effect::Event(SiteEvent::TunnelState { path: self.path, from, to, reason }));
        }
    }

    fn peer(&self, remote: Option<Ipv4Addr>, context: &Context) -> Option<Peer> {
        let plan = self.plan(context.plan);
        let connector = context.plan.connectors.get(usize::from(plan.connector.0))?;
        let link = context.plan.links.get(usize::from(plan.link.0))?;
        let own = context.underlays.get(usize::from(link.underlay.0)).copied().flatten().map(|fact| fact.address);
        let local_id = plan.local_id.clone().or(plan.public_ip.or(own).map(Identity::Ipv4))?;
        let remote_id = plan.remote_id.clone().or(remote.map(Identity::Ipv4))?;
        // The tunnel's own address is offered by itself, so that a PoP can tell by it which
        // tunnel a probe's answer belongs to.
        let private = |address: Option<ipnet::IpNet>| {
            address.map(|address| TrafficSelector::of_network(ipnet::IpNet::from(address.addr())))
        };
        let mut local_selectors: Vec<_> = private(plan.private_local).into_iter().collect();
        local_selectors.extend_from_slice(&connector.local_selectors);
        let mut remote_selectors: Vec<_> = private(plan.private_remote).into_iter().collect();
        for probe in &plan.probes {
            let target = TrafficSelector::of_network(ipnet::IpNet::from(probe.target));
            let covered =
                connector.peer_selectors.iter().any(|selector| selector.intersection(&target) == Some(target));
            if !covered && !remote_selectors.contains(&target) {
                remote_selectors.push(target);
            }
        }
        remote_selectors.extend_from_slice(&connector.peer_selectors);
        Some(Peer {
            name: plan.full_name(&context.plan.connectors),
            local_id,
            remote_id,
            psk: plan.psk.clone(),
            phase1: plan.phase1.clone(),
            phase2: plan.phase2.clone(),
            local_selectors,
            remote_selectors,
            retransmission: plan.retransmission,
        })
    }

    fn plan<'a>(&self, plan: &'a Plan) -> &'a TunnelPlan {
        &plan.tunnels[usize::from(self.path.0)]
    }

    fn link(&self, plan: &Plan) -> LinkId {
        self.plan(plan).link
    }
}

fn initiates(plan: &Plan, tunnel: &TunnelPlan) -> bool {
    tunnel.destination.is_some()
        && match plan.connectors[usize::from(tunnel.connector.0)].mode {
            Mode::Initiator | Mode::Bidirectional => true,
            Mode::Responder => false,
        }
}

/// A refusal stays until somebody changes a configuration; silence may end by itself.
fn is_refusal(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::AuthenticationFailed { .. }
        | CloseReason::IdentityMismatch { .. }
        | CloseReason::LocalIdentityMismatch { .. }
        | CloseReason::NoProposalChosen { .. }
        | CloseReason::SelectorsUnacceptable { .. }
        | CloseReason::RefusedByPeer { .. }
        | CloseReason::ProtocolError { .. } => true,
        CloseReason::Unanswered { .. }
        | CloseReason::DeletedByPeer
        | CloseReason::ClosedLocally { .. }
        | CloseReason::Replaced => false,
    }
}

fn export_child(child: &ChildSa, leg: Leg, effects: &mut VecDeque<Effect>) {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (leg.local.ip(), leg.remote.ip()) else { return };
    let mut export = |source, destination, spi, key: &crate::model::Secret| {
        effects.push_back(Effect::Keys(KeyRecord::Esp {
            source,
            destination,
            spi,
            encryption: child.encryption,
            key: key.clone(),
        }));
    };
    export(local, remote, child.outbound, &child.outbound_key);
    export(remote, local, child.inbound, &child.inbound_key);
}
