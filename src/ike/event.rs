use std::fmt;
use std::time::Duration;

use super::Identity;
use crate::crypto::Encryption;
use crate::model::{Leg, Moment, Secret, Selectors, Spi};

/// One IKE SA and, over its rekeys, the IKE SAs that replace it. Never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SaId(pub u64);

/// What happened to an IKE SA, in order.
#[derive(Debug)]
pub enum Event {
    /// Both sides have authenticated. `leg` is where its messages and its ESP go from now on.
    /// `kin`: the peer is a Trefoil as well.
    Established { leg: Leg, remote_id: Identity, initiator: bool, kin: bool, suite: String },
    /// A Child SA has keys. The inbound side must be installed before the next `poll_transmit`,
    /// since the datagram that makes the peer use it may be waiting there.
    ChildEstablished(Box<ChildSa>),
    /// A Child SA is gone: by the peer's DELETE, ours, or with its IKE SA. A rekeyed one still
    /// opens packets that were on their way; see `ChildSa::replaces`.
    ChildDeleted { inbound: Spi, reason: String },
    /// The IKE SA has new keys; its `SaId` stays.
    Rekeyed { suite: String },
    /// A request was answered, over this leg: proof that it carries packets both ways. A round-trip
    /// time can be told only when it was sent once.
    Answered { leg: Leg, first_sent: Moment, last_sent: Moment, transmissions: u32 },
    /// A new request of the peer's came over this leg.
    Asked { leg: Leg },
    /// The leg changed because an authenticated message came from another address (NAT rebinding).
    Moved { leg: Leg },
    /// The end of this `SaId`; its Child SAs have been reported as deleted before.
    Closed { reason: CloseReason },
    /// Only when keys are exported, for decryption in a protocol analyser.
    Keys(Box<IkeKeys>),
}

/// What a liveness check has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Nothing: it ends, or the peer must first have an answer of ours.
    Nothing,
    /// A request that costs the peer nothing.
    Light,
    /// One that costs the peer a Diffie-Hellman exchange, which may take a while.
    Heavy,
}

#[derive(Debug)]
pub struct ChildSa {
    /// Our SPI, in packets to us; it names the Child SA.
    pub inbound: Spi,
    /// The peer's SPI, in packets to the peer.
    pub outbound: Spi,
    pub encryption: Encryption,
    /// Key and salt (RFC 4106 8.1) of each direction.
    pub inbound_key: Secret,
    pub outbound_key: Secret,
    pub selectors: Selectors,
    /// A rekey: the Child SA that this one takes over from, still there when this is reported.
    /// When both ends rekey at once, two take over from one; the redundant one has `initiator`
    /// false and is deleted soon, the other one stays.
    pub replaces: Option<Spi>,
    /// We asked for it, so we may send on it at once. Otherwise, in a rekey, sending moves over
    /// with the first packet that arrives on it, or when the old one is deleted (RFC 7296 2.8).
    pub initiator: bool,
    pub lifetime: Duration,
}

/// SK_ei, SK_er and the SPIs of one IKE SA.
#[derive(Debug)]
pub struct IkeKeys {
    pub initiator_spi: u64,
    pub responder_spi: u64,
    pub encryption: Encryption,
    pub encryption_initiator: Secret,
    pub encryption_responder: Secret,
}

/// Why an IKE SA ended, with whose doing it was. `Display` is the operator's plain reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// No answer to a request after all retransmissions.
    Unanswered { exchange: &'static str, transmissions: u32 },
    /// AUTHENTICATION_FAILED from the peer, or the peer's AUTH did not verify with our PSK.
    AuthenticationFailed { by_peer: bool },
    /// The peer's identity is not the configured one.
    IdentityMismatch { expected: Identity, found: Identity },
    /// The peer calls us by another identity than the configured one.
    LocalIdentityMismatch { expected: Identity, found: Identity },
    /// NO_PROPOSAL_CHOSEN, with what was offered.
    NoProposalChosen { by_peer: bool, offered: String },
    /// TS_UNACCEPTABLE, with what was offered.
    SelectorsUnacceptable { by_peer: bool, offered: String },
    /// Any other error notification of the peer, by its name or number.
    RefusedByPeer { notify: String },
    /// The peer broke the protocol.
    ProtocolError { detail: String },
    /// The peer sent DELETE for the IKE SA.
    DeletedByPeer,
    /// We closed it.
    ClosedLocally { reason: String },
    /// The peer set up a new IKE SA for the same tunnel (INITIAL_CONTACT, RFC 7296 2.4).
    Replaced,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Unanswered { exchange, transmissions } => {
                write!(
                    f,
                    "no answer to {exchange} after {transmissions} transmissions: is the peer reachable and running?"
                )
            }
            CloseReason::AuthenticationFailed { by_peer: true } => {
                write!(
                    f,
                    "the peer refused our authentication: check the pre-shared key and the identities on both ends"
                )
            }
            CloseReason::AuthenticationFailed { by_peer: false } => {
                write!(f, "pre-shared key mismatch: the peer's authentication does not verify with our key")
            }
            CloseReason::IdentityMismatch { expected, found } => {
                write!(f, "the peer calls itself {found}, but remote_id is {expected}")
            }
            CloseReason::LocalIdentityMismatch { expected, found } => {
                write!(f, "the peer calls us {found}, but local_id is {expected}")
            }
            CloseReason::NoProposalChosen { by_peer: true, offered } => {
                write!(f, "no proposal chosen: the peer accepts none of what we offer ({offered})")
            }
            CloseReason::NoProposalChosen { by_peer: false, offered } => {
                write!(f, "no proposal chosen: the peer offers only {offered}")
            }
            CloseReason::SelectorsUnacceptable { by_peer: true, offered } => {
                write!(f, "the peer accepts none of our traffic selectors ({offered})")
            }
            CloseReason::SelectorsUnacceptable { by_peer: false, offered } => {
                write!(f, "the peer's traffic selectors have nothing in common with ours ({offered})")
            }
            CloseReason::RefusedByPeer { notify } => write!(f, "the peer refused with {notify}"),
            CloseReason::ProtocolError { detail } => write!(f, "the peer broke the protocol: {detail}"),
            CloseReason::DeletedByPeer => write!(f, "the peer deleted the IKE SA"),
            CloseReason::ClosedLocally { reason } => write!(f, "closed here: {reason}"),
            CloseReason::Replaced => write!(f, "the peer set up the tunnel anew"),
        }
    }
}
