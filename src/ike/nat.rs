use std::net::{IpAddr, SocketAddr};

use sha1::{Digest, Sha1};

use super::wire::{Notify, NotifyType, Payload};
use crate::model::Leg;

/// What NAT detection says (RFC 7296 2.23). Logged only: we encapsulate in UDP in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatFindings {
    /// The peer sees another destination than our address.
    pub local_behind_nat: bool,
    /// The peer's source is not the address that we see, or it pretends so as we do.
    pub remote_behind_nat: bool,
}

/// Our NAT_DETECTION payloads. The source hash never matches, so that every peer believes us
/// behind a NAT and encapsulates ESP in UDP.
pub fn payloads(initiator_spi: u64, responder_spi: u64, leg: &Leg) -> [Payload; 2] {
    let nowhere = SocketAddr::new(leg.local.ip(), 0);
    let source = hash(initiator_spi, responder_spi, nowhere);
    let destination = hash(initiator_spi, responder_spi, leg.remote);
    [
        Payload::Notify(Notify::with_data(NotifyType::NAT_DETECTION_SOURCE_IP, source)),
        Payload::Notify(Notify::with_data(NotifyType::NAT_DETECTION_DESTINATION_IP, destination)),
    ]
}

/// `None` when the peer takes no part in NAT traversal. It may send several source hashes.
pub fn findings(notifies: &[Notify], initiator_spi: u64, responder_spi: u64, leg: &Leg) -> Option<NatFindings> {
    let with_kind = |kind| notifies.iter().filter(move |notify| notify.kind == kind);
    let destination = with_kind(NotifyType::NAT_DETECTION_DESTINATION_IP).next()?;
    let source = hash(initiator_spi, responder_spi, leg.remote);
    Some(NatFindings {
        local_behind_nat: destination.data != hash(initiator_spi, responder_spi, leg.local),
        remote_behind_nat: with_kind(NotifyType::NAT_DETECTION_SOURCE_IP).all(|notify| notify.data != source),
    })
}

/// SHA-1 over SPIs, address and port.
fn hash(initiator_spi: u64, responder_spi: u64, address: SocketAddr) -> Vec<u8> {
    let mut sha1 = Sha1::new();
    sha1.update(initiator_spi.to_be_bytes());
    sha1.update(responder_spi.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => sha1.update(ip.octets()),
        IpAddr::V6(ip) => sha1.update(ip.octets()),
    }
    sha1.update(address.port().to_be_bytes());
    sha1.finalize().to_vec()
}
