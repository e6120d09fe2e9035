//! Floor 7: embedded PoPs, WAN emulation and hosts behind `trefoil demo`.

mod address_block;
mod clock;
mod courier;
mod datagram;
mod driver;
mod echo;
mod host;
mod impairment;
mod lan;
mod ledger;
pub mod network;
mod relay;
mod services;
mod sessions;
mod traffic;
mod transfers;
mod wan;
mod web;

pub use address_block::AddressBlock;
pub use clock::Clock;
pub use impairment::{Impairment, LinkModel, NetworkLoss};
pub use lan::Lan;
pub use ledger::{Ledger, Tally};
pub use relay::Direction;
pub use services::Services;
pub use traffic::{LanTraffic, ServiceTraffic};
pub use wan::{Wan, WanCounters, WanLink};
