//! Each direction of a tunnel by itself, between a branch and a gateway that are both Trefoils.

use std::thread;
use std::time::Duration;

use trefoil::edge::OneWayStatus;

use super::bench::start_edge;
use super::daemon::{Trefoil, binary, tunnels};
use super::emulator::{Direction, Model};
use super::gateway::{GatewayWish, start_gateway};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{FIBRE, Topology};

/// Long enough for loss of 5 % to be told from none.
const WINDOW: Duration = Duration::from_secs(32);

#[test]
fn loss_of_one_direction_is_told_from_that_of_the_other_by_both_ends() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let mut site = Site::new();
    site.roles[0].remote_id_of_link = true;
    site.roles[0].links = vec![FIBRE];
    site.roles[1].links = Vec::new();
    let (ike_lifetime, child_lifetime) = (site.ike_lifetime, site.child_lifetime);
    let gateway = start_gateway(&lab, &site, 0, GatewayWish { ike_lifetime, child_lifetime, workers: 2 });
    let edge = start_edge(&binary(), &lab, &site, &[]);
    edge.wait_for_tunnels(1, Duration::from_secs(20));
    let lossy = Model { delay: FIBRE.one_way, loss_permille: 100, ..Model::CLEAN };
    let clean = Model { loss_permille: 0, ..lossy };
    for (from, to, way) in [(lossy, clean, "up"), (clean, lossy, "down")] {
        lab.wan.set(FIBRE.address, Direction::From, from);
        lab.wan.set(FIBRE.address, Direction::To, to);
        thread::sleep(WINDOW);
        for (name, end) in [("branch", &edge), ("gateway", &gateway)] {
            let told = one_way(end);
            say(&format!("10 % lost on the way {way}, as the {name} sees it: {told}"));
            let (up, down) = (told.loss_up_percent.expect("measured"), told.loss_down_percent.expect("measured"));
            let (lost, other) = if way == "up" { (up, down) } else { (down, up) };
            // Of 150 messages: either bound is passed by chance once in 100,000 times.
            assert!(lost > 1.0 && lost < 24.0, "{told}");
            assert_eq!(other, 0.0, "{told}");
        }
    }
}

fn one_way(end: &Trefoil) -> OneWayStatus {
    let status = end.status().expect("status");
    tunnels(&status).next().and_then(|tunnel| tunnel.one_way.clone()).expect("the peer is a Trefoil")
}
