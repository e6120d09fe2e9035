//! Integration tests in network namespaces: a branch LAN, an edge with three WAN links and two
//! strongSwan PoPs. They need root; `.ci/run` installs the programs.

mod bench;
mod breakout;
mod capture;
mod daemon;
mod emulator;
mod fqdn;
mod gateway;
mod kernel_drops;
mod names;
mod namespace;
mod process;
mod requirements;
mod site;
mod stream;
mod strongswan;
mod topology;
mod traffic;

mod caps;
mod conservation;
mod crossing;
mod fail_closed;
mod fairness;
mod groundwork;
mod in_band;
mod operations;
mod outage;
mod path_mtu;
mod peers;
mod probes;
mod recording;
mod rekey;
mod segments;
mod shares;
mod steering;
mod throughput;
mod vpc;

/// A line for whoever watches the tests, past the capture of the test harness.
pub fn say(line: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("lab").to_owned();
    let _ = writeln!(std::io::stderr(), "\n[{name}] {line}");
}
