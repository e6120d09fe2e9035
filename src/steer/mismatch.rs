use std::fmt::{self, Display};

use super::matcher::{has_ports, in_ports};
use super::{Matcher, NewFlow};
use crate::model::protocol;

/// Values of a rule shown to say what a flow is not.
const SHOWN: usize = 4;

impl Matcher {
    /// Why a flow does not match, in plain words: the first thing that is otherwise. `None`: it
    /// matches.
    pub fn mismatch(&self, flow: &NewFlow) -> Option<String> {
        if !self.sites.is_empty() && !self.sites.contains(&flow.ends.site) {
            return Some("it is for other sites".to_owned());
        }
        let key = &flow.key;
        let nets = |nets: &[ipnet::IpNet], address| nets.iter().any(|net| net.contains(&address));
        if !self.protocols.is_empty() && !self.protocols.contains(&key.protocol) {
            let wanted = list(self.protocols.iter().map(|number| Protocol(*number)));
            return Some(format!("the protocol is {}, not {wanted}", Protocol(key.protocol)));
        }
        if !self.dscp.is_empty() && !self.dscp.contains(&flow.dscp) {
            return Some(format!("the DSCP is {}, not {}", flow.dscp, list(self.dscp.iter())));
        }
        if !in_ports(&self.destination_ports, key.protocol, key.destination_port) {
            let wanted = list(self.destination_ports.iter().map(|range| Ports(*range)));
            return Some(port_mismatch("destination", key.protocol, key.destination_port, &wanted));
        }
        if !in_ports(&self.source_ports, key.protocol, key.source_port) {
            let wanted = list(self.source_ports.iter().map(|range| Ports(*range)));
            return Some(port_mismatch("source", key.protocol, key.source_port, &wanted));
        }
        if !self.destinations.is_empty() && !nets(&self.destinations, key.destination) {
            return Some(format!("the destination is not in {}", list(self.destinations.iter())));
        }
        if !self.sources.is_empty() && !nets(&self.sources, key.source) {
            return Some(format!("the source is not in {}", list(self.sources.iter())));
        }
        if !self.interfaces.is_empty() && !self.interfaces.contains(&flow.ends.interface) {
            return Some("the source is reached by another interface".to_owned());
        }
        if !self.names.is_empty() && !flow.ends.names.iter().any(|name| self.names.contains(&name)) {
            return Some("no such name of the destination is known".to_owned());
        }
        if !self.connectors.is_empty() && !self.connectors.contains(&flow.connector) {
            return Some("it goes to another connector".to_owned());
        }
        if !self.minutes.is_empty() && !self.minutes.iter().any(|(first, last)| (*first..=*last).contains(&flow.minute))
        {
            return Some(format!("it is {}, outside the rule's hours", flow.minute));
        }
        (!self.matches(flow)).then(|| "it is none of the application's services".to_owned())
    }
}

fn port_mismatch(end: &str, protocol: u8, port: u16, wanted: &str) -> String {
    match has_ports(protocol) {
        true => format!("the {end} port is {port}, not {wanted}"),
        false => format!("{} has no ports, and it asks for {end} port {wanted}", Protocol(protocol)),
    }
}

fn list<T: Display>(values: impl ExactSizeIterator<Item = T>) -> String {
    let more = values.len().saturating_sub(SHOWN);
    let shown: Vec<String> = values.take(SHOWN).map(|value| value.to_string()).collect();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} or {more} more") }
}

struct Protocol(u8);

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            protocol::TCP => f.write_str("tcp"),
            protocol::UDP => f.write_str("udp"),
            protocol::ICMP => f.write_str("icmp"),
            protocol::ICMPV6 => f.write_str("icmpv6"),
            other => write!(f, "{other}"),
        }
    }
}

struct Ports((u16, u16));

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.0;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConnectorId, Dscp, FlowKey, WeekMinute};
    use crate::steer::Ends;

    #[test]
    fn what_does_not_match_is_named_with_what_was_asked_for() {
        let flow = NewFlow {
            key: FlowKey {
                segment: 0,
                protocol: protocol::TCP,
                source: [10, 20, 1, 5].into(),
                destination: [203, 0, 113, 9].into(),
                source_port: 51_000,
                destination_port: 443,
            },
            dscp: Dscp::DEFAULT,
            connector: ConnectorId(0),
            minute: WeekMinute::default(),
            ends: Ends::default(),
        };
        let why = |matcher: Matcher| matcher.mismatch(&flow).unwrap_or_default();
        let voice = Matcher { dscp: vec![Dscp::new(46).unwrap()], ..Matcher::default() };
        assert_eq!(why(voice), "the DSCP is default, not ef");
        let ports = (1..=6).map(|port| (port, port + 10)).collect();
        let some_ports = Matcher { destination_ports: ports, ..Matcher::default() };
        assert_eq!(why(some_ports), "the destination port is 443, not 1-11, 2-12, 3-13, 4-14 or 2 more");
        let lab = Matcher { destinations: vec!["192.0.2.0/24".parse().unwrap()], ..Matcher::default() };
        assert_eq!(why(lab), "the destination is not in 192.0.2.0/24");
        assert_eq!(why(Matcher { protocols: vec![17], ..Matcher::default() }), "the protocol is tcp, not udp");
        assert_eq!(why(Matcher::default()), "");
        // The key of a ping has its number where others have a port.
        let key = FlowKey { protocol: protocol::ICMP, source_port: 7, destination_port: 0, ..flow.key };
        let web = Matcher { destination_ports: vec![(443, 443)], ..Matcher::default() };
        let told = web.mismatch(&NewFlow { key, ..flow });
        assert_eq!(told.as_deref(), Some("icmp has no ports, and it asks for destination port 443"));
    }
}
