//! Floor 2: what is asked inside a tunnel besides ICMP echo, and what counts as its answer: UDP echo, TCP, HTTP,
//! TLS and DNS, each a machine of its own that makes packets and reads packets.

mod dns;
mod exchange;
mod http;
mod target;
#[cfg(test)]
mod tests;
mod tls;

pub use exchange::{Exchange, Heard, PORTS, Refusal, tidy};
pub use target::{Ask, Record, Target};
