use std::sync::Arc;

use tracing::{debug, info};

use super::context::Context;
use super::ike_sa::{IkeSa, Input, Spis};
use super::initiator_auth::AwaitingAuth;
use super::key_schedule::{Exchanged, IkeKeySet};
use super::lifetime::Lifetime;
use super::nat;
use super::parts::Parts;
use super::pending::{Due, Pending};
use super::proposal;
use super::session::State;
use super::wire::{Exchange, Header, Notify, NotifyType, Payload, Proposal, encode_clear};
use super::{CloseReason, Event, Legs, Peer, SaId};
use crate::crypto::{DhGroup, KeyExchange};
use crate::model::{Moment, PathId};

/// 6 answers that ask for another request: a cookie, another group, and again after a secret has
/// rotated. A peer that asks for more never means to go on.
const RESTARTS_MAX: u8 = 6;

/// What stays the same while an IKE SA is being set up by us.
pub struct Origin {
    pub id: SaId,
    pub path: PathId,
    pub peer: Arc<Peer>,
    pub legs: Legs,
}

/// The request of IKE_SA_INIT is sent (RFC 7296 1.2).
pub struct AwaitingInit {
    pub origin: Origin,
    pub spi: u64,
    nonce: Vec<u8>,
    key_exchange: KeyExchange,
    offered: Vec<Proposal>,
    cookie: Option<Vec<u8>>,
    restarts: u8,
    pending: Pending,
}

impl AwaitingInit {
    pub fn start(origin: Origin, context: &mut Context<'_>) -> Option<State> {
        let offered = proposal::offer_ike(&origin.peer.phase1, &[]);
        let group = proposal::first_group(&origin.peer.phase1.groups);
        let key_exchange = group.and_then(|group| KeyExchange::generate(group, context.chance).ok());
        let (Some(key_exchange), false) = (key_exchange, offered.is_empty()) else {
            let reason = "its phase 1 profile has no supported algorithms".to_string();
            context.report(origin.path, origin.id, Event::Closed { reason: CloseReason::ClosedLocally { reason } });
            return None;
        };
        let spi = context.new_ike_spi();
        let nonce = context.new_nonce();
        let bytes = request(&origin, spi, &nonce, &key_exchange, &offered, None);
        context.send(origin.legs.ike, bytes.clone());
        let pending = Pending::new(Exchange::IkeSaInit, 0, bytes, origin.peer.retransmission, context.now);
        Some(State::Connecting(Box::new(AwaitingInit {
            origin,
            spi,
            nonce,
            key_exchange,
            offered,
            cookie: None,
            restarts: 0,
            pending,
        })))
    }

    /// Of the request as it stands.
    pub fn transmissions(&self) -> u32 {
        self.pending.transmissions
    }

    pub fn handle_message(self: Box<Self>, input: &Input<'_>, context: &mut Context<'_>) -> Option<State> {
        let header = &input.message.header;
        let answers_us = header.exchange == Exchange::IkeSaInit
            && header.response
            && !header.from_initiator
            && header.initiator_spi == self.spi
            && header.message_id == 0
            && input.message.encrypted.is_none();
        // Anybody can send this message: what is malformed may be forged, the peer's may follow.
        let (true, Ok(parts)) = (answers_us, Parts::of(input.message.payloads.clone())) else {
            return Some(State::Connecting(self));
        };
        if let Some(cookie) = parts.notify(NotifyType::COOKIE) {
            // A copy of the answer that made us send it already.
            if self.cookie.as_ref() == Some(&cookie.data) {
                return Some(State::Connecting(self));
            }
            let data = cookie.data.clone();
            return self.restart(Some(data), None, context);
        }
        if let Some(notify) = parts.notify(NotifyType::INVALID_KE_PAYLOAD) {
            let wanted = <[u8; 2]>::try_from(notify.data.as_slice()).ok().map(u16::from_be_bytes);
            let group = wanted.and_then(|number| proposal::our_group(&self.origin.peer.phase1.groups, number));
            return match group {
                // A copy of the answer that made us change over already.
                Some(group) if group == self.key_exchange.group() => Some(State::Connecting(self)),
                Some(group) => self.restart(None, Some(group), context),
                None => self.fail(CloseReason::RefusedByPeer { notify: notify.kind.to_string() }, context),
            };
        }
        if parts.sa.is_none()
            && let Some(notify) = parts.error()
        {
            let reason = refused(notify, &self.offered);
            return self.fail(reason, context);
        }
        self.proceed(input, parts, context)
    }

    pub fn handle_timeout(mut self: Box<Self>, context: &mut Context<'_>) -> Option<State> {
        match self.pending.handle_timeout(context.now) {
            Due::NotYet => {}
            Due::SendAgain => context.send(self.origin.legs.ike, self.pending.bytes.clone()),
            Due::GiveUp => {
                let transmissions = self.pending.transmissions;
                return self.fail(CloseReason::Unanswered { exchange: "IKE_SA_INIT", transmissions }, context);
            }
        }
        Some(State::Connecting(self))
    }

    pub fn poll_timeout(&self) -> Moment {
        self.pending.poll_timeout()
    }

