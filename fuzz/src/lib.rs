//! What is fuzzed: every decoder of bytes from outside, with what must hold for any input.
//! `cargo fuzz run TARGET` explores; `tests/corpus.rs` of the crate replays the corpus.

mod dns;
mod esp;
mod ike;
mod packet;
mod segment;

pub use dns::dns;
pub use esp::esp;
pub use ike::{endpoint as ike_endpoint, message as ike_message};
pub use packet::packet;
pub use segment::segment;
