use std::collections::BTreeMap;
use std::io;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::HostWatch;
use super::routes::{Family, MAIN, destination, metric, table, to_io};
use crate::model::InterfaceId;

/// Networks behind the interfaces that rules name, at most: a site has some tens. A host with a
/// larger table names the interface of its default route, and the longest prefixes of it are left out.
const NETWORKS_MAX: usize = 16_384;

/// Tells by which interfaces this host reaches which networks: the routes of its main table, where the
/// answers to the LAN go.
pub struct LanWatch {
    host: HostWatch,
    /// By `InterfaceId::index`.
    interfaces: Vec<String>,
    /// The tunnels' own.
    device: String,
}

/// What the host says at present.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LanRoutes {
    /// Of the interfaces that were asked for, and what is reached otherwise within them; in order.
    pub networks: Vec<(IpNet, InterfaceId)>,
    /// Interfaces that do not exist.
    pub missing: Vec<String>,
}

impl LanWatch {
    /// Needs a tokio runtime.
    pub fn open(interfaces: &[String], device: &str) -> io::Result<LanWatch> {
        Ok(LanWatch { host: HostWatch::open()?, interfaces: interfaces.to_vec(), device: device.to_owned() })
    }

    /// Returns when something has changed, perhaps nothing of interest.
    pub async fn changed(&mut self) {
        self.host.changed().await;
    }

    pub async fn read(&mut self) -> io::Result<LanRoutes> {
        let mut numbers: BTreeMap<u32, InterfaceId> = BTreeMap::new();
        let mut missing = Vec::new();
        for (index, name) in self.interfaces.iter().enumerate() {
            match (if_nametoindex(name.as_str()), InterfaceId::of_index(index)) {
                (Ok(number), Some(id)) => _ = numbers.insert(number, id),
                _ => missing.push(name.clone()),
            }
        }
        let tunnels = if_nametoindex(self.device.as_str()).ok();
        // Of several routes to one network the least metric counts.
        let mut best: BTreeMap<IpNet, (u32, InterfaceId)> = BTreeMap::new();
        // Half an answer would take its interface from every source of the other family.
        for family in Family::present() {
            let routes = self.host.handle.route().get(family.all_routes()).execute();
            let routes: Vec<RouteMessage> = routes.try_collect().await.map_err(to_io)?;
            for route in routes.iter().filter(|route| table(route) == MAIN) {
                let (Some(network), Some(interfaces)) = (destination(route), interfaces(route)) else { continue };
                if interfaces.iter().any(|number| Some(*number) == tunnels) {
                    continue;
                }
                let id = |number: &u32| numbers.get(number).copied().unwrap_or_default();
                let mut ids = interfaces.iter().map(id);
                let first = ids.next().unwrap_or_default();
                // Several ways by different interfaces tell nothing.
                let found = (metric(route), if ids.all(|other| other == first) { first } else { InterfaceId::OTHER });
                let known = best.entry(network).or_insert(found);
                *known = (*known).min(found);
            }
        }
        let networks = best.into_iter().map(|(network, (_, id))| (network, id)).collect();
        Ok(LanRoutes { networks: of_interest(networks), missing })
    }
}

/// The interfaces that a route leads by; `None` of one that leads nowhere.
fn interfaces(route: &RouteMessage) -> Option<Vec<u32>> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let hops = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(number) => Some(vec![*number]),
        RouteAttribute::MultiPath(hops) => Some(hops.iter().map(|hop| hop.interface_index).collect()),
        _ => None,
    };
    route.attributes.iter().find_map(hops)
}

