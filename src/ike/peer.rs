use std::sync::Arc;
use std::time::Duration;

use super::Identity;
use crate::crypto::{DhGroup, Encryption, Integrity, PrfAlgorithm};
use crate::model::{Secret, TrafficSelector};

/// IKE SA parameters: what we offer and accept, in order of preference. Never empty, except
/// `integrity`, which is empty exactly when every encryption algorithm is an AEAD.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Phase1 {
    pub encryption: Vec<Encryption>,
    pub integrity: Vec<Integrity>,
    pub prf: Vec<PrfAlgorithm>,
    pub groups: Vec<DhGroup>,
    pub lifetime: Duration,
}

/// Child SA parameters. Without `groups` a rekey has no key exchange of its own (no PFS).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Phase2 {
    pub encryption: Vec<Encryption>,
    pub integrity: Vec<Integrity>,
    pub groups: Vec<DhGroup>,
    pub lifetime: Duration,
}

/// When an unanswered request is sent again and when its peer is given up: the n-th interval is
/// `first` times `factor_percent`/100 to the power n, at most `longest`; after `tries`
/// retransmissions without an answer the IKE SA is dead. (RFC 7296 2.4; seed: 10 s, 5 times)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retransmission {
    pub first: Duration,
    pub factor_percent: u16,
    pub longest: Duration,
    pub tries: u32,
}

/// One tunnel as IKE sees it. A responder finds it by both identities, and with it the PSK.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `connector/role/tunnel`, for errors and logs.
    pub name: String,
    pub local_id: Identity,
    pub remote_id: Identity,
    pub psk: Secret,
    pub phase1: Arc<Phase1>,
    pub phase2: Arc<Phase2>,
    /// What we propose, or narrow a proposal to.
    pub local_selectors: Vec<TrafficSelector>,
    pub remote_selectors: Vec<TrafficSelector>,
    pub retransmission: Retransmission,
}
