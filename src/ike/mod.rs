//! Floor 2: IKEv2 (RFC 7296) without I/O. `Endpoint` holds every IKE SA of a site; datagrams,
//! time and commands go in, datagrams and events come out.
//!
//! One IKE SA is a `session::State`, consumed and given back by each step: `initiator_init`,
//! `initiator_auth`, `responder_init`, `responder_auth`, `established`. An established one speaks
//! one exchange a file: `create_child`, `child_rekey`, `ike_rekey`, `informational`.

mod agenda;
mod auth;
mod child;
mod child_rekey;
mod collision;
mod context;
mod cookie;
mod create_child;
mod endpoint;
mod established;
mod event;
mod identity;
mod ike_rekey;
mod ike_sa;
mod informational;
mod initiator_auth;
mod initiator_init;
mod key_schedule;
mod lifetime;
mod nat;
mod outbox;
mod parts;
mod peer;
mod pending;
mod proposal;
mod protect;
mod rescue;
mod responder_auth;
mod responder_init;
mod selectors;
mod session;
mod spi_pool;
mod succession;
mod table;
mod task;
#[cfg(test)]
mod tests;
pub mod wire;

pub use endpoint::{Endpoint, EndpointOptions, Legs};
pub use event::{Asked, ChildSa, CloseReason, Event, IkeKeys, SaId};
pub use identity::Identity;
pub use peer::{Peer, Phase1, Phase2, Retransmission};
