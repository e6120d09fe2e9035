use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MAX_CANDIDATES, SlaId};
use crate::model::{DropReason, LinkId, PathId, RuleId, Verdict};

/// The one decision about a flow, with its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Choice {
    /// The rule that matched first, if any did.
    pub rule: Option<RuleId>,
    /// `None`: the flow is refused, see `Why::drop_reason`.
    pub path: Option<PathId>,
    /// Why the best paths are the best.
    pub why: Why,
    /// Why the flow stays on the path that it had.
    pub stay: Option<Stay>,
    /// Of each candidate, in the order given: what took it out of the choice.
    pub standings: [Standing; MAX_CANDIDATES],
    /// The best candidates: bit n is the nth.
    pub best: u8,
}

/// Why a flow goes where it goes. `Display` says it in plain words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No other path is up.
    OnlyCandidate,
    /// Several paths are up; this one alone has the best health and, in it, the best preference.
    Best { verdict: Verdict },
    /// The flow's hash fell to this path; of the `among` best paths each gets flows in
    /// proportion to its bandwidth.
    Share { verdict: Verdict, among: u8 },
    /// This link of the rule has the best health of those that it names, or comes before others
    /// that are as good. `place` counts from 1.
    RuleLink { link: LinkId, place: u8, verdict: Verdict },
    /// The rule asks for the path that measures best.
    BestMeasured { among: u8 },
    /// The rule asks for the path that costs least.
    Cheapest { among: u8 },
    /// No path meets the rule's SLA class; of those that are up, this one measures best.
    LeastBad { class: SlaId, among: u8 },
    /// None of the links that the rule prefers has a path that is up.
    FellBackNoLink { among: u8 },
    /// All links that the rule prefers are `verdict`, and another one is healthy.
    FellBackHealth { verdict: Verdict, among: u8 },
    /// All links that the rule prefers are healthy at best, and were down of late and are not steady yet; another one was not.
    FellBackUnsteady { among: u8 },
    /// No link that the rule prefers meets its SLA class, and another one does.
    FellBackSla { class: SlaId, among: u8 },
    /// It is answered on the path that it arrived on.
    Arrival,
    /// It leaves by this WAN link of the rule outside of the tunnels. `place` counts from 1.
    BrokenOut { link: LinkId, place: u8 },
    /// Refused: no WAN link that the rule breaks out by is up.
    NoBreakout,
    /// Refused: the rule says drop.
    RuleDrop,
    /// Refused: the rule allows only links that have no path that is up.
    StrictNoLink,
    /// Refused: no path is up.
    NoCandidate,
}

/// Why a flow stays where it is. `Display` says it in plain words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stay {
    /// No path is better than its own.
    AmongBest,
    /// The rule keeps flows where they are as long as the path will do.
    Kept,
    /// Another path measures better, but not by the switch margin.
    Margin,
    /// Another path measures better, but may lose so much that it would not be, as far as is known.
    Doubt,
    /// The path that it would go to has not been well for the hold-down time.
    HoldDown,
    /// It moved lately.
    Dwell,
    /// Its path was drained, and it has not paused since.
    Draining,
}

/// What took a candidate out of the choice. `Display` says it in plain words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing.
    Best,
    Down,
    /// The rule allows other links only.
    NotAllowed,
    /// An operator has drained it, and another path is up.
    Drained,
    /// Its link is a last resort, and another path is up.
    LastResort,
    /// The rule prefers other links.
    NotNamed,
    /// Another path is in better health.
    Health,
    /// It misses the rule's SLA class, and another path does not.
    Sla,
    /// It was down of late and is not steady yet, and another path is.
    Unsteady,
    /// A link that the rule names earlier is as good.
    LaterLink,
    /// A link that is not metered is as good.
    Metered,
    /// A link of better preference is as good.
    Preference,
    /// Another path measures better.
    Score,
    /// It measures better than the flow's own, but may lose so much that it would not be; another is surely better.
    Doubt,
    /// Its link carries what it can, and another path as good has room. A flow that is there stays.
    Full,
}

impl Standing {
    /// A flow that is there need not leave for this reason alone.
    pub const fn may_stay(self) -> bool {
        match self {
            Standing::Best
            | Standing::LastResort
            | Standing::NotNamed
            | Standing::LaterLink
            | Standing::Metered
            | Standing::Preference
            | Standing::Score
            | Standing::Doubt
            | Standing::Full => true,
            Standing::Down
            | Standing::NotAllowed
            | Standing::Drained
            | Standing::Health
            | Standing::Sla
            | Standing::Unsteady => false,
        }
    }
}

