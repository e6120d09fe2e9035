//! Floor 2: where a flow goes. Compiled rules, weights, and the one decision.

mod candidate;
mod choice;
mod choose;
mod rendezvous;
mod rule;
#[cfg(test)]
mod tests;

pub use candidate::Candidate;
pub use choice::{Choice, Why};
pub use choose::{MAX_CANDIDATES, choose, shares};
pub use rule::{Action, Matcher, Rule, RuleSet};
