//! Floor 5: the operating system: TUN, UDP, DNS, routes, clock, each with a twin in memory where
//! tests and the demo need one. The only place for `unsafe`.

mod bell;
mod dns;
mod memory_site;
mod routes;

pub use bell::Bell;
pub use dns::{Names, StaticNames};
pub use memory_site::{HostSide, MemorySite, memory_site};
pub use routes::{RouteNeeds, Routes};