impl Why {
    /// What a refused flow's packets are counted under; `None` when it was given a path.
    pub const fn drop_reason(self) -> Option<DropReason> {
        match self {
            Why::RuleDrop | Why::StrictNoLink => Some(DropReason::Rule),
            Why::NoCandidate => Some(DropReason::NoPath),
            Why::NoBreakout => Some(DropReason::NoBreakout),
            Why::OnlyCandidate
            | Why::Best { .. }
            | Why::Share { .. }
            | Why::RuleLink { .. }
            | Why::BestMeasured { .. }
            | Why::Cheapest { .. }
            | Why::LeastBad { .. }
            | Why::FellBackNoLink { .. }
            | Why::FellBackHealth { .. }
            | Why::FellBackUnsteady { .. }
            | Why::FellBackSla { .. }
            | Why::BrokenOut { .. }
            | Why::Arrival => None,
        }
    }

    /// The WAN link by which the flow leaves outside of the tunnels, if it does.
    pub const fn breakout(self) -> Option<LinkId> {
        match self {
            Why::BrokenOut { link, .. } => Some(link),
            Why::OnlyCandidate
            | Why::Best { .. }
            | Why::Share { .. }
            | Why::RuleLink { .. }
            | Why::BestMeasured { .. }
            | Why::Cheapest { .. }
            | Why::LeastBad { .. }
            | Why::FellBackNoLink { .. }
            | Why::FellBackHealth { .. }
            | Why::FellBackUnsteady { .. }
            | Why::FellBackSla { .. }
            | Why::Arrival
            | Why::NoBreakout
            | Why::RuleDrop
            | Why::StrictNoLink
            | Why::NoCandidate => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::OnlyCandidate => write!(f, "the only path that is up"),
            Why::Best { verdict } => write!(f, "the only {verdict} path of the best preference"),
            Why::Share { verdict, among } => {
                write!(f, "its share by bandwidth among {among} {verdict} paths of the same preference")
            }
            Why::RuleLink { place, verdict, .. } => {
                write!(f, "link {place} of the rule, {verdict}: the healthiest that the rule names, then the first")
            }
            Why::BestMeasured { .. } => write!(f, "the path that measures best"),
            Why::Cheapest { .. } => write!(f, "the path that costs least"),
            Why::LeastBad { .. } => {
                write!(f, "no path meets the rule's SLA class; this one measures best of those that are up")
            }
            Why::FellBackNoLink { among } => {
                write!(
                    f,
                    "no link that the rule prefers has a path that is up and in service; chosen among {among} others"
                )
            }
            Why::FellBackHealth { verdict, among } => {
                write!(f, "every link that the rule prefers is {verdict}; chosen among {among} healthy others")
            }
            Why::FellBackUnsteady { among } => write!(
                f,
                "every link that the rule prefers was down of late, and is not steady yet; chosen among {among} healthy others"
            ),
            Why::FellBackSla { among, .. } => {
                write!(
                    f,
                    "no link that the rule prefers meets its SLA class; chosen among {among} healthy others that do"
                )
            }
            Why::Arrival => write!(f, "answered on the path that it arrived on"),
            Why::BrokenOut { place, .. } => {
                write!(f, "outside of the tunnels by WAN link {place} of the rule, the first that is up or where it is")
            }
            Why::NoBreakout => {
                write!(
                    f,
                    "refused: no WAN link that the rule breaks out by is up, or it is IPv6, which is not translated"
                )
            }
            Why::RuleDrop => write!(f, "refused: the rule says drop"),
            Why::StrictNoLink => write!(f, "refused: no link that the rule allows has a path that is up"),
            Why::NoCandidate => write!(f, "refused: no path is up"),
        }
    }
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stay::AmongBest => "it is there, and no path is better",
            Stay::Kept => "it is there, and the rule keeps it as long as the path will do",
            Stay::Margin => "it is there, and no path measures better by the switch margin",
            Stay::Doubt => "it is there, and it is not yet sure that the path which measures better loses no more",
            Stay::HoldDown => "it is there, and the better path has not been well for the hold-down time",
            Stay::Dwell => "it is there, and moved too lately to move again",
            Stay::Draining => "it is there until it pauses, for a second at most: the operator drained its tunnel",
        })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Best => "among the best",
            Standing::Down => "down",
            Standing::NotAllowed => "the rule does not allow its link",
            Standing::Drained => "drained by the operator",
            Standing::LastResort => "a last resort, and another path is up",
            Standing::NotNamed => "the rule prefers other links",
            Standing::Health => "another path is in better health",
            Standing::Sla => "misses the rule's SLA class",
            Standing::Unsteady => "was down of late, and is not steady yet",
            Standing::Full => "its link is full, and another one is not",
            Standing::LaterLink => "the rule names another link first",
            Standing::Metered => "metered, and another link is not",
            Standing::Preference => "another link has a better preference",
            Standing::Score => "another path measures better",
            Standing::Doubt => "it is not yet sure that it loses no more than the flow's own",
        })
    }
}
