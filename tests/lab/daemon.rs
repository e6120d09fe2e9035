use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use trefoil::edge::{SiteStatus, TunnelStatus};

use super::namespace::Namespace;
use super::process::{Process, tail, wait_for};

/// A running `trefoil run` in a namespace.
pub struct Trefoil {
    binary: PathBuf,
    process: Process,
    socket: PathBuf,
}

/// The binary under test: cargo's, or the one that `TREFOIL_BINARY` names.
pub fn binary() -> PathBuf {
    std::env::var_os("TREFOIL_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_trefoil")), PathBuf::from)
}

impl Trefoil {
    /// `site_file` names `socket` as the control socket; the daemon's log is written beside it.
    pub fn launch(binary: &Path, namespace: &Namespace, site_file: &Path, socket: &Path, extra: &[&str]) -> Trefoil {
        let mut command = namespace.command(&binary.display().to_string());
        command.args(["run", "--config"]).arg(site_file).args(extra).env("NO_COLOR", "1");
        let process = Process::start(&mut command, &socket.with_extension("log"));
        Trefoil { binary: binary.to_owned(), process, socket: socket.to_owned() }
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `None` while the daemon does not answer.
    pub fn status(&self) -> Option<SiteStatus> {
        let output = self.ask(&["--json"]);
        output.status.success().then(|| {
            serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
        })
    }

    /// Asks for `status` until it is as wanted.
    pub fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&SiteStatus) -> bool) -> SiteStatus {
        wait_for(what, limit, || self.status().filter(&wanted))
    }

    pub fn wait_for_tunnels(&self, all: usize, limit: Duration) -> SiteStatus {
        self.wait(&format!("all {all} tunnels are up"), limit, |status| usable(status) == all)
    }

    /// The process gets no time until `go_on`, as in a machine that is suspended.
    pub fn stand_still(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Dies without a word.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end; `None` when it did not within 20 seconds and was killed.
    pub fn stop(&mut self) -> Option<std::process::ExitStatus> {
        self.process.stop(Duration::from_secs(20))
    }

    /// `trefoil status` as an operator sees it.
    pub fn table(&self) -> String {
        String::from_utf8_lossy(&self.ask(&[]).stdout).into_owned()
    }

    pub fn describe(&self) -> String {
        let answer = self.ask(&[]);
        format!(
            "--- trefoil status ---\n{}{}\n--- log of process {} ---\n{}\n",
            String::from_utf8_lossy(&answer.stdout),
            String::from_utf8_lossy(&answer.stderr),
            self.id(),
            tail(&self.log(), 80)
        )
    }

    /// What another verb of the daemon's prints.
    pub fn verb(&self, arguments: &[&str]) -> String {
        let socket = self.socket.display().to_string();
        self.plain(&[arguments, &["--socket", &socket]].concat())
    }

    /// What a verb prints that needs no daemon.
    pub fn plain(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.binary).args(arguments).output().expect("a verb of trefoil");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ask(&self, extra: &[&str]) -> std::process::Output {
        let mut command = Command::new(&self.binary);
        command.arg("status").args(extra).arg("--socket").arg(&self.socket).output().expect("trefoil status")
    }
}

pub fn tunnels(status: &SiteStatus) -> impl Iterator<Item = &TunnelStatus> {
    status.connectors.iter().flat_map(|connector| &connector.tunnels)
}

pub fn tunnel<'a>(status: &'a SiteStatus, role: &str, link: &str) -> &'a TunnelStatus {
    tunnels(status).find(|tunnel| tunnel.role == role && tunnel.link == link).expect("a tunnel of the site")
}

pub fn usable(status: &SiteStatus) -> usize {
    tunnels(status).filter(|tunnel| tunnel.usable).count()
}

pub fn usable_of(status: &SiteStatus, role: &str) -> usize {
    tunnels(status).filter(|tunnel| tunnel.role == role && tunnel.usable).count()
}

pub fn active_role(status: &SiteStatus) -> &str {
    &status.connectors[0].active_role
}
