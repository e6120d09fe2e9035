use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::classify::Classifier;
use super::{Action, NamePatterns, NewFlow, Rule, SlaClass, SlaId};
use crate::model::{Moment, RuleId, WeekMinute};

/// The rules of a site, in order: the first that matches decides. Compiled once, shared by all
/// workers, and never changed; only its counters count.
#[derive(Clone, Default)]
pub struct RuleSet {
    rules: Arc<[Rule]>,
    sla_classes: Vec<SlaClass>,
    /// `None`: too entangled to compile, so that the rules are tried one after another.
    classifier: Option<Arc<Classifier>>,
    /// By `RuleId`.
    hits: Arc<[Hits]>,
    /// Where the hours of some rule begin or have ended, in order.
    boundaries: Arc<[WeekMinute]>,
    utc_offset_minutes: i16,
    names: Arc<NamePatterns>,
    elsewhere: Arc<[Elsewhere]>,
}

/// A rule of the site's policy that is for other sites: of this one it decides nothing, and nothing is compiled or
/// learned for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Elsewhere {
    pub name: String,
    /// As of `Rule`.
    pub place: String,
    /// For which it is; at least one.
    pub sites: Vec<String>,
    /// So many of the site's own rules come before it.
    pub after: u32,
}

/// Sites that are named; beyond, their number says enough.
const SITES_SHOWN: usize = 4;

impl Elsewhere {
    /// `it is for other sites: madrid, lisbon`
    pub fn in_words(&self) -> String {
        let shown = self.sites.iter().take(SITES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.sites.len().saturating_sub(SITES_SHOWN) {
            0 => format!("it is for other sites: {shown}"),
            more => format!("it is for other sites: {shown} and {more} more"),
        }
    }
}

/// A rule as it stands in the policy's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed<'a> {
    Ours(RuleId, &'a Rule),
    Elsewhere(&'a Elsewhere),
}

#[derive(Default)]
struct Hits {
    count: AtomicU64,
    /// Nanoseconds of the `Moment`, and 1; 0 is never.
    last: AtomicU64,
}

/// How often a rule has decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleHits {
    pub count: u64,
    pub last: Option<Moment>,
}

impl RuleSet {
    pub fn new(rules: Vec<Rule>, sla_classes: Vec<SlaClass>) -> RuleSet {
        RuleSet {
            classifier: Classifier::new(&rules).map(Arc::new),
            boundaries: boundaries(&rules),
            utc_offset_minutes: 0,
            names: Arc::default(),
            elsewhere: Arc::default(),
            hits: rules.iter().map(|_| Hits::default()).collect(),
            rules: rules.into(),
            sla_classes,
        }
    }

    /// Some rule asks what paths measure, beyond their verdict.
    pub fn asks_for_quality(&self) -> bool {
        self.rules.iter().any(|rule| match &rule.action {
            Action::BreakOut(_) | Action::Drop => false,
            Action::Steer(steering) => steering.asks_for_quality(),
        })
    }

    /// The hours of the rules are in a time so many minutes ahead of UTC.
    #[must_use]
    pub fn with_utc_offset(self, minutes: i16) -> RuleSet {
        RuleSet { utc_offset_minutes: minutes, ..self }
    }

    /// The names that the rules ask for, by `NameId`.
    #[must_use]
    pub fn with_names(self, names: NamePatterns) -> RuleSet {
        RuleSet { names: Arc::new(names), ..self }
    }

    /// With the rules that are for other sites, in order.
    #[must_use]
    pub fn with_elsewhere(self, elsewhere: Vec<Elsewhere>) -> RuleSet {
        RuleSet { elsewhere: elsewhere.into(), ..self }
    }

    pub fn elsewhere(&self) -> &[Elsewhere] {
        &self.elsewhere
    }