    /// The same request again with a cookie (RFC 7296 2.6) or another group (1.2).
    fn restart(
        mut self: Box<Self>,
        cookie: Option<Vec<u8>>,
        group: Option<DhGroup>,
        context: &mut Context<'_>,
    ) -> Option<State> {
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > RESTARTS_MAX {
            let detail = "it asks for another IKE_SA_INIT without end".to_string();
            return self.fail(CloseReason::ProtocolError { detail }, context);
        }
        if let Some(group) = group {
            match KeyExchange::generate(group, context.chance) {
                Ok(key_exchange) => self.key_exchange = key_exchange,
                Err(error) => return self.fail(CloseReason::ClosedLocally { reason: error.to_string() }, context),
            }
        }
        // RFC 7296 2.6.1: a cookie goes along in every later request.
        self.cookie = cookie.or(self.cookie);
        let cookie = self.cookie.as_deref();
        let bytes = request(&self.origin, self.spi, &self.nonce, &self.key_exchange, &self.offered, cookie);
        debug!(tunnel = %self.origin.peer.name, group = %self.key_exchange.group(), "IKE_SA_INIT again");
        context.send(self.origin.legs.ike, bytes.clone());
        self.pending = Pending::new(Exchange::IkeSaInit, 0, bytes, self.origin.peer.retransmission, context.now);
        Some(State::Connecting(self))
    }

    fn proceed(self: Box<Self>, input: &Input<'_>, parts: Parts, context: &mut Context<'_>) -> Option<State> {
        let header = &input.message.header;
        let (Some(answer), Some((group, public)), Some(nonce)) = (&parts.sa, &parts.key_exchange, &parts.nonce) else {
            return Some(State::Connecting(self));
        };
        if header.responder_spi == 0 {
            return Some(State::Connecting(self));
        }
        let suite = proposal::accept_ike(&self.origin.peer.phase1, &self.offered, answer);
        let Some(suite) =
            suite.filter(|suite| suite.group == self.key_exchange.group() && suite.group.number() == *group)
        else {
            let detail = "it chose an IKE proposal that was not offered".to_string();
            return self.fail(CloseReason::ProtocolError { detail }, context);
        };
        if let Some(findings) = nat::findings(&parts.notifies, self.spi, header.responder_spi, &input.leg) {
            debug!(tunnel = %self.origin.peer.name, ?findings, "NAT detection");
        } else {
            info!(tunnel = %self.origin.peer.name, "the peer takes no part in NAT traversal: ESP may not pass");
        }
        let AwaitingInit { origin, spi, nonce: our_nonce, key_exchange, pending, .. } = *self;
        let spis = Spis { initiator: spi, responder: header.responder_spi, we_initiated: true };
        let exchanged = Exchanged {
            initiator_nonce: &our_nonce,
            responder_nonce: nonce,
            initiator_spi: spis.initiator,
            responder_spi: spis.responder,
        };
        let lifetime = Lifetime::new(origin.peer.phase1.lifetime, true, context.chance, context.now);
        let sa = key_exchange.agree(public).and_then(|shared| {
            let keys = IkeKeySet::initial(&suite, &shared, &exchanged);
            IkeSa::new(spis, suite, keys, lifetime)
        });
        match sa {
            Ok(sa) => AwaitingAuth::start(
                origin,
                sa.after_init(),
                &pending.bytes,
                nonce,
                &our_nonce,
                input.datagram.to_vec(),
                context,
            ),
            Err(error) => {
                let reason = CloseReason::ProtocolError { detail: error.to_string() };
                context.report(origin.path, origin.id, Event::Closed { reason });
                None
            }
        }
    }

    fn fail(self: Box<Self>, reason: CloseReason, context: &mut Context<'_>) -> Option<State> {
        context.report(self.origin.path, self.origin.id, Event::Closed { reason });
        None
    }
}

fn refused(notify: &Notify, offered: &[Proposal]) -> CloseReason {
    match notify.kind {
        NotifyType::NO_PROPOSAL_CHOSEN => {
            CloseReason::NoProposalChosen { by_peer: true, offered: proposal::describe(offered) }
        }
        kind => CloseReason::RefusedByPeer { notify: kind.to_string() },
    }
}

fn request(
    origin: &Origin,
    spi: u64,
    nonce: &[u8],
    key_exchange: &KeyExchange,
    offered: &[Proposal],
    cookie: Option<&[u8]>,
) -> Vec<u8> {
    let header = Header {
        initiator_spi: spi,
        responder_spi: 0,
        exchange: Exchange::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let mut payloads = Vec::new();
    // RFC 7296 2.6: the cookie comes first, all else stays as it was.
    payloads.extend(cookie.map(|data| Payload::Notify(Notify::with_data(NotifyType::COOKIE, data.to_vec()))));
    payloads.push(Payload::Sa(offered.to_vec()));
    payloads.push(Payload::KeyExchange { group: key_exchange.group().number(), data: key_exchange.public().to_vec() });
    payloads.push(Payload::Nonce(nonce.to_vec()));
    payloads.extend(nat::payloads(spi, 0, &origin.legs.ike));
    encode_clear(&header, &payloads)
}
