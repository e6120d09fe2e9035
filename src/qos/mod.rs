//! Floor 2: bandwidth. What is sent is shaped, by queues that are fair to every flow; what arrives is policed.

mod codel;
mod flow_queue;
mod pacer;
mod policer;
mod shaper;
#[cfg(test)]
mod tests;

pub use flow_queue::{Arriving, Fate};
pub use policer::{Passing, Policer};
pub use shaper::{Due, Search, Sent, Shaper};
