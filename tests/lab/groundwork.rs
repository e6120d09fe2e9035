//! The lab proves itself before anything is measured in it: strongSwan on both ends.

use std::time::{Duration, Instant};

use super::bench::start_pop;
use super::emulator::{Direction, Model};
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::{Site, private_addresses};
use super::stream::Stream;
use super::strongswan::{Connection, StrongSwan};
use super::topology::{DSL, FIBRE, LAN_RANGE, LINKS, POPS, SERVER, SERVER_RANGE, Topology};
use super::traffic::{IperfServer, Load, ping};

/// A strongSwan edge with one tunnel over the fibre to the first PoP, and that PoP.
pub fn strongswan_pair(lab: &Topology) -> (StrongSwan, StrongSwan) {
    let mut pop = Connection::new("site", "pop1.test", "site.test", "groundwork");
    pop.local_selectors = vec![SERVER_RANGE.to_owned()];
    pop.remote_selectors = vec![LAN_RANGE.to_owned()];
    let mut edge = Connection::new("fibre", "site.test", "pop1.test", "groundwork");
    edge.local_selectors = vec![LAN_RANGE.to_owned()];
    edge.remote_selectors = vec![SERVER_RANGE.to_owned()];
    edge.initiate = Some((FIBRE.address, POPS[0]));
    let pop = StrongSwan::start("pop1", &lab.pops[0], lab.directory(), &[pop]);
    let edge = StrongSwan::start("edge", &lab.edge, lab.directory(), &[edge]);
    assert!(edge.initiate("fibre"), "{}{}", edge.describe(), pop.describe());
    (edge, pop)
}

#[test]
fn the_lab_carries_traffic_between_two_strongswans() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let (edge, pop) = strongswan_pair(&lab);
    assert_eq!(ping(&lab.lan, SERVER, 20), 20, "{}{}", edge.describe(), pop.describe());
    let server = IperfServer::start(&lab.server, SERVER, lab.directory());
    for reverse in [false, true] {
        let tcp = server.measure(&lab.lan, Load::Tcp, reverse, 2).expect("TCP");
        let udp = server.measure(&lab.lan, Load::Udp(10_000, 1200), reverse, 2).expect("UDP");
        say(&format!("strongSwan to strongSwan, reverse {reverse}: TCP {:.0} Mbit/s, UDP {udp:?}", tcp.mbps));
        assert!(udp.lost_percent < 1.0);
    }
}

#[test]
fn a_pop_takes_three_tunnels_of_a_site_and_answers_each_private_address_on_its_own() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let site = Site::new();
    let pops = [0, 1].map(|role| start_pop(&lab, &site, role, |_| {}));
    let mut connections = Vec::new();
    for (role, pop) in POPS.into_iter().enumerate() {
        for (link, theirs) in LINKS.iter().zip(site.pop_connections(role)) {
            lab.edge.ip(&format!("addr add {}/32 dev lo\n", private_addresses(role, link).0));
            let mut ours = theirs.clone();
            (ours.local_id, ours.remote_id) = (theirs.remote_id, theirs.local_id);
            (ours.local_selectors, ours.remote_selectors) = (theirs.remote_selectors, theirs.local_selectors);
            ours.initiate = Some((link.address, pop));
            connections.push(ours);
        }
    }
    let edge = StrongSwan::start("edge", &lab.edge, lab.directory(), &connections);
    let up = connections.iter().filter(|connection| edge.initiate(&connection.name)).count();
    let state = || format!("{}{}{}", edge.describe(), pops[0].describe(), pops[1].describe());
    assert_eq!(up, 6, "{}", state());
    assert_eq!(pops.each_ref().map(StrongSwan::children), [3, 3], "{}", state());
    for role in [0, 1] {
        for link in &LINKS {
            let (ours, pops) = private_addresses(role, link);
            let arguments = ["-n", "-q", "-c", "3", "-i", "0.02", "-I", &ours.to_string(), &pops.to_string()];
            assert!(lab.edge.run("ping", &arguments).status.success(), "{} {role}: {}", link.name, state());
        }
    }
    assert_eq!(ping(&lab.lan, SERVER, 20), 20, "{}", state());
}

#[test]
fn the_emulator_delays_drops_and_cuts_what_it_is_told_to() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let (edge, pop) = strongswan_pair(&lab);
    let stream = Stream::start(&lab.lan, &lab.server, SERVER, Duration::from_millis(5), 200);
    let until = |count: usize| {
        wait_for("the stream flows", PATIENCE, || (stream.received_back() >= count).then_some(()));
    };
    until(100);
    let cut = Instant::now();
    lab.wan.cut(FIBRE.address);
    std::thread::sleep(Duration::from_millis(500));
    lab.wan.mend(FIBRE.address);
    // Longer than was slept, on a busy machine.
    let lasted = cut.elapsed();
    until(stream.received_back() + 100);
    let end = Instant::now();
    let report = stream.finish();
    let gap = report.there.longest_gap(cut, end);
    say(&format!("fibre cut for {lasted:?}: gap {gap:?}, lost {} of {}", report.there.lost, report.there.sent));
    assert!(gap >= lasted - Duration::from_millis(20) && gap < lasted + Duration::from_millis(400), "{gap:?}");
    let expected = (lasted.as_millis() / 5) as u64;
    assert!(report.there.lost.abs_diff(expected) <= 20, "lost {} of some {expected}", report.there.lost);
    assert_eq!(report.there.reordered + report.there.duplicates, 0);

    lab.wan.set(DSL.address, Direction::From, Model { loss_permille: 1000, ..Model::CLEAN });
    let gateway = POPS[0];
    let lost = lab
        .edge
        .run("ping", &["-n", "-q", "-I", DSL.interface, "-i", "0.02", "-W", "1", "-c", "5", &gateway.to_string()]);
    assert!(!lost.status.success(), "a link that loses everything answered");
    let _ = (edge, pop);
}

#[test]
fn the_site_file_of_the_lab_is_without_fault() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = Site::new().write(directory.path(), &directory.path().join("socket"));
    let loaded = trefoil::config::load(&file).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(loaded.plan.tunnels.len(), 6);
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
}
