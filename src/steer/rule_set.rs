use super::{NewFlow, Rule, SlaClass, SlaId};
use crate::model::RuleId;

/// The rules of a site, in order: the first that matches decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    sla_classes: Vec<SlaClass>,
}

impl RuleSet {
    pub fn new(rules: Vec<Rule>, sla_classes: Vec<SlaClass>) -> RuleSet {
        RuleSet { rules, sla_classes }
    }

    /// The first rule that matches.
    pub fn first_match(&self, flow: &NewFlow) -> Option<(RuleId, &Rule)> {
        let (index, rule) = self.rules.iter().enumerate().find(|(_, rule)| rule.matcher.matches(flow))?;
        Some((RuleId(u32::try_from(index).ok()?), rule))
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
}
