//! Floor 2: what each path is worth. Probe schedule, measurement windows, and verdicts with
//! hysteresis, one `PathHealth` a tunnel.

mod alarm;
mod budget;
mod doubt;
mod estimate;
mod habit;
mod inner;
mod inner_targets;
mod judge;
mod liveness;
mod metrics;
mod path_health;
mod path_mtu;
mod scrutiny;
mod sensitivity;
mod settings;
#[cfg(test)]
mod tests;
mod trail;
mod window;

pub use alarm::{PeerSigns, Surroundings, Trouble};
pub use budget::ProbeBudget;
pub use habit::Traffic;
pub use inner_targets::{MAX_TARGETS, TargetReport, TargetStanding};
pub use metrics::{Metrics, Recent};
pub use path_health::{PathHealth, Probe, ProbeKind, VerdictChange};
pub use path_mtu::PathMtu;
pub use scrutiny::Closeness;
pub use sensitivity::Sensitivity;
pub use settings::{HealthSettings, ProbeTarget, TargetCounts};
