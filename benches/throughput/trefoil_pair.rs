//! Trefoil at both ends, as it is used: a branch at A that opens its tunnels to a gateway at B.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bed::{B_ADDRESS, Bed, CLIENT_RANGE, INNER_MTU, SERVER_RANGE};
use crate::daemon::Trefoil;
use crate::process::wait_for;
use crate::steady_flows::{FLOWS, SteadyFlows};

/// Rules of each end; none of them matches what is measured, so that a new flow passes them all.
pub const RULES: usize = 1_000;

pub struct TrefoilPair {
    pub flows: SteadyFlows,
    pub branch: Trefoil,
    pub gateway: Trefoil,
}

impl TrefoilPair {
    pub fn start(bed: &Bed, binary: &Path, tunnels: u8) -> TrefoilPair {
        let launch = |name: &str, site: String, namespace| {
            let (file, socket) = write(bed.directory(), name, &site);
            Trefoil::launch(binary, namespace, &file, &socket, &[])
        };
        let gateway = launch("gateway", gateway_site(bed.directory(), tunnels), &bed.b);
        let branch = launch("branch", branch_site(bed.directory(), tunnels), &bed.a);
        let describe = || eprintln!("{}{}", branch.describe(), gateway.describe());
        let up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            branch.wait_for_tunnels(usize::from(tunnels), Duration::from_secs(20));
            bed.wait_until_joined();
            open_flows(bed, &branch)
        }));
        match up {
            Ok(flows) => TrefoilPair { flows, branch, gateway },
            Err(panic) => {
                describe();
                std::panic::resume_unwind(panic)
            }
        }
    }
}

fn open_flows(bed: &Bed, branch: &Trefoil) -> SteadyFlows {
    let mut flows = SteadyFlows::open(bed);
    wait_for("the flows are in the table", Duration::from_secs(20), || {
        let there = branch.status().is_some_and(|status| status.flows >= FLOWS);
        if !there {
            flows.send();
        }
        there.then_some(())
    });
    flows
}

fn branch_site(directory: &Path, tunnels: u8) -> String {
    let mut text = head(directory, "branch", "branch", CLIENT_RANGE);
    for link in 0..tunnels {
        let _ = writeln!(text, "[wan.wan{link}]\ninterface = \"wan{link}\"\n{BANDWIDTH}");
    }
    let _ = writeln!(
        text,
        "[connector.gateway]\nnetwork_ranges = [\"servers:{SERVER_RANGE}\"]\nmtu = {INNER_MTU}\n\
         keepalive = {{ rebuild_interval = \"1s\" }}\n\n\
         [connector.gateway.primary]\ndestination = \"{B_ADDRESS}\"\npsk_file = \"psk\"\n"
    );
    for link in 0..tunnels {
        let _ = writeln!(
            text,
            "[[connector.gateway.primary.tunnel]]\nwan = \"wan{link}\"\nlocal_id = \"a{link}.bench.test\"\n\
             remote_id = \"b{link}.bench.test\"\n"
        );
    }
    text
}

fn gateway_site(directory: &Path, tunnels: u8) -> String {
    let mut text = head(directory, "gateway", "cloud-vpc", SERVER_RANGE);
    let _ = writeln!(
        text,
        "[wan.wan0]\nsource_address = \"{B_ADDRESS}\"\n{BANDWIDTH}\n[connector.branch]\nmode = \"responder\"\n\
         network_ranges = [\"clients:{CLIENT_RANGE}\"]\nmtu = {INNER_MTU}\n\n\
         [connector.branch.primary]\npsk_file = \"psk\"\n"
    );
    for link in 0..tunnels {
        let _ = writeln!(
            text,
            "[[connector.branch.primary.tunnel]]\nname = \"wan{link}\"\nwan = \"wan0\"\n\
             local_id = \"b{link}.bench.test\"\nremote_id = \"a{link}.bench.test\"\n"
        );
    }
    text
}

const BANDWIDTH: &str = "downstream_mbps = 10000\nupstream_mbps = 10000\n";

fn head(directory: &Path, name: &str, kind: &str, native: &str) -> String {
    format!(
        "profiles = []\npolicy = \"policy.toml\"\n\n[site]\nname = \"{name}\"\nkind = \"{kind}\"\n\
         native_ranges = [\"{native}\"]\n\n[control]\nsocket = \"{}\"\n\n",
        socket(directory, name).display()
    )
}

fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

/// The site file and what it names; gives it and the control socket.
fn write(directory: &Path, name: &str, site: &str) -> (PathBuf, PathBuf) {
    let folder = directory.join(name);
    fs::create_dir_all(&folder).expect("a folder for the site");
    let write = |file: &str, text: &str| fs::write(folder.join(file), text).expect("a file of the site");
    write("psk", "a measurement has no secrets\n");
    fs::set_permissions(folder.join("psk"), Permissions::from_mode(0o600)).expect("a private key file");
    write("policy.toml", &policy());
    write("site.toml", site);
    (folder.join("site.toml"), socket(directory, name))
}

/// Rules of several shapes over networks and ports that nobody uses here.
fn policy() -> String {
    let mut text = String::new();
    for index in 0..RULES {
        let (high, low) = (index / 250, index % 250);
        let _ = writeln!(text, "[[rule]]\nname = \"rule-{index}\"");
        let _ = match index % 4 {
            0 => writeln!(text, "source = \"10.{high}.{low}.0/24\"\nmode = \"balance\""),
            1 => writeln!(text, "destination = \"172.{}.{low}.0/24\"\nlinks = \"wan0\"", 16 + high),
            2 => writeln!(text, "protocol = \"tcp\"\ndestination_port = {}\nlinks = \"wan0\"", 20_000 + index),
            _ => writeln!(text, "protocol = \"udp\"\nsource_port = {index}\ndscp = \"ef\"\nmode = \"balance\""),
        };
    }
    text
}
