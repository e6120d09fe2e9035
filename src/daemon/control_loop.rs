use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::announce::announce;
use super::breakout_follow::BreakoutFollower;
use super::complaints::Complaints;
use super::inquiries::Inquiries;
use super::key_log::KeyLog;
use super::lan_follow::LanFollower;
use super::recorder::Recorder;
use super::wan_watch::{WanNews, WanWatch};
use crate::control::{Call, Request, Response};
use crate::dataplane::Crew;
use crate::edge::{Edge, Effect, ResolveFailure, SiteEvent, SiteStatus, StatusFacts, UnderlayPlan};
use crate::forward::{FlowReport, Forwarding, ToControl, ToWorker};
use crate::model::{Moment, PathId, Role, UnderlayId, WorkerId};
use crate::net::{Asker, Clock, Interface, Names, RoadHandle, UnderlaySockets, Underlays, Unreachable};
use crate::recording::News;

/// How often underlays are looked at: one without sockets is tried again, one whose interface
/// has another address now gets new sockets.
const UNDERLAY_LOOK: Duration = Duration::from_secs(1);

/// Messages of a worker taken in one go before timers and requests have their turn.
const MESSAGE_RUN: usize = 256;

/// Orders that wait for workers whose queues are full: all probes of a thousand tunnels with eight targets each,
/// several times over. Beyond it a probe is never sent, and counts as lost.
const ORDERS_KEPT: usize = 65_536;

/// When to try again to hand them out: a worker's turn takes less.
const ORDER_PAUSE: Duration = Duration::from_millis(1);

/// How long a stop waits for the peers to answer our DELETEs.
const STOP_PATIENCE: Duration = Duration::from_millis(1_500);

/// Control's loop: it owns the `Edge` and carries facts in and effects out.
pub struct ControlLoop {
    pub edge: Edge,
    pub clock: Clock,
    pub started: Moment,
    pub crew: Crew,
    /// By `WorkerId`.
    pub roads: Vec<RoadHandle>,
    pub underlays: Arc<Underlays>,
    pub fwmark: Option<u32>,
    pub names: Names,
    pub key_log: Option<KeyLog>,
    /// Tells a listener of every event; the demo's timeline is one.
    pub events: Option<mpsc::UnboundedSender<(Moment, SiteEvent)>>,
    /// Follows the addresses that the WAN links have at present.
    pub addresses: Option<watch::Sender<Vec<Ipv4Addr>>>,
    /// By which interfaces the site's networks are reached.
    pub lan: Option<LanFollower>,
    /// By which links flows can leave outside of the tunnels.
    pub breakouts: Option<BreakoutFollower>,
    /// Published values that a worker may still hold, so that none ever has to free one.
    pub replaced: VecDeque<Arc<Forwarding>>,
    /// What workers are to do and had no room for yet.
    pub orders: VecDeque<(WorkerId, ToWorker)>,
    /// About underlays without sockets.
    pub complaints: Complaints,
    /// Of clients, that workers must answer.
    pub inquiries: Inquiries,
    pub recorder: Option<Recorder>,
}

/// What reaches the loop from outside.
pub struct Inboxes {
    pub messages: mpsc::Receiver<ToControl>,
    pub calls: mpsc::Receiver<Call>,
    pub stop: oneshot::Receiver<()>,
}

type Resolved = (PathId, Result<Vec<Ipv4Addr>, ResolveFailure>);

