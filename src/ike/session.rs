use std::net::IpAddr;

use super::context::Context;
use super::established::Established;
use super::ike_sa::{IkeSa, Incoming, Input};
use super::initiator_auth::AwaitingAuth;
use super::initiator_init::AwaitingInit;
use super::responder_auth::HalfOpen;
use super::{CloseReason, Event, SaId};
use crate::model::{Moment, PathId};

/// Where the life of one `SaId` stands. Each step consumes a state and gives the next one;
/// `None` when nothing remains.
pub enum State {
    Connecting(Box<AwaitingInit>),
    Authenticating(Box<AwaitingAuth>),
    HalfOpen(Box<HalfOpen>),
    Established(Box<Established>),
    Lingering(Box<Lingering>),
}

/// An IKE SA that has ended, and only repeats its last answer, should that have been lost.
pub struct Lingering {
    pub sa: IkeSa,
    pub until: Moment,
    /// Its peer never authenticated: it counts as half open still, and this is where it was.
    pub stranger: Option<IpAddr>,
}

impl State {
    pub fn handle_message(self, input: &Input<'_>, context: &mut Context<'_>) -> Option<State> {
        match self {
            State::Connecting(state) => state.handle_message(input, context),
            State::Authenticating(state) => state.handle_message(input, context),
            State::HalfOpen(state) => state.handle_message(input, context),
            State::Established(state) => state.handle_message(input, context),
            State::Lingering(state) => state.handle_message(input, context),
        }
    }

    pub fn handle_timeout(self, context: &mut Context<'_>) -> Option<State> {
        match self {
            State::Connecting(state) => state.handle_timeout(context),
            State::Authenticating(state) => state.handle_timeout(context),
            State::HalfOpen(state) => (context.now < state.expires_at).then_some(State::HalfOpen(state)),
            State::Established(state) => state.handle_timeout(context),
            State::Lingering(state) => (context.now < state.until).then_some(State::Lingering(state)),
        }
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        match self {
            State::Connecting(state) => Some(state.poll_timeout()),
            State::Authenticating(state) => state.poll_timeout(),
            State::HalfOpen(state) => Some(state.expires_at),
            State::Established(state) => state.poll_timeout(),
            State::Lingering(state) => Some(state.until),
        }
    }

    /// Ends it without a word to the peer.
    pub fn forget(self, id: SaId, reason: CloseReason, context: &mut Context<'_>) {
        match self {
            State::Connecting(state) => context.report(state.origin.path, id, Event::Closed { reason }),
            State::Authenticating(state) => state.fail(reason, context),
            State::HalfOpen(_) | State::Lingering(_) => {}
            State::Established(state) => {
                state.end(reason, context);
            }
        }
    }

    /// The SPIs by which the peer's messages find it.
    pub fn local_spis(&self) -> Vec<u64> {
        match self {
            State::Connecting(state) => vec![state.spi],
            State::Authenticating(state) => vec![state.sa.spis.local()],
            State::HalfOpen(state) => vec![state.sa.spis.local()],
            State::Established(state) => state.local_spis(),
            State::Lingering(state) => vec![state.sa.spis.local()],
        }
    }

    /// Where a peer is that has proved nothing yet, or failed to.
    pub fn half_open_from(&self) -> Option<IpAddr> {
        match self {
            State::HalfOpen(state) => Some(state.remote.ip()),
            State::Lingering(state) => state.stranger,
            State::Connecting(_) | State::Authenticating(_) | State::Established(_) => None,
        }
    }

    /// The path, once both sides have authenticated and as long as it is to stay.
    pub fn live_path(&self) -> Option<PathId> {
        match self {
            State::Established(state) => state.is_live().then_some(state.path),
            State::Connecting(_) | State::Authenticating(_) | State::HalfOpen(_) | State::Lingering(_) => None,
        }
    }
}

impl Lingering {
    fn handle_message(mut self: Box<Self>, input: &Input<'_>, context: &mut Context<'_>) -> Option<State> {
        if let Incoming::Repeated(answer) = self.sa.receive(input) {
            context.send(input.leg, answer);
        }
        Some(State::Lingering(self))
    }
}
