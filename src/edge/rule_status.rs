use serde::{Deserialize, Serialize};

use super::machine::Edge;
use crate::model::{LinkId, RuleId};
use crate::steer::{Action, Links, Listed, Matcher, OnFailback, Rule, Steering};

/// One rule in the answer to `trefoil rules --json`. Fields are only ever added.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RuleStatus {
    pub name: String,
    /// Where it was written, as `policy/branch.toml:9`.
    pub place: String,
    /// In words.
    pub action: String,
    /// It has hours, and they are not now.
    pub resting: bool,
    /// Flows that it has decided about; of those that it refuses, packets.
    pub hits: u64,
    /// Of the last one, in milliseconds since the Unix epoch.
    pub last_hit_ms: Option<u64>,
    /// Of a rule that is for other sites: which. Of this one it decides nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
}

impl Edge {
    /// Every rule, in order, with what it has decided so far.
    pub fn rule_status(&self, unix_ms_at_zero: u64) -> Vec<RuleStatus> {
        let rules = &self.plan.rules;
        let of = |listed| match listed {
            Listed::Ours(id, rule) => self.status_of(id, rule, unix_ms_at_zero),
            Listed::Elsewhere(rule) => RuleStatus {
                name: rule.name.clone(),
                place: rule.place.clone(),
                action: rule.in_words(),
                resting: false,
                hits: 0,
                last_hit_ms: None,
                elsewhere: rule.sites.clone(),
            },
        };
        rules.listed(rules.rules().len()).map(of).collect()
    }

    fn status_of(&self, id: RuleId, rule: &Rule, unix_ms_at_zero: u64) -> RuleStatus {
        let hits = self.plan.rules.hits(id);
        RuleStatus {
            name: rule.name.clone(),
            place: rule.place.clone(),
            action: self.in_words(rule),
            resting: self.rests(&rule.matcher),
            hits: hits.count,
            last_hit_ms: hits.last.map(|at| unix_ms_at_zero.saturating_add(at.as_nanos() / 1_000_000)),
            elsewhere: Vec::new(),
        }
    }

    fn rests(&self, matcher: &Matcher) -> bool {
        let now = self.rule_minute();
        !matcher.minutes.is_empty() && !matcher.minutes.iter().any(|(first, last)| (*first..=*last).contains(&now))
    }

    /// `strict fibre, dsl; sla voice; marks ef`
    fn in_words(&self, rule: &Rule) -> String {
        let list = |links: &[LinkId]| links.iter().map(|link| self.link_name(*link)).collect::<Vec<_>>().join(", ");
        let marks = rule.action.set_dscp().map(|dscp| format!("marks {dscp}"));
        let steering = match &rule.action {
            Action::Steer(steering) => steering,
            Action::BreakOut(breakout) => {
                let words = [Some(format!("break out by {}", list(&breakout.links))), marks];
                return words.into_iter().flatten().collect::<Vec<_>>().join("; ");
            }
            Action::Drop => return "drop".to_owned(),
        };
        let Steering { links, strategy, sla, on_failback, set_dscp: _ } = steering;
        let mut words = vec![match links {
            Links::Any => "any link".to_owned(),
            Links::Prefer(links) => format!("prefer {}", list(links)),
            Links::Strict(links) => format!("strict {}", list(links)),
        }];
        words.push(strategy.name().to_owned());
        words.extend(sla.and_then(|id| self.plan.rules.sla_class(id)).map(|class| format!("sla {}", class.name)));
        match on_failback {
            OnFailback::Move => {}
            OnFailback::Keep => words.push("keep on failback".to_owned()),
        }
        words.extend(marks);
        words.join("; ")
    }

    fn link_name(&self, link: LinkId) -> &str {
        self.plan.links.get(usize::from(link.0)).map_or("?", |link| &link.name)
    }
}
