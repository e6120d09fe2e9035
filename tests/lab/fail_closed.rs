//! What stays of a site when its daemon goes, and what its traffic does then.

use std::process::Command;

use super::bench::Bench;
use super::capture::Capture;
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{LINKS, SERVER};
use super::traffic::ping;

#[test]
fn a_daemon_that_stops_removes_what_it_made_and_leaves_only_a_blackhole() {
    if !lab_is_possible() {
        return;
    }
    let mut bench = Bench::ready(Site::new());
    assert_eq!(ping(&bench.lab.lan, SERVER, 10), 10);
    let status = bench.trefoil.stop();
    assert!(status.is_some_and(|status| status.success()), "it ends by itself and well: {status:?}");
    for role in [0, 1] {
        wait_for("the PoPs hear of it", PATIENCE, || (bench.pops[role].children() == 0).then_some(()));
    }
    let devices = text(&bench, &["-br", "link"]);
    assert!(!devices.contains("NOARP"), "a TUN device is left:\n{devices}");
    nothing_leaves_in_clear(&bench);
    let routes = text(&bench, &["route", "show", "table", "all", "type", "blackhole"]);
    say(&format!("left after the stop: {}", routes.trim()));
    assert!(routes.contains("198.19.0.0/24"), "no blackhole: {routes}");
}

#[test]
fn a_daemon_that_is_killed_leaks_nothing_and_starts_again() {
    if !lab_is_possible() {
        return;
    }
    let mut bench = Bench::ready(Site::new());
    bench.trefoil.kill();
    nothing_leaves_in_clear(&bench);
    bench.restart();
    bench.wait_for_all();
    assert_eq!(ping(&bench.lab.lan, SERVER, 10), 10);
}

#[test]
fn a_site_that_says_release_leaves_nothing_behind() {
    if !lab_is_possible() {
        return;
    }
    let lab = super::topology::Topology::new();
    let state = |lab: &super::topology::Topology| {
        let output = |arguments: &[&str]| String::from_utf8_lossy(&lab.edge.run("ip", arguments).stdout).into_owned();
        (output(&["-4", "rule"]), output(&["-4", "route", "show", "table", "all"]))
    };
    let before = state(&lab);
    let site = Site { release_on_stop: true, ..Site::new() };
    let mut bench = Bench::start_in(lab, site, |_| {}, &[]);
    bench.wait_for_all();
    assert_ne!(state(&bench.lab), before);
    assert!(bench.trefoil.stop().is_some());
    assert_eq!(state(&bench.lab), before);
}

/// With no daemon, packets for the connector's ranges appear on no WAN link.
fn nothing_leaves_in_clear(bench: &Bench) {
    let captures = LINKS.each_ref().map(|link| {
        Capture::start(&bench.lab.internet, link.interface, bench.directory().join(format!("{}.pcapng", link.name)))
    });
    assert_eq!(ping(&bench.lab.lan, SERVER, 20), 0, "something answered without a tunnel");
    for capture in captures {
        let file = capture.finish();
        let output = Command::new("tshark").args(["-r"]).arg(&file).args(["-Y", "ip.dst == 198.19.0.0/16"]).output();
        let seen = String::from_utf8_lossy(&output.expect("tshark").stdout).into_owned();
        assert!(seen.is_empty(), "in clear on a WAN:\n{seen}");
    }
}

fn text(bench: &Bench, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&bench.lab.edge.run("ip", arguments).stdout).into_owned()
}
