//! What an operator tells a running site to do, under traffic.

use std::time::Duration;

use trefoil::forward::MoveCause;
use trefoil::model::{Moment, Role};
use trefoil::steer::RuleSet;

use super::plans::Lifetimes;
use super::world::World;
use super::{SECOND, up};

const FLOWS: u16 = 40;
const PORTS: std::ops::Range<u16> = 10_000..10_000 + FLOWS;

/// Six tunnels up and flows of 100 packets a second, flowing.
fn busy(seed: u64) -> World {
    let mut world = up(seed, Lifetimes::LONG, RuleSet::default());
    for port in PORTS {
        world.start_flow(port, 0, Duration::from_millis(10));
    }
    world.run_for(3 * SECOND);
    world
}

/// Gives the branch an order, which may publish once at most.
fn order<T>(world: &mut World, give: impl FnOnce(&mut trefoil::edge::Edge, Moment) -> T) -> T {
    let generation = |world: &World| world.branch.status(world.now).generation;
    let (before, now) = (generation(world), world.now);
    let answer = give(&mut world.branch.edge, now);
    assert!(generation(world) <= before + 1, "an order changes traffic by one published value");
    answer
}

/// Ends the flows; every packet has come back.
fn nothing_was_lost(mut world: World) {
    world.stop_flows();
    world.run_for(2 * SECOND);
    let tally = &world.tally;
    assert_eq!((tally.returned, tally.refused), (tally.sent, 0), "{}", world.describe());
}

#[test]
fn an_operator_sends_all_flows_to_the_other_role_and_back_without_loss() {
    let mut world = busy(41);
    let told = order(&mut world, |edge, now| edge.fail_over(None, None, now)).expect("obeyed");
    assert!(told.contains("over to the secondary role") && told.contains("--to primary"), "{told}");
    let status = world.branch.status(world.now);
    assert_eq!((status.connectors[0].active_role.as_str(), status.connectors[0].held), ("secondary", true));
    // Far longer than the hold time after which traffic would go back.
    world.run_for(60 * SECOND);
    assert_eq!(world.active_role(), "secondary", "{}", world.describe());
    let last_cause =
        |world: &World, port| world.flow(port).and_then(|flow| flow.history.last().map(|moved| moved.cause));
    assert!(PORTS.into_iter().all(|port| world.flow(port).is_some_and(|flow| flow.moves > 0)));

    let told = order(&mut world, |edge, now| edge.fail_over(Some("pop"), Some(Role::Primary), now)).expect("obeyed");
    assert!(told.contains("back to the primary role") && told.contains("usable for 15s"), "{told}");
    world.run_for(SECOND);
    assert_eq!(world.active_role(), "primary");
    assert_eq!(last_cause(&world, 10_000), Some(MoveCause::Role));
    nothing_was_lost(world);
}

#[test]
fn what_an_operator_held_ends_with_the_last_tunnel_of_the_role() {
    let mut world = busy(42);
    order(&mut world, |edge, now| edge.fail_over(None, Some(Role::Secondary), now)).expect("obeyed");
    for link in &mut world.network.weather {
        link[1].cut = true;
    }
    assert!(world.run_while_not(10 * SECOND, |world| world.active_role() == "primary"), "{}", world.describe());
    let refused = order(&mut world, |edge, now| edge.fail_over(None, Some(Role::Secondary), now)).unwrap_err();
    assert!(refused.contains("no tunnel of the secondary role"), "{refused}");
    assert!(!world.branch.status(world.now).connectors[0].held);
}

#[test]
fn an_unknown_connector_is_refused_with_those_that_there_are() {
    let mut world = busy(43);
    let refused = order(&mut world, |edge, now| edge.fail_over(Some("pops"), None, now)).unwrap_err();
    assert_eq!(refused, "no connector is called \"pops\" (known: pop)");
}
