//! A flow as people write it: `tcp 10.20.1.5:51000 203.0.113.9:443`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::wording::{Complaint, complain, known, quoted};
use crate::config::words;
use crate::edge::{LanPlan, Plan};
use crate::model::{ConnectorId, Dscp, FlowKey, InterfaceId, WeekMinute, protocol};
use crate::steer::{Ends, KnownNames, NamePatterns, NewFlow, SiteId};

/// As long as a scenario may be.
const TIMES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
const KILOBYTES: RangeInclusive<u64> = 1..=1_000_000;

/// Protocol, source and destination; for TCP and UDP with ports, where a source without one has 0.
pub fn flow(text: &str) -> Result<FlowKey, Complaint> {
    let parts: Vec<&str> = text.split_whitespace().filter(|part| *part != "->").collect();
    let [name, source, destination] = parts[..] else {
        return complain(format!("{} is not a flow", quoted(text)), "such as \"tcp 10.20.1.5:51000 203.0.113.9:443\"");
    };
    let number = words::ip_protocol(name)?;
    let has_ports = matches!(number, protocol::TCP | protocol::UDP);
    let (source, destination) = (end(source, has_ports)?, end(destination, has_ports)?);
    if source.0.is_ipv4() != destination.0.is_ipv4() {
        return complain(format!("{} has addresses of both families", quoted(text)), "both IPv4 or both IPv6");
    }
    if has_ports && destination.1.is_none() {
        return complain(
            format!("{} has no destination port", quoted(text)),
            "such as \"tcp 10.20.1.5 203.0.113.9:443\"",
        );
    }
    Ok(FlowKey {
        segment: 0,
        protocol: number,
        source: source.0,
        destination: destination.0,
        source_port: source.1.unwrap_or(0),
        destination_port: destination.1.unwrap_or(0),
    })
}

/// A line of a file of flows.
#[derive(Clone, PartialEq, Debug)]
pub struct FlowLine {
    pub flow: NewFlow,
    /// A name of its destination that was learned.
    pub fqdn: Option<String>,
    /// When it begins and ends; `None`: with the simulation.
    pub from: Option<Duration>,
    pub until: Option<Duration>,
    /// What it carries; `None`: as much as it can.
    pub kilobytes: Option<u64>,
}

/// What a line may refer to.
#[derive(Clone, Debug, Default)]
pub struct FlowWords {
    pub lan: LanPlan,
    pub patterns: NamePatterns,
    /// All flows are of this one; else each may be of one of `sites`.
    pub site: Option<String>,
    /// By `SiteId`, from 1.
    pub sites: Vec<String>,
}

impl FlowWords {
    pub fn of_plan(plan: &Plan) -> FlowWords {
        FlowWords {
            lan: plan.lan.clone(),
            patterns: plan.rules.names().clone(),
            site: Some(plan.site.name.clone()),
            sites: Vec::new(),
        }
    }

    /// An interface that no rule names is like any other.
    fn interface(&self, name: &str) -> InterfaceId {
        let index = self.lan.interfaces.iter().position(|known| known == name);
        index.and_then(InterfaceId::of_index).unwrap_or_default()
    }

    /// The first interface of a segment.
    fn segment(&self, name: &str) -> Result<InterfaceId, Complaint> {
        match self.lan.segments.iter().find(|segment| segment.name == name) {
            Some(segment) => Ok(segment.interfaces.first().copied().unwrap_or_default()),
            None => complain(
                format!("unknown segment {}", quoted(name)),
                known(self.lan.segments.iter().map(|segment| &segment.name)),
            ),
        }
    }

    fn site(&self, name: &str) -> Result<SiteId, Complaint> {
        let index = self.sites.iter().position(|known| known == name);
        match (&self.site, index.and_then(|index| u16::try_from(index + 1).ok())) {
            (Some(site), _) if site == name => Ok(SiteId::default()),
            (Some(site), _) if site.is_empty() => {
                complain(format!("a flow of site {}", quoted(name)), "no site is meant; --as says which one")
            }
            (Some(site), _) => {
                complain(format!("a flow of site {}", quoted(name)), format!("all flows are of one site, {site}"))
            }
            (None, Some(number)) => Ok(SiteId(number)),
            (None, None) => complain(
                format!("no rule or test names the site {}", quoted(name)),
                format!("{}; without site= it is one that no rule names", known(&self.sites)),
            ),
        }
    }
}

