use super::child::{self, Agreed, Child, Material};
use super::context::Context;
use super::established::{CHILDREN_MAX, Established, Then};
use super::parts::Parts;
use super::proposal::KeyExchangeRule;
use super::task::Purpose;
use super::wire::{Notify, NotifyType, Payload, protocol_id};
use super::{child_rekey, ike_rekey};
use crate::crypto::KeyExchange;
use crate::model::{Secret, Spi};

/// Answers a request of CREATE_CHILD_SA (RFC 7296 1.3): a rekey of the IKE SA, a rekey of a
/// Child SA, or another Child SA.
pub fn answer(established: &mut Established, parts: &Parts, context: &mut Context<'_>) -> (Vec<Payload>, Then) {
    let protocol = parts.sa.as_ref().and_then(|proposals| proposals.first()).map(|proposal| proposal.protocol);
    if protocol == Some(protocol_id::IKE) {
        return ike_rekey::answer(established, parts, context);
    }
    let refusal = match is_rekeying_ike(established) {
        // RFC 7296 2.25.2
        true => Err(Notify::new(NotifyType::TEMPORARY_FAILURE)),
        false => match parts.notify(NotifyType::REKEY_SA) {
            Some(notify) => child_rekey::answer(established, parts, notify, context),
            None => create(established, parts, None, context).map(|created| created.payloads),
        },
    };
    (refusal.unwrap_or_else(|notify| vec![Payload::Notify(notify)]), Then::Nothing)
}

/// What answering with a new Child SA came to.
pub struct Created {
    pub inbound: Spi,
    pub payloads: Vec<Payload>,
    pub our_nonce: Vec<u8>,
}

/// Sets up the Child SA that the peer asks for.
pub fn create(
    established: &mut Established,
    parts: &Parts,
    replaces: Option<Spi>,
    context: &mut Context<'_>,
) -> Result<Created, Notify> {
    let Some(their_nonce) = &parts.nonce else { return Err(Notify::new(NotifyType::INVALID_SYNTAX)) };
    if established.children.len() >= CHILDREN_MAX {
        return Err(Notify::new(NotifyType::NO_ADDITIONAL_SAS));
    }
    let peer = established.peer.clone();
    let offered = parts.key_exchange.as_ref().map(|(group, _)| *group);
    let rule = KeyExchangeRule::ByProfile { offered };
    let (agreed, [sa, selectors_initiator, selectors_responder]) =
        child::choose(&peer, parts, rule, context).map_err(Notify::new)?;
    let our_nonce = context.new_nonce();
    let mut payloads = vec![sa, Payload::Nonce(our_nonce.clone())];
    let shared = match agree(&agreed, parts, &mut payloads, context) {
        Ok(shared) => shared,
        Err(notify) => {
            context.release_spi(agreed.inbound);
            return Err(notify);
        }
    };
    payloads.extend([selectors_initiator, selectors_responder]);
    let inbound = agreed.inbound;
    let material = Material {
        keys: &established.current.keys,
        shared: shared.as_ref(),
        initiator_nonce: their_nonce,
        responder_nonce: &our_nonce,
        initiated: false,
    };
    let answer_to = Some((established.current.newest_request(), context.now));
    let (child, event) = agreed.establish(&peer, &material, replaces, false, context);
    established.add_child(Child { answer_to, ..child }, event, context);
    Ok(Created { inbound, payloads, our_nonce })
}

/// The key exchange of the Child SA's own, if one was agreed on.
fn agree(
    agreed: &Agreed,
    parts: &Parts,
    payloads: &mut Vec<Payload>,
    context: &mut Context<'_>,
) -> Result<Option<Secret>, Notify> {
    let Some(group) = agreed.suite.group else { return Ok(None) };
    let wanted = || Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, group.number().to_be_bytes().to_vec());
    let Some((_, public)) = parts.key_exchange.as_ref().filter(|(number, _)| *number == group.number()) else {
        return Err(wanted());
    };
    let invalid = |_| Notify::new(NotifyType::INVALID_SYNTAX);
    let key_exchange = KeyExchange::generate(group, context.chance).map_err(invalid)?;
    payloads.push(Payload::KeyExchange { group: group.number(), data: key_exchange.public().to_vec() });
    key_exchange.agree(public).map(Some).map_err(invalid)
}

fn is_rekeying_ike(established: &Established) -> bool {
    established
        .current
        .outstanding
        .as_ref()
        .is_some_and(|outstanding| matches!(outstanding.purpose, Purpose::RekeyIke(_)))
}
