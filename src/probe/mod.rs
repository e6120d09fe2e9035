//! Floor 2: what is asked inside a tunnel besides ICMP echo, and what counts as its answer: UDP echo, TCP, HTTP(S),
//! TLS and DNS, each a machine of its own that makes packets and reads packets. And what a Trefoil and another tell each
//! other of each direction by itself.

mod conversation;
mod dns;
mod ended;
mod exchange;
mod http;
mod one_way;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod two_way;

pub use ended::{After, Ended};
pub use exchange::{Exchange, Heard, PORTS, Refusal, tidy};
pub use one_way::{MEASURE_BYTES, Measure};
pub use target::{Ask, Record, Target};
pub use two_way::{Direction, TwoWay};
