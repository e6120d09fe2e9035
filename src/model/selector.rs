use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::FlowKey;

/// One IKEv2 traffic selector (RFC 7296 3.13.1): a range of addresses of one family, a protocol
/// (0 is any) and a range of ports (0 to 65,535 is any). `first <= last` in both ranges.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrafficSelector {
    pub protocol: u8,
    pub ports: (u16, u16),
    pub first: IpAddr,
    pub last: IpAddr,
}

impl TrafficSelector {
    pub const ANY_IPV4: TrafficSelector = TrafficSelector {
        protocol: 0,
        ports: (0, u16::MAX),
        first: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        last: IpAddr::V4(Ipv4Addr::BROADCAST),
    };

    pub const ANY_IPV6: TrafficSelector = TrafficSelector {
        protocol: 0,
        ports: (0, u16::MAX),
        first: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        last: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    };

    pub fn of_network(network: IpNet) -> TrafficSelector {
        TrafficSelector { protocol: 0, ports: (0, u16::MAX), first: network.network(), last: network.broadcast() }
    }

    /// A selector from untrusted parts; `None` when a range is reversed or the families differ.
    pub fn new(protocol: u8, ports: (u16, u16), first: IpAddr, last: IpAddr) -> Option<TrafficSelector> {
        let same_family = first.is_ipv4() == last.is_ipv4();
        (same_family && first <= last && ports.0 <= ports.1).then_some(TrafficSelector { protocol, ports, first, last })
    }

    pub fn covers(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
            && self.first <= address
            && address <= self.last
            && (self.protocol == 0 || self.protocol == protocol)
            && self.ports.0 <= port
            && port <= self.ports.1
    }

    /// What both selectors cover, if anything: the narrowing of RFC 7296 2.9.
    pub fn intersection(&self, other: &TrafficSelector) -> Option<TrafficSelector> {
        if self.first.is_ipv4() != other.first.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, any) | (any, 0) => any,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        let ports = (self.ports.0.max(other.ports.0), self.ports.1.min(other.ports.1));
        TrafficSelector::new(protocol, ports, self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)?;
        } else {
            write!(f, "{}-{}", self.first, self.last)?;
        }
        if self.protocol != 0 {
            write!(f, " protocol {}", self.protocol)?;
        }
        if self.ports != (0, u16::MAX) {
            write!(f, " ports {}-{}", self.ports.0, self.ports.1)?;
        }
        Ok(())
    }
}

/// The negotiated selectors of a Child SA, from our side: what may leave (`local` to `remote`)
/// and what may arrive (`remote` to `local`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Selectors {
    pub local: Box<[TrafficSelector]>,
    pub remote: Box<[TrafficSelector]>,
}

impl Selectors {
    /// May a packet of this flow leave through the Child SA? (RFC 4301 5.1)
    pub fn cover_outbound(&self, flow: &FlowKey) -> bool {
        covers(&self.local, flow.source, flow.protocol, flow.source_port)
            && covers(&self.remote, flow.destination, flow.protocol, flow.destination_port)
    }

    /// May a packet with this key, read from the packet as it arrived, enter? (RFC 4301 5.2)
    pub fn cover_inbound(&self, arrived: &FlowKey) -> bool {
        self.cover_outbound(&arrived.reversed())
    }
}

fn covers(selectors: &[TrafficSelector], address: IpAddr, protocol: u8, port: u16) -> bool {
    selectors.iter().any(|selector| selector.covers(address, protocol, port))
}
