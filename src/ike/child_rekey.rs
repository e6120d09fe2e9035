use std::time::Duration;

use tracing::{info, warn};

use super::child::{Agreed, Child, ChildOffer, Material, REPLACED_LINGER, Refusal, Stage};
use super::collision::{self, ChildRival};
use super::context::Context;
use super::create_child;
use super::established::Established;
use super::parts::Parts;
use super::proposal;
use super::task::{Purpose, Task};
use super::wire::{Exchange, Notify, NotifyType, Payload, WireError, protocol_id};
use crate::crypto::{DhGroup, KeyExchange};
use crate::model::{Secret, Selectors, Spi};

/// A peer that has not asked again for so long has our answer: some peers never ask for anything.
const ANSWER_DOUBT: Duration = Duration::from_secs(30);

/// Our request for a Child SA, on its way: the rekey of one (RFC 7296 1.3.3), or a new one.
pub struct ChildRequest {
    offer: ChildOffer,
    replaces: Option<Spi>,
    selectors: Selectors,
    nonce: Vec<u8>,
    key_exchange: Option<KeyExchange>,
    /// The group is the one that the peer has asked for.
    group_by_peer: bool,
    rival: Option<ChildRival>,
}

/// Asks for the rekey of a live Child SA. Anything else has been replaced or is going away.
pub fn start(established: &mut Established, inbound: Spi, group: Option<DhGroup>, context: &mut Context<'_>) {
    let newest = established.current.newest_request();
    let Some(child) = established.child_mut(inbound).filter(|child| child.stage == Stage::Live) else { return };
    let in_doubt = |at| context.now < at + ANSWER_DOUBT;
    if child.answer_to.is_some_and(|(request, at)| request == newest && in_doubt(at)) {
        return retry_later(established, inbound, context);
    }
    child.lifetime.rekey_at = None;
    let selectors = child.selectors.clone();
    if !request(established, Some(inbound), selectors, group, context) {
        retry_later(established, inbound, context);
    }
}

/// Asks for a Child SA in place of one that the peer does not know any more.
pub fn start_new(
    established: &mut Established,
    selectors: Selectors,
    group: Option<DhGroup>,
    context: &mut Context<'_>,
) {
    request(established, None, selectors, group, context);
}

fn request(
    established: &mut Established,
    replaces: Option<Spi>,
    selectors: Selectors,
    group: Option<DhGroup>,
    context: &mut Context<'_>,
) -> bool {
    let groups = &established.peer.phase2.groups;
    let group_by_peer = group.is_some();
    let group = group.or_else(|| proposal::first_group(groups));
    let key_exchange = match group.map(|group| KeyExchange::generate(group, context.chance)).transpose() {
        Ok(key_exchange) => key_exchange,
        Err(error) => {
            warn!(tunnel = %established.peer.name, %error, "no rekey");
            return false;
        }
    };
    let peer = established.peer.clone();
    let Some(offer) = ChildOffer::new(&peer, Some(&selectors), group.is_some(), context) else {
        warn!(tunnel = %peer.name, "no rekey: no place for another Child SA");
        return false;
    };
    let nonce = context.new_nonce();
    let mut payloads = Vec::new();
    payloads.extend(replaces.map(|inbound| {
        let spi = inbound.0.to_be_bytes().to_vec();
        Payload::Notify(Notify { protocol: protocol_id::ESP, spi, ..Notify::new(NotifyType::REKEY_SA) })
    }));
    let [sa, selectors_initiator, selectors_responder] = offer.payloads();
    payloads.extend([sa, Payload::Nonce(nonce.clone())]);
    payloads.extend(key_exchange.as_ref().map(|key_exchange| Payload::KeyExchange {
        group: key_exchange.group().number(),
        data: key_exchange.public().to_vec(),
    }));
    payloads.extend([selectors_initiator, selectors_responder]);
    let request = ChildRequest { offer, replaces, selectors, nonce, key_exchange, group_by_peer, rival: None };
    let purpose = Purpose::Child(Box::new(request));
    established.send_request(Exchange::CreateChildSa, &payloads, purpose, context);
    true
}