impl ControlLoop {
    /// Runs until told to stop and the peers have been told.
    pub async fn run(mut self, mut inboxes: Inboxes) {
        let (resolved, mut answers) = mpsc::channel::<Resolved>(1_024);
        let mut wan = WanWatch::open();
        self.look_at_clock();
        self.look_at_underlays();
        self.carry_out(&resolved);
        let mut next_look = self.clock.now() + UNDERLAY_LOOK;
        loop {
            let now = self.clock.now();
            let due = self.edge.poll_timeout().map_or(next_look, |due| due.min(next_look));
            let due = if self.orders.is_empty() { due } else { due.min(now + ORDER_PAUSE) };
            let wake = Instant::now() + due.since(now);
            tokio::select! {
                biased;
                _ = &mut inboxes.stop => break,
                Some(message) = inboxes.messages.recv() => {
                    self.hear(message);
                    for _ in 1..MESSAGE_RUN {
                        let Ok(message) = inboxes.messages.try_recv() else { break };
                        self.hear(message);
                    }
                }
                Some((path, answer)) = answers.recv() => self.edge.handle_resolved(path, answer, self.clock.now()),
                news = wan.next() => self.handle_wan_news(news),
                networks = next(&mut self.lan) => self.edge.handle_lan(networks),
                links = next(&mut self.breakouts) => self.edge.handle_breakouts(&links),
                Some(call) = inboxes.calls.recv() => self.answer(call),
                () = sleep_until(wake) => {}
            }
            let now = self.clock.now();
            if self.edge.poll_timeout().is_some_and(|due| due <= now) {
                self.edge.handle_timeout(now);
            }
            self.inquiries.give_up(now);
            if self.recorder.as_ref().is_some_and(Recorder::wants_whole) {
                self.edge.record(now);
            }
            if now >= next_look {
                next_look = now + UNDERLAY_LOOK;
                self.look_at_clock();
                self.look_at_underlays();
            }
            self.carry_out(&resolved);
        }
        self.stop(&mut inboxes.messages, &resolved).await;
    }

    async fn stop(&mut self, messages: &mut mpsc::Receiver<ToControl>, resolved: &mpsc::Sender<Resolved>) {
        self.edge.stop(self.clock.now());
        self.carry_out(resolved);
        let deadline = Instant::now() + STOP_PATIENCE;
        while !self.edge.is_stopped() {
            let now = self.clock.now();
            let due = self.edge.poll_timeout().map_or(STOP_PATIENCE, |due| due.since(now));
            tokio::select! {
                Some(message) = messages.recv() => self.hear(message),
                () = sleep_until(Instant::now() + due) => self.edge.handle_timeout(self.clock.now()),
                () = sleep_until(deadline) => return,
            }
            self.carry_out(resolved);
        }
    }

    fn handle_wan_news(&mut self, news: WanNews) {
        let now = self.clock.now();
        match news {
            WanNews::Unreachable(Unreachable { local, remote }) => self.edge.handle_unreachable(local, remote, now),
            WanNews::Link(change) => {
                let plan = self.edge.plan().clone();
                let concerned = |(_, underlay): &(UnderlayId, &UnderlayPlan)| {
                    let of_address = || Some(Interface::with_address(underlay.address?).ok()?.name);
                    underlay.interface.clone().or_else(of_address).is_some_and(|name| name == change.interface)
                };
                let mut any = false;
                for (id, _) in (0..).map(UnderlayId).zip(&plan.underlays).filter(concerned) {
                    any = true;
                    if !change.carries {
                        self.edge.handle_link_down(id, now);
                    }
                }
                if any {
                    // It may have come back, or with another address.
                    self.look_at_underlays();
                }
            }
        }
    }

    /// A message of a worker.
    fn hear(&mut self, message: ToControl) {
        match message {
            ToControl::Flows { id, flows, matching } => self.answer_about(id, &flows, matching),
            message @ (ToControl::Ike { .. }
            | ToControl::Probe { .. }
            | ToControl::Inner { .. }
            | ToControl::Measure { .. }
            | ToControl::FirstUse { .. }
            | ToControl::SoftLimit { .. }
            | ToControl::Rebind { .. }
            | ToControl::SendError { .. }
            | ToControl::Dns { .. }
            | ToControl::Survey { .. }) => self.edge.handle_message(message, self.clock.now()),
        }
    }

    fn answer(&mut self, call: Call) {
        match call.request {
            Request::Status {} => {
                let status = self.edge.status(self.facts(), self.clock.now());
                let recording = self.recorder.as_ref().map(Recorder::status);
                let status = SiteStatus { recording, ..status };
                // A client that has gone needs no answer.
                let _ = call.reply.send(Response::Status(Box::new(status)));
            }
            Request::Rules {} => {
                let zero = self.clock.unix_ms_of_zero();
                let at_ms = zero.saturating_add(self.clock.now().as_nanos() / 1_000_000);
                let _ = call.reply.send(Response::Rules { at_ms, rules: self.edge.rule_status(zero) });
            }
            Request::Explain { .. } if call.request.flow().is_none() => {
                let _ = call.reply.send(Response::Refused { reason: "a DSCP is 0 to 63".to_owned() });
            }
            Request::Failover { connector, to } => {
                let told = self.edge.fail_over(connector.as_deref(), to.map(Role::from), self.clock.now());
                let _ = call.reply.send(done(told));
            }
            Request::Tunnel { name, order, force } => {
                let told = self.edge.order_tunnel(&name, order, force, self.clock.now());
                let _ = call.reply.send(done(told));
            }
            Request::Flows { .. } | Request::Explain { .. } => {
                let Some(question) = self.inquiries.ask(call, self.clock.now()) else { return };
                // All share the flow table, so one worker answers for all; they take turns.
                let worker = usize::try_from(question.id).unwrap_or_default() % self.roads.len().max(1);
                if self.roads.get(worker).is_none_or(|road| road.order(ToWorker::List(question)).is_err())
                    && let Some(inquiry) = self.inquiries.take(question.id)
                {
                    let reason = "the worker is too busy to answer; ask again".to_owned();
                    let _ = inquiry.reply.send(Response::Refused { reason });
                }
            }
        }
    }