/// The networks of named interfaces, and those within them that are reached otherwise. They come with
/// the shorter prefixes first among those that contain each other.
fn of_interest(networks: Vec<(IpNet, InterfaceId)>) -> Vec<(IpNet, InterfaceId)> {
    let mut kept: Vec<(IpNet, InterfaceId)> = Vec::new();
    // Those that contain the present one, the longest last.
    let mut around: Vec<(IpNet, InterfaceId)> = Vec::new();
    for (network, id) in networks {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&network)) {
            around.pop();
        }
        let before = around.last().map_or(InterfaceId::OTHER, |(_, id)| *id);
        if id != before && kept.len() < NETWORKS_MAX {
            kept.push((network, id));
        }
        around.push((network, id));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{Namespace, ip};
    use super::*;
    use std::time::Duration;

    fn networks(texts: &[(&str, u8)]) -> Vec<(IpNet, InterfaceId)> {
        texts.iter().map(|(network, id)| (network.parse().unwrap(), InterfaceId(*id))).collect()
    }

    #[test]
    fn only_what_tells_an_interface_apart_is_kept() {
        let mut all = networks(&[
            ("0.0.0.0/0", 0),
            ("10.1.0.0/16", 1),
            ("10.1.2.0/24", 1),
            ("10.1.3.0/24", 0),
            ("10.1.3.128/25", 2),
            ("192.0.2.0/24", 0),
            ("2001:db8::/32", 2),
        ]);
        all.sort();
        let expected = networks(&[("10.1.0.0/16", 1), ("10.1.3.0/24", 0), ("10.1.3.128/25", 2), ("2001:db8::/32", 2)]);
        assert_eq!(of_interest(all), expected);
    }

    #[test]
    fn the_host_says_by_which_interface_it_answers_and_tells_of_changes() {
        let Some(namespace) = Namespace::new() else { return };
        namespace.run(|| {
            for line in [
                "link add lan1 type veth peer name lan1p",
                "link add lan2 type veth peer name lan2p",
                "link add tf0 type veth peer name tf0p",
                "address add 10.1.0.1/16 dev lan1",
                "address add 10.2.0.1/24 dev lan2",
                "link set lan1 up",
                "link set lan1p up",
                "link set lan2 up",
                "link set lan2p up",
                "link set tf0 up",
                "route add 10.50.0.0/16 via 10.2.0.9",
                "route add 10.1.99.0/24 dev tf0",
                "route add 10.60.0.0/16 via 10.2.0.9 metric 50",
                "route add 10.60.0.0/16 via 10.1.0.9 metric 9",
                "route add 10.70.0.0/16 nexthop via 10.1.0.9 nexthop via 10.2.0.9",
                "route add 10.80.0.0/16 via 10.1.0.9 table 77",
                "route add blackhole 10.1.5.0/24",
            ] {
                ip(line);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let names = ["lan1", "lan2", "lan9"].map(str::to_owned);
                let mut watch = LanWatch::open(&names, "tf0").unwrap();
                let told = watch.read().await.unwrap();
                assert_eq!(told.missing, ["lan9"]);
                let v4: Vec<_> = told.networks.into_iter().filter(|(network, _)| network.addr().is_ipv4()).collect();
                let expected = [("10.1.0.0/16", 1), ("10.2.0.0/24", 2), ("10.50.0.0/16", 2), ("10.60.0.0/16", 1)];
                assert_eq!(v4, networks(&expected));

                let mut settles = async |what: &str, wanted: &[(&str, u8)]| {
                    let wanted = networks(wanted);
                    let found = async {
                        loop {
                            let told = watch.read().await.unwrap();
                            if told.networks.into_iter().filter(|(net, _)| net.addr().is_ipv4()).eq(wanted.clone()) {
                                return;
                            }
                            watch.changed().await;
                        }
                    };
                    tokio::time::timeout(Duration::from_secs(20), found).await.expect(what);
                };
                ip("link set lan1 down");
                settles("a link that goes down", &[("10.2.0.0/24", 2), ("10.50.0.0/16", 2), ("10.60.0.0/16", 2)]).await;
                ip("link add lan9 type veth peer name lan9p");
                ip("address add 10.9.0.1/24 dev lan9");
                ip("link set lan9p up");
                ip("link set lan9 up");
                let with_new = [("10.2.0.0/24", 2), ("10.9.0.0/24", 3), ("10.50.0.0/16", 2), ("10.60.0.0/16", 2)];
                settles("an interface that comes", &with_new).await;
            });
        });
    }
}
