use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use super::namespace::Namespace;
use super::process::{PATIENCE, Process, tail, wait_for};

/// A strongSwan daemon in a namespace: charon with its user-space ESP (`kernel-libipsec`), steered
/// through `swanctl`. Several run side by side, each with a /run of its own.
pub struct StrongSwan {
    name: String,
    namespace: String,
    directory: PathBuf,
    daemon: Process,
}

/// One connection of a peer, with one child of the same name.
#[derive(Clone)]
pub struct Connection {
    pub name: String,
    pub local_id: String,
    pub remote_id: String,
    pub psk: String,
    pub local_selectors: Vec<String>,
    pub remote_selectors: Vec<String>,
    /// Own address and the other's; `None` answers whoever authenticates.
    pub initiate: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Zero is never.
    pub rekey_ike: Duration,
    pub rekey_child: Duration,
    /// Liveness check after this much silence; zero is never.
    pub dpd_delay: Duration,
    pub ike_proposals: String,
    pub esp_proposals: String,
}

impl Connection {
    pub fn new(name: &str, local_id: &str, remote_id: &str, psk: &str) -> Connection {
        Connection {
            name: name.to_owned(),
            local_id: local_id.to_owned(),
            remote_id: remote_id.to_owned(),
            psk: psk.to_owned(),
            local_selectors: Vec::new(),
            remote_selectors: Vec::new(),
            initiate: None,
            rekey_ike: Duration::ZERO,
            rekey_child: Duration::ZERO,
            dpd_delay: Duration::ZERO,
            ike_proposals: "aes256gcm16-prfsha512-ecp256,aes256gcm16-prfsha384-ecp384,aes128gcm16-prfsha256-modp2048"
                .to_owned(),
            esp_proposals: "aes256gcm16-ecp256,aes256gcm16-ecp384,aes128gcm16-modp2048,aes256gcm16,aes128gcm16"
                .to_owned(),
        }
    }
}

impl StrongSwan {
    /// Starts charon and loads the connections. `directory` keeps its files and its log.
    pub fn start(name: &str, namespace: &Namespace, directory: &Path, connections: &[Connection]) -> StrongSwan {
        let directory = directory.join(name);
        fs::create_dir_all(directory.join("conf.d")).expect("a folder for strongSwan");
        fs::write(directory.join("strongswan.conf"), daemon_settings(&directory)).expect("strongswan.conf");
        let daemon = spawn(namespace.command("sh"), &directory);
        let swan = StrongSwan { name: name.to_owned(), namespace: namespace.name().to_owned(), directory, daemon };
        swan.load(connections);
        swan
    }

    /// Replaces the connections; those that stay keep their SAs.
    pub fn load(&self, connections: &[Connection]) {
        let mut text = String::from("connections {\n");
        for connection in connections {
            connection.render(&mut text);
        }
        text.push_str("}\nsecrets {\n");
        for Connection { name, local_id, remote_id, psk, .. } in connections {
            let _ = writeln!(
                text,
                "  ike-{name} {{\n    id-1 = {local_id}\n    id-2 = {remote_id}\n    secret = \"{psk}\"\n  }}"
            );
        }
        text.push_str("}\n");
        fs::write(self.directory.join("swanctl.conf"), text).expect("swanctl.conf");
        wait_for(&format!("{} answers on vici", self.name), PATIENCE, || {
            self.swanctl(&["--load-all", "--clear"]).status.success().then_some(())
        });
    }

    pub fn initiate(&self, child: &str) -> bool {
        self.swanctl(&["--initiate", "--child", child, "--timeout", "10"]).status.success()
    }

    pub fn terminate_ike(&self, connection: &str) -> bool {
        self.swanctl(&["--terminate", "--ike", connection, "--timeout", "5"]).status.success()
    }

    /// Child SAs that are installed, of all connections.
    pub fn children(&self) -> usize {
        let output = self.swanctl(&["--list-sas", "--raw"]);
        String::from_utf8_lossy(&output.stdout).matches("state=INSTALLED").count()
    }

