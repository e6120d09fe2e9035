use super::CloseReason;
use super::child::Stage;
use super::context::Context;
use super::established::{Established, Then};
use super::parts::Parts;
use super::task::Purpose;
use super::wire::{Exchange, NotifyType, Payload, protocol_id};
use crate::model::Spi;

/// Answers a request of INFORMATIONAL (RFC 7296 1.4): a liveness check, which is empty, or
/// DELETE. Notifications that we do not act upon are simply acknowledged.
pub fn answer(established: &mut Established, parts: &Parts, context: &mut Context<'_>) -> (Vec<Payload>, Then) {
    if parts.deletes.iter().any(|(protocol, _)| *protocol == protocol_id::IKE) {
        // RFC 7296 1.4.1: an empty answer.
        let then = match parts.notify(NotifyType::AUTHENTICATION_FAILED) {
            Some(_) => Then::End(CloseReason::AuthenticationFailed { by_peer: true }),
            None => Then::Deleted,
        };
        return (Vec::new(), then);
    }
    if parts.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
        return (Vec::new(), Then::End(CloseReason::AuthenticationFailed { by_peer: true }));
    }
    let mut deleted = Vec::new();
    let named = parts.deletes.iter().filter(|(protocol, _)| *protocol == protocol_id::ESP);
    for outbound in named.flat_map(|(_, spis)| spis) {
        if let Some(inbound) = handle_delete(established, Spi(*outbound), context) {
            deleted.push(inbound.0);
        }
    }
    let payloads = match deleted.is_empty() {
        true => Vec::new(),
        false => vec![Payload::Delete { protocol: protocol_id::ESP, spis: deleted }],
    };
    (payloads, Then::Nothing)
}

/// Gives our SPI of the pair, to be named in the answer.
fn handle_delete(established: &mut Established, outbound: Spi, context: &mut Context<'_>) -> Option<Spi> {
    let child = established.children.iter().find(|child| child.outbound == outbound)?;
    let (inbound, replaced) = (child.inbound, child.replaces);
    let reason = child.stage.end_reason();
    // RFC 7296 1.4.1: when both delete it at once, neither names it in its answer.
    let ours_is_sent = established.current.outstanding.as_ref().is_some_and(
        |outstanding| matches!(outstanding.purpose, Purpose::DeleteChild { inbound: sent } if sent == inbound),
    );
    established.delete_child(inbound, reason, context);
    if let Some(replaced) = replaced {
        take_back(established, replaced, context);
    }
    (!ours_is_sent).then_some(inbound)
}

/// The peer has deleted a successor that it had asked for, and not the one that it replaced: it
/// could not use our answer, and means to go on with what there was.
fn take_back(established: &mut Established, replaced: Spi, context: &mut Context<'_>) {
    let has_successor =
        established.children.iter().any(|child| child.replaces == Some(replaced) && !child.is_closing());
    let old = established.child_mut(replaced).filter(|old| old.stage == Stage::ReplacedByPeer && !has_successor);
    if let Some(old) = old {
        old.stage = Stage::Live;
        if old.lifetime.rekey_at.is_none() {
            old.lifetime.retry(context.chance, context.now);
        }
    }
}

/// Asks the peer to delete a Child SA.
pub fn delete_child(established: &mut Established, inbound: Spi, context: &mut Context<'_>) {
    let Some(child) = established.child_mut(inbound) else { return };
    child.stage = Stage::Closing { reason: child.stage.end_reason() };
    let payloads = [Payload::Delete { protocol: protocol_id::ESP, spis: vec![inbound.0] }];
    established.send_request(Exchange::Informational, &payloads, Purpose::DeleteChild { inbound }, context);
}
