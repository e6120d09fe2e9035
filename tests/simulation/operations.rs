//! What an operator tells a running site to do, under traffic.

use std::time::Duration;

use trefoil::edge::TunnelOrder;
use trefoil::forward::MoveCause;
use trefoil::model::{Dscp, LinkId, Moment, PathId, Role};
use trefoil::steer::{Action, Links, Matcher, Rule, RuleSet, Steering};

use super::plans::Lifetimes;
use super::world::World;
use super::{SECOND, up};

const FLOWS: u16 = 24;
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
    world.run_for(Duration::from_millis(1));
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
    world.run_for(30 * SECOND);
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

/// Flows of all kinds of pace: those that pause, and one that never does.
fn busy_with_all_paces(seed: u64) -> World {
    let mut world = up(seed, Lifetimes::LONG, RuleSet::default());
    // The links differ, so that a flow which changes over without a pause would overtake itself.
    for (link, delay_ms) in [(0, 30), (1, 10), (2, 20)] {
        for weather in &mut world.network.weather[link] {
            weather.delay = Duration::from_millis(delay_ms);
        }
    }
    world.run_for(30 * SECOND);
    for port in PORTS {
        world.start_flow(port, 0, Duration::from_millis([5, 20, 100, 700][usize::from(port % 4)]));
    }
    world.run_for(3 * SECOND);
    world
}

fn flows_on(world: &World, path: u16) -> usize {
    let on = |port: &u16| world.flow(*port).and_then(|flow| flow.path) == Some(PathId(path));
    PORTS.chain(11_000..11_024).filter(on).count()
}

fn sent_by(world: &World, link: &str) -> u64 {
    world.packets_by_link()[link]
}

fn tell(world: &mut World, name: &str, what: TunnelOrder, force: bool) -> Result<String, String> {
    order(world, |edge, now| edge.order_tunnel(name, what, force, now))
}

#[test]
fn a_drained_tunnel_is_free_of_flows_within_a_second_and_nothing_is_lost_or_overtaken() {
    let mut world = busy_with_all_paces(44);
    let there = flows_on(&world, 0);
    assert!(there > 10, "{there}");
    let overtaken = world.overtaken();
    let told = tell(&mut world, "fibre", TunnelOrder::Drain, false).unwrap_err();
    assert_eq!(told, "\"fibre\" may be any of pop/primary/fibre, pop/secondary/fibre");
    let told = tell(&mut world, "cable", TunnelOrder::Drain, false).unwrap_err();
    assert!(told.starts_with("no tunnel is called \"cable\" (known: pop/primary/fibre, "), "{told}");
    let told = tell(&mut world, "primary/fibre", TunnelOrder::Drain, false).expect("obeyed");
    assert!(told.starts_with("pop/primary/fibre is drained: new flows go to its siblings now"), "{told}");
    world.run_for(Duration::from_millis(100));
    let waiting = flows_on(&world, 0);
    assert!(waiting > 0, "flows that have not paused since are still there");
    for port in 11_000..11_024 {
        world.start_flow(port, 0, Duration::from_millis(5));
    }
    world.run_for(SECOND);
    let sent = sent_by(&world, "fibre");
    world.run_for(10 * SECOND);
    // A flow that has sent nothing since is where it was until it sends.
    assert_eq!((flows_on(&world, 0), sent_by(&world, "fibre")), (0, sent), "{}", world.describe());
    // Those that never paused were moved all the same, and may overtake themselves once.
    let (fast, overtaken) = (there.div_ceil(2), world.overtaken() - overtaken);
    assert!(overtaken <= fast * 15, "{overtaken} packets overtaken by {fast} flows");
    let causes: Vec<_> = PORTS.filter_map(|port| Some(world.flow(port)?.history.last()?.cause)).collect();
    assert!(causes.iter().filter(|cause| **cause == MoveCause::Drained).count() >= there, "{causes:?}");

    let status = world.branch.status(world.now).connectors.remove(0).tunnels.remove(0);
    assert_eq!((status.duty.as_str(), status.state.as_str(), status.verdict.as_str()), ("drained", "up", "healthy"));
    assert_eq!(status.share_percent, 0.0);
    tell(&mut world, "primary/fibre", TunnelOrder::Up, false).expect("obeyed");
    world.run_for(Duration::from_millis(1));
    for port in 12_000..12_024 {
        world.start_flow(port, 0, Duration::from_millis(50));
    }
    world.run_for(SECOND);
    assert!(sent_by(&world, "fibre") > sent, "{}", world.describe());
    nothing_was_lost(world);
}

