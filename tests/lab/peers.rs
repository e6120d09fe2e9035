//! Peers that restart, that do not know us, and that move.

use std::time::Duration;

use super::bench::{Bench, start_edge, start_pop};
use super::daemon::{active_role, binary, tunnel, tunnels, usable_of};
use super::names::Names;
use super::outage::{explained, flows_again, steady_stream};
use super::process::PATIENCE;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{POP1_NEW, POPS, SERVER, Topology};
use super::traffic::ping;

#[test]
fn a_pop_that_restarts_gets_its_tunnels_back() {
    if !lab_is_possible() {
        return;
    }
    let mut bench = Bench::ready(Site::new());
    let stream = steady_stream(&bench);
    let Bench { pops, lab, .. } = &mut bench;
    let start = std::time::Instant::now();
    pops[0].restart(&lab.pops[0]);
    bench.trefoil.wait("the loss of the PoP's memory is noticed", Duration::from_secs(30), |status| {
        tunnels(status).any(|tunnel| tunnel.role == "primary" && !tunnel.usable)
    });
    let noticed = start.elapsed();
    bench.wait_for_all();
    let up = start.elapsed();
    let status = bench.trefoil.wait("the primary role is back, and says why", Duration::from_secs(30), |status| {
        let change = tunnel(status, "primary", "fibre").last_change.as_ref();
        active_role(status) == "primary" && change.is_some_and(|change| change.to != "down")
    });
    assert!(bench.trefoil.log().contains("to=down reason="), "the loss is not in the log");
    flows_again(&stream);
    let report = stream.finish();
    say(&format!(
        "PoP restarted: noticed after {:.1} s, all tunnels up again after {:.1} s, longest gap at the server {:.0} ms",
        noticed.as_secs_f64(),
        up.as_secs_f64(),
        report.there.longest_gap_of_all().as_secs_f64() * 1000.0
    ));
    explained(&bench, &status, "primary", "fibre");
}

#[test]
fn a_tunnel_that_the_pop_closes_comes_back() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site::new());
    let before = bench.trefoil.status().expect("status");
    assert!(bench.pops[0].terminate_ike("primary-dsl"));
    let status = bench.trefoil.wait("the tunnel is up anew", Duration::from_secs(20), |status| {
        let [old, new] = [&before, status].map(|status| tunnel(status, "primary", "dsl"));
        new.usable && new.last_change != old.last_change
    });
    assert_eq!(usable_of(&status, "primary"), 3);
    assert_eq!(bench.pops[0].children(), 3);
    assert!(bench.trefoil.log().to_lowercase().contains("delete"), "the log does not say that the peer deleted it");
}

#[test]
fn a_tunnel_with_a_wrong_psk_stays_down_alone_and_says_why() {
    if !lab_is_possible() {
        return;
    }
    let wrong = |connection: &mut super::strongswan::Connection| {
        if connection.name == "primary-lte" {
            connection.psk = "not what the site has".to_owned();
        }
    };
    let bench = Bench::start_with(Site::new(), wrong, &[]);
    let status = bench.trefoil.wait("the other five are up", Duration::from_secs(20), |status| {
        usable_of(status, "primary") == 2 && usable_of(status, "secondary") == 3
    });
    assert_eq!(serde_json::to_value(status.connectors[0].state).expect("a word"), "Partially Up");
    assert_eq!(active_role(&status), "primary");
    let status = bench.trefoil.wait("a reason", PATIENCE, |status| {
        let change = tunnel(status, "primary", "lte").last_change.as_ref();
        change.is_some_and(|change| change.reason.to_lowercase().contains("pre-shared key"))
    });
    assert!(!tunnel(&status, "primary", "lte").usable);
    explained(&bench, &status, "primary", "lte");
    assert_eq!(ping(&bench.lab.lan, SERVER, 20), 20);
    assert!(!bench.trefoil.log().contains(&bench.site.psk), "the key is in the log");
}

#[test]
fn a_name_that_changes_its_address_moves_no_live_tunnel_and_leads_the_next_attempt() {
    if !lab_is_possible() {
        return;
    }
    let (old, new) = (POPS[0].to_string(), POP1_NEW.to_string());
    let other = POPS[1].to_string();
    let mut site = Site::new();
    site.roles[0].destination = "pop1.test".to_owned();
    site.roles[1].destination = "pop2.test".to_owned();
    let lab = Topology::new();
    // The second name does not exist yet.
    let names = Names::start(&lab, &[("pop1.test", &old)]);
    let pops = [0, 1].map(|role| start_pop(&lab, &site, role, |_| {}));
    let trefoil = start_edge(&binary(), &lab, &site, &[]);
    let bench = Bench { trefoil, pops, site, lab };
    let status = bench
        .trefoil
        .wait("the primary tunnels are up", Duration::from_secs(20), |status| usable_of(status, "primary") == 3);
    assert_eq!(usable_of(&status, "secondary"), 0);
    explained(&bench, &status, "secondary", "fibre");

    names.change(&[("pop1.test", &old), ("pop2.test", &other)]);
    bench.wait_for_all();
    names.change(&[("pop1.test", &new), ("pop2.test", &other)]);
    // Many times the second that the old answer lives.
    std::thread::sleep(Duration::from_secs(5));
    let status = bench.trefoil.status().expect("status");
    assert!(remotes(&status).iter().all(|remote| remote.starts_with(&old)), "{:?}", remotes(&status));
    assert_eq!(usable_of(&status, "primary"), 3);

    bench.lab.wan.cut(POPS[0]);
    bench
        .trefoil
        .wait("the old address is given up", Duration::from_secs(30), |status| usable_of(status, "primary") == 0);
    let status = bench.wait_for_all();
    say(&format!("pop1.test moved from {old} to {new}: tunnels now lead to {:?}", remotes(&status)));
    assert!(remotes(&status).iter().all(|remote| remote.starts_with(&new)), "{:?}", remotes(&status));
    explained(&bench, &status, "primary", "fibre");
}

fn remotes(status: &trefoil::edge::SiteStatus) -> Vec<String> {
    tunnels(status).filter(|tunnel| tunnel.role == "primary").filter_map(|tunnel| tunnel.remote.clone()).collect()
}
