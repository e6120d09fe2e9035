//! Floor 6: the control loop, the data-plane threads, signals.

mod announce;
mod breakout_follow;
mod carriers;
mod complaints;
mod control_loop;
mod host;
mod inquiries;
mod key_log;
mod lan_follow;
mod node;
mod recorder;
mod service;
mod share;
mod wan_watch;

pub use host::warnings as host_warnings;
pub use key_log::KeyLog;
pub use node::{Node, Parts};
pub use service::{ServiceError, release, serve};