/// A flow with what is said of it behind: `dscp=ef interface=lan1 from=10s until=2m kilobytes=500`, each if need be.
pub fn flow_line(text: &str, known: &FlowWords) -> Result<FlowLine, Complaint> {
    let (words, rest): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|part| part.contains('='));
    let (mut dscp, mut interface, mut site, mut fqdn) = (Dscp::DEFAULT, None, SiteId::default(), None);
    let (mut from, mut until, mut kilobytes) = (None, None, None);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "dscp" => dscp = words::dscp(value)?,
            "interface" | "segment" if interface.is_some() => {
                return complain(format!("{} names two interfaces or segments", quoted(text)), "only one of them");
            }
            "interface" => interface = Some(known.interface(value)),
            "segment" => interface = Some(known.segment(value)?),
            "site" => site = known.site(value)?,
            "fqdn" => fqdn = Some(words::fqdn(value)?),
            "from" => from = Some(words::duration(value, TIMES)?),
            "until" => until = Some(words::duration(value, TIMES)?),
            "kilobytes" => match value.parse() {
                Ok(number) if KILOBYTES.contains(&number) => kilobytes = Some(number),
                _ => return complain(format!("{} is no number of kilobytes", quoted(value)), "1 to 1,000,000"),
            },
            _ => {
                return complain(
                    format!("unknown word {}", quoted(key)),
                    "dscp=ef, interface=lan1, segment=guests, site=lyon, fqdn=www.example.com, from=10s, until=2m or \
                     kilobytes=500 behind the flow",
                );
            }
        }
    }
    if from.unwrap_or_default() >= until.unwrap_or(Duration::MAX) {
        return complain(format!("{} ends before it begins", quoted(text)), "until after from");
    }
    let names = fqdn.as_deref().map_or_else(KnownNames::default, |name| KnownNames::new(known.patterns.matching(name)));
    let (key, ends) = (flow(&rest.join(" "))?, Ends { site, interface: interface.unwrap_or_default(), names });
    let flow = NewFlow { key, dscp, connector: ConnectorId(0), minute: WeekMinute::default(), ends };
    Ok(FlowLine { flow, fqdn, from, until, kilobytes })
}

fn end(text: &str, has_ports: bool) -> Result<(IpAddr, Option<u16>), Complaint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    match text.parse::<SocketAddr>() {
        Ok(socket) if has_ports => Ok((socket.ip(), Some(socket.port()))),
        Ok(_) => complain(format!("{} has a port, and the protocol has none", quoted(text)), "an address alone"),
        Err(_) => complain(
            format!("{} is not an address", quoted(text)),
            "such as \"10.20.1.5:443\" or \"[2001:db8::1]:443\"",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_a_protocol_and_two_ends() {
        let key = flow("tcp 10.20.1.5:51000 -> 203.0.113.9:443").unwrap();
        assert_eq!(format!("{key:?}"), "tcp 10.20.1.5:51000 -> 203.0.113.9:443");
        assert_eq!(flow("udp [2001:db8::1]:9 [2001:db8::2]:53").unwrap().destination_port, 53);
        assert_eq!(flow("gre 10.0.0.1 10.0.0.2").unwrap().protocol, 47);
        assert_eq!(flow("tcp 10.0.0.1 10.0.0.2:22").unwrap().source_port, 0);
        for wrong in
            ["", "tcp", "tcp 10.0.0.1 10.0.0.2", "icmp 10.0.0.1:1 10.0.0.2", "tcp 10.0.0.1:1 [::1]:2", "tpc 1 2"]
        {
            assert!(flow(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_says_how_a_flow_is_marked_and_when_it_is_there() {
        let line = flow_line("udp 10.0.0.1:5 -> 10.0.0.2:80 dscp=ef from=10s until=2m", &FlowWords::default()).unwrap();
        assert_eq!((line.flow.dscp.value(), line.from), (46, Some(Duration::from_secs(10))));
        assert_eq!((line.until, line.kilobytes), (Some(Duration::from_secs(120)), None));
        assert_eq!(
            flow_line("kilobytes=40 tcp 10.0.0.1:5 10.0.0.2:80", &FlowWords::default()).unwrap().kilobytes,
            Some(40)
        );
        for wrong in ["dscp=what", "from=3", "from=9s until=9s", "until=0s", "kilobytes=0", "bytes=3", "=", "until=30h"]
        {
            assert!(
                flow_line(&format!("tcp 10.0.0.1:5 10.0.0.2:80 {wrong}"), &FlowWords::default()).is_err(),
                "{wrong:?}"
            );
        }
    }
}
