use std::fmt;

use crate::model::{DropReason, LinkId, PathId, RuleId, Verdict};

/// The one decision about a flow, with its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The rule that matched first, if any did.
    pub rule: Option<RuleId>,
    /// `None`: the flow is refused, see `Why::drop_reason`.
    pub path: Option<PathId>,
    pub why: Why,
}

/// Why a flow goes where it goes. `Display` says it in plain words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// None of the links that the rule prefers has a path that is up.
    FellBackNoLink { among: u8 },
    /// All links that the rule prefers are `verdict`, and another one is healthy.
    FellBackHealth { verdict: Verdict, among: u8 },
    /// Refused: the rule says drop.
    RuleDrop,
    /// Refused: the rule allows only links that have no path that is up.
    StrictNoLink,
    /// Refused: no path is up.
    NoCandidate,
}

impl Why {
    /// What a refused flow's packets are counted under; `None` when it was given a path.
    pub const fn drop_reason(self) -> Option<DropReason> {
        match self {
            Why::RuleDrop | Why::StrictNoLink => Some(DropReason::Rule),
            Why::NoCandidate => Some(DropReason::NoPath),
            Why::OnlyCandidate
            | Why::Best { .. }
            | Why::Share { .. }
            | Why::RuleLink { .. }
            | Why::FellBackNoLink { .. }
            | Why::FellBackHealth { .. } => None,
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
            Why::FellBackNoLink { among } => {
                write!(f, "no link that the rule prefers has a path that is up; chosen among {among} others")
            }
            Why::FellBackHealth { verdict, among } => {
                write!(f, "every link that the rule prefers is {verdict}; chosen among {among} healthy others")
            }
            Why::RuleDrop => write!(f, "refused: the rule says drop"),
            Why::StrictNoLink => write!(f, "refused: no link that the rule allows has a path that is up"),
            Why::NoCandidate => write!(f, "refused: no path is up"),
        }
    }
}
