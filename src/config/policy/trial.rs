use std::fmt;

use arrayvec::ArrayVec;

use super::case::{Expected, LinkState, PolicyTest};
use super::flow::FlowWords;
use super::vocabulary::PolicyLink;
use crate::config::diagnostic::Diagnostic;
use crate::edge::LanPlan;
use crate::model::{Dscp, LinkId, PathId, RuleId};
use crate::steer::{Candidate, MAX_CANDIDATES, NamePatterns, NewFlow, Rule, RuleSet, SiteId, SlaStanding, Why, choose};

/// Policy files that are right, and the links that their rules choose among.
#[derive(Debug)]
pub struct PolicyFiles {
    pub rules: RuleSet,
    pub tests: Vec<PolicyTest>,
    /// Tests that are for other sites than the one that is meant.
    pub tests_elsewhere: usize,
    /// By `LinkId`.
    pub links: Vec<PolicyLink>,
    /// By `ConnectorId`.
    pub connectors: Vec<String>,
    pub lan: LanPlan,
    /// The one that is meant; `None`: rules for all sites are looked at together.
    pub site: Option<String>,
    /// By `SiteId`, from 1: those that rules and tests name.
    pub sites: Vec<String>,
    /// They were read without a site, and may name anything.
    pub is_open: bool,
    /// By `NameId`.
    pub patterns: NamePatterns,
    pub warnings: Vec<Diagnostic>,
}

/// Where a flow goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub rule: Option<RuleId>,
    /// The links that it may come to, in order; none when it is refused.
    pub links: Vec<LinkId>,
    /// It leaves by that link outside of the tunnels.
    pub breaks_out: bool,
    pub why: Why,
    pub set_dscp: Option<Dscp>,
}

/// A test that got something else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub place: String,
    pub name: String,
    pub flow: String,
    pub expected: String,
    pub got: String,
    pub why: String,
}

impl PolicyFiles {
    /// Decides about a flow by the decision that the daemon makes, with one path for each link.
    pub fn decide(&self, flow: &NewFlow, state: &[(LinkId, LinkState)]) -> Outcome {
        let told = |link: LinkId| state.iter().rev().find(|(one, _)| *one == link).map(|(_, state)| *state);
        let matched = self.rules.first_match(flow);
        let all: Vec<Candidate> = (0u16..)
            .zip(&self.links)
            .map(|(number, link)| {
                let id = LinkId(number);
                let LinkState { verdict, quality } = told(id).unwrap_or(LinkState::HEALTHY);
                Candidate {
                    metered: link.metered,
                    last_resort: link.last_resort,
                    sla: SlaStanding::UNMEASURED.judge(self.rules.sla_classes(), &quality),
                    score: quality.score(),
                    ..Candidate::new(PathId(number), id, verdict, link.preference, link.weight)
                }
            })
            .collect();
        // The decision takes as many as two roles have; those that the rule or the test name are among them.
        let named = matched.map_or(&[][..], |(_, rule)| rule.action.links());
        let mut candidates: ArrayVec<Candidate, MAX_CANDIDATES> = ArrayVec::new();
        let is_named = |link: LinkId| named.contains(&link) || told(link).is_some();
        let first = all.iter().filter(|one| is_named(one.link));
        for candidate in first.chain(all.iter().filter(|one| !is_named(one.link))) {
            if candidates.try_push(*candidate).is_err() {
                break;
            }
        }
        candidates.sort_by_key(|candidate| candidate.link);
        let choice = choose(&self.rules, flow, &candidates);
        let best = candidates.iter().enumerate().filter(|(index, _)| choice.best >> index & 1 == 1);
        let out = choice.why.breakout();
        let links = if choice.path.is_some() {
            best.map(|(_, candidate)| candidate.link).collect()
        } else {
            out.into_iter().collect()
        };
        let set_dscp = matched.and_then(|(_, rule)| rule.action.set_dscp());
        Outcome { rule: choice.rule, links, breaks_out: out.is_some(), why: choice.why, set_dscp }
    }

    /// Those of the tests that fail.
    pub fn failures(&self) -> Vec<Failure> {
        self.tests.iter().filter_map(|test| self.failure(test)).collect()
    }