    /// Dies without a word and comes back with the same configuration and no memory.
    pub fn restart(&mut self, namespace: &Namespace) {
        self.kill();
        self.daemon = spawn(namespace.command("sh"), &self.directory);
        wait_for(&format!("{} answers on vici again", self.name), PATIENCE, || {
            self.swanctl(&["--load-all", "--clear"]).status.success().then_some(())
        });
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("charon.log")).unwrap_or_default()
    }

    pub fn describe(&self) -> String {
        format!(
            "--- {} SAs ---\n{}\n--- log of process {} ---\n{}\n{}\n",
            self.name,
            String::from_utf8_lossy(&self.swanctl(&["--list-sas"]).stdout),
            self.id(),
            tail(&self.daemon.log(), 5),
            tail(&without_liveness(&self.log()), 60),
        )
    }

    fn swanctl(&self, arguments: &[&str]) -> Output {
        std::process::Command::new("ip")
            .args(["netns", "exec", &self.namespace, "timeout", "15", "swanctl"])
            .args(arguments)
            .arg("--uri")
            .arg(format!("unix://{}/charon.vici", self.directory.display()))
            .env("SWANCTL_DIR", &self.directory)
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
            .output()
            .expect("swanctl")
    }
}

/// A log of a few minutes is mostly empty INFORMATIONAL exchanges.
fn without_liveness(log: &str) -> String {
    const NOISE: [&str; 3] = ["INFORMATIONAL", "[NET]", "[KNL]"];
    let lines = log.lines().filter(|line| !NOISE.iter().any(|noise| line.contains(noise)));
    lines.collect::<Vec<_>>().join("\n")
}

impl Connection {
    fn render(&self, text: &mut String) {
        let Connection { name, local_id, remote_id, ike_proposals, esp_proposals, .. } = self;
        let (locals, remotes) = (self.local_selectors.join(","), self.remote_selectors.join(","));
        let (ike, child, dpd) = (self.rekey_ike.as_secs(), self.rekey_child.as_secs(), self.dpd_delay.as_secs());
        // An exact rekey time: the default jitter of 10 % would only blur what tests count.
        let life = if child == 0 { 0 } else { child * 10 };
        let addresses = self.initiate.map_or(String::new(), |(local, remote)| {
            format!("    local_addrs = {local}\n    remote_addrs = {remote}\n")
        });
        let _ = write!(
            text,
            "  {name} {{
    version = 2
{addresses}    encap = yes
    mobike = no
    proposals = {ike_proposals}
    rekey_time = {ike}s
    over_time = 300s
    rand_time = 0s
    dpd_delay = {dpd}s
    local {{
      auth = psk
      id = {local_id}
    }}
    remote {{
      auth = psk
      id = {remote_id}
    }}
    children {{
      {name} {{
        local_ts = {locals}
        remote_ts = {remotes}
        esp_proposals = {esp_proposals}
        rekey_time = {child}s
        life_time = {life}s
        rand_time = 0s
      }}
    }}
  }}
"
        );
    }
}

/// Retransmissions end after some 6 s, so that a liveness check that is not answered has a visible end.
fn daemon_settings(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "charon {{
  load = random nonce openssl aesni aes sha1 sha2 hmac kdf gcm kernel-libipsec kernel-netlink socket-default vici updown
  piddir = {directory}
  retransmit_tries = 3
  retransmit_timeout = 1.0
  retransmit_base = 1.4
  plugins {{
    kernel-libipsec {{
      allow_peer_ts = yes
    }}
    vici {{
      socket = unix://{directory}/charon.vici
    }}
  }}
  filelog {{
    main {{
      path = {directory}/charon.log
      time_format = %H:%M:%S
      time_add_ms = yes
      flush_line = yes
      append = yes
      default = 1
    }}
  }}
}}
charon-systemd {{
  journal {{
    default = -1
  }}
}}
"
    )
}

fn spawn(mut shell: std::process::Command, directory: &Path) -> Process {
    shell
        .args(["-c", "mount -t tmpfs tmpfs /run && exec /usr/sbin/charon-systemd"])
        .env("STRONGSWAN_CONF", directory.join("strongswan.conf"))
        .env("SWANCTL_DIR", directory);
    Process::start(&mut shell, &directory.join("output.log"))
}
