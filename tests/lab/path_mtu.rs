//! A link in the middle that carries less than the edge's own interfaces.

use std::time::Duration;

use super::bench::{start_edge, start_pop};
use super::daemon::{binary, tunnel};
use super::namespace::Namespace;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{FIBRE, SERVER, Topology};
use super::traffic::{IperfServer, Load};

/// What the link between the internet and the PoP carries, and what that leaves inside: 20 bytes of IPv4, 8
/// of UDP, 16 of ESP header and IV, 16 of ICV, and packet, padding and two bytes in fours.
const NARROW: u32 = 1_400;
const INSIDE: u16 = 1_338;

/// The router says nothing of what it drops.
const SILENT_ROUTER: &str = "
table inet black_hole {
  chain leaving {
    type filter hook output priority 0
    icmp type destination-unreachable drop
  }
}
";

#[test]
fn a_narrow_link_behind_a_router_that_says_so_is_found() {
    narrow_link(false);
}

#[test]
fn a_narrow_link_behind_a_router_that_is_silent_is_found() {
    narrow_link(true);
}

fn narrow_link(silent: bool) {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    // The router itself forwards, and measures.
    lab.wan.bypass();
    lab.internet.ip(&format!("link set pop1 mtu {NARROW}\n"));
    lab.pops[0].ip(&format!("link set wan mtu {NARROW}\n"));
    if silent {
        lab.internet.nft(SILENT_ROUTER);
    }
    let mut site = Site { pmtu_discovery: true, ..Site::new() };
    site.roles[0].links = vec![FIBRE];
    site.roles[1].links = Vec::new();
    let pop = start_pop(&lab, &site, 0, |_| {});
    let trefoil = start_edge(&binary(), &lab, &site, &[]);
    let found = trefoil.wait("the path's MTU is found", Duration::from_secs(30), |status| {
        tunnel(status, "primary", "fibre").path_mtu.is_some()
    });
    let (status, log) = (tunnel(&found, "primary", "fibre").clone(), trefoil.log());
    let took = Duration::from_millis(found.at_ms - found.started_ms);
    assert_eq!((status.mtu, status.path_mtu), (Some(INSIDE), Some(INSIDE)), "{}{}", trefoil.describe(), pop.describe());
    assert!(log.contains("path MTU found"), "{log}");

    // A host that sends what the device takes is told how much that is, and what it may cut arrives.
    assert!(!answered(&lab.lan, 1_438, "do"), "it must not be carried in pieces");
    assert!(answered(&lab.lan, INSIDE, "do"), "{}{}", trefoil.describe(), pop.describe());
    assert!(answered(&lab.lan, 1_438, "dont"));
    let server = IperfServer::start(&lab.server, SERVER, lab.directory());
    let tcp = server.measure(&lab.lan, Load::Tcp, false, 1).expect("TCP crosses");
    say(&format!(
        "a link of {NARROW} bytes, silent {silent}: packets of {INSIDE} bytes proven to fit {:.1} s after the start; \
         TCP then {:.0} Mbit/s",
        took.as_secs_f64(),
        tcp.mbps
    ));
    assert!(tcp.mbps > 5.0, "{tcp:?}");
}

/// Is one ping of an IP packet of this size answered? `cut` is what ping calls path-MTU discovery.
fn answered(from: &Namespace, size: u16, cut: &str) -> bool {
    let (data, target) = ((size - 28).to_string(), SERVER.to_string());
    let arguments = ["-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", "-M", cut, "-s", &data, &target];
    from.run("ping", &arguments).status.success()
}
