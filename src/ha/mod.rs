//! Floor 2: which role of a connector carries its traffic. One table of transitions.

mod failback;
mod selector;
#[cfg(test)]
mod tests;

pub use failback::{FAILBACK_DEFAULT, Failback};
pub use selector::{RoleSelector, Switch};
