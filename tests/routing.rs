//! The daemon and its host's routing, in a network namespace of its own; needs root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A daemon in its own namespace, both of which end with this.
struct Daemon(Child, PathBuf);

impl Daemon {
    fn start(site_file: &Path) -> Daemon {
        Daemon::start_with_log(site_file, site_file.with_extension("log"))
    }

    fn start_with_log(site_file: &Path, log: PathBuf) -> Daemon {
        let daemon = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_trefoil"), "run", "--config"])
            .arg(site_file)
            .stdout(Stdio::null())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(&log).unwrap())
            .env_remove("NO_COLOR")
            .spawn();
        Daemon(daemon.expect("unshare starts"), log)
    }

    /// What `ip` prints there.
    fn ip(&self, arguments: &str) -> String {
        let pid = self.0.id().to_string();
        let output =
            Command::new("nsenter").args(["-t", &pid, "-n", "ip"]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.1).unwrap()
    }

    fn wait_for_log(&self, text: &str) {
        wait_until(|| self.log().contains(text), || format!("no {text:?} in\n{}", self.log()));
    }

    fn wait_for_rules(&self, fits: impl Fn(&str) -> bool) {
        wait_until(|| fits(&self.ip("rule")), || format!("the rules are\n{}", self.ip("rule")));
    }
}

/// Only a defect takes longer, and never a machine that is slow and busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again until it is so; `seen` tells of what came instead.
fn wait_until(is_so: impl Fn() -> bool, seen: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{}", seen());
        sleep(Duration::from_millis(50));
    }
}

fn status(directory: &Path) -> Output {
    let socket = directory.join("control.sock");
    let output =
        Command::new(env!("CARGO_BIN_EXE_trefoil")).args(["status", "--json", "--socket"]).arg(socket).output();
    output.expect("the binary starts")
}

/// Without root there is nothing to be tested here.
fn may_run() -> bool {
    let may = nix::unistd::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !may {
        println!("skipped: needs root to make a network namespace, and /dev/net/tun");
    }
    may
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write_site(directory: &Path) -> PathBuf {
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
[recording]
enabled = false
"#,
        directory.join("control.sock").display()
    );
    fs::write(&site, text).unwrap();
    site
}

#[test]
fn the_rules_follow_a_wan_link_that_comes_and_changes_its_address() {
    if !may_run() {
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

#[test]
fn a_daemon_whose_log_cannot_be_written_runs_on_and_stops_as_told() {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start_with_log(&write_site(directory.path()), "/dev/full".into());
    daemon.wait_for_rules(|rules| rules.contains("2215:\tfrom all lookup 221"));
    let answers = || status(directory.path());
    wait_until(|| answers().status.success(), || format!("{:?}", answers()));
    // Long enough for the link that is not there to have been complained of.
    sleep(Duration::from_secs(2));
    assert!(answers().status.success(), "{:?}", answers());
    let id = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(daemon.0.wait().unwrap().success());
}

#[test]
fn status_says_why_a_wan_link_has_no_sockets() {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&write_site(directory.path()));
    daemon.wait_for_rules(|rules| rules.contains("2215:\tfrom all lookup 221"));
    let told = |reason: &str| {
        let answer = || String::from_utf8(status(directory.path()).stdout).unwrap();
        wait_until(|| answer().contains(reason), || format!("no {reason:?} in {}", answer()));
    };
    told("WAN link one: there is no interface wan0");
    daemon.ip("link add wan0 type veth peer name wan1");
    told("WAN link one: interface wan0 has no IPv4 address yet");
}

#[test]
fn rules_that_somebody_removes_under_a_running_daemon_stand_again() {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&write_site(directory.path()));
    daemon.wait_for_log("trefoil runs");
    let before = daemon.ip("rule");
    assert!(before.contains("2213:"), "{before}");
    daemon.ip("rule flush protocol 117");
    daemon.wait_for_rules(|rules| rules == before);
    daemon.wait_for_log("somebody removed rules or routes of ours");
}

