//! What people use today, as its documentation tells it. `docs/scoreboard.md` says where each number
//! is from.

mod cato;
mod cisco;
mod ecmp;
mod fortinet;
mod mwan3;
mod oracle;

pub use cato::Cato;
pub use cisco::Cisco;
pub use ecmp::Ecmp;
pub use fortinet::Fortinet;
pub use mwan3::Mwan3;
pub use oracle::Oracle;
