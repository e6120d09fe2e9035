//! The scoreboard: scenarios in simulated time, played by our own steering and by models of what
//! people use, and what came of it for calls and transfers; and the flows of a file under such a scenario.

mod board;
mod contender;
mod e_model;
mod field;
mod figures;
mod fleet;
mod hearing;
mod models;
mod race;
mod rehearsal;
mod site;
mod suite;
mod tracker;
mod traffic;
mod transfer;
mod trefoil;

pub use board::{Board, CONTENDERS, ORACLE, OURS, Outcome, Row, Unplayable};
pub use figures::Figures;
pub use rehearsal::{FLOWS_MAX as REHEARSAL_FLOWS_MAX, FlowStory, Happening, LinkBytes, Rehearsal, Step, rehearse};
pub use site::open_plan;
pub use suite::shipped;
