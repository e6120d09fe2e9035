//! Floor 2: IKEv2 (RFC 7296) without I/O. `Endpoint` holds every IKE SA of a site; datagrams,
//! time and commands go in, datagrams and events come out.

mod event;
mod identity;
mod peer;
pub mod wire;

pub use event::{ChildSa, CloseReason, Event, IkeKeys, SaId};
pub use identity::Identity;
pub use peer::{Peer, Phase1, Phase2, Retransmission};
