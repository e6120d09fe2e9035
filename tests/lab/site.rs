//! The branch of the lab in words: its site file, and what the PoPs must know of it.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trefoil::ha::Failback;

use super::namespace::Namespace;
use super::strongswan::Connection;
use super::topology::{DSL, FIBRE, LAN_RANGE, LINKS, LTE, POPS, SERVER_RANGE, WanLink};

/// Three tunnels to each of the two PoPs, unless a test takes some away.
pub struct Site {
    /// `primary` and `secondary`.
    pub roles: [Role; 2],
    pub psk: String,
    pub ike_lifetime: Duration,
    pub child_lifetime: Duration,
    pub failback: Failback,
    pub rebuild_interval: Duration,
    pub steering_interval: Duration,
    /// Leave no blackhole behind.
    pub release_on_stop: bool,
    pub workers: u16,
    pub pmtu_discovery: bool,
    /// Instead of what the links of the lab have.
    pub mbps: Option<u32>,
    /// A line of each WAN link, such as `cap = { upstream = true }`.
    pub cap: &'static str,
    /// Tables of the site file that say whom to ask; none: each tunnel asks the PoP's private address.
    pub probes: &'static str,
    /// The text of its policy file.
    pub policy: &'static str,
    /// Further tables of the site file.
    pub tables: &'static str,
}

#[derive(Clone)]
pub struct Role {
    /// An IPv4 address or an FQDN.
    pub destination: String,
    pub remote_id: String,
    /// The PoP calls itself by another name in each tunnel, as one must that is a Trefoil.
    pub remote_id_of_link: bool,
    pub links: Vec<&'static WanLink>,
    /// Where the tunnel over each link leads, instead of all to one: several addresses of one PoP.
    pub destination_of_link: Vec<Ipv4Addr>,
}

pub const ROLE_NAMES: [&str; 2] = ["primary", "secondary"];

impl Site {
    pub fn new() -> Site {
        let role = |index: usize| Role {
            destination: POPS[index].to_string(),
            remote_id: format!("pop{}.test", index + 1),
            remote_id_of_link: false,
            links: vec![FIBRE, DSL, LTE],
            destination_of_link: Vec::new(),
        };
        Site {
            roles: [role(0), role(1)],
            psk: "the lab has no secrets".to_owned(),
            ike_lifetime: Duration::from_secs(4 * 3600),
            child_lifetime: Duration::from_secs(3600),
            failback: Failback::After(Duration::from_secs(3)),
            rebuild_interval: Duration::from_secs(2),
            steering_interval: Duration::from_secs(10),
            release_on_stop: false,
            workers: 2,
            pmtu_discovery: false,
            mbps: None,
            cap: "",
            probes: "",
            policy: "",
            tables: "",
        }
    }

    pub fn tunnels(&self) -> usize {
        self.roles.iter().map(|role| role.links.len()).sum()
    }

    /// The connections that the PoP of a role offers to this site, one a tunnel, named by it.
    pub fn pop_connections(&self, role: usize) -> Vec<Connection> {
        let connection = |link: &&WanLink| {
            let mut connection = Connection::new(
                &format!("{}-{}", ROLE_NAMES[role], link.name),
                &self.roles[role].remote_id_for(link),
                &local_id(role, link),
                &self.psk,
            );
            let (ours, pops) = private_addresses(role, link);
            connection.local_selectors = vec![SERVER_RANGE.to_owned(), format!("{pops}/32")];
            connection.remote_selectors = vec![LAN_RANGE.to_owned(), format!("{ours}/32")];
            connection.dpd_delay = Duration::from_secs(2);
            connection
        };
        self.roles[role].links.iter().map(connection).collect()
    }

    /// Gives a PoP the tunnels' private addresses at its end, so that probes to them are answered.
    pub fn prepare_pop(&self, role: usize, pop: &Namespace) {
        for link in &LINKS {
            pop.ip(&format!("addr replace {}/32 dev lo\n", private_addresses(role, link).1));
        }
    }

    /// Writes the site file with all that it names, and gives its path.
    pub fn write(&self, directory: &Path, socket: &Path) -> PathBuf {
        let directory = directory.join("site");
        for folder in ["profiles", "policy", "keys"] {
            fs::create_dir_all(directory.join(folder)).expect("a folder for the site");
        }
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a file of the site");
        write("keys/psk", &self.psk);
        fs::set_permissions(directory.join("keys/psk"), Permissions::from_mode(0o600)).expect("a private key file");
        write("profiles/lab.toml", &self.profile());
        write("policy/lab.toml", self.policy);
        write("site.toml", &self.site_file(socket));
        directory.join("site.toml")
    }
}

