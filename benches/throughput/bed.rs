//! Where everything is measured:
//!
//! ```text
//! client ---- A ==== one to three veth pairs ==== B ---- server
//! 198.18.1.10                                            198.19.0.10
//! ```
//!
//! A and B run the product. The hosts behind them have its inner MTU as that of their routes, and
//! it is the same for all who can.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::namespace::{Namespace, join, prefix};
use crate::process::wait_for;
use crate::traffic::{IperfServer, ping};

pub struct Bed {
    pub iperf: IperfServer,
    pub client: Namespace,
    pub a: Namespace,
    pub b: Namespace,
    pub server: Namespace,
    directory: TempDir,
}

/// Of packets in the tunnel, where it can be chosen: the WireGuards' default over 1,500 bytes.
pub const INNER_MTU: u16 = 1_420;
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 10);
pub const CLIENT_RANGE: &str = "198.18.1.0/24";
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
/// With the sink's addresses.
pub const SERVER_RANGE: &str = "198.19.0.0/23";
pub const B_ADDRESS: Ipv4Addr = b_address(0);
/// The other addresses of the server, 0 to 63: flows to them differ in their destination.
pub const fn server_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 0, 10 + index % 64)
}

/// Addresses whose packets reach the server and vanish there.
pub const fn sink_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 1, index)
}

pub const fn a_address(link: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, link * 4 + 1)
}

pub const fn b_address(link: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, link * 4 + 2)
}

/// The WAN links of A and B are called wan0, wan1 and wan2.
pub const LINKS: u8 = 3;

impl Bed {
    /// `mtu`: of the hosts' routes.
    pub fn new(mtu: u16) -> Bed {
        let [client, a, b, server] = ["client", "a", "b", "server"].map(Namespace::new);
        for namespace in [&client, &a, &b, &server] {
            namespace.sysctl(&["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]);
        }
        for router in [&a, &b] {
            router.sysctl(&["net.ipv4.ip_forward=1"]);
        }
        join(&client, "lan", &format!("{CLIENT}/24"), &a, "lan", "198.18.1.1/24");
        join(&b, "lan", "198.19.0.1/24", &server, "lan", &format!("{SERVER}/24"));
        for link in 0..LINKS {
            let name = format!("wan{link}");
            let (here, there) = (a_address(link), b_address(link));
            join(&a, &name, &format!("{here}/30"), &b, &name, &format!("{there}/30"));
            // One address of B over every link, for whoever binds a socket to one of them.
            a.ip(&format!("route add {B_ADDRESS}/32 via {there} dev {name} metric {}\n", link + 1));
        }
        client.ip(&format!("route add default via 198.18.1.1 mtu {mtu}\n"));
        server.ip(&format!("route add default via 198.19.0.1 mtu {mtu}\n"));
        for index in 1..64 {
            server.ip(&format!("addr add {}/32 dev lo\n", server_address(index)));
        }
        server.ip("route add blackhole 198.19.1.0/24\n");
        b.ip(&format!("route add 198.19.1.0/24 via {SERVER}\n"));
        let directory = tempfile::Builder::new().prefix(&prefix()).tempdir().expect("a temporary folder");
        let iperf = IperfServer::start(&server, SERVER, directory.path());
        Bed { iperf, client, a, b, server, directory }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until the client reaches the server.
    pub fn wait_until_joined(&self) {
        wait_for("the client reaches the server", Duration::from_secs(20), || {
            (ping(&self.client, SERVER, 3) == 3).then_some(())
        });
    }
}