#[test]
fn an_order_names_the_rules_whose_flows_have_nowhere_else_to_go_and_explain_says_why_they_stay() {
    let strict = |name: &str, links: &[u16]| Rule {
        name: name.to_owned(),
        place: String::new(),
        matcher: Matcher { dscp: vec![Dscp::new(links.len() as u8).unwrap()], ..Matcher::default() },
        action: Action::Steer(Steering {
            links: Links::Strict(links.iter().map(|link| LinkId(*link)).collect()),
            ..Steering::default()
        }),
    };
    let rules = RuleSet::new(vec![strict("cards", &[2]), strict("both", &[2, 1])], Vec::new());
    let mut world = up(50, Lifetimes::LONG, rules);
    world.start_flow(10_000, 1, Duration::from_millis(20));
    world.run_for(SECOND);
    let told = tell(&mut world, "primary/dsl", TunnelOrder::Drain, false).expect("obeyed");
    assert!(!told.contains("but flows of rules"), "{told}");
    let told = tell(&mut world, "primary/lte", TunnelOrder::Drain, false).expect("obeyed");
    let stay =
        "its own follow within a second; but flows of rules that allow none of those stay on it: cards, both. It stays";
    assert!(told.contains(stay), "{told}");
    world.run_for(3 * SECOND);
    let (key, now) = (world.flow(10_000).expect("it is there").key, world.now);
    let explained = world.branch.explain(key, Dscp::new(1).unwrap(), now);
    assert_eq!(explained.tunnel.as_deref(), Some("pop/primary/lte"));
    assert_eq!(explained.candidates[2].standing, "drained by the operator, and no other will do");

    let told = tell(&mut world, "primary/lte", TunnelOrder::Down, false).expect("obeyed");
    assert!(told.contains("; but flows of rules that allow none of those are refused: cards. The peer"), "{told}");
    let refused = |world: &World| world.flow(10_000).is_some_and(|flow| flow.refused().is_some());
    assert!(world.run_while_not(3 * SECOND, refused), "{}", world.describe());
}

#[test]
fn a_tunnel_that_is_taken_down_loses_nothing_stays_down_and_comes_up_again() {
    let mut world = busy_with_all_paces(45);
    let told = tell(&mut world, "pop/primary/dsl", TunnelOrder::Down, false).expect("obeyed");
    assert!(told.contains("The peer is told then"), "{told}");
    world.run_for(3 * SECOND);
    let of = |world: &World| world.branch.status(world.now).connectors.remove(0).tunnels.remove(1);
    let at_pop = |world: &World| world.pops[0].status(world.now).connectors.remove(0).tunnels.remove(1);
    let (here, there) = (of(&world), at_pop(&world));
    assert_eq!((here.state.as_str(), here.duty.as_str(), here.child_sas), ("down", "down", 0), "{here:?}");
    assert_eq!((there.usable, there.child_sas), (false, 0), "the peer was told: {there:?}");
    world.run_for(30 * SECOND);
    assert_eq!((of(&world).state.as_str(), world.usable(Role::Primary)), ("down", 2));
    let told = tell(&mut world, "primary/dsl", TunnelOrder::Down, false).expect("obeyed");
    assert!(told.contains("down already"), "{told}");
    assert!(tell(&mut world, "primary/dsl", TunnelOrder::Drain, false).unwrap_err().contains("is down"));
    tell(&mut world, "primary/dsl", TunnelOrder::Up, false).expect("obeyed");
    world.run_for(5 * SECOND);
    assert_eq!((of(&world).duty.as_str(), world.usable(Role::Primary)), ("in service", 3));
    nothing_was_lost(world);
}

