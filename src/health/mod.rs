//! Floor 2: what each path is worth. Probe schedule, measurement windows, and verdicts with
//! hysteresis, one `PathHealth` a tunnel.

mod metrics;
mod settings;

pub use metrics::Metrics;
pub use settings::{HealthSettings, ProbeTarget};
