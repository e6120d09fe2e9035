//! What is fuzzed: every decoder of bytes from outside, with what must hold for any input.
//! `cargo fuzz run TARGET` explores; `tests/corpus.rs` of the crate replays the corpus.

mod dns;
mod esp;
mod ike;
mod in_band;
mod packet;
mod recording;
mod segment;

pub use dns::dns;
pub use esp::esp;
pub use ike::{endpoint as ike_endpoint, message as ike_message};
pub use in_band::in_band;
pub use packet::packet;
pub use recording::recording;
pub use segment::segment;
