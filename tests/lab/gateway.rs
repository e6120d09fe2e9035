//! Trefoil as the PoP: a gateway that answers the tunnels of one role of the lab's branch.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::daemon::{Trefoil, binary};
use super::site::{Site, local_id, private_addresses};
use super::topology::{LAN_RANGE, POPS, SERVER_RANGE, Topology};

/// How it rekeys, and how many threads carry its packets.
#[derive(Clone, Copy)]
pub struct GatewayWish {
    pub ike_lifetime: Duration,
    pub child_lifetime: Duration,
    pub workers: u16,
}

/// Starts it in the place of the role's PoP.
pub fn start_gateway(lab: &Topology, site: &Site, role: usize, wish: GatewayWish) -> Trefoil {
    let folder = lab.directory().join(format!("gateway{}", role + 1));
    fs::create_dir_all(folder.join("profiles")).expect("a folder for the gateway");
    let socket = folder.join("trefoil.sock");
    let write = |file: &str, text: &str| fs::write(folder.join(file), text).expect("a file of the gateway");
    write("psk", &site.psk);
    fs::set_permissions(folder.join("psk"), Permissions::from_mode(0o600)).expect("a private key file");
    write(
        "profiles/lab.toml",
        &format!(
            "[phase1]\nlifetime = \"{}s\"\n\n[phase2]\nlifetime = \"{}s\"\n",
            wish.ike_lifetime.as_secs(),
            wish.child_lifetime.as_secs()
        ),
    );
    let mut text = format!(
        r#"profiles = ["profiles/*.toml"]

[site]
name = "lab-pop{number}"
kind = "cloud-vpc"
native_ranges = ["{SERVER_RANGE}"]

[control]
socket = "{}"

[dataplane]
workers = {}

[wan.internet]
source_address = "{}"
downstream_mbps = 1000
upstream_mbps = 1000

[connector.branch]
mode = "responder"
network_ranges = ["branch:{LAN_RANGE}"]
phase1 = "lab"
phase2 = "lab"

[connector.branch.primary]
psk_file = "psk"
"#,
        socket.display(),
        wish.workers,
        POPS[role],
        number = role + 1,
    );
    for link in &site.roles[role].links {
        let (theirs, ours) = private_addresses(role, link);
        let _ = write!(
            text,
            r#"
[[connector.branch.primary.tunnel]]
name = "{}"
wan = "internet"
local_id = "{}"
remote_id = "{}"
private_local = "{ours}/30"
private_remote = "{theirs}/30"
"#,
            link.name,
            site.roles[role].remote_id_for(link),
            local_id(role, link)
        );
    }
    write("site.toml", &text);
    Trefoil::launch(&binary(), &lab.pops[role], &folder.join("site.toml"), &socket, &[])
}
