use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// A network namespace that exists as long as this value. Its name carries our process id, so
/// that two runs never meet and a later run can tell what a killed one left behind.
pub struct Namespace {
    name: String,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    pub fn new(role: &str) -> Namespace {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{number}-{role}", prefix());
        must_run(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace { name };
        namespace.ip("link set lo up\n");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in here and that dies with the thread that starts it, so that a
    /// killed test run leaves no process behind.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Lines for `ip -batch`, without the leading `ip`.
    pub fn ip(&self, lines: &str) {
        ip_in(&self.name, lines);
    }

    pub fn nft(&self, ruleset: &str) {
        must_feed(self.command("nft").args(["-f", "-"]), ruleset);
    }

    pub fn sysctl(&self, settings: &[&str]) {
        must_run(self.command("sysctl").arg("-qw").args(settings));
    }

    /// The resolver that programs in here see as /etc/resolv.conf.
    pub fn set_resolver(&self, server: &str) {
        let directory = self.etc();
        fs::create_dir_all(&directory).expect("a folder below /etc/netns");
        fs::write(Path::new(&directory).join("resolv.conf"), format!("nameserver {server}\noptions timeout:1\n"))
            .expect("a resolv.conf");
    }

    /// Runs `work` on a thread of its own inside this namespace and waits for it: sockets and
    /// threads that it makes belong here.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let handle = fs::File::open(format!("/run/netns/{}", self.name)).expect("our namespace");
        thread::spawn(move || {
            setns(handle, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
        .join()
        .expect("work in a namespace")
    }

    fn etc(&self) -> String {
        format!("/etc/netns/{}", self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(self.etc());
    }
}

/// A veth pair between two namespaces, never seen outside them.
pub fn join(
    left: &Namespace,
    left_name: &str,
    left_address: &str,
    right: &Namespace,
    right_name: &str,
    right_address: &str,
) {
    left.ip(&format!(
        "link add {left_name} type veth peer name {right_name} netns {}\n\
         addr add {left_address} dev {left_name}\nlink set {left_name} up\n",
        right.name()
    ));
    right.ip(&format!("addr add {right_address} dev {right_name}\nlink set {right_name} up\n"));
}

/// What everything of this test run is called: `tf-` and our process id.
pub fn prefix() -> String {
    format!("tf-{}-", std::process::id())
}

/// Removes what test runs left behind that were killed before they could do it themselves.
pub fn remove_leftovers() {
    let temporary = std::env::temp_dir();
    for folder in [Path::new("/run/netns"), Path::new("/etc/netns"), &temporary] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let owner = name.strip_prefix("tf-").and_then(|rest| rest.split('-').next());
            let Some(owner) = owner.and_then(|pid| pid.parse().ok()) else { continue };
            if is_alive(owner) {
                continue;
            }
            if folder == temporary {
                let _ = fs::remove_dir_all(folder.join(&name));
            } else {
                drop(Namespace { name });
            }
        }
    }
}

/// A zombie that nobody waits for is not.
fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

/// `Namespace::ip` for one that is known by name only.
pub fn ip_in(namespace: &str, lines: &str) {
    must_feed(Command::new("ip").args(["-n", namespace, "-batch", "-"]), lines);
}

fn must_run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

fn must_feed(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("its input is read");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{command:?} failed: {}\n{input}", String::from_utf8_lossy(&output.stderr));
}
