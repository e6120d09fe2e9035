use std::fmt;
use std::net::Ipv4Addr;

use crate::forward::Duty;
use crate::model::{ConnectorId, PathId, Role, Verdict};

/// What an operator is told, once, when it happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SiteEvent {
    TunnelState {
        path: PathId,
        from: TunnelState,
        to: TunnelState,
        reason: String,
    },
    Verdict {
        path: PathId,
        from: Verdict,
        to: Verdict,
        reason: String,
    },
    RoleSwitched {
        connector: ConnectorId,
        from: Role,
        to: Role,
        reason: String,
    },
    /// A PoP name resolved to another address than before; live tunnels stay where they are.
    AddressChanged {
        path: PathId,
        name: String,
        from: Ipv4Addr,
        to: Ipv4Addr,
    },
    /// The last good answer is used instead.
    ResolutionFailed {
        path: PathId,
        name: String,
        reason: String,
        fallback: Option<Ipv4Addr>,
    },
    /// Both roles' names lead to one address: there is no redundancy, but nothing is torn down.
    RolesAlike {
        connector: ConnectorId,
        address: Ipv4Addr,
    },
    /// Path-MTU discovery has found out how large inner packets may be.
    PathMtu {
        path: PathId,
        from: u16,
        to: u16,
    },
    /// An operator has drained the tunnel, taken it down, or taken it up again.
    Duty {
        path: PathId,
        from: Duty,
        to: Duty,
    },
    Rekeyed {
        path: PathId,
        what: &'static str,
    },
}

/// What a tunnel is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TunnelState {
    /// Until the next attempt.
    Waiting,
    /// Only the peer may open it.
    Listening,
    Resolving,
    Connecting,
    Up,
    /// An operator has taken it down.
    Down,
}

impl fmt::Display for TunnelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TunnelState::Waiting => "waiting",
            TunnelState::Listening => "listening",
            TunnelState::Resolving => "resolving",
            TunnelState::Connecting => "connecting",
            TunnelState::Up => "up",
            TunnelState::Down => "down",
        })
    }
}