/// The peer's answer to our request.
pub fn handle_answer(
    established: &mut Established,
    request: ChildRequest,
    parts: Result<Parts, WireError>,
    context: &mut Context<'_>,
) {
    let outcome = match &parts {
        Ok(parts) => request
            .offer
            .accept(&established.peer, parts)
            .and_then(|agreed| Ok((agreed, parts.nonce.as_deref().ok_or(Refusal::BadAnswer("no nonce"))?, parts))),
        Err(_) => Err(Refusal::BadAnswer("it cannot be read")),
    };
    let ChildRequest { offer, replaces, selectors, nonce, key_exchange, group_by_peer, rival } = request;
    let outcome = outcome.and_then(|(agreed, their_nonce, parts)| {
        let shared = agree(&agreed, key_exchange, parts)?;
        Ok((agreed, their_nonce, shared))
    });
    match outcome {
        Ok((agreed, their_nonce, shared)) => {
            let successor = Successor { agreed, replaces, nonce, their_nonce, shared, rival };
            successor.install(established, context);
        }
        Err(refusal) => {
            context.release_spi(offer.inbound);
            if rival.is_some() {
                // The peer's own rekey went through; nothing is left to do.
                return info!(tunnel = %established.peer.name, ?refusal, "the peer's rekey of the Child SA stands");
            }
            handle_refusal(established, refusal, replaces, selectors, group_by_peer, context);
        }
    }
}

impl ChildRequest {
    /// Nothing comes of it.
    pub fn release(self, context: &mut Context<'_>) {
        context.release_spi(self.offer.inbound);
    }
}

fn agree(agreed: &Agreed, key_exchange: Option<KeyExchange>, parts: &Parts) -> Result<Option<Secret>, Refusal> {
    match (agreed.suite.group, key_exchange, &parts.key_exchange) {
        (None, None, _) => Ok(None),
        (Some(group), Some(ours), Some((number, public))) if group == ours.group() && group.number() == *number => {
            ours.agree(public).map(Some).map_err(|_| Refusal::BadAnswer("its public value is not in the group"))
        }
        _ => Err(Refusal::BadAnswer("its key exchange is not the one that was asked for")),
    }
}

/// The Child SA that our exchange has made.
struct Successor<'a> {
    agreed: Agreed,
    replaces: Option<Spi>,
    nonce: Vec<u8>,
    their_nonce: &'a [u8],
    shared: Option<Secret>,
    rival: Option<ChildRival>,
}

impl Successor<'_> {
    fn install(self, established: &mut Established, context: &mut Context<'_>) {
        let peer = established.peer.clone();
        let redundant = self.rival.as_ref().is_some_and(|rival| {
            collision::ours_is_redundant(collision::lowest(&self.nonce, self.their_nonce), &rival.lowest_nonce)
        });
        let old = self.replaces.filter(|old| established.knows_child(*old));
        let material = Material {
            keys: &established.current.keys,
            shared: self.shared.as_ref(),
            initiator_nonce: &self.nonce,
            responder_nonce: self.their_nonce,
            initiated: true,
        };
        let rival = self.rival.map(|rival| rival.inbound);
        // The peer may have gone on meanwhile: then its latest one is what ours stands beside.
        let latest =
            || established.children.iter().rfind(|child| child.stage == Stage::Live).map(|child| child.inbound);
        let beside = rival.map(|rival| established.knows_child(rival).then_some(rival).or_else(latest));
        let replaces = old.or(beside.flatten());
        let inbound = self.agreed.inbound;
        // Neither end sends on a redundant one; it is there for packets of a peer that does.
        let (mut child, event) = self.agreed.establish(&peer, &material, replaces, !redundant, context);
        if redundant {
            child.stage = Stage::Closing { reason: "redundant: both ends have rekeyed at once" };
        }
        established.add_child(child, event, context);
        if redundant {
            info!(tunnel = %peer.name, spi = %inbound, "both ends have rekeyed at once: the peer's Child SA stays");
            established.queue(Task::DeleteChild { inbound });
            return;
        }
        // RFC 7296 2.8: the initiator of the rekey deletes the old one.
        if let Some(old) = old.and_then(|old| established.child_mut(old)) {
            old.stage = Stage::Replaced { delete_at: context.now + REPLACED_LINGER };
        }
        // RFC 7296 2.8.1: the peer deletes its own redundant one.
        if let Some(rival) = rival.and_then(|rival| established.child_mut(rival)) {
            rival.stage = Stage::ReplacedByPeer;
        }
    }
}

