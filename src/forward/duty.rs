use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Moment;

/// What an operator wants of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    #[default]
    InService,
    /// Up and probed, but flows go elsewhere: new ones at once, the others when they have paused for
    /// `gap`, so that nothing overtakes, or after `by`.
    Drained { gap: Duration, by: Moment },
    /// Closed, and nobody may open it.
    Down,
}

impl Duty {
    pub const fn is_drained(self) -> bool {
        match self {
            Duty::Drained { .. } => true,
            Duty::InService | Duty::Down => false,
        }
    }

    /// May a flow that has paused for so long leave the path for no other reason?
    pub fn lets_go(self, paused: Duration, now: Moment) -> bool {
        match self {
            Duty::Drained { gap, by } => paused >= gap || now >= by,
            Duty::InService | Duty::Down => true,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Duty::InService => "in service",
            Duty::Drained { .. } => "drained",
            Duty::Down => "down",
        }
    }
}
