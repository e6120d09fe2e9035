//! The lab: a branch LAN, an edge with three WAN links, the internet as an emulator, two PoPs and
//! one server that stands behind both.
//!
//! ```text
//!                      fibre 192.0.2.2
//! LAN host -- edge --- dsl   192.0.2.6  --- internet --- pop1 198.51.100.2 ---+-- server
//! 198.18.1.10          lte   192.0.2.10        |    \--- pop2 203.0.113.2 ----+   198.19.0.10
//!                                              DNS 192.0.2.53
//! ```

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tempfile::TempDir;

use super::emulator::{Emulator, Link, Model};
use super::namespace::{Namespace, join, prefix, remove_leftovers};

pub struct Topology {
    // In this order they go away: the emulator while its router is still there.
    pub wan: Emulator,
    pub lan: Namespace,
    pub edge: Namespace,
    pub internet: Namespace,
    pub pops: [Namespace; 2],
    pub server: Namespace,
    directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

pub const LAN_RANGE: &str = "198.18.1.0/24";
pub const LAN_HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 10);
pub const SERVER_RANGE: &str = "198.19.0.0/24";
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
pub const POPS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 2), Ipv4Addr::new(203, 0, 113, 2)];
/// A second address of the first PoP's machine, for names that move.
pub const POP1_NEW: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Free for a third.
pub const POP1_THIRD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 4);

/// One of the edge's WAN links.
pub struct WanLink {
    pub name: &'static str,
    pub interface: &'static str,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub mbps: u32,
    pub one_way: Duration,
}

const fn wan_link(name: &'static str, interface: &'static str, last: u8, mbps: u32, one_way_ms: u64) -> WanLink {
    WanLink {
        name,
        interface,
        address: Ipv4Addr::new(192, 0, 2, last),
        gateway: Ipv4Addr::new(192, 0, 2, last - 1),
        mbps,
        one_way: Duration::from_millis(one_way_ms),
    }
}

pub const FIBRE: &WanLink = &LINKS[0];
pub const DSL: &WanLink = &LINKS[1];
pub const LTE: &WanLink = &LINKS[2];
pub const LINKS: [WanLink; 3] = [
    wan_link("fibre", "wan-fibre", 2, 300, 4),
    wan_link("dsl", "wan-dsl", 6, 100, 12),
    wan_link("lte", "wan-lte", 10, 50, 25),
];

/// One lab at a time in a test run: the machine has few cores and the tests measure time.
static TURN: Mutex<()> = Mutex::new(());

impl Topology {
    pub fn new() -> Topology {
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        remove_leftovers();
        let [lan, edge, internet, pop1, pop2, server] =
            ["lan", "edge", "net", "pop1", "pop2", "srv"].map(Namespace::new);
        for namespace in [&lan, &edge, &internet, &pop1, &pop2, &server] {
            namespace.sysctl(&["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]);
        }
        for router in [&edge, &internet, &pop1, &pop2] {
            router.sysctl(&["net.ipv4.ip_forward=1"]);
        }
        join(&lan, "lan", "198.18.1.10/24", &edge, "lan", "198.18.1.1/24");
        lan.ip("route add default via 198.18.1.1\n");
        for (metric, link) in LINKS.iter().enumerate() {
            let WanLink { interface, address, gateway, .. } = link;
            join(&edge, interface, &format!("{address}/30"), &internet, interface, &format!("{gateway}/30"));
            edge.ip(&format!("route add default via {gateway} dev {interface} metric {}\n", 100 + metric));
        }
        let back = ["198.19.1", "198.19.2"];
        for (index, pop) in [&pop1, &pop2].into_iter().enumerate() {
            let (name, address) = (format!("pop{}", index + 1), POPS[index]);
            let [a, b, c, _] = address.octets();
            let near = back[index];
            join(pop, "wan", &format!("{address}/24"), &internet, &name, &format!("{a}.{b}.{c}.1/24"));
            join(pop, "lan", &format!("{near}.1/30"), &server, &name, &format!("{near}.2/30"));
            // strongSwan's user-space ESP installs a route only where it finds an address of its
            // own in the local selectors. What no tunnel takes must not wander back to the internet.
            pop.ip(&format!(
                "addr add 198.19.0.{}/32 dev lo\nroute add default via {a}.{b}.{c}.1\nroute add {SERVER_RANGE} via {near}.2\n\
                 route add unreachable 198.18.0.0/16 metric 9999\n",
                index + 1
            ));
        }
        pop1.ip(&format!("addr add {POP1_NEW}/24 dev wan\n"));
        internet.ip(&format!("addr add {RESOLVER}/32 dev lo\n"));
        edge.set_resolver(&RESOLVER.to_string());
        server.ip(&format!(
            "addr add {SERVER}/32 dev lo\nroute add 198.18.0.0/16 via 198.19.1.1 src {SERVER}\n\
             route add 198.18.0.0/16 via 198.19.2.1 src {SERVER} table 102\nrule add fwmark 2 lookup 102\n"
        ));
        server.nft(ANSWER_WHERE_IT_CAME_FROM);
        let wan = emulate(&internet);
        let directory = tempfile::Builder::new().prefix(&prefix()).tempdir().expect("a temporary folder");
        Topology { wan, lan, edge, internet, pops: [pop1, pop2], server, directory, _turn: turn }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The server answers a flow through the PoP that it last arrived by, as a backbone would that
/// hears of the site from both PoPs.
const ANSWER_WHERE_IT_CAME_FROM: &str = r#"
table inet lab {
  chain arriving {
    type filter hook prerouting priority -150
    iifname "pop1" ct mark set 1
    iifname "pop2" ct mark set 2
  }
  chain leaving {
    type route hook output priority -150
    meta mark set ct mark
  }
}
"#;

fn emulate(internet: &Namespace) -> Emulator {
    let interfaces = [FIBRE.interface, DSL.interface, LTE.interface, "pop1", "pop2"];
    let wan = LINKS.iter().map(|link| {
        let model = Model { delay: link.one_way, ..Model::CLEAN };
        Link { address: link.address, from: model, to: model }
    });
    let pops =
        [POPS[0], POPS[1], POP1_NEW, POP1_THIRD].map(|address| Link { address, from: Model::CLEAN, to: Model::CLEAN });
    Emulator::start(internet, &interfaces, wan.chain(pops).collect(), 1)
}
