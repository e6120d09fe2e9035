use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use serde::{Deserialize, Serialize};

use super::{ConnectorFace, Decision, Forwarding, Held, MoveCause, Way};
use crate::model::{Dscp, FlowKey, Moment, PathId, Role, RuleId};
use crate::steer::{Ends, Stay, Why};

/// Notes that wait for the flight recorder, which takes them several times a second: some 700 KiB.
const NOTES: usize = 4_096;

/// A decision about a flow, with all that it rests on besides the published value.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowNote {
    pub at: Moment,
    /// Of the value that was published.
    pub generation: u64,
    pub key: FlowKey,
    pub dscp: Dscp,
    #[serde(default)]
    pub ends: Ends,
    pub held: Held,
    /// The paths of the connector with a Child SA that covers the flow; see `cover_bit`.
    pub covers: u8,
    pub outcome: Outcome,
}

/// What a decision comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// `None`: refused.
    pub path: Option<PathId>,
    pub rule: Option<RuleId>,
    pub why: Why,
    #[serde(default)]
    pub stay: Option<Stay>,
    /// Why it left the path that it had.
    #[serde(default)]
    pub moved: Option<MoveCause>,
}

impl Outcome {
    pub fn of(decision: &Decision) -> Outcome {
        let choice = &decision.choice;
        Outcome {
            path: decision.way.map(|way| way.path.id),
            rule: choice.rule,
            why: choice.why,
            stay: choice.stay,
            moved: decision.moved,
        }
    }
}

/// The bit of a connector's path in `FlowNote::covers`: those of the primary role come first.
pub fn cover_bit(connector: &ConnectorFace, path: PathId) -> u8 {
    let place = |role: Role| {
        let index = connector.roles[role.index()].iter().position(|id| *id == path)?;
        Some(1u8.checked_shl(u32::try_from(role.index() * 3 + index).ok()?).unwrap_or_default())
    };
    Role::ALL.into_iter().find_map(place).unwrap_or_default()
}

/// The paths of the connector that cover a flow: those that the decision looked at are as it saw them.
pub fn covers(forwarding: &Forwarding, connector: &ConnectorFace, key: &FlowKey, decision: &Decision) -> u8 {
    let seen = |id: PathId| decision.candidates.iter().any(|candidate| candidate.path == id);
    let other = &connector.roles[connector.active.other().index()];
    let of_other = |id: PathId| forwarding.path(id).is_some_and(|path| forwarding.covering(path, key).is_some());
    let all = connector.roles.iter().flatten().copied();
    all.filter(|id| seen(*id) || (other.contains(id) && of_other(*id)))
        .fold(0, |bits, id| bits | cover_bit(connector, id))
}

impl FlowNote {
    /// Whether this Child SA was there when the decision was made.
    pub fn covered(&self, connector: &ConnectorFace, way: Way) -> bool {
        self.covers & cover_bit(connector, way.path.id) != 0
    }
}

/// Where workers leave notes of decisions for the flight recorder: bounded, and nobody waits.
#[derive(Debug)]
pub struct Notebook {
    notes: ArrayQueue<FlowNote>,
    left_out: AtomicU64,
}

impl Default for Notebook {
    fn default() -> Notebook {
        Notebook { notes: ArrayQueue::new(NOTES), left_out: AtomicU64::new(0) }
    }
}

impl Notebook {
    pub fn write(&self, note: FlowNote) {
        if self.notes.push(note).is_err() {
            self.leave_out();
        }
    }

    /// Counts a decision that is not noted.
    pub fn leave_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    pub fn take(&self) -> Option<FlowNote> {
        self.notes.pop()
    }

    /// Decisions that were not noted, since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}
