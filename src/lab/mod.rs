//! Floor 7: what `trefoil demo` plays in: PoPs of our own engine, emulated WAN links on real
//! loopback sockets, hosts with real traffic, a script, and what an operator sees of it. And `score`, where
//! scenarios are played in simulated time.

mod address_block;
mod clock;
mod courier;
mod datagram;
mod demo;
mod driver;
mod echo;
mod host;
mod impairment;
mod lan;
mod ledger;
mod network;
mod plans;
mod relay;
mod report;
#[cfg(test)]
mod samples;
mod scenery;
pub mod score;
mod screen;
mod services;
mod sessions;
mod simulated_node;
mod simulated_recorder;
mod summary;
mod table;
mod timeline;
mod traffic;
mod transfers;
mod wan;
mod watch;
mod web;
mod world;

pub use demo::{DemoSettings, run as demo};
pub use simulated_node::{InFlight, SimulatedNode};
pub use summary::Summary;
pub use timeline::{LONGEST_SECONDS, SHORTEST_SECONDS};
pub use world::WorldError;
