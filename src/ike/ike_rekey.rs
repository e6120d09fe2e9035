use std::time::Duration;

use tracing::{info, warn};

use super::collision::{self, Rival};
use super::context::Context;
use super::established::{Established, Then};
use super::ike_sa::{IkeSa, Spis};
use super::key_schedule::Exchanged;
use super::lifetime::Lifetime;
use super::parts::Parts;
use super::proposal;
use super::task::{Purpose, Task};
use super::wire::{Exchange, Notify, NotifyType, Payload, Proposal, WireError};
use crate::crypto::{DhGroup, KeyExchange};

/// After answering a rekey, our own requests wait this long for a sign that the peer has the
/// answer: before, it would not know the IKE SA that they are for.
const HOLD: Duration = Duration::from_secs(2);

/// Our request to rekey the IKE SA, on its way (RFC 7296 1.3.2).
pub struct IkeRekeyRequest {
    spi: u64,
    offered: Vec<Proposal>,
    nonce: Vec<u8>,
    key_exchange: KeyExchange,
    /// The group is the one that the peer has asked for.
    group_by_peer: bool,
}

pub fn start(established: &mut Established, group: Option<DhGroup>, context: &mut Context<'_>) {
    established.current.lifetime.rekey_at = None;
    let phase1 = established.peer.phase1.clone();
    let group_by_peer = group.is_some();
    let group = group.or_else(|| proposal::first_group(&phase1.groups));
    let key_exchange = group.and_then(|group| KeyExchange::generate(group, context.chance).ok());
    let Some(key_exchange) = key_exchange else { return };
    let spi = context.new_ike_spi();
    let offered = proposal::offer_ike(&phase1, &spi.to_be_bytes());
    let nonce = context.new_nonce();
    let payloads = [
        Payload::Sa(offered.clone()),
        Payload::Nonce(nonce.clone()),
        Payload::KeyExchange { group: key_exchange.group().number(), data: key_exchange.public().to_vec() },
    ];
    let request = IkeRekeyRequest { spi, offered, nonce, key_exchange, group_by_peer };
    let purpose = Purpose::RekeyIke(Box::new(request));
    established.send_request(Exchange::CreateChildSa, &payloads, purpose, context);
}

/// The peer's answer to our request.
pub fn handle_answer(
    established: &mut Established,
    request: IkeRekeyRequest,
    parts: Result<Parts, WireError>,
    context: &mut Context<'_>,
) {
    let our_nonce = request.nonce.clone();
    let group_by_peer = request.group_by_peer;
    let made = parts.map_err(|_| None).and_then(|parts| {
        let sa = request.conclude(established, &parts, context);
        sa.map_err(|()| parts.error().cloned()).map(|sa| (sa, parts.nonce.unwrap_or_default()))
    });
    match (made, established.candidate.take()) {
        (Ok((sa, _)), None) => {
            let old = established.replace_current(sa, context);
            established.retire_with_delete(old, context);
        }
        (Ok((sa, their_nonce)), Some(rival)) => {
            let ours = collision::lowest(&our_nonce, &their_nonce);
            let redundant = collision::ours_is_redundant(ours, &rival.lowest_nonce);
            info!(tunnel = %established.peer.name, redundant, "both ends have rekeyed the IKE SA at once");
            if redundant {
                established.retire_with_delete(sa, context);
                take_over(established, rival.sa, context);
            } else {
                let old = established.replace_current(sa, context);
                established.retire_with_delete(old, context);
                established.retire(rival.sa, context);
            }
        }
        (Err(_), Some(rival)) => take_over(established, rival.sa, context),
        (Err(error), None) => handle_refusal(established, error, group_by_peer, context),
    }
}

fn handle_refusal(
    established: &mut Established,
    error: Option<Notify>,
    group_by_peer: bool,
    context: &mut Context<'_>,
) {
    warn!(tunnel = %established.peer.name, ?error, "the IKE SA was not rekeyed");
    // Asked for another group once more, we would go on so without end.
    if let Some(notify) = error.filter(|notify| notify.kind == NotifyType::INVALID_KE_PAYLOAD && !group_by_peer) {
        let wanted = <[u8; 2]>::try_from(notify.data.as_slice()).ok().map(u16::from_be_bytes);
        let group = wanted.and_then(|number| proposal::our_group(&established.peer.phase1.groups, number));
        if group.is_some() {
            established.queue(Task::RekeyIke { group });
            return;
        }
    }
    established.current.lifetime.retry(context.chance, context.now);
}

