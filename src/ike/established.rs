use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::child::Child;
use super::collision::Rival;
use super::context::Context;
use super::ike_sa::{IkeSa, Incoming, Input, Outstanding};
use super::parts::Parts;
use super::pending::Due;
use super::rescue::Rescue;
use super::responder_auth::HALF_OPEN_LIFETIME;
use super::session::{Lingering, State};
use super::succession::Retiring;
use super::task::{Purpose, Task};
use super::wire::{Exchange, NotifyType, Payload, WireError};
use super::{Asked, CloseReason, Event, Peer, SaId, child_rekey, create_child, ike_rekey, informational};
use crate::model::{Leg, Moment, PathId, Spi};

/// 16 Child SAs: a tunnel uses one, during rekeys and their collisions up to four.
pub const CHILDREN_MAX: usize = 16;

/// How long a DELETE for the IKE SA is tried, and an earlier request waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Both sides have authenticated. Over rekeys of the IKE SA, this stays.
pub struct Established {
    pub id: SaId,
    pub path: PathId,
    pub peer: Arc<Peer>,
    pub leg: Leg,
    /// We set it up: then the peer's address is a configured one, and is not to change.
    pub initiator: bool,
    pub current: IkeSa,
    /// Made by the peer's rekey of the IKE SA while ours is on its way.
    pub candidate: Option<Rival>,
    /// Replaced IKE SAs, until they are deleted.
    pub retiring: Vec<Retiring>,
    pub children: Vec<Child>,
    pub tasks: VecDeque<Task>,
    /// After a rekey by the peer: until it has our answer it does not know the new IKE SA.
    pub hold_until: Option<Moment>,
    announced: bool,
    /// The peer is a Trefoil as well.
    pub kin: bool,
    pub closing: Option<Closing>,
    /// Its own way is dead, and the peer is told of its end by another one.
    pub rescue: Option<Rescue>,
}

/// It is being closed by us.
pub struct Closing {
    pub reason: CloseReason,
    pub until: Moment,
}

/// Which of the IKE SAs a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    Current,
    Candidate,
    Retiring(usize),
}

/// What follows once a request is answered.
pub enum Then {
    Nothing,
    /// The peer has rekeyed the IKE SA.
    TakeOver(Box<IkeSa>),
    /// The peer has rekeyed it while our rekey is on its way.
    Compete(Box<Rival>),
    /// The peer has deleted this IKE SA.
    Deleted,
    End(CloseReason),
}

impl Established {
    pub fn new(id: SaId, path: PathId, peer: Arc<Peer>, leg: Leg, initiator: bool, sa: IkeSa) -> Established {
        Established {
            id,
            path,
            peer,
            leg,
            initiator,
            current: sa,
            candidate: None,
            retiring: Vec::new(),
            children: Vec::new(),
            tasks: VecDeque::new(),
            hold_until: None,
            announced: false,
            kin: false,
            closing: None,
            rescue: None,
        }
    }

    /// Reports that it is up.
    pub fn announce(&mut self, context: &mut Context<'_>) {
        self.announced = true;
        self.export_keys(context);
        let event = Event::Established {
            leg: self.leg,
            remote_id: self.peer.remote_id.clone(),
            initiator: self.initiator,
            kin: self.kin,
            suite: self.current.suite.to_string(),
        };
        self.report(event, context);
    }

    pub fn add_child(&mut self, child: Child, event: Event, context: &mut Context<'_>) {
        self.children.push(child);
        self.report(event, context);
    }

    pub fn handle_message(mut self: Box<Self>, input: &Input<'_>, context: &mut Context<'_>) -> Option<State> {
        let header = &input.message.header;
        let local = if header.from_initiator { header.responder_spi } else { header.initiator_spi };
        let Some((which, sa)) = self.find(local) else { return Some(State::Established(self)) };
        match sa.receive(input) {
            Incoming::Ignored => Some(State::Established(self)),
            Incoming::Repeated(answer) => {
                context.send(input.leg, answer);
                Some(State::Established(self))
            }
            Incoming::Answer(outstanding, parts) => {
                let moved = self.follow(which, input.leg);
                let state = self.handle_answer(which, outstanding, parts, input.leg, context);
                go_on(state, moved, context)
            }
            Incoming::Request(exchange, parts) => {
                let moved = self.follow(which, input.leg);
                if self.announced {
                    self.report(Event::Asked { leg: input.leg }, context);
                }
                let state = self.handle_request(which, exchange, parts, input.leg, context);
                go_on(state, moved, context)
            }
        }
    }

