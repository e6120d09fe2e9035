//! Floor 2: which role of a connector carries its traffic. One table of transitions.

mod selector;

pub use selector::{RoleSelector, Switch};