    /// The site's own rules before this one, or all, and between them those for other sites, in order.
    pub fn listed(&self, before: usize) -> impl Iterator<Item = Listed<'_>> {
        let mut others = self.elsewhere.iter().peekable();
        let mut ours = (0u32..).zip(self.rules.iter().take(before)).peekable();
        std::iter::from_fn(move || {
            let next = ours.peek().map_or(before, |(number, _)| *number as usize);
            if let Some(other) = others.next_if(|other| other.after as usize <= next) {
                return Some(Listed::Elsewhere(other));
            }
            ours.next().map(|(number, rule)| Listed::Ours(RuleId(number), rule))
        })
    }

    pub fn names(&self) -> &NamePatterns {
        &self.names
    }

    /// The first rule that matches.
    pub fn first_match(&self, flow: &NewFlow) -> Option<(RuleId, &Rule)> {
        let index = match &self.classifier {
            Some(classifier) => classifier.first_match(flow)?,
            None => u32::try_from(self.rules.iter().position(|rule| rule.matcher.matches(flow))?).ok()?,
        };
        let id = RuleId(index);
        self.rule(id).map(|rule| (id, rule))
    }

    /// The latest minute at which the hours of some rule began or ended, at this time of the Unix
    /// epoch: while it is the same, so is what matches.
    pub fn hours_at(&self, unix_ms: u64) -> WeekMinute {
        let minute = self.minute_at(unix_ms);
        let passed = self.boundaries.partition_point(|boundary| *boundary <= minute);
        passed.checked_sub(1).and_then(|index| self.boundaries.get(index)).copied().unwrap_or_default()
    }

    /// In the time of the rules' hours.
    pub fn minute_at(&self, unix_ms: u64) -> WeekMinute {
        WeekMinute::at(unix_ms, self.utc_offset_minutes)
    }

    pub fn utc_offset_minutes(&self) -> i16 {
        self.utc_offset_minutes
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::try_from(id.0).ok()?)
    }

    /// By `SlaId`.
    pub fn sla_classes(&self) -> &[SlaClass] {
        &self.sla_classes
    }

    pub fn sla_class(&self, id: SlaId) -> Option<&SlaClass> {
        self.sla_classes.get(usize::from(id.0))
    }

    /// The rule has decided about a flow that it had not decided about before.
    pub fn count_hit(&self, rule: RuleId, now: Moment) {
        let Some(hits) = usize::try_from(rule.0).ok().and_then(|index| self.hits.get(index)) else { return };
        hits.count.fetch_add(1, Ordering::Relaxed);
        hits.last.store(now.as_nanos().saturating_add(1), Ordering::Relaxed);
    }

    pub fn hits(&self, rule: RuleId) -> RuleHits {
        let hits = usize::try_from(rule.0).ok().and_then(|index| self.hits.get(index));
        hits.map_or_else(RuleHits::default, |hits| RuleHits {
            count: hits.count.load(Ordering::Relaxed),
            last: hits.last.load(Ordering::Relaxed).checked_sub(1).map(Moment::from_nanos),
        })
    }

    /// Whether the rules are found by the classifier, and how many bytes it takes.
    pub fn compiled_size(&self) -> Option<usize> {
        self.classifier.as_ref().map(|classifier| classifier.size())
    }
}

fn boundaries(rules: &[Rule]) -> Arc<[WeekMinute]> {
    let minutes = rules.iter().flat_map(|rule| &rule.matcher.minutes);
    let ends = minutes.flat_map(|(first, last)| [Some(*first), last.value().checked_add(1).and_then(WeekMinute::new)]);
    let sorted: BTreeSet<WeekMinute> = ends.flatten().collect();
    sorted.into_iter().collect()
}

/// What was compiled and counted follows from the rules, or says nothing about them.
impl PartialEq for RuleSet {
    fn eq(&self, other: &RuleSet) -> bool {
        self.rules == other.rules
            && self.sla_classes == other.sla_classes
            && self.utc_offset_minutes == other.utc_offset_minutes
            && self.names == other.names
            && self.elsewhere == other.elsewhere
    }
}

impl Eq for RuleSet {}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSet").field("rules", &self.rules).field("sla_classes", &self.sla_classes).finish()
    }
}
