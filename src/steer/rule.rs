use serde::{Deserialize, Serialize};

use super::{Matcher, Why};
use crate::model::{Dscp, LinkId};

/// One entry of a policy: which flows it is about, and what becomes of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    pub name: String,
    /// Where it was written, as `policy/branch.toml:9`; empty when in no file.
    pub place: String,
    pub matcher: Matcher,
    pub action: Action,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Steer(Steering),
    BreakOut(Breakout),
    Drop,
}

/// Flows leave by a WAN link itself, outside of the tunnels, with the link's address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakout {
    /// The first of them that is up; there is at least one, and none twice.
    pub links: Vec<LinkId>,
    pub set_dscp: Option<Dscp>,
}

impl Breakout {
    /// The link of a flow that may have one already: it stays there while it can, since a connection
    /// does not survive another source address.
    pub fn choose(&self, present: Option<LinkId>, is_up: impl Fn(LinkId) -> bool) -> Why {
        let places = || (1u8..).zip(&self.links).filter(|(_, link)| is_up(**link));
        let stays = places().find(|(_, link)| Some(**link) == present);
        match stays.or_else(|| places().next()) {
            Some((place, link)) => Why::BrokenOut { link: *link, place },
            None => Why::NoBreakout,
        }
    }
}

/// How a path is chosen for the flows of a rule, and what else is done to them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Steering {
    pub links: Links,
    pub strategy: PathStrategy,
    /// Only paths within the limits of this class, while there is one; else the best of the worst.
    pub sla: Option<SlaId>,
    pub on_failback: OnFailback,
    /// The code point that the flow's packets leave with, in place of their own.
    pub set_dscp: Option<Dscp>,
}

/// Which links the flows of a rule may use. The lists are not empty and name no link twice.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Links {
    #[default]
    Any,
    /// These; when none of them can carry the flow, any other.
    Prefer(Vec<LinkId>),
    /// These; when none of them can carry the flow, it is refused.
    Strict(Vec<LinkId>),
}

/// How one of the allowed links is chosen where several would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathStrategy {
    /// Shared by the bandwidth of the paths.
    #[default]
    Balance,
    /// The first in the order of the rule's links, of which there are some.
    Prefer,
    /// The one that measures best: in loss, round-trip time and jitter.
    Best,
    /// The one that costs least: links that are not metered, then by preference.
    Cheapest,
    /// As `Prefer` with links and `Balance` without, and then kept as long as the path will do, even
    /// where another one would now be chosen.
    Sticky,
}

impl PathStrategy {
    pub const ALL: [PathStrategy; 5] =
        [PathStrategy::Balance, PathStrategy::Prefer, PathStrategy::Best, PathStrategy::Cheapest, PathStrategy::Sticky];

    pub const fn name(self) -> &'static str {
        match self {
            PathStrategy::Balance => "balance",
            PathStrategy::Prefer => "prefer",
            PathStrategy::Best => "best",
            PathStrategy::Cheapest => "cheapest",
            PathStrategy::Sticky => "sticky",
        }
    }
}

/// What becomes of a flow that had to leave for another link or role, once what it left is well
/// again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailback {
    /// It goes back.
    #[default]
    Move,
    /// It stays for the rest of its life, as long as where it is will do.
    Keep,
}

impl OnFailback {
    pub const ALL: [OnFailback; 2] = [OnFailback::Move, OnFailback::Keep];

    pub const fn name(self) -> &'static str {
        match self {
            OnFailback::Move => "move",
            OnFailback::Keep => "keep",
        }
    }
}

/// Index of an SLA class in the rule set, below `SLA_CLASSES_MAX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlaId(pub u8);

impl Action {
    /// Spread over all links, as without a rule.
    pub fn balance() -> Action {
        Action::Steer(Steering::default())
    }

    /// The first of these links that can carry the flow, else any other.
    pub fn prefer(links: impl Into<Vec<LinkId>>) -> Action {
        let links = Links::Prefer(links.into());
        Action::Steer(Steering { links, strategy: PathStrategy::Prefer, ..Steering::default() })
    }

    /// Like `prefer`, but refuse rather than use another link.
    pub fn strict(links: impl Into<Vec<LinkId>>) -> Action {
        let links = Links::Strict(links.into());
        Action::Steer(Steering { links, strategy: PathStrategy::Prefer, ..Steering::default() })
    }

    pub fn set_dscp(&self) -> Option<Dscp> {
        match self {
            Action::Steer(steering) => steering.set_dscp,
            Action::BreakOut(breakout) => breakout.set_dscp,
            Action::Drop => None,
        }
    }

    /// How a path is chosen, if one is.
    pub fn steering(&self) -> Option<&Steering> {
        match self {
            Action::Steer(steering) => Some(steering),
            Action::BreakOut(_) | Action::Drop => None,
        }
    }

    /// Those that it names, in order.
    pub fn links(&self) -> &[LinkId] {
        match self {
            Action::Steer(steering) => steering.links.named(),
            Action::BreakOut(breakout) => &breakout.links,
            Action::Drop => &[],
        }
    }
}

impl Steering {
    /// It asks what paths measure, beyond their verdict.
    pub fn asks_for_quality(&self) -> bool {
        self.sla.is_some() || self.strategy == PathStrategy::Best
    }
}

impl Links {
    /// Those that the rule names, in its order.
    pub fn named(&self) -> &[LinkId] {
        match self {
            Links::Any => &[],
            Links::Prefer(links) | Links::Strict(links) => links,
        }
    }
}
