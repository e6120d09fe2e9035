//! Floor 4: control's machine. One `Edge` a site: facts in, effects out, no I/O.

mod burden;
mod child;
mod effect;
mod event;
mod explain;
mod fact;
mod flow_status;
mod machine;
mod memory;
mod names;
mod operator;
mod outages;
mod plan;
mod relief;
mod report;
mod rescue;
mod rule_status;
mod settling;
mod snapshot;
mod status;
mod steering;
#[cfg(test)]
mod tests;
mod timers;
mod tunnel;
mod watch;

pub use effect::{Effect, KeyRecord, ResolveFailure, UnderlayFact};
pub use event::{SiteEvent, TunnelState};
pub use explain::{
    CandidateStatus, Explanation, Grounds, LearnedName, PassedOver, PastDecision, PastFlow, RuleMatch, named_link,
};
pub use fact::{Fact, PathStanding, Whole};
pub use flow_status::{FlowList, FlowStatus, MoveStatus, RefusalStatus};
pub use machine::Edge;
pub use names::NameBook;
pub use operator::TunnelOrder;
pub use plan::OUTER_MTU;
pub use plan::{
    CapPlan, ConnectorPlan, DataplanePlan, Destination, LabelledRange, LanPlan, LinkPlan, Mode, OnStop, Plan, PortPlan,
    ProbePlan, RecordingPlan, RolePlan, RoutePlan, SegmentPlan, SiteKind, SitePlan, SteeringPlan, TunnelPlan,
    UnderlayPlan,
};
pub use report::StatusFacts;
pub use rule_status::RuleStatus;
pub use snapshot::blank;
pub use status::{
    BreakoutStatus, ChangeStatus, ConnectorState, ConnectorStatus, DropStatus, FailureStatus, ForgottenStatus,
    LinkStatus, NamesStatus, OneWayStatus, ProbeStatus, RecordingStatus, SiteStatus, TunnelStatus, WorkerStatus,
};
pub use steering::Steering;
