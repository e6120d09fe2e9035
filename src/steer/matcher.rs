use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::KnownNames;
use super::classify::Row;
use crate::model::{ConnectorId, Dscp, FlowKey, InterfaceId, NameId, WeekMinute, protocol};

/// What a rule can ask of a flow, all of it told by the flow's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewFlow {
    pub key: FlowKey,
    pub dscp: Dscp,
    /// The connector that the flow's destination is routed to.
    pub connector: ConnectorId,
    /// In which the rules' hours are looked at: control says it, no worker reads a clock.
    pub minute: WeekMinute,
    pub ends: Ends,
}

/// What is known of a flow's ends that its packets do not say.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ends {
    /// The site that it leaves, where rules for several are looked at together; none of them on a device, which
    /// has only rules of its own.
    #[serde(skip_serializing_if = "SiteId::is_unnamed")]
    pub site: SiteId,
    /// By which of the host's interfaces the source is reached.
    pub interface: InterfaceId,
    /// Patterns that the names of the destination match.
    pub names: KnownNames,
}

/// A site by its number among those that rules name, from 1; 0 is any that none names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteId(pub u16);

impl SiteId {
    pub fn is_unnamed(&self) -> bool {
        *self == SiteId::default()
    }
}

/// Every list that is not empty must contain the flow's value. Port ranges include both ends;
/// only TCP and UDP have ports, so a flow of another protocol never matches a list of ports.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Matcher {
    /// Empty in the rules of a device: those for other sites are left out of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteId>,
    pub sources: Vec<IpNet>,
    pub destinations: Vec<IpNet>,
    pub protocols: Vec<u8>,
    pub source_ports: Vec<(u16, u16)>,
    pub destination_ports: Vec<(u16, u16)>,
    pub dscp: Vec<Dscp>,
    pub connectors: Vec<ConnectorId>,
    /// Times of the week, both ends included.
    pub minutes: Vec<(WeekMinute, WeekMinute)>,
    /// Of the source.
    pub interfaces: Vec<InterfaceId>,
    /// Of the destination.
    pub names: Vec<NameId>,
    /// Of an application, one of these services must match as a whole.
    pub services: Vec<Service>,
}

/// One way in which an application is reached. A list that is empty contains everything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    pub destinations: Vec<IpNet>,
    pub protocols: Vec<u8>,
    pub destination_ports: Vec<(u16, u16)>,
}

impl Matcher {
    /// What it says, read literally. The classifier gives the same answer for many rules at once.
    pub fn matches(&self, flow: &NewFlow) -> bool {
        let key = &flow.key;
        (self.protocols.is_empty() || self.protocols.contains(&key.protocol))
            && (self.dscp.is_empty() || self.dscp.contains(&flow.dscp))
            && (self.connectors.is_empty() || self.connectors.contains(&flow.connector))
            && (self.minutes.is_empty()
                || self.minutes.iter().any(|(first, last)| (*first..=*last).contains(&flow.minute)))
            && (self.sites.is_empty() || self.sites.contains(&flow.ends.site))
            && (self.interfaces.is_empty() || self.interfaces.contains(&flow.ends.interface))
            && (self.names.is_empty() || flow.ends.names.iter().any(|name| self.names.contains(&name)))
            && in_ports(&self.destination_ports, key.protocol, key.destination_port)
            && in_ports(&self.source_ports, key.protocol, key.source_port)
            && (self.destinations.is_empty() || self.destinations.iter().any(|net| net.contains(&key.destination)))
            && (self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&key.source)))
            && (self.services.is_empty() || self.services.iter().any(|service| service.matches(key)))
    }

    /// Flows that match, one for each way to match: what a rule is about, by example.
    pub fn samples(&self) -> impl Iterator<Item = NewFlow> {
        Row::all_of(self).into_iter().map(|row| row.sample())
    }

    pub fn matches_everything(&self) -> bool {
        *self == Matcher::default()
    }
}

impl Service {
    /// How many it lists.
    pub fn values(&self) -> usize {
        self.destinations.len() + self.protocols.len() + self.destination_ports.len()
    }

    fn matches(&self, key: &FlowKey) -> bool {
        (self.protocols.is_empty() || self.protocols.contains(&key.protocol))
            && in_ports(&self.destination_ports, key.protocol, key.destination_port)
            && (self.destinations.is_empty() || self.destinations.iter().any(|net| net.contains(&key.destination)))
    }
}

/// An ICMP key carries the echo identifier where others have a port: it must not match one.
pub(super) fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}

pub(super) fn in_ports(ranges: &[(u16, u16)], protocol: u8, port: u16) -> bool {
    ranges.is_empty() || has_ports(protocol) && ranges.iter().any(|&(first, last)| first <= port && port <= last)
}
