use serde::{Deserialize, Serialize};

use super::steering::Steering;
use crate::forward::HeavyFlow;
use crate::ha::RoleSelector;
use crate::model::{ConnectorId, PathId, Role, Verdict};
use crate::steer::{Condition, Quality, Shift, SlaStanding};

/// What the flight recorder is told: what the decisions of control rest on, and what they were. All
/// of them follow from a `Whole`, the plan, and the facts since.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Fact {
    Whole(Box<Whole>),
    /// The time of a role's hold has come, and this one carries.
    RoleTimeout {
        connector: ConnectorId,
        active: Role,
    },
    /// An operator has sent the traffic to this role.
    FailedOver {
        connector: ConnectorId,
        to: Role,
    },
    /// So many tunnels of the roles are usable, and this role carries.
    Usable {
        connector: ConnectorId,
        usable: [usize; 2],
        active: Role,
    },
    /// Paths have other verdicts, or were judged by what they measure, or time has passed; only
    /// what has changed. The verdict of a path that is not usable is `Down`.
    Followed {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        verdicts: Vec<(PathId, Verdict)>,
        /// `None`: they were not judged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        judged: Option<Vec<(PathId, Quality)>>,
        /// What came of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        standings: Vec<(PathId, PathStanding)>,
    },
    /// Bytes that paths have sent since the start, where there are more; a survey of this number begins.
    Counted {
        number: u64,
        sent: Vec<(PathId, u64)>,
    },
    /// A link is full and another has room: a survey of this number begins before its time.
    Relieved {
        number: u64,
    },
    /// The answer, and the flows that are to move. `flows` is empty where none is.
    Surveyed {
        number: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        flows: Vec<HeavyFlow>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shifts: Vec<Shift>,
    },
}

/// All that the decisions of control rest on, besides the plan.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Whole {
    pub steering: Steering,
    /// By `ConnectorId`.
    pub roles: Vec<RoleSelector>,
    /// By `PathId`, each: bytes sent at the last count, and what was last measured.
    pub sent: Vec<u64>,
    pub measured: Vec<Quality>,
    pub verdicts: Vec<Verdict>,
}

/// How steering holds a path to stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PathStanding {
    /// See `Candidate` of these.
    pub settled: bool,
    pub sla: SlaStanding,
    pub score: Option<u32>,
    #[serde(default)]
    pub doubt: u32,
    /// See `Memory::epoch`.
    pub epoch: u32,
    #[serde(default)]
    pub condition: Condition,
}
