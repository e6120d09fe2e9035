use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Fact, SiteEvent};
use crate::crypto::Encryption;
use crate::forward::{Forwarding, ToWorker};
use crate::ike::IkeKeys;
use crate::model::{Moment, PathId, Secret, Spi, UnderlayId, WorkerId};

/// What control wants done to the world outside.
#[derive(Debug)]
pub enum Effect {
    /// Make this the published value and wake the workers.
    Publish(Arc<Forwarding>),
    Order(WorkerId, ToWorker),
    /// Look the name up, over this underlay, and answer with `Edge::handle_resolved`.
    Resolve {
        path: PathId,
        name: String,
        underlay: UnderlayId,
    },
    Event(SiteEvent),
    /// Only when a flight recorder follows.
    Record(Moment, Fact),
    /// Only when keys are exported.
    Keys(KeyRecord),
}

/// What a protocol analyser needs to decrypt.
#[derive(Debug)]
pub enum KeyRecord {
    Ike(Box<IkeKeys>),
    Esp { source: Ipv4Addr, destination: Ipv4Addr, spi: Spi, encryption: Encryption, key: Secret },
}

/// What is known of an underlay: a fact that the daemon reports at start and at each change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnderlayFact {
    pub address: Ipv4Addr,
    /// The ports that were really bound.
    pub ike_port: u16,
    pub natt_port: u16,
    /// MTU of the interface, in bytes.
    pub mtu: u16,
}

/// Why a name gave no address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResolveFailure {
    /// It does not exist, which for a new name may pass (seed: wait at least 3 minutes).
    NoSuchName,
    /// It has only IPv6 addresses.
    OnlyIpv6,
    /// No answer, or not a usable one.
    Unavailable(String),
}

impl ResolveFailure {
    pub fn reason(&self, name: &str) -> String {
        match self {
            ResolveFailure::NoSuchName => {
                format!("the name {name} does not exist (yet: a new one can take 3 minutes or more); trying again")
            }
            ResolveFailure::OnlyIpv6 => {
                format!("the name {name} has only IPv6 addresses, but tunnels run over IPv4: give it an A record")
            }
            ResolveFailure::Unavailable(detail) => format!("the name {name} cannot be looked up: {detail}"),
        }
    }
}
