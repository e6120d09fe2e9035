use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::model::ConnectorId;

/// Destination to connector by longest prefix.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    v4: PrefixMap<Ipv4Net, ConnectorId>,
    v6: PrefixMap<Ipv6Net, ConnectorId>,
}

impl RouteTable {
    pub fn insert(&mut self, network: IpNet, connector: ConnectorId) {
        match network {
            IpNet::V4(network) => self.v4.insert(network, connector),
            IpNet::V6(network) => self.v6.insert(network, connector),
        };
    }

    pub fn connector(&self, destination: IpAddr) -> Option<ConnectorId> {
        match destination {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, connector)| *connector),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, connector)| *connector),
        }
    }
}
