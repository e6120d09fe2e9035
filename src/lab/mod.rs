//! Floor 7: embedded PoPs, WAN emulation and hosts behind `trefoil demo`.

mod address_block;
mod clock;
mod courier;
mod impairment;
mod relay;
mod wan;

pub use address_block::AddressBlock;
pub use clock::Clock;
pub use impairment::{Impairment, LinkModel, NetworkLoss};
pub use relay::Direction;
pub use wan::{Wan, WanCounters, WanLink};
