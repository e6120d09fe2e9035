//! Floor 7: what `trefoil demo` plays in: PoPs of our own engine, emulated WAN links on real
//! loopback sockets, hosts with real traffic, a script, and what an operator sees of it.

pub mod address_block;
pub mod clock;
pub mod courier;
pub mod datagram;
pub mod driver;
pub mod echo;
pub mod host;
pub mod impairment;
pub mod lan;
pub mod ledger;
pub mod network;
pub mod plans;
pub mod relay;
pub mod report;
#[cfg(test)]
mod samples;
pub mod scenery;
pub mod screen;
pub mod services;
pub mod sessions;
pub mod summary;
pub mod table;
pub mod timeline;
pub mod traffic;
pub mod transfers;
pub mod wan;
pub mod watch;
pub mod web;

pub use summary::Summary;
pub use timeline::SHORTEST;
