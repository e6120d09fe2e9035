//! Floor 3: what the two planes share. Control publishes a `Forwarding` and swaps SAs in the
//! `SaTable`; data reads both and answers with `ToControl` messages over bounded queues.

mod decide;
mod duty;
mod flow;
mod forgotten;
mod forwarding;
mod lan;
mod link;
mod message;
mod names;
mod note;
mod route;
mod sa_table;
mod worker_counters;

pub use decide::{Decision, Held, ROLE_PATHS, Way};
pub use duty::Duty;
pub use flow::{
    FLOWS_DEFAULT, FlowMove, FlowReport, HEAVY_PER_PATH, HeavyFlow, MOVES_KEPT, MoveCause, MoveOrder, Refusal, Refused,
};
pub use forgotten::{Forgetting, Forgotten};
pub use forwarding::{
    BreakoutCounters, BreakoutFace, ChildFace, ConnectorFace, Forwarding, PathCounters, PathFace, SiteFace,
};
pub use lan::LanTable;
pub use link::{Cap, LinkCounters, LinkFace};
pub use message::{FlowQuestion, InnerOrder, ProbeOrder, SentAt, ToControl, ToWorker};
pub use names::{Learned, NameTable};
pub use note::{FlowNote, Notebook, Outcome, cover_bit, covers};
pub use route::RouteTable;
pub use sa_table::SaTable;
pub use worker_counters::{WorkerCounters, WorkerTotals};
