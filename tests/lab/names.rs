use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::process::{PATIENCE, Process, wait_for};
use super::topology::{RESOLVER, Topology};

/// The lab's DNS: dnsmasq in the internet, answering from a table that tests change.
pub struct Names {
    process: Process,
    table: PathBuf,
}

impl Names {
    /// Answers live for one second. Whatever the table lacks does not exist.
    pub fn start(lab: &Topology, records: &[(&str, &str)]) -> Names {
        let table = lab.directory().join("names");
        write_table(&table, records);
        let mut command = lab.internet.command("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--local=/test/"]);
        command.args(["--local-ttl=1", "--neg-ttl=1", "--user=root", "--pid-file=", "--log-facility=-"]);
        command.arg(format!("--listen-address={RESOLVER}")).arg(format!("--addn-hosts={}", table.display()));
        let process = Process::start(&mut command, &lab.directory().join("dnsmasq.log"));
        wait_for("dnsmasq has read its table", PATIENCE, || process.log().contains("addresses").then_some(()));
        Names { process, table }
    }

    pub fn change(&self, records: &[(&str, &str)]) {
        write_table(&self.table, records);
        self.process.signal(Signal::SIGHUP);
    }
}

fn write_table(path: &Path, records: &[(&str, &str)]) {
    let lines: String = records.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
    fs::write(path, lines).expect("the table of names");
}