    pub fn handle_timeout(mut self: Box<Self>, context: &mut Context<'_>) -> Option<State> {
        if let Some(closing) = self.closing.take_if(|closing| closing.until <= context.now) {
            self.end(closing.reason, context);
            return None;
        }
        if self.rescue.is_some() {
            self.time_out_rescue(context);
            return Some(State::Established(self));
        }
        if let Some(outstanding) = &mut self.current.outstanding {
            match outstanding.pending.handle_timeout(context.now) {
                Due::NotYet => {}
                Due::SendAgain => context.send(self.leg, outstanding.pending.bytes.clone()),
                Due::GiveUp => {
                    let reason = CloseReason::Unanswered {
                        exchange: outstanding.pending.exchange.name(),
                        transmissions: outstanding.pending.transmissions,
                    };
                    let reason = self.closing.take().map_or(reason, |closing| closing.reason);
                    self.end(reason, context);
                    return None;
                }
            }
        }
        self.time_out_retiring(context);
        if self.closing.is_none() && self.current.lifetime.expires_at <= context.now {
            self.close(CloseReason::ClosedLocally { reason: "the IKE SA's lifetime has ended".into() }, context);
        }
        self.queue_due(context);
        self.start_next(context);
        Some(State::Established(self))
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        if let (Some(rescue), Some(closing)) = (&self.rescue, &self.closing) {
            return Some(rescue.poll_timeout().min(closing.until));
        }
        let outstanding = self.current.outstanding.as_ref().map(|outstanding| outstanding.pending.poll_timeout());
        let retiring = self.retiring.iter().flat_map(|retiring| {
            let outstanding = retiring.sa.outstanding.as_ref().map(|outstanding| outstanding.pending.poll_timeout());
            [Some(retiring.until), outstanding].into_iter().flatten()
        });
        let first = retiring.chain(outstanding);
        if let Some(closing) = &self.closing {
            return first.chain([closing.until]).min();
        }
        first
            .chain(self.children.iter().filter_map(Child::poll_timeout))
            .chain([self.current.lifetime.poll_timeout()])
            .chain(self.hold_until.filter(|_| !self.tasks.is_empty()))
            .min()
    }

    /// Proves that the path works: asks for an answer now. A request that is on its way anyway
    /// serves as well as a new one.
    pub fn check_liveness(&mut self, context: &mut Context<'_>) -> Asked {
        if self.closing.is_some() {
            return Asked::Nothing;
        }
        match &mut self.current.outstanding {
            Some(outstanding) => {
                outstanding.pending.sent_again(context.now);
                context.send(self.leg, outstanding.pending.bytes.clone());
            }
            None => {
                self.queue(Task::Liveness);
                self.start_next(context);
            }
        }
        match self.current.outstanding.as_ref().map(|outstanding| outstanding.pending.exchange) {
            Some(Exchange::CreateChildSa) => Asked::Heavy,
            Some(_) => Asked::Light,
            None => Asked::Nothing,
        }
    }

    pub fn rekey_child(&mut self, inbound: Spi, context: &mut Context<'_>) {
        self.queue(Task::RekeyChild { inbound, group: None });
        self.start_next(context);
    }

    pub fn rekey_ike(&mut self, context: &mut Context<'_>) {
        self.queue(Task::RekeyIke { group: None });
        self.start_next(context);
    }

    /// Sends DELETE as soon as the window allows, and ends a little later in any case.
    pub fn close(&mut self, reason: CloseReason, context: &mut Context<'_>) {
        if self.closing.is_none() {
            self.tasks.clear();
            self.closing = Some(Closing { reason, until: context.now + CLOSE_LIMIT });
            self.start_next(context);
        }
    }

    /// Reports the end of everything. What remains is the current IKE SA.
    pub fn end(mut self, reason: CloseReason, context: &mut Context<'_>) -> IkeSa {
        if let Some(outstanding) = self.current.outstanding.take() {
            outstanding.purpose.release(context);
        }
        for child in std::mem::take(&mut self.children) {
            let event = Event::ChildDeleted { inbound: child.inbound, reason: reason.to_string() };
            self.report(event, context);
        }
        self.report(Event::Closed { reason }, context);
        self.current
    }

