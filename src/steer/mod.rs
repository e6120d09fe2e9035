//! Floor 2: where a flow goes. Compiled rules, weights, and the one decision.

mod candidate;
mod choice;
mod choose;
mod classify;
mod matcher;
mod mismatch;
mod names;
mod rebalance;
mod rendezvous;
mod rule;
mod rule_set;
mod sla;
#[cfg(test)]
mod strategy_tests;
#[cfg(test)]
mod tests;

pub use candidate::{Candidate, Condition, Quality, Recent, SlaStanding};
pub use choice::{Choice, Standing, Stay, Why};
pub use choose::{MAX_CANDIDATES, Present, SWITCH_MARGIN, choose, choose_by, shares};
pub use classify::{Comparison, Coverage, Finding, Overlap, Witnesses};
pub use matcher::{Ends, Matcher, NewFlow, Service, SiteId};
pub use names::{KnownNames, NAMES_OF_ADDRESS, NamePatterns};
pub use rebalance::{Elephant, Load, Shift, rebalance};
pub use rule::{Action, Breakout, Links, OnFailback, PathStrategy, Rule, SlaId, Steering};
pub use rule_set::{Elsewhere, Listed, RuleHits, RuleSet};
pub use sla::{SLA_CLASSES_MAX, SlaClass};
