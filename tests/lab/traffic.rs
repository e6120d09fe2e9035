//! Ordinary programs as traffic: ping and iperf3.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use super::namespace::Namespace;
use super::process::{PATIENCE, Process, tail, wait_for};

/// Pings `count` times, 20 ms apart, and gives how many were answered.
pub fn ping(from: &Namespace, target: Ipv4Addr, count: u32) -> u32 {
    let (count, target) = (count.to_string(), target.to_string());
    let output = from.run("ping", &["-n", "-q", "-i", "0.02", "-W", "2", "-c", &count, &target]);
    let text = String::from_utf8_lossy(&output.stdout);
    let received = text.split(", ").find_map(|part| part.strip_suffix(" received"));
    received.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// An iperf3 server that stays as long as this value; a failing test shows what it said.
pub struct IperfServer {
    process: Process,
    address: Ipv4Addr,
    port: u16,
}

impl Drop for IperfServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- iperf3 server ---\n{}", tail(&self.process.log(), 30));
        }
    }
}

impl IperfServer {
    /// Bound to one address, or its UDP answers would leave with another.
    pub fn start(namespace: &Namespace, address: Ipv4Addr, directory: &Path) -> IperfServer {
        IperfServer::start_on(5_201, namespace, address, directory)
    }

    /// A server runs one test at a time; several stand on ports of their own.
    pub fn start_on(port: u16, namespace: &Namespace, address: Ipv4Addr, directory: &Path) -> IperfServer {
        let log = directory.join(format!("iperf3-{}-{port}.log", namespace.name()));
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--forceflush", "--port", &port.to_string(), "--bind", &address.to_string()]);
        let process = Process::start(&mut command, &log);
        wait_for("iperf3 listens", PATIENCE, || process.log().contains("listening").then_some(()));
        IperfServer { process, address, port }
    }

    /// Runs a client in another namespace; `reverse` lets the server send.
    pub fn measure(&self, from: &Namespace, load: Load, reverse: bool, seconds: u32) -> Result<Rate, String> {
        let mut arguments = Vec::new();
        if let Load::Udp(kbps, bytes) = load {
            arguments.extend(["--udp".into(), "--bitrate".into(), format!("{kbps}K")]);
            arguments.extend(["--length".into(), bytes.to_string()]);
        }
        if reverse {
            arguments.push("--reverse".into());
        }
        let end = &self.run(from, &arguments, seconds)?["end"];
        let (bits, lost) = match load {
            Load::Tcp => (&end["sum_received"]["bits_per_second"], 0.0),
            Load::Udp(..) => {
                // iperf3 3.12 gives the sum of the sender; what was received follows from the loss.
                let sum = &end["sum"];
                (&sum["bits_per_second"], sum["lost_percent"].as_f64().unwrap_or(100.0))
            }
        };
        let sent = bits.as_f64().ok_or_else(|| format!("no rate in {end}"))?;
        Ok(Rate { mbps: sent / 1e6 * (1.0 - lost / 100.0), lost_percent: lost })
    }

    /// What iperf3 reports in JSON of a client with these further arguments.
    pub fn run(&self, from: &Namespace, arguments: &[String], seconds: u32) -> Result<Value, String> {
        // Between two tests the server opens its socket anew, and a client that comes too early is reset.
        wait_for("iperf3 listens again", PATIENCE, || {
            let log = self.process.log();
            let count = |words: &str| log.matches(words).count();
            (count("Server listening") > count("Accepted connection")).then_some(())
        });
        let mut command = from.command("timeout");
        // A second setpriv: the first one's signal ends `timeout`, this one what it runs.
        command.args([&format!("{}", seconds + 20), "setpriv", "--pdeathsig", "KILL", "iperf3"]);
        command.args(["--json", "--client", &self.address.to_string(), "--port", &self.port.to_string()]);
        command.args(["--time", &seconds.to_string(), "--connect-timeout", "5000"]).args(arguments);
        let output = command.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).map_err(|error| format!("iperf3 said {text:?}: {error}"))?;
        match report["error"].as_str() {
            Some(error) => Err(format!("iperf3: {error}")),
            None => Ok(report),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Load {
    Tcp,
    /// Kilobits per second offered, in datagrams of this many bytes.
    Udp(u32, u32),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// Of what the receiver got.
    pub mbps: f64,
    /// UDP only.
    pub lost_percent: f64,
}
