use ipnet::IpNet;

use crate::model::{Dscp, LinkId};

/// The rules of a site, in order: the first that matches decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleSet {
    pub rules: Vec<Rule>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub name: String,
    pub matcher: Matcher,
    pub action: Action,
}

/// Every list that is not empty must contain the flow's value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Matcher {
    pub sources: Vec<IpNet>,
    pub destinations: Vec<IpNet>,
    pub protocols: Vec<u8>,
    pub source_ports: Vec<(u16, u16)>,
    pub destination_ports: Vec<(u16, u16)>,
    pub dscp: Vec<Dscp>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The first healthy of these links; when none of them can carry the flow, any other.
    Prefer(Vec<LinkId>),
    /// Like `Prefer`, but refuse rather than use another link.
    Strict(Vec<LinkId>),
    /// Spread over all links, as without a rule.
    Balance,
    Drop,
}