impl Site {
    fn profile(&self) -> String {
        format!(
            "[phase1]\nlifetime = \"{}s\"\n\n[phase2]\nlifetime = \"{}s\"\n",
            self.ike_lifetime.as_secs(),
            self.child_lifetime.as_secs()
        )
    }

    fn failback_in_toml(&self) -> String {
        match self.failback {
            Failback::Immediate => "\"immediate\"".to_owned(),
            Failback::After(hold) => format!("{{ after = \"{}s\" }}", hold.as_secs()),
            Failback::Manual => "\"manual\"".to_owned(),
        }
    }

    fn site_file(&self, socket: &Path) -> String {
        let mut text = format!(
            r#"profiles = ["profiles/*.toml"]
policy = ["policy/lab.toml"]

[site]
name = "lab-branch"
kind = "branch"
native_ranges = ["{LAN_RANGE}"]

[control]
socket = "{}"

[recording]
directory = "recording"

[steering]
interval = "{}s"

[routes]
on_stop = "{}"

[dataplane]
workers = {}

"#,
            socket.display(),
            self.steering_interval.as_secs(),
            if self.release_on_stop { "release" } else { "block" },
            self.workers
        );
        for link in &LINKS {
            let WanLink { name, interface, .. } = link;
            let mbps = self.mbps.unwrap_or(link.mbps);
            let _ = writeln!(
                text,
                "[wan.{name}]\ninterface = \"{interface}\"\ndownstream_mbps = {mbps}\nupstream_mbps = {mbps}\n{}\n",
                self.cap
            );
        }
        let _ = write!(
            text,
            r#"[connector.pops]
network_ranges = ["servers:{SERVER_RANGE}"]
phase1 = "lab"
phase2 = "lab"
failback = {}
pmtu_discovery = {}

[connector.pops.keepalive]
rebuild_interval = "{}s"
"#,
            self.failback_in_toml(),
            self.pmtu_discovery,
            self.rebuild_interval.as_secs()
        );
        for (index, role) in self.roles.iter().enumerate().filter(|(_, role)| !role.links.is_empty()) {
            role.render(index, self.probes.is_empty(), &mut text);
        }
        text.push_str(self.probes);
        text.push_str(self.tables);
        text
    }
}

impl Role {
    /// What the PoP calls itself in the tunnel over a link.
    pub fn remote_id_for(&self, link: &WanLink) -> String {
        if self.remote_id_of_link { format!("{}.{}", link.name, self.remote_id) } else { self.remote_id.clone() }
    }

    fn render(&self, index: usize, asks_pop: bool, text: &mut String) {
        let (name, Role { destination, links, .. }) = (ROLE_NAMES[index], self);
        let _ = write!(text, "\n[connector.pops.{name}]\npsk_file = \"keys/psk\"\n");
        let is_one = self.destination_of_link.is_empty();
        let _ =
            if is_one { writeln!(text, "destination = \"{destination}\"") } else { writeln!(text, "same_pop = true") };
        if !self.remote_id_of_link && is_one {
            let _ = writeln!(text, "remote_id = \"{}\"", self.remote_id);
        }
        for (place, link) in links.iter().enumerate() {
            let (ours, pops) = private_addresses(index, link);
            let _ = write!(
                text,
                r#"
[[connector.pops.{name}.tunnel]]
wan = "{}"
local_id = "{}"
private_local = "{ours}/30"
private_remote = "{pops}/30"
"#,
                link.name,
                local_id(index, link)
            );
            if let Some(address) = self.destination_of_link.get(place) {
                let _ = writeln!(text, "destination = \"{address}\"");
            }
            if asks_pop {
                let _ = writeln!(text, "probes = [\"{pops}\"]");
            }
            if self.remote_id_of_link {
                let _ = writeln!(text, "remote_id = \"{}\"", self.remote_id_for(link));
            }
        }
    }
}

/// `ours` and the PoP's.
pub fn private_addresses(role: usize, link: &WanLink) -> (Ipv4Addr, Ipv4Addr) {
    let place = LINKS.iter().position(|other| other.name == link.name).expect("a link of the lab") as u8;
    let address = |host: u8| Ipv4Addr::new(198, 18, 128 + role as u8, place * 4 + host);
    (address(1), address(2))
}

pub fn local_id(role: usize, link: &WanLink) -> String {
    format!("{}-{}.branch.test", link.name, ROLE_NAMES[role])
}