/// In one namespace that outlives the daemon.
#[test]
fn what_a_stopped_daemon_keeps_closed_is_released_and_never_under_a_running_one() {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let site = write_site(directory.path());
    let script = r#"
        set -e
        "$0" run --config "$1" 2>"$2" &
        daemon=$!
        for _ in $(seq 600); do ip rule | grep -q 2215: && break; sleep 0.1; done
        if "$0" release --config "$1"; then echo "released under a running daemon"; exit 1; fi
        # It knows neither the site file nor the socket.
        if "$0" release; then echo "released under a running daemon of another socket"; exit 1; fi
        ip rule | grep -q 2213: || { echo "a release that is refused has removed rules"; exit 1; }
        sed 's/control.sock/other.sock/' "$1" >"$3"
        if "$0" run --config "$3"; then echo "a second daemon took the same routes"; exit 1; fi
        ip rule | grep -q 2213: || { echo "a daemon that may not start has removed rules"; exit 1; }
        kill -TERM $daemon
        wait $daemon
        ip rule | grep -q 2213: || { echo "nothing was kept closed"; exit 1; }
        grep -q "trefoil release" "$2" || { echo "the log does not say how to open it"; exit 1; }
        "$0" release --config "$1"
        if ip rule | grep -q 2213:; then echo "rules are left"; exit 1; fi
        test -z "$(ip route show table 221)"
    "#;
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script, env!("CARGO_BIN_EXE_trefoil")])
        .args([&site, &directory.path().join("log"), &directory.path().join("other.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_idle_tunnel_device_says_nothing_by_itself() {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&write_site(directory.path()));
    daemon.wait_for_rules(|rules| rules.contains("2215:\tfrom all lookup 221"));
    wait_until(|| status(directory.path()).status.success(), || format!("{:?}", status(directory.path())));
    sleep(Duration::from_secs(5));
    let answer = status(directory.path());
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["drops"], serde_json::json!([]), "{answer}");
}

/// Stops a daemon of a site that releases everything, by this signal, and looks at what it
/// leaves and logs.
fn stop_by(signal: &str) {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let site = write_site(directory.path());
    let text = fs::read_to_string(&site).unwrap();
    // Many routes, so that their removal takes a while, in the one family whose routes of all
    // tables stand in a file of the kernel's.
    let ranges: Vec<String> = (1..=1_000).map(|number| format!("\"r:2001:db8:{number}::/48\"")).collect();
    let text = text
        .replace("[\"10.20.0.0/16\"]", "[\"10.20.0.0/16\", \"2001:db8:2000::/48\"]")
        .replace("network_ranges = [\"servers:10.90.0.0/16\"]", &format!("network_ranges = [{}]", ranges.join(", ")))
        .replace("[connector.cloud.primary]", "peer_traffic_selectors = [\"any\"]\n[connector.cloud.primary]");
    fs::write(&site, format!("{text}[routes]\non_stop = \"release\"\n")).unwrap();
    let mut daemon = Daemon::start(&site);
    daemon.wait_for_rules(|rules| rules.contains("2215:\tfrom all lookup 221"));
    // Until it has said so, the start is not over.
    daemon.wait_for_log("trefoil runs");
    daemon.wait_for_log("there is no interface wan0");
    let routes = |pid: u32| {
        let routes = fs::read_to_string(format!("/proc/{pid}/net/ipv6_route")).unwrap_or_default();
        routes.lines().filter(|line| line.starts_with("20010db8")).count()
    };
    let id = daemon.0.id();
    wait_until(|| routes(id) >= 1_000, || format!("{} routes", routes(id)));
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if !socket.exists() {
            assert_eq!(routes(id), 0, "another daemon could start, and lose its routes to this one");
        }
        if let Some(status) = daemon.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
    };
    assert!(status.success(), "{status}\n{}", daemon.log());
    assert!(!socket.exists());
    let log = daemon.log();
    assert!(!log.contains('\x1b'), "a log that is no terminal has no colours:\n{log}");
    assert_eq!(log.matches("WAN sockets cannot be opened").count(), 1, "told once:\n{log}");
}

#[test]
fn sigterm_ends_it_with_nothing_left_before_another_may_start() {
    stop_by("-TERM");
}

#[test]
fn a_terminal_that_closes_ends_it_in_order() {
    stop_by("-HUP");
}
