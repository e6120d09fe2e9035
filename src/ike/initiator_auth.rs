use super::auth::{METHOD_SHARED_KEY, Proof, Side};
use super::child::{ChildOffer, Material, Refusal};
use super::context::Context;
use super::established::Established;
use super::ike_sa::{IkeSa, Incoming, Input};
use super::initiator_init::Origin;
use super::parts::{Parts, VENDOR_ID};
use super::pending::Due;
use super::session::State;
use super::task::Purpose;
use super::wire::{Exchange, IdBody, NotifyType, Payload, WireError};
use super::{CloseReason, Event};
use crate::model::Moment;

/// The request of IKE_AUTH is sent (RFC 7296 1.2), from the NAT-traversal socket.
pub struct AwaitingAuth {
    pub origin: Origin,
    pub sa: IkeSa,
    offer: ChildOffer,
    our_nonce: Vec<u8>,
    their_nonce: Vec<u8>,
    /// The peer's IKE_SA_INIT, which its AUTH covers.
    their_message: Vec<u8>,
}

impl AwaitingAuth {
    pub fn start(
        origin: Origin,
        mut sa: IkeSa,
        our_message: &[u8],
        their_nonce: &[u8],
        our_nonce: &[u8],
        their_message: Vec<u8>,
        context: &mut Context<'_>,
    ) -> Option<State> {
        let peer = &origin.peer;
        let Some(offer) = ChildOffer::new(peer, None, false, context) else {
            let reason = "no place for another Child SA, or its phase 2 profile has no supported algorithms";
            let reason = CloseReason::ClosedLocally { reason: reason.to_string() };
            context.report(origin.path, origin.id, Event::Closed { reason });
            return None;
        };
        let identity = IdBody::new(&peer.local_id);
        let proof =
            Proof { side: Side::Initiator, message: our_message, other_nonce: their_nonce, identity: &identity };
        let auth = Payload::Auth { method: METHOD_SHARED_KEY, data: proof.make(&sa.keys, &peer.psk) };
        let mut payloads = vec![Payload::IdInitiator(identity)];
        // RFC 7296 2.4: only when this is the one IKE SA between the two identities.
        if !context.table.has_live(origin.path) {
            payloads.push(Payload::notify(NotifyType::INITIAL_CONTACT));
        }
        payloads.push(Payload::IdResponder(IdBody::new(&peer.remote_id)));
        payloads.push(auth);
        payloads.extend(offer.payloads());
        payloads.push(Payload::Vendor(VENDOR_ID.to_vec()));
        let bytes = sa.request(Exchange::IkeAuth, &payloads, Purpose::Authentication, peer.retransmission, context.now);
        // RFC 7296 2.23: from here on, port 4500 both ways.
        context.send(origin.legs.natt, bytes);
        Some(State::Authenticating(Box::new(AwaitingAuth {
            sa,
            offer,
            our_nonce: our_nonce.to_vec(),
            their_nonce: their_nonce.to_vec(),
            their_message,
            origin,
        })))
    }

    pub fn handle_message(mut self: Box<Self>, input: &Input<'_>, context: &mut Context<'_>) -> Option<State> {
        // A request that overtakes the answer to ours comes again; until then its place in the window
        // must stay free (RFC 7296 2.2), or it would never be answered.
        if !input.message.header.response {
            return Some(State::Authenticating(self));
        }
        match self.sa.receive(input) {
            Incoming::Answer(_, parts) => self.conclude(parts, context),
            Incoming::Request(..) | Incoming::Repeated(_) | Incoming::Ignored => Some(State::Authenticating(self)),
        }
    }

    pub fn handle_timeout(mut self: Box<Self>, context: &mut Context<'_>) -> Option<State> {
        if let Some(outstanding) = &mut self.sa.outstanding {
            match outstanding.pending.handle_timeout(context.now) {
                Due::NotYet => {}
                Due::SendAgain => context.send(self.origin.legs.natt, outstanding.pending.bytes.clone()),
                Due::GiveUp => {
                    let transmissions = outstanding.pending.transmissions;
                    self.fail(CloseReason::Unanswered { exchange: "IKE_AUTH", transmissions }, context);
                    return None;
                }
            }
        }
        Some(State::Authenticating(self))
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        self.sa.outstanding.as_ref().map(|outstanding| outstanding.pending.poll_timeout())
    }

    pub fn fail(self: Box<Self>, reason: CloseReason, context: &mut Context<'_>) {
        context.release_spi(self.offer.inbound);
        context.report(self.origin.path, self.origin.id, Event::Closed { reason });
    }

    fn conclude(self: Box<Self>, parts: Result<Parts, WireError>, context: &mut Context<'_>) -> Option<State> {
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => return self.refuse(CloseReason::ProtocolError { detail: error.to_string() }, context),
        };
        let (Some(identity), Some((method, data))) = (&parts.id_responder, &parts.auth) else {
            // Without AUTH the peer has refused us, and keeps nothing.
            let reason = match parts.error() {
                Some(notify) if notify.kind == NotifyType::AUTHENTICATION_FAILED => {
                    CloseReason::AuthenticationFailed { by_peer: true }
                }
                Some(notify) => self.offer.close_reason(Refusal::ByPeer(notify.clone())),
                None => CloseReason::ProtocolError { detail: "IKE_AUTH without identity or AUTH".to_string() },
            };
            self.fail(reason, context);
            return None;
        };
        let peer = &self.origin.peer;
        if identity.identity().as_ref() != Some(&peer.remote_id) {
            let reason =
                CloseReason::IdentityMismatch { expected: peer.remote_id.clone(), found: identity.any_identity() };
            return self.refuse(reason, context);
        }
        let proof =
            Proof { side: Side::Responder, message: &self.their_message, other_nonce: &self.our_nonce, identity };
        if !proof.verify(&self.sa.keys, &peer.psk, *method, data) {
            return self.refuse(CloseReason::AuthenticationFailed { by_peer: false }, context);
        }
        self.establish(&parts, context)
    }

    fn establish(self: Box<Self>, parts: &Parts, context: &mut Context<'_>) -> Option<State> {
        let AwaitingAuth { origin, sa, offer, our_nonce, their_nonce, .. } = *self;
        let peer = origin.peer.clone();
        let agreed = offer.accept(&peer, parts);
        let mut established = Established::new(origin.id, origin.path, origin.peer, origin.legs.natt, true, sa);
        established.kin = parts.kin;
        match agreed {
            Ok(agreed) => {
                established.announce(context);
                let material = Material {
                    keys: &established.current.keys,
                    shared: None,
                    initiator_nonce: &our_nonce,
                    responder_nonce: &their_nonce,
                    initiated: true,
                };
                let (child, event) = agreed.establish(&peer, &material, None, true, context);
                established.add_child(child, event, context);
            }
            // RFC 7296 1.3: the IKE SA stands without its Child SA. It is of no use to us.
            Err(refusal) => {
                context.release_spi(offer.inbound);
                established.close(offer.close_reason(refusal), context);
            }
        }
        Some(State::Established(Box::new(established)))
    }

    /// RFC 7296 2.21.2: the peer, which believes the IKE SA to be up, is told that it is not.
    fn refuse(self: Box<Self>, reason: CloseReason, context: &mut Context<'_>) -> Option<State> {
        context.release_spi(self.offer.inbound);
        let AwaitingAuth { origin, sa, .. } = *self;
        let mut established = Established::new(origin.id, origin.path, origin.peer, origin.legs.natt, true, sa);
        established.close(reason, context);
        Some(State::Established(Box::new(established)))
    }
}
