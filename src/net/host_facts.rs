use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nameindex;

/// What this host needs for itself: whom it asks for names, and by what it reaches the world.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    pub name_servers: Vec<IpAddr>,
    /// IPv4 alone.
    pub gateways: Vec<IpAddr>,
    /// Of all interfaces but loopback.
    pub addresses: Vec<IpAddr>,
    /// Names of all interfaces.
    pub interfaces: Vec<String>,
}

impl HostFacts {
    /// As far as the system tells; what it does not tell is left out.
    pub fn read() -> HostFacts {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let addresses = getifaddrs().into_iter().flatten().filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        let interfaces = if_nameindex().into_iter().flat_map(|all| {
            all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        });
        HostFacts {
            interfaces: interfaces.collect(),
            name_servers: name_servers(&text("/etc/resolv.conf")),
            gateways: gateways(&text("/proc/net/route")),
            addresses: addresses.filter(|address| !address.is_loopback()).collect(),
        }
    }
}

fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let fields = resolv_conf.lines().map(str::split_whitespace);
    fields.filter_map(|mut line| (line.next()? == "nameserver").then(|| line.next()?.parse().ok())?).collect()
}

/// Of the main table's default routes; numbers there are in hexadecimal, in the host's byte order.
fn gateways(routes: &str) -> Vec<IpAddr> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, gateway, mask) = (fields.get(1)?, fields.get(2)?, fields.get(7)?);
        let gateway = number(gateway).filter(|gateway| *gateway != 0)?;
        let is_default = number(destination) == Some(0) && number(mask) == Some(0);
        is_default.then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
    };
    routes.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_and_default_gateways_are_read_from_what_the_system_writes() {
        let servers = name_servers("# by hand\nsearch example.net\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n");
        assert_eq!(servers, [IpAddr::from([10, 0, 0, 53])]);
        let gateway = format!("{:08X}", u32::from_ne_bytes([192, 0, 2, 1]));
        let table = format!(
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
             eth0 00000000 {gateway} 0003 0 0 0 00000000 0 0 0\n\
             eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
        );
        assert_eq!(gateways(&table), [IpAddr::from([192, 0, 2, 1])]);
    }
}
