mod attempt;
mod change;
mod duty;
mod in_band;
mod inner;
mod live;
mod path_mtu;
mod peer;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::attempt::Attempt;
pub use self::change::{Change, Failure};
pub use self::duty::DRAIN_PATIENCE;
use self::duty::Orders;
use self::in_band::InBand;
use self::inner::Questions;
use self::live::Live;
use self::path_mtu::Search;
use super::child::ChildLineage;
use super::{Destination, Effect, Mode, Plan, ResolveFailure, TunnelPlan, TunnelState, UnderlayFact};
use crate::crypto::Backends;
use crate::forward::{Duty, PathCounters, ProbeOrder, SaTable, ToWorker};
use crate::health::{
    Closeness, HealthSettings, PathHealth, PeerSigns, ProbeBudget, ProbeKind, ProbeTarget, Surroundings, Traffic,
    Trouble,
};
use crate::ike::{Asked, Endpoint};
use crate::model::{Chance, Leg, LinkId, Moment, PathId, Spi, UnderlayId, Verdict};
use crate::probe::{Ask, Target};

/// Child SAs side by side in one tunnel; a peer that wants more is refused the rest.
pub const CHILDREN_LIMIT: u16 = 4;

/// A tunnel that is down this long although its IKE SA has not been given up is set up anew
/// beside it: the peer may have restarted and forgotten it.
const REBUILD_GRACE: Duration = Duration::from_secs(2);

/// How long until it is tried again to tell the peer of a dead tunnel, when no other way lived.
const RESCUE_PAUSE: Duration = Duration::from_millis(250);

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
    questions: Questions,
    /// Where the peer is a Trefoil as well.
    in_band: Option<InBand>,
    path_mtu: Option<Search>,
    down_since: Option<Moment>,
    /// See `PathFace::epoch`.
    epoch: u32,
    counters: Arc<PathCounters>,
    orders: Orders,
    state: TunnelState,
    rekeys: u64,
    last_change: Option<Change>,
    /// Since it was last up.
    last_failure: Option<Failure>,
    /// Likewise.
    went_down: Option<Failure>,
}

/// The answer to a probe that a tunnel has sent.
#[derive(Clone, Copy, Debug)]
pub struct ProbeAnswer {
    pub id: u64,
    pub target: IpAddr,
    /// It came back by the tunnel that the probe left by.
    pub same_path: bool,
    pub rtt: Duration,
    /// Of the inner packet, in bytes.
    pub length: u16,
}

/// What a tunnel works with; all of it is the edge's.
pub struct Context<'a> {
    pub plan: &'a Plan,
    pub endpoint: &'a mut Endpoint,
    pub table: &'a SaTable,
    pub backends: &'a Backends,
    pub effects: &'a mut VecDeque<Effect>,
    pub chance: &'a mut Chance,
    /// By `UnderlayId`.
    pub underlays: &'a [Option<UnderlayFact>],
    /// By `UnderlayId`: why it has no sockets.
    pub faults: &'a [Option<String>],
    pub export_keys: bool,
    /// Of the tunnel's siblings to the same peer.
    pub peer_signs: PeerSigns,
    pub probes: &'a mut ProbeBudget,
    pub now: Moment,
}

impl Tunnel {
    pub fn new(path: PathId, plan: &Plan, now: Moment, chance: &mut Chance) -> Tunnel {
        let configured = &plan.tunnels[usize::from(path.0)];
        let probes = &configured.probes;
        let targets: Vec<ProbeTarget> =
            probes.targets.iter().map(|one| ProbeTarget { name: one.to_string(), light: one.is_light() }).collect();
        let initiates = initiates(plan, configured);
        // Dead peer detection asks after so much silence; probes that come as often do.
        let interval = plan.health.interval.min(configured.keepalive.unwrap_or(Duration::MAX));
        let link = &plan.links[usize::from(configured.link.0)];
        let sensitivity = link.sensitivity.unwrap_or(plan.health.sensitivity);
        let inner_interval = probes.interval.unwrap_or(interval);
        let scrutiny = match plan.rules.asks_for_quality() {
            true if link.metered => Closeness::Sparing,
            true => Closeness::Close,
            false => Closeness::Never,
        };
        let settings =
            HealthSettings { interval, inner_interval, need: probes.need, sensitivity, scrutiny, ..plan.health };
        Tunnel {
            path,
            initiates,
            attempt: if initiates { Attempt::Waiting { until: now } } else { Attempt::Idle },
            failures: 0,
            live: None,
            retired: Vec::new(),
            last_good: None,
            health: PathHealth::new(settings, &targets, now, chance),
            questions: Questions::default(),
            in_band: None,
            path_mtu: None,
            down_since: None,
            epoch: 0,
            counters: Arc::default(),
            orders: Orders::default(),
            state: if initiates { TunnelState::Waiting } else { TunnelState::Listening },
            rekeys: 0,
            last_change: None,
            last_failure: None,
            went_down: None,
        }
    }