    /// It is up, and is to stay.
    pub fn is_live(&self) -> bool {
        self.announced && self.closing.is_none()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub fn local_spis(&self) -> Vec<u64> {
        let candidate = self.candidate.iter().map(|rival| &rival.sa);
        let retiring = self.retiring.iter().map(|retiring| &retiring.sa);
        [&self.current].into_iter().chain(candidate).chain(retiring).map(|sa| sa.spis.local()).collect()
    }

    pub fn report(&self, event: Event, context: &mut Context<'_>) {
        context.report(self.path, self.id, event);
    }

    pub fn export_keys(&self, context: &mut Context<'_>) {
        if context.export_keys {
            self.report(self.current.key_event(), context);
        }
    }

    pub fn knows_child(&self, inbound: Spi) -> bool {
        self.children.iter().any(|child| child.inbound == inbound)
    }

    pub fn child_mut(&mut self, inbound: Spi) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.inbound == inbound)
    }

    /// Takes a Child SA out and reports it.
    pub fn delete_child(&mut self, inbound: Spi, reason: &str, context: &mut Context<'_>) {
        let before = self.children.len();
        self.children.retain(|child| child.inbound != inbound);
        if self.children.len() < before {
            self.report(Event::ChildDeleted { inbound, reason: reason.to_string() }, context);
        }
    }

    fn find(&mut self, local: u64) -> Option<(Which, &mut IkeSa)> {
        if self.current.spis.local() == local {
            return Some((Which::Current, &mut self.current));
        }
        if let Some(rival) = self.candidate.as_mut().filter(|rival| rival.sa.spis.local() == local) {
            return Some((Which::Candidate, &mut rival.sa));
        }
        let mut retiring = self.retiring.iter_mut().enumerate();
        let (index, found) = retiring.find(|(_, retiring)| retiring.sa.spis.local() == local)?;
        Some((Which::Retiring(index), &mut found.sa))
    }

    fn sa_mut(&mut self, which: Which) -> Option<&mut IkeSa> {
        match which {
            Which::Current => Some(&mut self.current),
            Which::Candidate => self.candidate.as_mut().map(|rival| &mut rival.sa),
            Which::Retiring(index) => self.retiring.get_mut(index).map(|retiring| &mut retiring.sa),
        }
    }

    /// RFC 7296 2.23: the peer's address is where its newest authentic message came from. Says
    /// whether it changed.
    fn follow(&mut self, which: Which, leg: Leg) -> bool {
        if which == Which::Current {
            self.hold_until = None;
        }
        let follows = !self.initiator && !matches!(which, Which::Retiring(_)) && leg != self.leg;
        if follows {
            self.leg = leg;
        }
        follows
    }

    fn handle_request(
        mut self: Box<Self>,
        which: Which,
        exchange: Exchange,
        parts: Result<Parts, WireError>,
        leg: Leg,
        context: &mut Context<'_>,
    ) -> Option<State> {
        let (payloads, then) = match (exchange, parts) {
            // RFC 7296 2.21.3 would let us close the IKE SA too; its sender knows now, and may.
            (_, Err(error)) => (vec![Payload::Notify(error.notify())], Then::Nothing),
            (Exchange::Informational, Ok(parts)) => informational::answer(&mut self, &parts, context),
            (Exchange::CreateChildSa, Ok(_)) if which != Which::Current || self.is_closing() => {
                (vec![Payload::notify(NotifyType::TEMPORARY_FAILURE)], Then::Nothing)
            }
            (Exchange::CreateChildSa, Ok(parts)) => create_child::answer(&mut self, &parts, context),
            (Exchange::IkeSaInit | Exchange::IkeAuth | Exchange::Other(_), Ok(_)) => {
                (vec![Payload::notify(NotifyType::INVALID_SYNTAX)], Then::Nothing)
            }
        };
        if let Some(sa) = self.sa_mut(which) {
            let answer = sa.answer(exchange, &payloads);
            context.send(leg, answer);
        }
        match then {
            Then::Nothing => {}
            Then::TakeOver(sa) => ike_rekey::take_over(&mut self, *sa, context),
            Then::Compete(rival) => self.candidate = Some(*rival),
            Then::Deleted => return self.handle_deleted(which, context),
            Then::End(reason) => return Some(self.linger(reason, context)),
        }
        self.start_next(context);
        Some(State::Established(self))
    }

    pub fn linger(self: Box<Self>, reason: CloseReason, context: &mut Context<'_>) -> State {
        let until = context.now + HALF_OPEN_LIFETIME;
        let sa = self.end(reason, context);
        State::Lingering(Box::new(Lingering { sa, until, stranger: None }))
    }

    fn handle_answer(
        mut self: Box<Self>,
        which: Which,
        outstanding: Outstanding,
        parts: Result<Parts, WireError>,
        leg: Leg,
        context: &mut Context<'_>,
    ) -> Option<State> {
        let Outstanding { pending, purpose } = outstanding;
        if self.announced {
            let event = Event::Answered {
                leg,
                first_sent: pending.first_sent,
                last_sent: pending.last_sent,
                transmissions: pending.transmissions,
            };
            self.report(event, context);
        }
        if let Err(error) = &parts {
            warn!(tunnel = %self.peer.name, %error, exchange = pending.exchange.name(), "unusable answer");
        }
        match purpose {
            Purpose::Authentication | Purpose::Liveness => {}
            Purpose::Child(request) => child_rekey::handle_answer(&mut self, *request, parts, context),
            Purpose::DeleteChild { inbound } => {
                let reason = self.child_mut(inbound).map_or("deleted", |child| child.stage.end_reason());
                self.delete_child(inbound, reason, context);
            }
            Purpose::RekeyIke(request) => ike_rekey::handle_answer(&mut self, *request, parts, context),
            Purpose::DeleteIke => match which {
                Which::Current => {
                    let fallback = CloseReason::ClosedLocally { reason: "closed".to_string() };
                    let reason = self.closing.take().map_or(fallback, |closing| closing.reason);
                    self.end(reason, context);
                    return None;
                }
                Which::Candidate => {}
                Which::Retiring(index) => {
                    self.retiring.remove(index);
                }
            },
        }
        self.start_next(context);
        Some(State::Established(self))
    }
}

/// Reports that the address has changed, if anything is left to be reported of.
fn go_on(state: Option<State>, moved: bool, context: &mut Context<'_>) -> Option<State> {
    if let Some(State::Established(established)) = &state
        && moved
        && established.is_live()
    {
        established.report(Event::Moved { leg: established.leg }, context);
    }
    state
}
