use std::sync::Arc;

use tracing::{debug, info};

use super::Phase1;
use super::context::Context;
use super::cookie::CookieJar;
use super::ike_sa::{IkeSa, Input, Spis};
use super::key_schedule::{Exchanged, IkeKeySet};
use super::lifetime::Lifetime;
use super::nat;
use super::parts::Parts;
use super::proposal;
use super::responder_auth::{HALF_OPEN_LIFETIME, HalfOpen};
use super::session::State;
use super::wire::{Exchange, Header, Notify, NotifyType, Payload, encode_clear};
use crate::crypto::KeyExchange;
use crate::model::Leg;

/// What a request of IKE_SA_INIT may find here.
pub struct Reception<'a> {
    /// The distinct profiles of all peers: who is calling is known only in IKE_AUTH.
    pub profiles: &'a [Arc<Phase1>],
    pub cookies: &'a mut CookieJar,
    /// Too many are half open: prove your address first.
    pub demand_cookie: bool,
}

/// Answers a request of IKE_SA_INIT (RFC 7296 1.2). Everything but a half-open IKE SA is
/// answered without remembering anything.
pub fn answer(input: &Input<'_>, reception: Reception<'_>, context: &mut Context<'_>) -> Option<State> {
    let header = &input.message.header;
    let leg = input.leg;
    // Not ours to be strict with: who sends garbage gets silence.
    let parts = Parts::of(input.message.payloads.clone()).ok()?;
    let (Some(proposals), Some((offered_group, public)), Some(nonce)) = (&parts.sa, &parts.key_exchange, &parts.nonce)
    else {
        return None;
    };
    let spi = header.initiator_spi;
    if reception.demand_cookie {
        let cookie = parts.notify(NotifyType::COOKIE).map(|notify| notify.data.as_slice()).unwrap_or_default();
        if !reception.cookies.verify(cookie, nonce, leg.remote, spi, context.chance, context.now) {
            let cookie = reception.cookies.make(nonce, leg.remote, spi, context.chance, context.now);
            refuse(header, leg, Notify::with_data(NotifyType::COOKIE, cookie), context);
            return None;
        }
    }
    let our_spi = context.new_ike_spi();
    let chosen: Vec<_> = reception
        .profiles
        .iter()
        .filter_map(|phase1| proposal::choose_ike(phase1, proposals, *offered_group, &[]))
        .collect();
    let matching = chosen.iter().find(|(suite, _)| suite.group.number() == *offered_group);
    let (suite, proposal) = match (matching, chosen.first()) {
        (Some((suite, proposal)), _) => (*suite, proposal.clone()),
        (None, Some((suite, _))) => {
            // RFC 7296 1.3: the initiator guessed another group than the one we choose.
            let wanted = suite.group.number().to_be_bytes().to_vec();
            refuse(header, leg, Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, wanted), context);
            return None;
        }
        (None, None) => {
            info!(remote = %leg.remote, offered = proposal::describe(proposals), "no IKE proposal chosen");
            refuse(header, leg, Notify::new(NotifyType::NO_PROPOSAL_CHOSEN), context);
            return None;
        }
    };
    let key_exchange = KeyExchange::generate(suite.group, context.chance).ok()?;
    let our_public = key_exchange.public().to_vec();
    let Ok(shared) = key_exchange.agree(public) else {
        refuse(header, leg, Notify::new(NotifyType::INVALID_SYNTAX), context);
        return None;
    };
    let our_nonce = context.new_nonce();
    let spis = Spis { initiator: spi, responder: our_spi, we_initiated: false };
    let exchanged =
        Exchanged { initiator_nonce: nonce, responder_nonce: &our_nonce, initiator_spi: spi, responder_spi: our_spi };
    let keys = IkeKeySet::initial(&suite, &shared, &exchanged);
    if let Some(findings) = nat::findings(&parts.notifies, spi, 0, &leg) {
        debug!(remote = %leg.remote, ?findings, "NAT detection");
    }
    let mut payloads = vec![
        Payload::Sa(vec![proposal]),
        Payload::KeyExchange { group: suite.group.number(), data: our_public },
        Payload::Nonce(our_nonce.clone()),
    ];
    payloads.extend(nat::payloads(spi, our_spi, &leg));
    let message = encode_clear(&answer_header(header, our_spi), &payloads);
    let lifetime = Lifetime::unlimited();
    let sa = IkeSa::new(spis, suite, keys, lifetime).ok()?.after_init();
    context.send(leg, message.clone());
    Some(State::HalfOpen(Box::new(HalfOpen {
        sa,
        remote: leg.remote,
        their_message: input.datagram.to_vec(),
        our_message: message,
        their_nonce: nonce.clone(),
        our_nonce,
        expires_at: context.now + HALF_OPEN_LIFETIME,
    })))
}

fn refuse(request: &Header, leg: Leg, notify: Notify, context: &mut Context<'_>) {
    let message = encode_clear(&answer_header(request, 0), &[Payload::Notify(notify)]);
    context.send(leg, message);
}

fn answer_header(request: &Header, our_spi: u64) -> Header {
    Header {
        initiator_spi: request.initiator_spi,
        responder_spi: our_spi,
        exchange: Exchange::IkeSaInit,
        from_initiator: false,
        response: true,
        message_id: 0,
    }
}
