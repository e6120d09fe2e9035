//! Floor 0: the words that every other floor shares. No behaviour beyond their own arithmetic.

mod chance;
mod dropped;
mod flow;
mod id;
mod leg;
mod loss;
mod moment;
mod secret;
mod selector;
mod unit;
mod verdict;
mod week;

pub use chance::Chance;
pub use dropped::{DropCounters, DropReason};
pub use flow::{Dscp, FlowKey, protocol};
pub use id::{ConnectorId, InterfaceId, LinkId, NameId, OutboundSlot, PathId, Role, RuleId, Spi, WorkerId};
pub use leg::{Leg, UnderlayId};
pub use loss::certain_loss;
pub use moment::Moment;
pub use secret::Secret;
pub use selector::{Selectors, TrafficSelector};
pub use unit::{Mbps, Permille};
pub use verdict::Verdict;
pub use week::WeekMinute;
