//! Floor 4: control's machine. One `Edge` a site: facts in, effects out, no I/O.

mod effect;
mod event;
mod plan;
mod status;

pub use effect::{Effect, KeyRecord, ResolveFailure, UnderlayFact};
pub use event::{SiteEvent, TunnelState};
pub use plan::{
    ConnectorPlan, Destination, LabelledRange, LinkPlan, Mode, OnStop, Plan, PortPlan, ProbePlan, RolePlan, RoutePlan,
    SiteKind, SitePlan, SteeringPlan, TunnelPlan, UnderlayPlan,
};
pub use status::{ChangeStatus, ConnectorState, ConnectorStatus, DropStatus, SiteStatus, TunnelStatus};
