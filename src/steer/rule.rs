use ipnet::IpNet;

use crate::model::{Dscp, FlowKey, LinkId, RuleId, protocol};

/// The rules of a site, in order: the first that matches decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleSet {
    pub rules: Vec<Rule>,
}

impl RuleSet {
    /// The first rule that matches.
    pub fn first_match(&self, key: &FlowKey, dscp: Dscp) -> Option<(RuleId, &Rule)> {
        let (index, rule) = self.rules.iter().enumerate().find(|(_, rule)| rule.matcher.matches(key, dscp))?;
        Some((RuleId(u32::try_from(index).ok()?), rule))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub name: String,
    pub matcher: Matcher,
    pub action: Action,
}

/// Every list that is not empty must contain the flow's value. Port ranges include both ends;
/// only TCP and UDP have ports, so a flow of another protocol never matches a list of ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Matcher {
    pub sources: Vec<IpNet>,
    pub destinations: Vec<IpNet>,
    pub protocols: Vec<u8>,
    pub source_ports: Vec<(u16, u16)>,
    pub destination_ports: Vec<(u16, u16)>,
    pub dscp: Vec<Dscp>,
}

impl Matcher {
    pub fn matches(&self, key: &FlowKey, dscp: Dscp) -> bool {
        (self.protocols.is_empty() || self.protocols.contains(&key.protocol))
            && (self.dscp.is_empty() || self.dscp.contains(&dscp))
            && (self.destination_ports.is_empty()
                || has_ports(key.protocol) && in_ranges(&self.destination_ports, key.destination_port))
            && (self.source_ports.is_empty()
                || has_ports(key.protocol) && in_ranges(&self.source_ports, key.source_port))
            && (self.destinations.is_empty() || self.destinations.iter().any(|net| net.contains(&key.destination)))
            && (self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&key.source)))
    }
}

/// An ICMP key carries the echo identifier where others have a port: it must not match one.
fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}

fn in_ranges(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|&(first, last)| first <= port && port <= last)
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
