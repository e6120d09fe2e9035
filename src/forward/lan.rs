use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::model::InterfaceId;

/// By which interface the host reaches an address: the longest prefix decides.
#[derive(Clone, Debug, Default)]
pub struct LanTable {
    v4: PrefixMap<Ipv4Net, InterfaceId>,
    v6: PrefixMap<Ipv6Net, InterfaceId>,
}

impl LanTable {
    pub fn new(routes: &[(IpNet, InterfaceId)]) -> LanTable {
        let mut table = LanTable::default();
        for (network, interface) in routes {
            match network {
                IpNet::V4(network) => table.v4.insert(network.trunc(), *interface),
                IpNet::V6(network) => table.v6.insert(network.trunc(), *interface),
            };
        }
        table
    }

    /// `InterfaceId::OTHER` where no route leads, or by an interface that nobody has named.
    pub fn interface(&self, address: IpAddr) -> InterfaceId {
        let found = match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, interface)| *interface),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, interface)| *interface),
        };
        found.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_tells_the_interface() {
        let route = |network: &str, id| (network.parse().unwrap(), InterfaceId(id));
        let routes = [
            route("10.20.0.0/16", 1),
            route("10.20.9.0/24", 2),
            route("10.20.9.128/25", 0),
            route("2001:db8:9::/48", 2),
        ];
        let table = LanTable::new(&routes);
        let of = |address: &str| table.interface(address.parse().unwrap()).0;
        assert_eq!([of("10.20.1.1"), of("10.20.9.1"), of("10.20.9.200"), of("192.0.2.1")], [1, 2, 0, 0]);
        assert_eq!([of("2001:db8:9::7"), of("2001:db8:8::7")], [2, 0]);
    }
}
