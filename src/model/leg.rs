use std::net::SocketAddr;

/// Index of an underlay in the plan: one interface and address, with its pair of UDP sockets.
/// Several WAN links may share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnderlayId(pub u16);

/// One way over the underlay: from which of our sockets to which remote address. The same value
/// describes a datagram that arrived (`remote` sent it to `local`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Leg {
    pub underlay: UnderlayId,
    /// On the NAT-traversal socket (port 4500 by default): ESP in UDP, and IKE behind a non-ESP
    /// marker (RFC 3948). Otherwise the plain IKE socket (port 500 by default).
    pub natt: bool,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}
