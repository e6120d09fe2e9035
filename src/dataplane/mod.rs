//! Floor 4: the packet road. `outbound` goes from site to WAN, `inbound` from WAN to site.

mod flow_table;
mod inbound;
mod limit;
mod outbound;
mod road;
mod road_io;
#[cfg(test)]
mod tests;
mod worker;

pub use flow_table::{FLOW_IDLE, FlowEntry, FlowTable, MAX_FLOWS};
pub use road::{BATCH, PACKET_CAPACITY};
pub use road_io::RoadIo;
pub use worker::{Turn, Worker};
