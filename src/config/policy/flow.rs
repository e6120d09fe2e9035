//! A flow as people write it: `tcp 10.20.1.5:51000 203.0.113.9:443`.

use std::net::{IpAddr, SocketAddr};

use crate::config::wording::{Complaint, complain, quoted};
use crate::config::words;
use crate::edge::LanPlan;
use crate::model::{ConnectorId, Dscp, FlowKey, InterfaceId, WeekMinute, protocol};
use crate::steer::{Ends, NewFlow};

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

/// A flow, with `dscp=ef` behind it where it is marked, and `interface=lan1` where it comes from there.
/// An interface that no rule names is like any other.
pub fn marked_flow(text: &str, lan: &LanPlan) -> Result<NewFlow, Complaint> {
    let (mut dscp, mut interface) = (Dscp::DEFAULT, InterfaceId::OTHER);
    let mut rest: Vec<&str> = Vec::new();
    for part in text.split_whitespace() {
        if let Some(name) = part.strip_prefix("dscp=") {
            dscp = words::dscp(name)?;
        } else if let Some(name) = part.strip_prefix("interface=") {
            let index = lan.interfaces.iter().position(|known| known == name);
            interface = index.and_then(InterfaceId::of_index).unwrap_or_default();
        } else {
            rest.push(part);
        }
    }
    let (key, ends) = (flow(&rest.join(" "))?, Ends { interface });
    Ok(NewFlow { key, dscp, connector: ConnectorId(0), minute: WeekMinute::default(), ends })
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
}
