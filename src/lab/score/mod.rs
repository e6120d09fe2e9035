//! The scoreboard: scenarios in simulated time, played by our own steering and by models of what
//! people use, and what came of it for calls and transfers.

mod board;
mod contender;
mod e_model;
mod field;
mod figures;
mod fleet;
mod hearing;
mod models;
mod race;
mod site;
mod suite;
mod tracker;
mod traffic;
mod transfer;
mod trefoil;

pub use board::{Board, CONTENDERS, ORACLE, OURS, Outcome, Row, Unplayable};
pub use figures::Figures;
pub use suite::shipped;
