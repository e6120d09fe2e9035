use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Numbers of the IP protocols that are told apart here.
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ESP: u8 = 50;
    pub const ICMPV6: u8 = 58;
}

/// The 5-tuple of a flow as it leaves the site. Protocols without ports have 0 in both; an ICMP
/// echo request has its identifier in `source_port` and a reply in `destination_port`, so that
/// their keys are the reverse of each other. Later fragments of a datagram have both ports 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    pub segment: u8,
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

impl FlowKey {
    /// The same flow seen from the other end: a packet that arrives belongs to the flow whose
    /// outgoing key is the reverse of its own.
    pub const fn reversed(self) -> FlowKey {
        FlowKey {
            segment: self.segment,
            protocol: self.protocol,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} -> {}",
            match self.protocol {
                protocol::ICMP | protocol::ICMPV6 => "icmp",
                protocol::TCP => "tcp",
                protocol::UDP => "udp",
                _ => "ip",
            },
            SocketAddr::new(self.source, self.source_port),
            SocketAddr::new(self.destination, self.destination_port)
        )
    }
}

/// A differentiated-services code point, 0 to 63 (RFC 2474).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Dscp(u8);

impl Dscp {
    pub const DEFAULT: Dscp = Dscp(0);

    pub const fn new(value: u8) -> Option<Dscp> {
        if value < 64 { Some(Dscp(value)) } else { None }
    }

    /// The code point of an IPv4 TOS or IPv6 traffic-class byte.
    pub const fn of_traffic_class(byte: u8) -> Dscp {
        Dscp(byte >> 2)
    }

    pub const fn value(self) -> u8 {
        self.0
    }
}

/// By its name in policy files where it has one, else its number (RFC 2474, 2597, 3246, 5865, 8622).
impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.0 >> 3, self.0 & 0b111) {
            (0, ..) => f.write_str("default"),
            (1, ..) => f.write_str("le"),
            (44, ..) => f.write_str("va"),
            (46, ..) => f.write_str("ef"),
            (_, class, 0) => write!(f, "cs{class}"),
            (_, class @ 1..=4, drop @ (2 | 4 | 6)) => write!(f, "af{class}{}", drop / 2),
            (value, ..) => write!(f, "{value}"),
        }
    }
}

impl TryFrom<u8> for Dscp {
    type Error = &'static str;

    fn try_from(value: u8) -> Result<Dscp, &'static str> {
        Dscp::new(value).ok_or("a DSCP is 0 to 63")
    }
}

impl From<Dscp> for u8 {
    fn from(dscp: Dscp) -> u8 {
        dscp.value()
    }
}
