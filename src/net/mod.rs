//! Floor 5: the operating system: TUN, UDP, DNS, routes, clock, each with a twin in memory where
//! tests and the demo need one. The only place for `unsafe`.

mod bell;
mod breakout;
mod clock;
mod dns;
mod doorbell;
mod host_facts;
mod host_watch;
mod interface;
mod lan_watch;
mod link_watch;
mod memory;
mod memory_site;
mod mmsg;
#[cfg(test)]
mod namespace;
mod nft_watch;
mod road;
mod routes;
mod thread;
mod tun;
mod udp;
mod unreachable_watch;

pub use bell::Bell;
pub use breakout::Breakouts;
pub use clock::Clock;
pub use dns::{Asker, Names, StaticNames};
pub use host_facts::HostFacts;
pub use host_watch::HostWatch;
pub use interface::Interface;
pub use lan_watch::{LanRoutes, LanWatch};
pub use link_watch::{LinkChange, LinkWatch};
pub use memory::map_large_buffers;
pub use memory_site::{HostSide, MemorySite, memory_site};
pub use mmsg::MultiMessage;
pub use road::{Lookout, Road, RoadHandle, SiteDevice, roads};
pub use routes::{BreakoutNeed, BreakoutRoutes, Claim, RouteNeeds, RouteWatch, Routes};
pub use thread::{pin, processor_time};
pub use tun::Tun;
pub use udp::{RunLimits, UnderlaySockets, Underlays};
pub use unreachable_watch::{Unreachable, UnreachableWatch};