fn handle_refusal(
    established: &mut Established,
    refusal: Refusal,
    replaces: Option<Spi>,
    selectors: Selectors,
    group_by_peer: bool,
    context: &mut Context<'_>,
) {
    info!(tunnel = %established.peer.name, ?refusal, "the peer has refused a Child SA");
    match (&refusal, replaces) {
        // Asked for another group once more, we would go on so without end.
        (Refusal::ByPeer(notify), _) if notify.kind == NotifyType::INVALID_KE_PAYLOAD && !group_by_peer => {
            let wanted = <[u8; 2]>::try_from(notify.data.as_slice()).ok().map(u16::from_be_bytes);
            let group = wanted.and_then(|number| proposal::our_group(&established.peer.phase2.groups, number));
            match (group, replaces) {
                (Some(_), Some(inbound)) => established.queue(Task::RekeyChild { inbound, group }),
                (Some(_), None) => established.queue(Task::CreateChild { selectors, group }),
                (None, Some(inbound)) => retry_later(established, inbound, context),
                (None, None) => {}
            }
        }
        // RFC 7296 2.25: the old one is silently deleted, a new one made from scratch.
        (Refusal::ByPeer(notify), Some(inbound)) if notify.kind == NotifyType::CHILD_SA_NOT_FOUND => {
            established.delete_child(inbound, "the peer does not know it any more", context);
            if !established.children.iter().any(|child| child.stage == Stage::Live) {
                established.queue(Task::CreateChild { selectors, group: None });
            }
        }
        (Refusal::ByPeer(_) | Refusal::BadAnswer(_), Some(inbound)) => retry_later(established, inbound, context),
        (Refusal::ByPeer(_) | Refusal::BadAnswer(_), None) => {}
    }
}

fn retry_later(established: &mut Established, inbound: Spi, context: &mut Context<'_>) {
    if let Some(child) = established.child_mut(inbound).filter(|child| child.stage == Stage::Live) {
        child.lifetime.retry(context.chance, context.now);
    }
}

/// Answers the peer's request to rekey a Child SA.
pub fn answer(
    established: &mut Established,
    parts: &Parts,
    rekey: &Notify,
    context: &mut Context<'_>,
) -> Result<Vec<Payload>, Notify> {
    let outbound = <[u8; 4]>::try_from(rekey.spi.as_slice()).ok().map(u32::from_be_bytes);
    let old = established.children.iter().find(|child| Some(child.outbound.0) == outbound);
    // RFC 7296 2.25.1
    let Some(Child { inbound, stage, .. }) = old else {
        return Err(Notify {
            protocol: rekey.protocol,
            spi: rekey.spi.clone(),
            ..Notify::new(NotifyType::CHILD_SA_NOT_FOUND)
        });
    };
    let (inbound, stage) = (*inbound, *stage);
    if stage != Stage::Live {
        return Err(Notify::new(NotifyType::TEMPORARY_FAILURE));
    }
    let created = create_child::create(established, parts, Some(inbound), context)?;
    if let Some(old) = established.child_mut(inbound) {
        old.stage = Stage::ReplacedByPeer;
    }
    if let Some(outstanding) = &mut established.current.outstanding
        && let Purpose::Child(ours) = &mut outstanding.purpose
        && ours.replaces == Some(inbound)
    {
        let their_nonce = parts.nonce.as_deref().unwrap_or_default();
        let lowest_nonce = collision::lowest(their_nonce, &created.our_nonce).to_vec();
        ours.rival = Some(ChildRival { inbound: created.inbound, lowest_nonce });
    }
    Ok(created.payloads)
}
