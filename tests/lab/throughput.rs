//! TCP and UDP through the lab, Trefoil beside strongSwan, in the same run and in turns. The PoP
//! is the same strongSwan for both; the router forwards by itself, without the emulator.
//!
//! ```text
//! cargo build --release && cargo test --test lab throughput -- --ignored
//! ```

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bench::start_pop;
use super::daemon::Trefoil;
use super::groundwork::strongswan_pair;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{FIBRE, SERVER, Topology};
use super::traffic::{IperfServer, Load, Rate};

const ROUNDS: usize = 3;
const SECONDS: u32 = 4;

/// Offered UDP is a little beyond what any of them carries, so that what arrives is the capacity.
const LOADS: [(&str, Load, bool); 5] = [
    ("TCP up", Load::Tcp, false),
    ("TCP down", Load::Tcp, true),
    ("UDP 1300 up", Load::Udp(1000, 1300), false),
    ("UDP 1300 down", Load::Udp(1000, 1300), true),
    ("UDP 64 up", Load::Udp(60, 64), false),
];

#[test]
#[ignore = "a measurement of minutes that wants a release build and a quiet machine"]
fn throughput_beside_strongswan() {
    if !lab_is_possible() {
        return;
    }
    let binary = release_binary();
    let lab = Topology::new();
    lab.wan.bypass();
    let server = IperfServer::start(&lab.server, SERVER, lab.directory());
    let mut results: [Vec<Vec<Rate>>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let pair = strongswan_pair(&lab);
        results[0].push(measure(&lab, &server));
        drop(pair);
        let (trefoil, pop) = trefoil_pair(&lab, &binary);
        results[1].push(measure(&lab, &server));
        drop((trefoil, pop));
    }
    let mut table = format!("{:<14} {:>22} {:>22}\n", "Mbit/s (lost)", "strongSwan edge", "Trefoil edge");
    for (index, (name, ..)) in LOADS.iter().enumerate() {
        let cell = |rounds: &Vec<Vec<Rate>>| {
            let column: Vec<Rate> = rounds.iter().map(|round| round[index]).collect();
            let middle = median(column);
            format!("{:.0} ({:.0} %)", middle.mbps, middle.lost_percent)
        };
        let _ = writeln!(table, "{name:<14} {:>22} {:>22}", cell(&results[0]), cell(&results[1]));
    }
    say(&format!("one tunnel to a strongSwan PoP, medians of {ROUNDS} alternating rounds of {SECONDS} s:\n{table}"));
}

fn trefoil_pair(lab: &Topology, binary: &Path) -> (Trefoil, super::strongswan::StrongSwan) {
    let mut site = Site::new();
    site.roles[0].links = vec![FIBRE];
    site.roles[1].links = Vec::new();
    let pop = start_pop(lab, &site, 0, |_| {});
    let trefoil = Trefoil::start_binary(binary, lab, &site, &[]);
    trefoil.wait_for_all_tunnels(&site, Duration::from_secs(10));
    (trefoil, pop)
}

fn measure(lab: &Topology, server: &IperfServer) -> Vec<Rate> {
    LOADS
        .iter()
        .map(|(name, load, reverse)| {
            server.measure(&lab.lan, *load, *reverse, SECONDS).unwrap_or_else(|error| panic!("{name}: {error}"))
        })
        .collect()
}

fn median(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|a, b| a.mbps.total_cmp(&b.mbps));
    rates[rates.len() / 2]
}

fn release_binary() -> PathBuf {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/trefoil");
    assert!(binary.exists(), "{} is missing: cargo build --release", binary.display());
    binary
}
