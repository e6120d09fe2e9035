use std::time::Duration;

use super::context::Context;
use super::ike_sa::RequestId;
use super::key_schedule::IkeKeySet;
use super::lifetime::Lifetime;
use super::parts::Parts;
use super::proposal::{self, ChildSuite, KeyExchangeRule};
use super::selectors;
use super::wire::{Notify, NotifyType, Payload, Proposal};
use super::{ChildSa, CloseReason, Event, Peer};
use crate::model::{Moment, Secret, Selectors, Spi, TrafficSelector};

/// How long a Child SA that we have rekeyed stays, for packets on their way and until the data
/// plane has moved.
pub const REPLACED_LINGER: Duration = Duration::from_secs(1);

/// A Child SA as IKE keeps it; its keys belong to the data plane.
pub struct Child {
    pub inbound: Spi,
    pub outbound: Spi,
    pub selectors: Selectors,
    pub stage: Stage,
    pub lifetime: Lifetime,
    /// The one that it took over from.
    pub replaces: Option<Spi>,
    /// The peer's request that it is our answer to, and when that was. Until another one comes,
    /// the answer may be lost, and the peer does not know this Child SA.
    pub answer_to: Option<(RequestId, Moment)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Live,
    /// Rekeyed by us: we delete it at this time.
    Replaced {
        delete_at: Moment,
    },
    /// Rekeyed by the peer, who deletes it.
    ReplacedByPeer,
    /// Our DELETE is waiting or sent.
    Closing {
        reason: &'static str,
    },
}

impl Stage {
    /// For `Event::ChildDeleted`.
    pub fn end_reason(self) -> &'static str {
        match self {
            Stage::Live => "deleted by the peer",
            Stage::Replaced { .. } | Stage::ReplacedByPeer => "rekeyed",
            Stage::Closing { reason } => reason,
        }
    }
}

/// Our proposal for a Child SA. The holder gives back `inbound` when nothing comes of it.
pub struct ChildOffer {
    pub inbound: Spi,
    pub proposals: Vec<Proposal>,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

/// What both sides have agreed on, before the keys.
pub struct Agreed {
    pub suite: ChildSuite,
    pub inbound: Spi,
    pub outbound: Spi,
    pub selectors: Selectors,
}

/// Why no Child SA came of an offer.
#[derive(Debug)]
pub enum Refusal {
    ByPeer(Notify),
    /// The peer chose what we did not offer, or left out what an answer needs.
    BadAnswer(&'static str),
}

impl ChildOffer {
    /// `None` when every place for an inbound SA is taken, or no algorithm is supported.
    pub fn new(
        peer: &Peer,
        selectors: Option<&Selectors>,
        with_groups: bool,
        context: &mut Context<'_>,
    ) -> Option<ChildOffer> {
        let inbound = context.allocate_spi()?;
        let proposals = proposal::offer_child(&peer.phase2, inbound.0, with_groups);
        if proposals.is_empty() {
            context.release_spi(inbound);
            return None;
        }
        let (local, remote) = match selectors {
            Some(selectors) => (selectors.local.to_vec(), selectors.remote.to_vec()),
            None => (peer.local_selectors.clone(), peer.remote_selectors.clone()),
        };
        Some(ChildOffer { inbound, proposals, local: bounded(local), remote: bounded(remote) })
    }

    /// SA, TSi and TSr; whatever stands between them in an exchange goes before or after.
    pub fn payloads(&self) -> [Payload; 3] {
        [
            Payload::Sa(self.proposals.clone()),
            Payload::SelectorsInitiator(self.local.clone()),
            Payload::SelectorsResponder(self.remote.clone()),
        ]
    }

    pub fn accept(&self, peer: &Peer, parts: &Parts) -> Result<Agreed, Refusal> {
        let (Some(answer), Some(local), Some(remote)) =
            (&parts.sa, &parts.selectors_initiator, &parts.selectors_responder)
        else {
            return Err(match parts.error() {
                Some(notify) => Refusal::ByPeer(notify.clone()),
                None => Refusal::BadAnswer("an answer without SA or traffic selectors"),
            });
        };
        let Some((suite, outbound)) = proposal::accept_child(&peer.phase2, &self.proposals, answer) else {
            return Err(Refusal::BadAnswer("it chose an ESP proposal that was not offered"));
        };
        if !selectors::is_narrowing(local, &self.local) || !selectors::is_narrowing(remote, &self.remote) {
            return Err(Refusal::BadAnswer("its traffic selectors are not within the proposed ones"));
        }
        let selectors = Selectors { local: local.as_slice().into(), remote: remote.as_slice().into() };
        Ok(Agreed { suite, inbound: self.inbound, outbound: Spi(outbound), selectors })
    }

