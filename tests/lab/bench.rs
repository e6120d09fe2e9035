use std::path::Path;
use std::time::Duration;

use trefoil::edge::SiteStatus;

use super::daemon::{Trefoil, binary};
use super::site::Site;
use super::strongswan::{Connection, StrongSwan};
use super::topology::Topology;

/// Everything that a test of the daemon stands on: the lab, both PoPs and a running `trefoil`. When the
/// test fails it tells what each of them saw.
pub struct Bench {
    pub trefoil: Trefoil,
    pub pops: [StrongSwan; 2],
    pub site: Site,
    pub lab: Topology,
}

impl Bench {
    pub fn start(site: Site) -> Bench {
        Bench::start_with(site, |_| {}, &[])
    }

    /// `adjust` may change each PoP connection; `extra` goes to `trefoil run`.
    pub fn start_with(site: Site, adjust: impl Fn(&mut Connection), extra: &[&str]) -> Bench {
        Bench::start_in(Topology::new(), site, adjust, extra)
    }

    pub fn start_in(lab: Topology, site: Site, adjust: impl Fn(&mut Connection), extra: &[&str]) -> Bench {
        let pops = [0, 1].map(|role| start_pop(&lab, &site, role, &adjust));
        let trefoil = start_edge(&binary(), &lab, &site, extra);
        Bench { trefoil, pops, site, lab }
    }

    /// A bench whose tunnels are all up.
    pub fn ready(site: Site) -> Bench {
        let bench = Bench::start(site);
        bench.wait_for_all();
        bench
    }

    /// Starts the daemon again after it ended.
    pub fn restart(&mut self) {
        self.trefoil = start_edge(&binary(), &self.lab, &self.site, &[]);
    }

    pub fn wait_for_all(&self) -> SiteStatus {
        self.trefoil.wait_for_tunnels(self.site.tunnels(), Duration::from_secs(30))
    }

    /// What `trefoil release` does after the daemon.
    pub fn release(&self) -> std::process::Output {
        let file = self.directory().join("site/site.toml");
        let arguments = ["release", "--config", &file.display().to_string()].map(str::to_owned);
        self.lab.edge.run(&binary().display().to_string(), &arguments.each_ref().map(String::as_str))
    }

    pub fn directory(&self) -> &Path {
        self.lab.directory()
    }
}

pub fn start_edge(binary: &Path, lab: &Topology, site: &Site, extra: &[&str]) -> Trefoil {
    let socket = lab.directory().join("trefoil.sock");
    let file = site.write(lab.directory(), &socket);
    Trefoil::launch(binary, &lab.edge, &file, &socket, extra)
}

pub fn start_pop(lab: &Topology, site: &Site, role: usize, adjust: impl Fn(&mut Connection)) -> StrongSwan {
    site.prepare_pop(role, &lab.pops[role]);
    let mut connections = site.pop_connections(role);
    connections.iter_mut().for_each(adjust);
    StrongSwan::start(&format!("pop{}", role + 1), &lab.pops[role], lab.directory(), &connections)
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}{}{}", self.trefoil.describe(), self.pops[0].describe(), self.pops[1].describe());
        }
    }
}
