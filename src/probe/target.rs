use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::protocol;

/// Who is asked inside a tunnel, from the tunnel's own private address, and what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub address: IpAddr,
    pub ask: Ask,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// An ICMP echo request.
    Icmp,
    /// A datagram with data made up for it, which comes back (RFC 862).
    Udp { port: u16 },
    /// A SYN; a SYN-ACK is the answer, and is answered with a reset.
    Tcp { port: u16 },
    /// A request; the answer is a status line, with this code if one is given. Where it is `secure`, a TLS
    /// handshake comes before it, with whoever answers: no certificate is looked at.
    Http { port: u16, host: String, path: String, status: Option<u16>, secure: bool },
    /// A ClientHello with this server name; the answer is a ServerHello or an alert. What the server is
    /// is not looked at, and it is not asked for anything.
    Tls { port: u16, name: Option<String> },
    /// A query; the answer is any to it, with this response code (RFC 1035 4.1.1) if one is given.
    Dns { port: u16, name: String, record: Record, rcode: Option<u8> },
}

/// Types of DNS records that are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    A,
    Aaaa,
    Ns,
    Soa,
    Txt,
}

impl Record {
    pub const ALL: [Record; 5] = [Record::A, Record::Aaaa, Record::Ns, Record::Soa, Record::Txt];

    pub const fn name(self) -> &'static str {
        match self {
            Record::A => "a",
            Record::Aaaa => "aaaa",
            Record::Ns => "ns",
            Record::Soa => "soa",
            Record::Txt => "txt",
        }
    }

    /// RFC 1035 3.2.2, RFC 3596 2.1.
    pub(super) const fn number(self) -> u16 {
        match self {
            Record::A => 1,
            Record::Aaaa => 28,
            Record::Ns => 2,
            Record::Soa => 6,
            Record::Txt => 16,
        }
    }
}

impl Target {
    pub const fn icmp(address: IpAddr) -> Target {
        Target { address, ask: Ask::Icmp }
    }

    /// The port that is asked; 0 where the protocol has none.
    pub const fn port(&self) -> u16 {
        match self.ask {
            Ask::Icmp => 0,
            Ask::Udp { port }
            | Ask::Tcp { port }
            | Ask::Http { port, .. }
            | Ask::Tls { port, .. }
            | Ask::Dns { port, .. } => port,
        }
    }

    /// The protocol number of its packets.
    pub const fn protocol(&self) -> u8 {
        match self.ask {
            Ask::Icmp if self.address.is_ipv4() => protocol::ICMP,
            Ask::Icmp => protocol::ICMPV6,
            Ask::Udp { .. } | Ask::Dns { .. } => protocol::UDP,
            Ask::Tcp { .. } | Ask::Http { .. } | Ask::Tls { .. } => protocol::TCP,
        }
    }

    /// One packet there and one back, at no cost to the target: fit to be sent every 30 ms for a moment.
    pub const fn is_light(&self) -> bool {
        match self.ask {
            Ask::Icmp | Ask::Udp { .. } | Ask::Dns { .. } => true,
            Ask::Tcp { .. } | Ask::Http { .. } | Ask::Tls { .. } => false,
        }
    }

    pub const fn kind(&self) -> &'static str {
        match self.ask {
            Ask::Icmp => "icmp",
            Ask::Udp { .. } => "udp",
            Ask::Tcp { .. } => "tcp",
            Ask::Http { secure: false, .. } => "http",
            Ask::Http { secure: true, .. } => "https",
            Ask::Tls { .. } => "tls",
            Ask::Dns { .. } => "dns",
        }
    }

    pub(super) const fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port())
    }
}

/// An ICMP target is its address alone.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, socket) = (self.kind(), self.socket());
        match &self.ask {
            Ask::Icmp => write!(f, "{}", self.address),
            Ask::Udp { .. } | Ask::Tcp { .. } | Ask::Tls { .. } => write!(f, "{kind} {socket}"),
            Ask::Http { path, .. } => write!(f, "{kind} {socket}{path}"),
            Ask::Dns { name, .. } => write!(f, "{kind} {socket} {name}"),
        }
    }
}
