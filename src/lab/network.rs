use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::datagram;
use crate::model::Dscp;

/// The addresses of the demo's world: a branch LAN behind the edge and a network of services
/// behind both PoPs.
pub const LAN: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 60, 0, 0), 24));
pub const SERVICES: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 80, 0, 0), 24));

/// What the edges probe behind the PoPs.
pub const PROBE_TARGET: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);

pub const VOICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 80, 0, 10), 4000);
pub const LIGHT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 80, 0, 20), 7000);
pub const WEB: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 80, 0, 30), 443);
pub const UPLOAD: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 80, 0, 40), 5001);
pub const DOWNLOAD: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 80, 0, 41), 5002);
pub const SESSION: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 80, 0, 50), 5432);

pub const PHONES: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 11);
pub const WEB_HOST: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 30);
pub const BULK_HOST: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 40);
pub const SESSION_HOST: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 50);
pub const LIGHT_HOSTS: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 100);

/// EF (RFC 3246): voice.
pub const VOICE_DSCP: Dscp = dscp(46);
/// AF21 (RFC 4594 4.8: low-latency data): the many light flows.
pub const LIGHT_DSCP: Dscp = dscp(18);
/// CS1 (RFC 3662): what may wait.
pub const BULK_DSCP: Dscp = dscp(8);

/// Bytes per second of one long transfer: 1 Mbps.
pub const BULK_RATE: u64 = 125_000;

/// Marks a TCP packet by the service's port. The lab's TCP stack cannot.
pub fn mark(packet: &mut [u8], service_port: u16) {
    if service_port == UPLOAD.1 || service_port == DOWNLOAD.1 {
        datagram::mark(packet, BULK_DSCP);
    }
}

const fn dscp(value: u8) -> Dscp {
    match Dscp::new(value) {
        Some(dscp) => dscp,
        None => Dscp::DEFAULT,
    }
}
