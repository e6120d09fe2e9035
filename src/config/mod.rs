//! Floor 5: site, profile and policy files become a `Plan`, or every diagnostic at once.
//!
//! The road: each file is read into drafts whose fields are checked one by one (`site`, `wan`,
//! `connector`, `tunnel`, `profile`, `policy`), `check` sees whether they go together, and `build`
//! makes the plan. Findings are collected on the way, so that one run reports all of them.

mod algorithm;
mod build;
mod check;
mod connector;
mod diagnostic;
mod failback;
mod files;
mod keepalive;
mod label;
mod lan;
mod load;
mod policy;
mod probes;
mod profile;
mod psk;
mod scenario;
mod settings;
mod site;
mod source;
mod table;
mod tunnel;
mod wan;
mod wording;
mod words;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Severity};
pub use files::{Disk, FILE_BYTES_MAX, Files};
pub use load::{
    Loaded, load, load_from, load_policy, load_policy_beside, load_policy_from, load_scenario, load_scenario_from,
    policy_files_of,
};
pub use policy::{
    Expected, Failure, FlowLine, FlowWords, LinkState, Outcome, PolicyFiles, PolicyLink, PolicyTest,
    flow as parse_flow, flow_line,
};
pub use scenario::{
    Change, Direction, LineShape, Scenario, ScenarioEvent, ScenarioLink, ScenarioTraffic, Trace, TrafficKind, Where,
};
pub use settings::default_routes;
pub use wording::Complaint;

/// The IP protocol of this name or number, such as `gre` or `47`, as rules have it.
pub fn ip_protocol(text: &str) -> Result<u8, Complaint> {
    words::ip_protocol(text)
}

/// The code point of this name or number, such as `ef` or `46`.
pub fn dscp(text: &str) -> Option<crate::model::Dscp> {
    words::dscp(text).ok()
}
