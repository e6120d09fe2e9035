use std::net::IpAddr;

use crate::edge::Plan;
use crate::net::HostFacts;

/// What of this host's own would go into the tunnels with a connector's network ranges: without
/// a tunnel, and after a stop that keeps the ranges closed, its programs could not reach it. And what
/// WAN links and rules name that this host does not have.
pub fn warnings(plan: &Plan) -> Vec<String> {
    judge(plan, &HostFacts::read())
}

fn judge(plan: &Plan, host: &HostFacts) -> Vec<String> {
    let range_of = |address: IpAddr| {
        // What is native, or on this host itself, never goes into a tunnel.
        let stays = address.is_loopback() || plan.site.native.iter().any(|native| native.contains(&address));
        let ranges = plan.connectors.iter().flat_map(|connector| &connector.ranges).filter(|_| !stays);
        ranges.map(|range| range.range).find(|range| range.contains(&address))
    };
    let mut warnings = Vec::new();
    for server in &host.name_servers {
        if let Some(range) = range_of(*server).filter(|_| !host.addresses.contains(server)) {
            warnings.push(format!(
                "the name server {server} of this host (/etc/resolv.conf) is in the network range {range}: while no \
                 tunnel is up, and after a stop with on_stop = \"block\", no program here can look up names"
            ));
        }
    }
    for gateway in &host.gateways {
        if let Some(range) = range_of(*gateway) {
            warnings.push(format!(
                "the default gateway {gateway} of this host is in the network range {range}: programs here reach the \
                 gateway itself only through the tunnels"
            ));
        }
    }
    for address in &host.addresses {
        if let Some(range) = range_of(*address) {
            warnings.push(format!(
                "the address {address} of this host is in the network range {range}: its neighbours there are looked \
                 for behind the tunnels, unless native_ranges has them"
            ));
        }
    }
    for link in &plan.links {
        let underlay = plan.underlays.get(usize::from(link.underlay.0));
        let interface = underlay.and_then(|underlay| underlay.interface.as_ref());
        if let Some(interface) = interface.filter(|name| !host.interfaces.contains(name)) {
            warnings.push(format!(
                "the interface {interface} of WAN link {} does not exist on this host: until it does, its tunnels stay down",
                link.name
            ));
        }
    }
    for interface in plan.lan.interfaces.iter().filter(|name| !host.interfaces.contains(name)) {
        warnings.push(format!(
            "the interface {interface}, which segments or rules name, does not exist on this host: until it does, no \
             flow comes from there"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan =
            crate::config::load(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/branch.toml")))
                .unwrap()
                .plan;
        plan.lan.interfaces = ["lan1", "lan2"].map(str::to_owned).to_vec();
        plan.connectors[0].ranges[0].range = "10.0.0.0/8".parse().unwrap();
        plan
    }

    #[test]
    fn what_the_host_needs_and_a_range_covers_is_told() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let host = HostFacts {
            name_servers: vec![
                address("10.1.2.3"),
                address("192.0.2.53"),
                address("127.0.0.53"),
                address("10.20.0.53"),
            ],
            gateways: vec![address("10.9.0.1")],
            interfaces: vec!["lan1".to_owned(), "eth1".to_owned()],
            addresses: vec![address("10.9.0.2"), address("192.0.2.7"), address("10.20.0.1")],
        };
        let said = judge(&plan(), &host);
        assert_eq!(said.len(), 6, "{said:#?}");
        assert!(said[0].starts_with("the name server 10.1.2.3 of this host"), "{}", said[0]);
        assert!(said[1].starts_with("the default gateway 10.9.0.1 of this host"), "{}", said[1]);
        assert!(said[2].starts_with("the address 10.9.0.2 of this host"), "{}", said[2]);
        assert!(said[3].starts_with("the interface eth2 of WAN link dsl does not exist on this host"), "{}", said[3]);
        assert!(said[4].starts_with("the interface wwan0 of WAN link lte does not exist on this host"), "{}", said[4]);
        assert!(said[5].starts_with("the interface lan2, which segments or rules name, does not"), "{}", said[3]);
    }
}
