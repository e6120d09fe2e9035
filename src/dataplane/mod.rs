//! Floor 4: the packet road. `outbound` goes from site to WAN, `inbound` from WAN to site.

mod census;
mod early;
mod flow;
mod flow_table;
mod forgetting;
mod hand_over;
mod inbound;
mod limit;
mod measure;
mod noting;
mod outbound;
mod pilot;
mod road;
mod road_io;
mod shaping;
mod sweep;
#[cfg(test)]
mod tests;
mod trains;
mod worker;

pub use flow::{FlowEntry, Leaving};
pub use flow_table::FlowTable;
pub use forgetting::FLOW_IDLE;
pub use hand_over::HandOver;
pub use noting::NotePad;
pub use pilot::{Course, Departure, NoWay, Pilot};
pub use road::{BATCH, PACKET_CAPACITY};
pub use road_io::{RoadIo, Unsent};
pub use worker::{Crew, Turn, Worker};