impl IkeRekeyRequest {
    /// The IKE SA that the answer makes.
    fn conclude(self, established: &Established, parts: &Parts, context: &mut Context<'_>) -> Result<IkeSa, ()> {
        let (Some(answer), Some((group, public)), Some(their_nonce)) = (&parts.sa, &parts.key_exchange, &parts.nonce)
        else {
            return Err(());
        };
        let phase1 = &established.peer.phase1;
        let suite = proposal::accept_ike(phase1, &self.offered, answer).ok_or(())?;
        if suite.group != self.key_exchange.group() || suite.group.number() != *group {
            return Err(());
        }
        let number = answer.first().map(|proposal| proposal.number).ok_or(())?;
        let responder = proposal::ike_spi(answer, number).ok_or(())?;
        let shared = self.key_exchange.agree(public).map_err(|_| ())?;
        let exchanged = Exchanged {
            initiator_nonce: &self.nonce,
            responder_nonce: their_nonce,
            initiator_spi: self.spi,
            responder_spi: responder,
        };
        let keys = established.current.keys.rekeyed(&suite, &shared, &exchanged);
        let spis = Spis { initiator: self.spi, responder, we_initiated: true };
        let lifetime = Lifetime::new(phase1.lifetime, true, context.chance, context.now);
        IkeSa::new(spis, suite, keys, lifetime).map_err(|_| ())
    }
}

/// Answers the peer's request to rekey the IKE SA.
pub fn answer(established: &mut Established, parts: &Parts, context: &mut Context<'_>) -> (Vec<Payload>, Then) {
    match conclude_answer(established, parts, context) {
        Ok((payloads, then)) => (payloads, then),
        Err(notify) => (vec![Payload::Notify(notify)], Then::Nothing),
    }
}

fn conclude_answer(
    established: &Established,
    parts: &Parts,
    context: &mut Context<'_>,
) -> Result<(Vec<Payload>, Then), Notify> {
    let competing = match established.current.outstanding.as_ref().map(|outstanding| &outstanding.purpose) {
        // RFC 7296 2.25.1: not while a Child SA of it is being made, rekeyed or deleted.
        Some(Purpose::Child(_) | Purpose::DeleteChild { .. } | Purpose::DeleteIke | Purpose::Authentication) => {
            return Err(Notify::new(NotifyType::TEMPORARY_FAILURE));
        }
        Some(Purpose::RekeyIke(_)) if established.candidate.is_some() => {
            return Err(Notify::new(NotifyType::TEMPORARY_FAILURE));
        }
        Some(Purpose::RekeyIke(_)) => true,
        Some(Purpose::Liveness) | None => false,
    };
    let (Some(proposals), Some((offered_group, public)), Some(their_nonce)) =
        (&parts.sa, &parts.key_exchange, &parts.nonce)
    else {
        return Err(Notify::new(NotifyType::INVALID_SYNTAX));
    };
    let phase1 = &established.peer.phase1;
    let our_spi = context.new_ike_spi();
    let (suite, chosen) = proposal::choose_ike(phase1, proposals, *offered_group, &our_spi.to_be_bytes())
        .ok_or_else(|| Notify::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
    if suite.group.number() != *offered_group {
        let wanted = suite.group.number().to_be_bytes().to_vec();
        return Err(Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, wanted));
    }
    let invalid = || Notify::new(NotifyType::INVALID_SYNTAX);
    let their_spi = proposal::ike_spi(proposals, chosen.number).ok_or_else(invalid)?;
    let key_exchange = KeyExchange::generate(suite.group, context.chance).map_err(|_| invalid())?;
    let our_public = key_exchange.public().to_vec();
    let shared = key_exchange.agree(public).map_err(|_| invalid())?;
    let our_nonce = context.new_nonce();
    let exchanged = Exchanged {
        initiator_nonce: their_nonce,
        responder_nonce: &our_nonce,
        initiator_spi: their_spi,
        responder_spi: our_spi,
    };
    let keys = established.current.keys.rekeyed(&suite, &shared, &exchanged);
    let spis = Spis { initiator: their_spi, responder: our_spi, we_initiated: false };
    let lifetime = Lifetime::new(phase1.lifetime, false, context.chance, context.now);
    let sa = IkeSa::new(spis, suite, keys, lifetime).map_err(|_| invalid())?;
    let lowest_nonce = collision::lowest(their_nonce, &our_nonce).to_vec();
    let payloads = vec![
        Payload::Sa(vec![chosen]),
        Payload::Nonce(our_nonce),
        Payload::KeyExchange { group: suite.group.number(), data: our_public },
    ];
    let then = match competing {
        true => Then::Compete(Box::new(Rival { sa, lowest_nonce })),
        false => Then::TakeOver(Box::new(sa)),
    };
    Ok((payloads, then))
}

/// The IKE SA of the peer's rekey takes over; the peer deletes the old one.
pub fn take_over(established: &mut Established, sa: IkeSa, context: &mut Context<'_>) {
    let old = established.replace_current(sa, context);
    established.hold_until = Some(context.now + HOLD);
    established.retire(old, context);
}
