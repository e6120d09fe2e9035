//! The daemon and its host's routing, in a network namespace of its own; needs root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A daemon in its own namespace, both of which end with this.
struct Daemon(Child);

impl Daemon {
    fn start(site_file: &Path) -> Daemon {
        let daemon = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_trefoil"), "run", "--config"])
            .arg(site_file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Daemon(daemon.expect("unshare starts"))
    }

    /// What `ip` prints there.
    fn ip(&self, arguments: &str) -> String {
        let pid = self.0.id().to_string();
        let output =
            Command::new("nsenter").args(["-t", &pid, "-n", "ip"]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn wait_for_rules(&self, fits: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fits(&self.ip("rule")) {
            assert!(Instant::now() < deadline, "the rules are\n{}", self.ip("rule"));
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write_site(directory: &Path) -> std::path::PathBuf {
    let key = directory.join("psk");
    fs::write(&key, "nobody answers here\n").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let site = directory.join("site.toml");
    let text = format!(
        r#"
[site]
name = "routing"
native_ranges = ["10.20.0.0/16"]
[wan.one]
interface = "wan0"
downstream_mbps = 100
upstream_mbps = 100
[connector.cloud]
network_ranges = ["servers:10.90.0.0/16"]
[connector.cloud.primary]
destination = "198.51.100.1"
remote_id = "fqdn:pop.example"
psk_file = "psk"
[[connector.cloud.primary.tunnel]]
wan = "one"
local_id = "fqdn:branch.example"
[control]
socket = "{}"
"#,
        directory.join("control.sock").display()
    );
    fs::write(&site, text).unwrap();
    site
}

#[test]
fn the_rules_follow_a_wan_link_that_comes_and_changes_its_address() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: needs root to make a network namespace, and /dev/net/tun");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&write_site(directory.path()));
    // The last rule to be installed.
    daemon.wait_for_rules(|rules| rules.contains("2215:\tfrom all lookup 221"));
    assert!(!daemon.ip("rule").contains("2211:"), "there is no WAN link yet");
    daemon.ip("link add wan0 type veth peer name wan1");
    daemon.ip("link set wan0 up");
    daemon.ip("address add 192.0.2.7/24 dev wan0");
    daemon.wait_for_rules(|rules| rules.contains("2211:\tfrom 192.0.2.7 lookup main"));
    daemon.ip("address add 192.0.2.8/24 dev wan0");
    daemon.ip("address del 192.0.2.7/24 dev wan0");
    daemon.ip("address replace 192.0.2.8/24 dev wan0");
    daemon.wait_for_rules(|rules| rules.contains("from 192.0.2.8 lookup") && !rules.contains("from 192.0.2.7 lookup"));
    daemon.ip("link del wan0");
    daemon.wait_for_rules(|rules| !rules.contains("2211:"));
}