    fn failure(&self, test: &PolicyTest) -> Option<Failure> {
        let outcome = self.decide(&test.flow, &test.state);
        let rule = outcome.rule.and_then(|id| self.rules.rule(id));
        let goes_right = test.expect.as_ref().is_none_or(|expect| match expect {
            Expected::Refused => outcome.links.is_empty(),
            Expected::Links(links) | Expected::Breakout(links) => {
                let out = matches!(expect, Expected::Breakout(_));
                let within = outcome.links.iter().all(|link| links.contains(link));
                !outcome.links.is_empty() && out == outcome.breaks_out && within
            }
        });
        let rule_right = test.rule.as_ref().is_none_or(|name| name.as_deref() == rule.map(|rule| rule.name.as_str()));
        if goes_right && rule_right {
            return None;
        }
        let expected_rule = test.rule.as_ref().map(|name| match name {
            Some(name) => format!("by rule \"{name}\""),
            None => "by no rule".to_string(),
        });
        let expected_way = test.expect.as_ref().map(|expect| match expect {
            Expected::Refused => "refused".to_string(),
            Expected::Links(links) => self.names(links),
            Expected::Breakout(links) => format!("{} outside of the tunnels", self.names(links)),
        });
        Some(Failure {
            place: test.place.clone(),
            name: test.name.clone(),
            flow: self.flow_text(&test.flow),
            expected: expected_way.into_iter().chain(expected_rule).collect::<Vec<_>>().join(" "),
            got: self.outcome_text(&outcome),
            why: outcome.why.to_string(),
        })
    }

    /// `dsl by rule "voice" (policy/branch.toml:9)`
    pub fn outcome_text(&self, outcome: &Outcome) -> String {
        let way = if outcome.links.is_empty() { "refused".to_string() } else { self.names(&outcome.links) };
        let mark = outcome.set_dscp.map_or_else(String::new, |dscp| format!(", marked {dscp}"));
        let out = if outcome.breaks_out { " outside of the tunnels" } else { "" };
        format!("{way}{out}{mark} by {}", rule_text(outcome.rule.and_then(|id| self.rules.rule(id))))
    }

    pub fn flow_text(&self, flow: &NewFlow) -> String {
        let dscp = match flow.dscp {
            Dscp::DEFAULT => String::new(),
            dscp => format!(" dscp {dscp}"),
        };
        let from = self.lan.in_words(flow.ends.interface).map_or_else(String::new, |name| format!(" from {name}"));
        let names: Vec<&str> = flow.ends.names.iter().filter_map(|id| self.patterns.text(id)).collect();
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let site = self.site_name(flow.ends.site).map_or_else(String::new, |name| format!(" at site {name}"));
        format!("{:?}{names}{dscp}{from}{site}", flow.key)
    }

    /// `None`: one that no rule names.
    pub fn site_name(&self, site: SiteId) -> Option<&str> {
        self.sites.get(usize::from(site.0).checked_sub(1)?).map(String::as_str)
    }

    /// What a file of flows may refer to.
    pub fn flow_words(&self) -> FlowWords {
        FlowWords {
            lan: self.lan.clone(),
            patterns: self.patterns.clone(),
            site: self.site.clone(),
            sites: self.sites.clone(),
        }
    }

    /// `fibre or dsl`
    pub fn names(&self, links: &[LinkId]) -> String {
        links.iter().map(|link| self.link_name(*link)).collect::<Vec<_>>().join(" or ")
    }

    pub fn link_name(&self, link: LinkId) -> &str {
        self.links.get(usize::from(link.0)).map_or("?", |link| &link.name)
    }
}

fn rule_text(rule: Option<&Rule>) -> String {
    rule.map_or_else(|| "no rule".to_string(), |rule| format!("rule \"{}\" ({})", rule.name, rule.place))
}

/// The lines that an author reads.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} test \"{}\" fails: {}", self.place, self.name, self.flow)?;
        writeln!(f, "  expected: {}", self.expected)?;
        writeln!(f, "  got:      {}", self.got)?;
        write!(f, "  why:      {}", self.why)
    }
}
