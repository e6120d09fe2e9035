use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trefoil::edge::{SiteStatus, TunnelStatus};

use super::process::{Process, tail, wait_for};
use super::site::Site;
use super::topology::Topology;

/// A running `trefoil run` in the edge's namespace.
pub struct Trefoil {
    process: Process,
    socket: PathBuf,
}

/// The binary under test: cargo's, or the one that `TREFOIL_BINARY` names.
pub fn binary() -> PathBuf {
    std::env::var_os("TREFOIL_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_trefoil")), PathBuf::from)
}

impl Trefoil {
    pub fn start(lab: &Topology, site: &Site, extra: &[&str]) -> Trefoil {
        Trefoil::start_binary(&binary(), lab, site, extra)
    }

    pub fn start_binary(binary: &Path, lab: &Topology, site: &Site, extra: &[&str]) -> Trefoil {
        let socket = lab.directory().join("trefoil.sock");
        let file = site.write(lab.directory(), &socket);
        let mut command = lab.edge.command(&binary.display().to_string());
        command.args(["run", "--config"]).arg(file).args(extra).env("NO_COLOR", "1");
        let process = Process::start(&mut command, &lab.directory().join("trefoil.log"));
        Trefoil { process, socket }
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

    pub fn wait_for_all_tunnels(&self, site: &Site, limit: Duration) -> SiteStatus {
        let all = site.tunnels();
        self.wait(&format!("all {all} tunnels are up"), limit, |status| usable(status) == all)
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

    /// Asks it to end; `None` when it did not within 5 seconds and was killed.
    pub fn stop(&mut self) -> Option<std::process::ExitStatus> {
        self.process.stop(Duration::from_secs(5))
    }

    /// `trefoil status` as an operator sees it.
    pub fn table(&self) -> String {
        String::from_utf8_lossy(&self.ask(&[]).stdout).into_owned()
    }

    pub fn describe(&self) -> String {
        let answer = self.ask(&[]);
        format!(
            "--- trefoil status ---\n{}{}\n--- trefoil log ---\n{}\n",
            String::from_utf8_lossy(&answer.stdout),
            String::from_utf8_lossy(&answer.stderr),
            tail(&self.log(), 80)
        )
    }

    fn ask(&self, extra: &[&str]) -> std::process::Output {
        let mut command = Command::new(binary());
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
