//! Floor 2: what each path is worth. Probe schedule, measurement windows, and verdicts with
//! hysteresis, one `PathHealth` a tunnel.

mod echo;
mod estimate;
mod judge;
mod liveness;
mod metrics;
mod path_health;
mod path_mtu;
mod settings;
#[cfg(test)]
mod tests;
mod window;

pub use metrics::Metrics;
pub use path_health::{MAX_TARGETS, PathHealth, Probe, ProbeKind, VerdictChange};
pub use path_mtu::PathMtu;
pub use settings::{HealthSettings, ProbeTarget};
