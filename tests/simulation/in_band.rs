//! Each direction by itself, where both ends are Trefoils.

use trefoil::edge::{OneWayStatus, SiteStatus};

use super::*;

/// Of the branch's tunnel over a link to the first PoP.
fn one_way(status: &SiteStatus, link: &str) -> OneWayStatus {
    let mut tunnels = status.connectors.iter().flat_map(|connector| &connector.tunnels);
    let tunnel = tunnels.find(|tunnel| tunnel.link == link && tunnel.role == "primary").expect("the tunnel");
    tunnel.one_way.clone().expect("the peer is a Trefoil")
}

#[test]
fn loss_on_the_way_up_shows_on_the_way_up_alone_and_at_both_ends() {
    let mut world = up(31, Lifetimes::LONG, RuleSet::default());
    world.network.weather[1][0] = Weather { loss_up_permille: 50, ..Weather::FAIR };
    let mut sum = 0.0;
    for _ in 0..8 {
        world.run_for(30 * SECOND);
        let ours = one_way(&world.branch.status(world.now), "dsl");
        assert_eq!(ours.loss_down_percent, Some(0.0), "{ours}");
        sum += ours.loss_up_percent.expect("measured");
        let well = one_way(&world.branch.status(world.now), "fibre");
        assert_eq!((well.loss_up_percent, well.loss_down_percent), (Some(0.0), Some(0.0)), "{well}");
    }
    assert!((3.0..=7.0).contains(&(sum / 8.0)), "{} %", sum / 8.0);
    let theirs = world.pops[0].status(world.now);
    let theirs: Vec<OneWayStatus> =
        theirs.connectors.iter().flat_map(|one| &one.tunnels).filter_map(|one| one.one_way.clone()).collect();
    let lossy = theirs.iter().filter(|one| one.loss_up_percent > Some(0.0)).count();
    assert!(lossy == 1 && theirs.len() == 3, "{theirs:?}");
    assert!(theirs.iter().all(|one| one.loss_down_percent == Some(0.0)), "{theirs:?}");
}

#[test]
fn a_site_that_does_not_want_it_is_measured_by_round_trips_alone() {
    let mut plan = plans::branch(Lifetimes::LONG, RuleSet::default());
    plan.health.in_band = false;
    let mut world = World::with(5, Lifetimes::LONG, plan);
    world.run_for(20 * SECOND);
    let status = world.branch.status(world.now);
    let tunnels: Vec<_> = status.connectors.iter().flat_map(|connector| &connector.tunnels).collect();
    assert!(
        tunnels
            .iter()
            .all(|tunnel| tunnel.usable && tunnel.one_way.as_ref().is_none_or(|one| one.loss_up_percent.is_none()))
    );
}