    /// A worker has answered what a client wants to know of flows.
    fn answer_about(&mut self, id: u64, flows: &[FlowReport], matching: u64) {
        let Some(inquiry) = self.inquiries.take(id) else { return };
        let (facts, now) = (self.facts(), self.clock.now());
        let response = match inquiry.request.flow() {
            Some((key, dscp)) => {
                let forwarding = self.crew.published.load();
                let told = self.edge.explain(&forwarding, key, dscp, flows.first(), &facts, now);
                Response::Explanation(Box::new(told))
            }
            None => Response::Flows(Box::new(self.edge.flow_list(flows, matching, &facts, now))),
        };
        let _ = inquiry.reply.send(response);
    }

    fn facts(&self) -> StatusFacts<'_> {
        StatusFacts {
            unix_ms_at_zero: self.clock.unix_ms_of_zero(),
            started: self.started,
            drops: &self.crew.drops,
            flows: self.crew.flows.len() as u64,
            flow_limit: self.crew.flows.limit() as u64,
            forgotten: self.crew.flows.forgotten(),
            workers: &self.crew.counters,
        }
    }

    /// As many as the workers have room for. A probe that is late is late, and not lost: its time begins when
    /// it is sent.
    fn hand_out_orders(&mut self) {
        for _ in 0..self.orders.len() {
            let Some((worker, order)) = self.orders.pop_front() else { return };
            let Some(road) = self.roads.get(usize::from(worker.0)) else { continue };
            if let Err(order) = road.order(order) {
                self.orders.push_back((worker, order));
            }
        }
    }

    fn carry_out(&mut self, resolved: &mpsc::Sender<Resolved>) {
        while let Some(effect) = self.edge.poll_effect() {
            match effect {
                Effect::Publish(forwarding) => self.publish(forwarding),
                Effect::Order(worker, order) => {
                    if self.orders.len() < ORDERS_KEPT {
                        self.orders.push_back((worker, order));
                    } else {
                        tracing::debug!(worker = worker.0, "too many orders wait for workers: a probe is left out");
                    }
                }
                Effect::Resolve { path, name, underlay } => {
                    let (names, resolved) = (self.names.clone(), resolved.clone());
                    let asker = self.asker(underlay);
                    tokio::spawn(async move {
                        let answer = names.resolve(&name, asker).await;
                        let _ = resolved.send((path, answer)).await;
                    });
                }
                Effect::Event(event) => {
                    announce(&event, self.edge.plan(), self.edge.is_stopping());
                    if let Some(recorder) = &self.recorder {
                        recorder.tell(self.clock.now(), News::Event(Box::new(event.clone())));
                    }
                    if let Some(events) = &self.events {
                        let _ = events.send((self.clock.now(), event));
                    }
                }
                Effect::Record(at, fact) => {
                    if let Some(recorder) = &self.recorder {
                        recorder.tell(at, News::Fact(Box::new(fact)));
                    }
                }
                Effect::Keys(record) => {
                    if let Some(log) = &mut self.key_log
                        && let Err(error) = log.record(&record)
                    {
                        tracing::warn!(%error, "the key log cannot be written");
                    }
                }
            }
        }
        self.hand_out_orders();
        let mut refused = Vec::new();
        while let Some((leg, bytes)) = self.edge.poll_transmit() {
            if let Err(error) = self.underlays.send_ike(leg, &bytes) {
                // It is retransmitted, and health looks at a link that carries nothing.
                tracing::debug!(remote = %leg.remote, %error, "an IKE message was not sent");
                refused.extend(error.raw_os_error().map(|errno| ToControl::SendError { leg, errno }));
            }
        }
        for error in refused {
            self.edge.handle_message(error, self.clock.now());
        }
    }

    fn asker(&self, underlay: UnderlayId) -> Asker {
        let plan = self.edge.plan();
        let source = self.underlays.get(underlay).and_then(|sockets| match sockets.local(false).ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let named = plan.underlays.get(usize::from(underlay.0)).and_then(|underlay| underlay.interface.clone());
        let interface = named.or_else(|| Some(Interface::with_address(source?).ok()?.name));
        let ranges = plan.connectors.iter().flat_map(|connector| &connector.ranges).map(|range| range.range);
        let inside = plan.site.native.iter().copied().chain(ranges).collect();
        Asker { underlay, source, interface, fwmark: self.fwmark, inside }
    }

    fn publish(&mut self, forwarding: Arc<Forwarding>) {
        if let Some(recorder) = &self.recorder {
            // Before workers decide by it: so it stands before their decisions.
            recorder.tell(self.clock.now(), News::Published(forwarding.clone()));
        }
        let seen = self.crew.oldest_seen();
        self.replaced.retain(|old| old.generation >= seen);
        self.replaced.push_back(self.crew.published.swap(forwarding));
        self.wake_workers();
    }

    fn wake_workers(&self) {
        self.roads.iter().for_each(RoadHandle::wake);
    }

    fn look_at_clock(&mut self) {
        let since_zero = self.clock.now().as_nanos() / 1_000_000;
        self.edge.handle_time_of_day(self.clock.unix_ms_of_zero().saturating_add(since_zero));
    }

    fn look_at_underlays(&mut self) {
        let plan = self.edge.plan().clone();
        let mut addresses = Vec::new();
        for (index, underlay) in plan.underlays.iter().enumerate() {
            let id = UnderlayId(index as u16);
            let interface = underlay.interface.as_deref();
            let present = self.underlays.get(id);
            let found = match (underlay.address, interface) {
                (Some(address), _) => Ok(address),
                (None, Some(name)) => Interface::named(name).map(|interface| interface.address),
                (None, None) => Err(io::Error::other("neither an interface nor an address")),
            };
            let wanted = found.as_ref().ok().copied();
            addresses.extend(wanted);
            let in_use = present.as_ref().map(|sockets| sockets.local(false).ip());
            if in_use.is_some() && in_use == wanted.map(IpAddr::V4) {
                continue;
            }
            // The old pair must be closed first: two cannot hold one port.
            if present.is_some() {
                self.underlays.remove(id);
                self.wake_workers();
            }
            let opened = found.and_then(|address| {
                let (ports, workers) = (plan.local_ports, self.crew.workers());
                let sockets = UnderlaySockets::open(id, interface, Some(address), ports, workers, self.fwmark)?;
                Ok((address, sockets.fact()?, sockets))
            });
            match opened {
                Ok((address, fact, sockets)) => {
                    tracing::info!(%address, interface, ike = fact.ike_port, natt = fact.natt_port, "WAN sockets open");
                    self.complaints.settle(id);
                    self.underlays.put(sockets);
                    self.wake_workers();
                    self.edge.handle_underlay(id, Some(fact), self.clock.now());
                }
                Err(error) => {
                    let (trouble, now) = (error.to_string(), self.clock.now());
                    if self.complaints.is_due(id, &trouble, now) {
                        tracing::warn!(address = wanted.map(tracing::field::display), interface, %error, "WAN sockets cannot be opened; trying again");
                    }
                    self.edge.handle_underlay_fault(id, trouble, now);
                }
            }
        }
        if let Some(listener) = &self.addresses {
            listener.send_if_modified(|known| {
                let changed = *known != addresses;
                *known = addresses;
                changed
            });
        }
    }
}

/// What the host says from now on.
async fn next<T: Clone>(followed: &mut Option<watch::Receiver<T>>) -> T {
    if let Some(follower) = followed {
        if follower.changed().await.is_ok() {
            return follower.borrow_and_update().clone();
        }
        *followed = None;
    }
    pending().await
}

/// The answer to an order.
fn done(told: Result<String, String>) -> Response {
    match told {
        Ok(says) => Response::Done { says },
        Err(reason) => Response::Refused { reason },
    }
}