    pub fn handle_timeout(&mut self, context: &mut Context) {
        let now = context.now;
        self.close_when_drained(context);
        if self.live.is_some() {
            let around =
                Surroundings { traffic: self.traffic(), peer: context.peer_signs, budget: &mut *context.probes };
            self.health.handle_timeout(now, around);
            self.report_verdict(context);
            self.give_up_when_dead(context);
            self.look_after_questions(context);
            self.send_probes(context);
            self.say_in_band(context);
            self.search_path_mtu(context);
        }
        match self.attempt {
            Attempt::Idle => {
                let rebuild = self.down_since.is_some_and(|since| now >= since + REBUILD_GRACE);
                if rebuild && self.initiates && self.duty() != Duty::Down {
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

    pub fn handle_echo(&mut self, answer: ProbeAnswer, context: &mut Context) {
        let ProbeAnswer { id, target, same_path, rtt, length } = answer;
        if self.live.is_some() && !self.handle_size_answer(length, context) {
            let asked = |one: &Target| one.ask == Ask::Icmp && one.address == target;
            let asked = self.plan(context.plan).probes.targets.iter().position(asked);
            if let Some(asked) = asked {
                self.health.handle_inner(id, asked, same_path, rtt, context.now);
            }
            self.report_verdict(context);
        }
    }

    /// Something speaks against its path.
    pub fn handle_trouble(&mut self, trouble: Trouble, now: Moment) {
        if self.live.is_some() {
            self.health.handle_trouble(trouble, now);
        }
    }

    /// A sibling wants to know whether their common peer answers.
    pub fn bear_witness(&mut self, context: &mut Context) {
        if self.usable() {
            self.health.bear_witness();
            self.send_probes(context);
        }
    }

    /// Tells the peer over another way that this tunnel is dead; `None`: there is none at present.
    pub fn rescue(&mut self, way: Option<(String, Leg, Duration)>, context: &mut Context) {
        let Some(live) = &mut self.live else { return };
        let tried = live.rescue_tried.replace(context.now).is_some();
        match way {
            // While there was no other way, this one may have come back.
            Some(_) if tried && !std::mem::replace(&mut live.asked_again, true) => {
                self.health.ask_again();
                self.send_probes(context);
            }
            Some((link, leg, pause)) => {
                let reason = format!("down, and deleted at the peer over {link}");
                context.endpoint.rescue(live.sa, leg, pause, &reason, context.now);
            }
            None => live.asked_again = false,
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
    /// was called follows: who has configured where the peer is does not. A late packet of an
    /// earlier IKE SA tells where the peer was.
    pub fn handle_rebind(&mut self, spi: Spi, leg: Leg) {
        let Some(live) = self.live.as_mut().filter(|live| live.follows_peer) else { return };
        if live.children.iter().any(|lineage| lineage.owns(spi)) {
            live.leg = leg;
        }
    }

    /// The underlay has an address now, or another one.
    pub fn handle_underlay(&mut self, context: &mut Context) {
        if self.duty() == Duty::Down {
            return;
        }
        self.announce_peer(context);
        if let Attempt::Waiting { until } = &mut self.attempt {
            *until = context.now;
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

    pub fn poll_timeout(&self) -> Option<Moment> {
        let attempt = match self.attempt {
            Attempt::Waiting { until } | Attempt::Resolving { until } => Some(until),
            Attempt::Idle | Attempt::Connecting { .. } => None,
        };
        let rebuild = match (self.down_since, &self.attempt) {
            (Some(since), Attempt::Idle) if self.initiates && self.duty() != Duty::Down => Some(since + REBUILD_GRACE),
            _ => None,
        };
        let live = self.live.as_ref().map(|_| self.health.poll_timeout());
        let questions = self.live.as_ref().and_then(|_| self.questions.poll_timeout());
        let path_mtu = self.path_mtu.as_ref().filter(|_| self.usable()).map(Search::poll_timeout);
        let rescue = self.rescue_at();
        let linger = self.children().chain(&self.retired).filter_map(ChildLineage::next_expiry).min();
        let in_band = self.in_band_due();
        [attempt, rebuild, live, questions, in_band, path_mtu, rescue, linger, self.close_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The peer is being called, and has not answered yet.
    pub fn is_calling(&self) -> bool {
        matches!(self.attempt, Attempt::Connecting { .. })
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

    /// A live Child SA and a verdict that is not `Down`, and not taken down by an operator.
    pub fn usable(&self) -> bool {
        let has_child = self.live.as_ref().is_some_and(|live| !live.children.is_empty());
        has_child && self.verdict() != Verdict::Down && self.duty() != Duty::Down
    }

    /// Usable, and not drained.
    pub fn serves(&self) -> bool {
        self.usable() && !self.duty().is_drained()
    }

    /// The verdict is final, and the peer may be told of it over another way. Only of a tunnel that
    /// we can set up anew.
    pub fn wants_rescue(&self, now: Moment) -> bool {
        self.rescue_at().is_some_and(|at| at <= now)
    }

    fn rescue_at(&self) -> Option<Moment> {
        let live = self.live.as_ref().filter(|_| self.initiates && self.duty() != Duty::Down)?;
        let confirmed = self.health.confirmed_at()?;
        Some(confirmed.max(live.rescue_tried.map_or(confirmed, |tried| tried + RESCUE_PAUSE)))
    }

    /// The last authentic ESP packet.
    pub fn last_in(&self) -> Option<Moment> {
        Some(self.counters.last_in.load(Ordering::Relaxed)).filter(|last| *last > 0).map(Moment::from_nanos)
    }

    /// The last answer of the peer's IKE daemon.
    pub fn last_answer(&self) -> Option<Moment> {
        self.live.as_ref().map(|live| live.last_answer)
    }

    pub fn sends_by(&self, leg: Leg) -> bool {
        self.leg().is_some_and(|own| own.underlay == leg.underlay && own.remote == leg.remote)
    }

    pub fn link_id(&self, plan: &Plan) -> LinkId {
        self.link(plan)
    }

    pub fn underlay_id(&self, plan: &Plan) -> UnderlayId {
        plan.links[usize::from(self.link(plan).0)].underlay
    }

    pub fn health(&self) -> &PathHealth {
        &self.health
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Its flows choose again at their next packets.
    pub fn choose_again(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    pub fn counters(&self) -> &Arc<PathCounters> {
        &self.counters
    }

    pub fn last_change(&self) -> Option<&Change> {
        self.last_change.as_ref()
    }

    /// Why the last attempt, or the tunnel itself, ended, until it is up again.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// When it ceased to carry, and why, while it does not; whatever has come of attempts to set it up anew.
    pub fn when_down(&self) -> Option<&Failure> {
        self.went_down.as_ref()
    }

    pub fn rekeys(&self) -> u64 {
        self.rekeys
    }

    pub fn leg(&self) -> Option<Leg> {
        self.live.as_ref().map(|live| live.leg)
    }

    /// Where it leads; before it is up, whom it calls or will call next, when that is known.
    pub fn remote(&self, plan: &Plan) -> Option<SocketAddr> {
        let called = || match (&self.attempt, &self.plan(plan).destination) {
            (Attempt::Idle, _) | (_, None) => None,
            (_, Some(Destination::Ipv4(address))) => Some(*address),
            (_, Some(Destination::Fqdn(_))) => self.last_good,
        };
        let called = || called().map(|address| SocketAddr::new(IpAddr::V4(address), plan.remote_ports.ike));
        self.leg().map(|leg| leg.remote).or_else(called)
    }

    /// That the peer which is being called has not said a word yet, after the first try.
    pub fn unanswered(&self, endpoint: &Endpoint) -> Option<String> {
        let Attempt::Connecting { sa } = self.attempt else { return None };
        let requests = endpoint.unanswered_requests(sa).filter(|requests| *requests > 1)?;
        Some(format!("no answer yet to {requests} requests"))
    }

    pub fn children(&self) -> impl Iterator<Item = &ChildLineage> {
        self.live.iter().flat_map(|live| &live.children)
    }

    /// The address that its name last resolved to.
    pub fn last_good(&self) -> Option<Ipv4Addr> {
        self.last_good
    }

    fn send_probes(&mut self, context: &mut Context) {
        let source = self.plan(context.plan).private_local.map(|private| private.addr());
        let Some(sa) = self.live.as_ref().map(|live| live.sa) else { return };
        while let Some(probe) = self.health.poll_probe(context.now) {
            match probe.kind {
                ProbeKind::Liveness => match context.endpoint.check_liveness(sa, context.now) {
                    Asked::Light => {}
                    Asked::Heavy => self.health.handle_heavy(),
                    Asked::Nothing => self.health.handle_unsent(),
                },
                ProbeKind::Inner(index) => match self.plan(context.plan).probes.targets.get(index) {
                    Some(Target { address, ask: Ask::Icmp }) => {
                        let Some(source) = source else { continue };
                        let order = ProbeOrder { path: self.path, id: probe.id, source, target: *address, length: 0 };
                        context.effects.push_back(Effect::Order(context.plan.home(self.path), ToWorker::Probe(order)));
                    }
                    Some(_) => self.ask_inside(probe.id, index, context),
                    None => {}
                },
            }
        }
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.counters.packets_out.load(Ordering::Relaxed),
            received: self.counters.packets_in.load(Ordering::Relaxed),
            last_in: self.last_in(),
        }
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
