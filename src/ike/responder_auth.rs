use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::auth::{METHOD_SHARED_KEY, Proof, Side};
use super::child::{self, Material};
use super::context::Context;
use super::established::Established;
use super::ike_sa::{IkeSa, Incoming, Input};
use super::lifetime::Lifetime;
use super::parts::{Parts, VENDOR_ID};
use super::proposal::{self, KeyExchangeRule};
use super::selectors;
use super::session::{Lingering, State};
use super::wire::{Exchange, IdBody, Notify, NotifyType, Payload, WireError};
use super::{CloseReason, Event, Identity, Peer, SaId};
use crate::model::{Leg, Moment, PathId};

/// How long an initiator may take from IKE_SA_INIT to IKE_AUTH, lost messages included, and for
/// how long a refusal is repeated.
pub const HALF_OPEN_LIFETIME: Duration = Duration::from_secs(30);

/// 16 tunnels may be meant by an initiator that does not say whom it calls.
const CANDIDATES_MAX: usize = 16;

/// IKE_SA_INIT is answered; who is calling is not known yet.
pub struct HalfOpen {
    pub sa: IkeSa,
    pub remote: SocketAddr,
    pub their_message: Vec<u8>,
    pub our_message: Vec<u8>,
    pub their_nonce: Vec<u8>,
    pub our_nonce: Vec<u8>,
    pub expires_at: Moment,
}

/// The initiator is refused: what it is told, and what our operator is told of which tunnel.
struct Refused {
    notify: Notify,
    told: Option<(PathId, Box<CloseReason>)>,
}

impl HalfOpen {
    pub fn handle_message(mut self: Box<Self>, input: &Input<'_>, context: &mut Context<'_>) -> Option<State> {
        let id = context.id;
        match self.sa.receive(input) {
            Incoming::Request(Exchange::IkeAuth, parts) => self.authenticate(id, parts, input.leg, context),
            Incoming::Request(exchange, _) => {
                let refused = Refused { notify: Notify::new(NotifyType::INVALID_SYNTAX), told: None };
                self.refuse(id, exchange, refused, input.leg, context)
            }
            Incoming::Answer(..) | Incoming::Repeated(_) | Incoming::Ignored => Some(State::HalfOpen(self)),
        }
    }

    fn authenticate(
        self: Box<Self>,
        id: SaId,
        parts: Result<Parts, WireError>,
        leg: Leg,
        context: &mut Context<'_>,
    ) -> Option<State> {
        let outcome = parts.map_err(|error| Refused { notify: error.notify(), told: None }).and_then(|parts| {
            let (path, peer) = self.identify(&parts, leg, context)?;
            Ok((parts, path, peer))
        });
        match outcome {
            Ok((parts, path, peer)) => Some(self.establish(id, &parts, path, peer, leg, context)),
            Err(refused) => self.refuse(id, Exchange::IkeAuth, refused, leg, context),
        }
    }

    /// Finds the tunnel by both identities, and verifies AUTH with its key.
    fn identify(&self, parts: &Parts, leg: Leg, context: &mut Context<'_>) -> Result<(PathId, Arc<Peer>), Refused> {
        let (Some(body), Some((method, data))) = (&parts.id_initiator, &parts.auth) else {
            return Err(Refused { notify: Notify::new(NotifyType::INVALID_SYNTAX), told: None });
        };
        let local = parts.id_responder.as_ref().map(IdBody::any_identity);
        let mut named = context.peers_named(&body.any_identity(), local.as_ref());
        named.truncate(CANDIDATES_MAX);
        let proof =
            Proof { side: Side::Initiator, message: &self.their_message, other_nonce: &self.our_nonce, identity: body };
        if let Some(found) = named.iter().find(|(_, peer)| proof.verify(&self.sa.keys, &peer.psk, *method, data)) {
            let suite = &self.sa.suite;
            let phase1 = &found.1.phase1;
            // The suite was chosen before we knew whose profile counts.
            if phase1.encryption.contains(&suite.encryption)
                && phase1.prf.contains(&suite.prf)
                && phase1.groups.contains(&suite.group)
            {
                return Ok(found.clone());
            }
            let reason = CloseReason::NoProposalChosen { by_peer: false, offered: suite.to_string() };
            return Err(Refused {
                notify: Notify::new(NotifyType::NO_PROPOSAL_CHOSEN),
                told: Some((found.0, Box::new(reason))),
            });
        }
        let told = match named.first() {
            Some((path, _)) => Some((*path, Box::new(CloseReason::AuthenticationFailed { by_peer: false }))),
            None => unknown_identity(body, local.as_ref(), leg, context),
        };
        Err(Refused { notify: Notify::new(NotifyType::AUTHENTICATION_FAILED), told })
    }