    /// The end of an IKE SA whose first Child SA was refused.
    pub fn close_reason(&self, refusal: Refusal) -> CloseReason {
        match refusal {
            Refusal::ByPeer(notify) if notify.kind == NotifyType::NO_PROPOSAL_CHOSEN => {
                CloseReason::NoProposalChosen { by_peer: true, offered: proposal::describe(&self.proposals) }
            }
            Refusal::ByPeer(notify) if notify.kind == NotifyType::TS_UNACCEPTABLE => {
                let offered = selectors::describe(&self.local, &self.remote);
                CloseReason::SelectorsUnacceptable { by_peer: true, offered }
            }
            Refusal::ByPeer(notify) => CloseReason::RefusedByPeer { notify: notify.kind.to_string() },
            Refusal::BadAnswer(detail) => CloseReason::ProtocolError { detail: detail.to_string() },
        }
    }
}

/// As responder: chooses a proposal and narrows the selectors. Gives the SA payload, TSi and TSr
/// of the answer, or the error notification to send.
pub fn choose(
    peer: &Peer,
    parts: &Parts,
    rule: KeyExchangeRule,
    context: &mut Context<'_>,
) -> Result<(Agreed, [Payload; 3]), NotifyType> {
    let (Some(proposals), Some(theirs), Some(ours)) =
        (&parts.sa, &parts.selectors_initiator, &parts.selectors_responder)
    else {
        return Err(NotifyType::INVALID_SYNTAX);
    };
    let inbound = context.allocate_spi().ok_or(NotifyType::NO_ADDITIONAL_SAS)?;
    let chosen = proposal::choose_child(&peer.phase2, proposals, rule, inbound.0);
    let remote = selectors::narrow(theirs, &peer.remote_selectors);
    let local = selectors::narrow(ours, &peer.local_selectors);
    let Some((suite, outbound, answer)) = chosen else {
        context.release_spi(inbound);
        return Err(NotifyType::NO_PROPOSAL_CHOSEN);
    };
    if remote.is_empty() || local.is_empty() {
        context.release_spi(inbound);
        return Err(NotifyType::TS_UNACCEPTABLE);
    }
    let payloads = [
        Payload::Sa(vec![answer]),
        Payload::SelectorsInitiator(remote.clone()),
        Payload::SelectorsResponder(local.clone()),
    ];
    let selectors = Selectors { local: local.into(), remote: remote.into() };
    Ok((Agreed { suite, inbound, outbound: Spi(outbound), selectors }, payloads))
}

/// What the keys of a Child SA are made of (RFC 7296 2.17).
pub struct Material<'a> {
    pub keys: &'a IkeKeySet,
    pub shared: Option<&'a Secret>,
    pub initiator_nonce: &'a [u8],
    pub responder_nonce: &'a [u8],
    /// We sent the request of the exchange.
    pub initiated: bool,
}

impl Agreed {
    /// Derives the keys. `send_at_once` is `ChildSa::initiator`.
    pub fn establish(
        self,
        peer: &Peer,
        material: &Material<'_>,
        replaces: Option<Spi>,
        send_at_once: bool,
        context: &mut Context<'_>,
    ) -> (Child, Event) {
        let (from_initiator, from_responder) = material.keys.child(
            self.suite.encryption,
            material.shared,
            material.initiator_nonce,
            material.responder_nonce,
        );
        let (outbound_key, inbound_key) =
            if material.initiated { (from_initiator, from_responder) } else { (from_responder, from_initiator) };
        let lifetime = peer.phase2.lifetime;
        let event = Event::ChildEstablished(Box::new(ChildSa {
            inbound: self.inbound,
            outbound: self.outbound,
            encryption: self.suite.encryption,
            inbound_key,
            outbound_key,
            selectors: self.selectors.clone(),
            replaces,
            initiator: send_at_once,
            lifetime,
        }));
        let child = Child {
            inbound: self.inbound,
            outbound: self.outbound,
            selectors: self.selectors,
            stage: Stage::Live,
            lifetime: Lifetime::new(lifetime, material.initiated, context.chance, context.now),
            replaces,
            answer_to: None,
        };
        (child, event)
    }
}

impl Child {
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        match self.stage {
            Stage::Live => Some(self.lifetime.poll_timeout()),
            Stage::Replaced { delete_at } => Some(delete_at),
            Stage::ReplacedByPeer => Some(self.lifetime.expires_at),
            Stage::Closing { .. } => None,
        }
    }
}

/// 100 selectors in a proposal, of IPv6 twice 4 KiB: a message that any peer takes.
fn bounded(mut selectors: Vec<TrafficSelector>) -> Vec<TrafficSelector> {
    selectors.truncate(100);
    selectors
}
