use std::fmt;
use std::time::Duration;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::{DropReason, Dscp, FlowKey, LinkId, Moment, PathId, RuleId};
use crate::steer::{KnownNames, Why};

/// Flows in the table at most, unless the site file says otherwise: what a large branch has open at a
/// time, in some 15 MiB.
pub const FLOWS_DEFAULT: usize = 65_536;

/// Moves remembered of one flow: more than a path that comes and goes causes in an hour.
pub const MOVES_KEPT: usize = 8;

/// A flow went over to another path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowMove {
    pub at: Moment,
    pub from: PathId,
    pub to: PathId,
    pub cause: MoveCause,
}

/// Why a flow went over to another path. `Display` says it in plain words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveCause {
    /// Its path could carry nothing any more.
    PathLost,
    /// Its path became worse than another in health, or misses the rule's SLA class.
    Health,
    /// The other role carries the traffic now.
    Role,
    /// Another rule decides, or none.
    Rule,
    /// A path that its rule or the links' preference puts first is there again.
    Preferred,
    /// To bring the shares of the sent bytes in line with the bandwidths.
    Shares,
    /// The peer sends the flow over another path, and is answered there.
    Arrival,
    /// An operator has drained its path.
    Drained,
}

impl MoveCause {
    pub const fn name(self) -> &'static str {
        match self {
            MoveCause::PathLost => "path_lost",
            MoveCause::Health => "health",
            MoveCause::Role => "role",
            MoveCause::Rule => "rule",
            MoveCause::Preferred => "preferred",
            MoveCause::Shares => "shares",
            MoveCause::Arrival => "arrival",
            MoveCause::Drained => "drained",
        }
    }

    /// What was wrong with its path, or its role, left it no choice.
    pub const fn is_forced(self) -> bool {
        match self {
            MoveCause::PathLost | MoveCause::Health | MoveCause::Role => true,
            MoveCause::Rule | MoveCause::Preferred | MoveCause::Shares | MoveCause::Arrival | MoveCause::Drained => {
                false
            }
        }
    }
}

impl fmt::Display for MoveCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MoveCause::PathLost => "its path could not carry it any more",
            MoveCause::Health => "another path was in better health",
            MoveCause::Role => "the other role carries the traffic",
            MoveCause::Rule => "another rule decides",
            MoveCause::Preferred => "a preferred path was there",
            MoveCause::Shares => "to keep the sent bytes in proportion to the bandwidths",
            MoveCause::Arrival => "the peer sends the flow over that path",
            MoveCause::Drained => "the operator drained its tunnel",
        })
    }
}

/// A packet goes nowhere, and so does its flow for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What the packet is counted under.
    pub reason: DropReason,
    /// The rule that matched.
    pub rule: Option<RuleId>,
    /// `NoCandidate` where nothing came to a choice.
    pub why: Why,
}

/// From when to when the packets of a flow went nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub refused: Refused,
    pub since: Moment,
    /// `None`: they still do.
    pub until: Option<Moment>,
}

/// Moves one flow. The worker that sends its next packet obeys when the flow has paused for
/// `gap`, or after `by`, and only if the flow's rule would have it stay on the new path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MoveOrder {
    pub key: FlowKey,
    pub from: PathId,
    pub to: PathId,
    /// So long must nothing have left for packets on the new path not to overtake.
    pub gap: Duration,
    pub by: Moment,
}

/// Heavy flows told of one path. With three paths that share, the moves that a re-steer makes are
/// among the heaviest of each.
pub const HEAVY_PER_PATH: usize = 64;

/// A flow that was seen to send much since the survey before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeavyFlow {
    pub key: FlowKey,
    pub path: PathId,
    /// The paths that may carry it as well as its own, which is one of them: bit n is the
    /// connector's nth path of the role.
    pub peers: u8,
    /// Inner bytes a second.
    pub rate: u64,
    /// When it moved, if it need not have: it had better stay for a while.
    pub moved_at: Option<Moment>,
}

/// One line of a list of flows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowReport {
    pub key: FlowKey,
    /// Of the packet that the choice was made for.
    pub dscp: Dscp,
    /// `None`: it has only arrived so far.
    pub path: Option<PathId>,
    /// The latest; while it lasts, `path` or `breakout` is what the flow had before.
    pub refusal: Option<Refusal>,
    /// It leaves by this link outside of the tunnels.
    pub breakout: Option<LinkId>,
    /// What was known of the destination's names when it was decided.
    pub names: KnownNames,
    pub arrived_on: Option<PathId>,
    pub rule: Option<RuleId>,
    pub why: Why,
    pub first: Moment,
    pub last: Moment,
    /// Inner bytes and packets that left.
    pub bytes: u64,
    pub packets: u64,
    /// Moves in all; `history` has the latest.
    pub moves: u32,
    pub history: ArrayVec<FlowMove, MOVES_KEPT>,
}

impl FlowReport {
    /// No way was found for its latest packet from the site.
    pub fn refused(&self) -> Option<Refused> {
        self.refusal.filter(|refusal| refusal.until.is_none()).map(|refusal| refusal.refused)
    }
}