    fn establish(
        self: Box<Self>,
        id: SaId,
        parts: &Parts,
        path: PathId,
        peer: Arc<Peer>,
        leg: Leg,
        context: &mut Context<'_>,
    ) -> State {
        let HalfOpen { mut sa, our_message, their_nonce, our_nonce, .. } = *self;
        sa.lifetime = Lifetime::new(peer.phase1.lifetime, false, context.chance, context.now);
        let identity = IdBody::new(&peer.local_id);
        let proof =
            Proof { side: Side::Responder, message: &our_message, other_nonce: &their_nonce, identity: &identity };
        let auth = Payload::Auth { method: METHOD_SHARED_KEY, data: proof.make(&sa.keys, &peer.psk) };
        let mut payloads = vec![Payload::IdResponder(identity), auth];
        if parts.kin {
            payloads.push(Payload::Vendor(VENDOR_ID.to_vec()));
        }
        // RFC 7296 2.4: the peer has forgotten every other IKE SA with us.
        if parts.notify(NotifyType::INITIAL_CONTACT).is_some() {
            context.replace_others(path);
        }
        let mut established = Established::new(id, path, peer.clone(), leg, false, sa);
        established.kin = parts.kin;
        match child::choose(&peer, parts, KeyExchangeRule::Never, context) {
            Ok((agreed, answer)) => {
                payloads.extend(answer);
                established.announce(context);
                let material = Material {
                    keys: &established.current.keys,
                    shared: None,
                    initiator_nonce: &their_nonce,
                    responder_nonce: &our_nonce,
                    initiated: false,
                };
                let (child, event) = agreed.establish(&peer, &material, None, false, context);
                established.add_child(child, event, context);
                let answer = established.current.answer(Exchange::IkeAuth, &payloads);
                context.send(leg, answer);
            }
            // RFC 7296 1.3: the IKE SA stands without its Child SA; then it is of no use, and the
            // DELETE that says so follows the answer.
            Err(notify) => {
                payloads.push(Payload::notify(notify));
                let answer = established.current.answer(Exchange::IkeAuth, &payloads);
                context.send(leg, answer);
                let reason = match notify {
                    NotifyType::TS_UNACCEPTABLE => {
                        let from = parts.selectors_initiator.as_deref().unwrap_or_default();
                        let to = parts.selectors_responder.as_deref().unwrap_or_default();
                        CloseReason::SelectorsUnacceptable { by_peer: false, offered: selectors::describe(from, to) }
                    }
                    NotifyType::NO_PROPOSAL_CHOSEN => {
                        let offered = proposal::describe(parts.sa.as_deref().unwrap_or_default());
                        CloseReason::NoProposalChosen { by_peer: false, offered }
                    }
                    NotifyType::INVALID_SYNTAX => {
                        CloseReason::ProtocolError { detail: "IKE_AUTH without SA or traffic selectors".to_string() }
                    }
                    other => CloseReason::ClosedLocally { reason: other.to_string() },
                };
                established.close(reason, context);
            }
        }
        State::Established(Box::new(established))
    }

    fn refuse(
        mut self: Box<Self>,
        id: SaId,
        exchange: Exchange,
        refused: Refused,
        leg: Leg,
        context: &mut Context<'_>,
    ) -> Option<State> {
        let answer = self.sa.answer(exchange, &[Payload::Notify(refused.notify)]);
        context.send(leg, answer);
        if let Some((path, reason)) = refused.told {
            context.report(path, id, Event::Closed { reason: *reason });
        }
        let until = context.now + HALF_OPEN_LIFETIME;
        let stranger = Some(self.remote.ip());
        Some(State::Lingering(Box::new(Lingering { sa: self.sa, until, stranger })))
    }
}

/// No tunnel has both identities. If exactly one has ours, or theirs, it is probably meant.
fn unknown_identity(
    body: &IdBody,
    local: Option<&Identity>,
    leg: Leg,
    context: &mut Context<'_>,
) -> Option<(PathId, Box<CloseReason>)> {
    let found = body.any_identity();
    warn!(remote = %leg.remote, remote_id = %found, local_id = ?local, "no tunnel has these identities");
    let probable = |wanted: &dyn Fn(&Peer) -> bool| {
        let mut matching = context.peers.iter().filter(|(_, peer)| wanted(peer));
        matching.next().filter(|_| matching.next().is_none()).map(|(path, peer)| (*path, peer.clone()))
    };
    if let Some((path, peer)) = probable(&|peer| Some(&peer.local_id) == local) {
        let reason = CloseReason::IdentityMismatch { expected: peer.remote_id.clone(), found };
        return Some((path, Box::new(reason)));
    }
    let (path, peer) = probable(&|peer| peer.remote_id == found)?;
    let reason = CloseReason::LocalIdentityMismatch { expected: peer.local_id.clone(), found: local.cloned()? };
    Some((path, Box::new(reason)))
}