#[test]
fn a_drained_tunnel_stays_drained_through_a_rekey_and_a_new_connection() {
    let mut world = up(46, Lifetimes { child: 10 * SECOND, ike: 25 * SECOND }, RuleSet::default());
    for port in PORTS {
        world.start_flow(port, 0, Duration::from_millis(100));
    }
    tell(&mut world, "primary/lte", TunnelOrder::Drain, false).expect("obeyed");
    world.run_for(2 * SECOND);
    let sent = sent_by(&world, "lte");
    world.run_for(30 * SECOND);
    for cut in [true, false] {
        world.network.weather[2].iter_mut().for_each(|weather| weather.cut = cut);
        world.run_for(if cut { 80 * SECOND } else { 30 * SECOND });
    }
    let status = world.branch.status(world.now).connectors.remove(0).tunnels.remove(2);
    assert_eq!((status.duty.as_str(), status.usable), ("drained", true), "{status:?}");
    assert!(status.rekeys > 0 || status.child_sas > 0);
    assert_eq!(sent_by(&world, "lte"), sent, "{}", world.describe());
}

#[test]
fn the_last_tunnel_in_service_leaves_it_only_by_force_and_then_the_other_role_carries() {
    let mut world = busy(47);
    for link in ["fibre", "dsl"] {
        tell(&mut world, &format!("primary/{link}"), TunnelOrder::Drain, false).expect("obeyed");
    }
    let refused = tell(&mut world, "primary/lte", TunnelOrder::Drain, false).unwrap_err();
    assert!(refused.contains("last tunnel in service of the primary role"), "{refused}");
    assert!(refused.contains("goes over to the secondary role") && refused.contains("--force"), "{refused}");
    let told = tell(&mut world, "primary/lte", TunnelOrder::Drain, true).expect("obeyed");
    assert!(told.contains("goes over to the secondary role"), "{told}");
    assert_eq!(world.active_role(), "secondary");
    world.run_for(20 * SECOND);
    assert_eq!(world.active_role(), "secondary");
    tell(&mut world, "primary/lte", TunnelOrder::Up, false).expect("obeyed");
    world.run_for(20 * SECOND);
    assert_eq!(world.active_role(), "primary", "its hold time is over");
    nothing_was_lost(world);
}

#[test]
fn where_nothing_else_is_left_flows_stay_on_a_drained_tunnel_and_leave_it_when_another_comes() {
    let mut world = busy(48);
    for weather in world.network.weather[1..].iter_mut().flatten() {
        weather.cut = true;
    }
    world.network.weather[0][1].cut = true;
    assert!(world.run_while_not(5 * SECOND, |world| world.usable(Role::Primary) + world.usable(Role::Secondary) == 1));
    world.stop_flows();
    world.run_for(2 * SECOND);
    world.tally = Default::default();
    for port in PORTS {
        world.start_flow(port + 3_000, 0, Duration::from_millis(10));
    }
    world.run_for(SECOND);
    let refused = tell(&mut world, "primary/fibre", TunnelOrder::Drain, false).unwrap_err();
    assert!(refused.contains("stays on it until another tunnel is usable"), "{refused}");
    tell(&mut world, "primary/fibre", TunnelOrder::Drain, true).expect("obeyed");
    world.run_for(5 * SECOND);
    for weather in world.network.weather.iter_mut().flatten() {
        weather.cut = false;
    }
    // The secondary role may come back first.
    let is_whole = |world: &World| world.healthy() == 6 && world.active_role() == "primary";
    assert!(world.run_while_not(90 * SECOND, is_whole), "{}", world.describe());
    world.run_for(3 * SECOND);
    let before = sent_by(&world, "fibre");
    world.run_for(SECOND);
    assert_eq!(sent_by(&world, "fibre"), before, "{}", world.describe());
}
