use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

/// How our rules and routes are signed (`protocol` in `ip rule` and `ip route`), so that those
/// of others are never taken for ours. No routing daemon in iproute2's `rt_protos` has it.
pub(super) const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(117);

/// A routing rule: for which packets the kernel looks into which table. All that is `None`
/// fits every packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub priority: u32,
    pub table: u32,
    /// There is no table: what fits goes nowhere.
    pub drops: bool,
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    pub mark: Option<u32>,
    /// By which it comes to the host.
    pub interface: Option<String>,
    /// Routes whose prefix is as short as this, or shorter, do not count.
    pub suppress: Option<u32>,
}

impl Rule {
    pub fn new(priority: u32, table: u32) -> Rule {
        let (source, destination, interface) = (None, None, None);
        Rule { priority, table, drops: false, source, destination, mark: None, interface, suppress: None }
    }

    pub fn dropping(priority: u32) -> Rule {
        Rule { drops: true, ..Rule::new(priority, 0) }
    }

    pub fn with_mark(self, mark: u32) -> Rule {
        Rule { mark: Some(mark), ..self }
    }

    pub fn from(self, source: IpNet) -> Rule {
        Rule { source: Some(source), ..self }
    }

    pub fn arriving_by(self, interface: &str) -> Rule {
        Rule { interface: Some(interface.to_owned()), ..self }
    }

    pub fn without_default_route(self) -> Rule {
        Rule { suppress: Some(0), ..self }
    }

    /// The request that adds it, signed as ours.
    pub fn message(&self, family: AddressFamily) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family;
        message.header.action = if self.drops { RuleAction::Blackhole } else { RuleAction::ToTable };
        message.attributes = vec![RuleAttribute::Priority(self.priority), RuleAttribute::Protocol(OUR_PROTOCOL)];
        message.attributes.extend((!self.drops).then_some(RuleAttribute::Table(self.table)));
        if let Some(source) = self.source {
            message.header.src_len = source.prefix_len();
            message.attributes.push(RuleAttribute::Source(source.network()));
        }
        if let Some(destination) = self.destination {
            message.header.dst_len = destination.prefix_len();
            message.attributes.push(RuleAttribute::Destination(destination.network()));
        }
        message.attributes.extend(self.interface.clone().map(RuleAttribute::Iifname));
        message.attributes.extend(self.mark.map(RuleAttribute::FwMark));
        message.attributes.extend(self.suppress.map(RuleAttribute::SuppressPrefixLen));
        message
    }

    /// What the kernel lists; who made it is another question.
    pub fn read(message: &RuleMessage) -> Rule {
        let mut rule = Rule::new(0, u32::from(message.header.table));
        rule.drops = message.header.action == RuleAction::Blackhole;
        let network = |address: IpAddr, length| IpNet::new(address, length).ok();
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Source(address) => rule.source = network(*address, message.header.src_len),
                RuleAttribute::Destination(address) => rule.destination = network(*address, message.header.dst_len),
                RuleAttribute::Iifname(name) => rule.interface = Some(name.clone()),
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark).filter(|mark| *mark != 0),
                // The kernel lists -1 where nothing is suppressed.
                RuleAttribute::SuppressPrefixLen(length) => rule.suppress = Some(*length).filter(|it| *it != u32::MAX),
                _ => {}
            }
        }
        rule
    }

    pub fn is_ours(message: &RuleMessage) -> bool {
        message.attributes.contains(&RuleAttribute::Protocol(OUR_PROTOCOL))
    }

    /// Whether the kernel, told to delete `self`, would take `other` for it: it compares only what
    /// the request names, not who made the rule, and deletes the first that fits.
    pub fn would_delete(&self, other: &Rule) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, present: &Option<T>) -> bool {
            wanted.is_none() || wanted == present
        }
        self.priority == other.priority
            && self.table == other.table
            && self.drops == other.drops
            && fits(&self.source, &other.source)
            && fits(&self.destination, &other.destination)
            && fits(&self.mark, &other.mark)
            && fits(&self.interface, &other.interface)
            && fits(&self.suppress, &other.suppress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        let plain = Rule::new(2_213, 221);
        for rule in [
            plain.clone(),
            plain.clone().without_default_route(),
            plain.clone().with_mark(221),
            plain.clone().arriving_by("trefoil0b1"),
            plain.clone().arriving_by("trefoil0b1").with_mark(221_002),
            Rule::dropping(2_212).arriving_by("trefoil0b1"),
            plain.clone().from("192.0.2.7/32".parse().unwrap()),
            Rule { destination: Some("10.20.0.0/16".parse().unwrap()), ..plain.clone() },
        ] {
            let message = rule.message(AddressFamily::Inet);
            assert_eq!(Rule::read(&message), rule);
            assert!(Rule::is_ours(&message));
        }
    }

    #[test]
    fn a_narrower_rule_of_somebody_else_would_be_deleted_for_ours() {
        let ours = Rule::new(2_215, 221);
        let narrower = ours.clone().from("10.9.0.0/16".parse().unwrap());
        assert!(ours.would_delete(&narrower));
        assert!(!narrower.would_delete(&ours));
        assert!(!ours.would_delete(&Rule::new(2_215, 222)));
    }
}
