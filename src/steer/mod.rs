//! Floor 2: where a flow goes. Compiled rules, weights, and the one decision.

mod candidate;
mod rule;

pub use candidate::Candidate;
pub use rule::{Action, Matcher, Rule, RuleSet};
