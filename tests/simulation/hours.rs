//! Rules with hours, and a time of day that somebody sets while flows run.

use std::time::Duration;

use trefoil::model::{LinkId, WeekMinute};
use trefoil::steer::{Action, Matcher, Rule, RuleSet};

use super::plans::Lifetimes;
use super::world::World;
use super::{SECOND, up};

/// Monday, 5 January 1970, 08:00 UTC: when the rule's hours begin.
const MORNING_MS: u64 = (4 * 24 + 8) * 3_600_000;
const HOUR_MS: u64 = 3_600_000;
const DSL: LinkId = LinkId(1);

/// Flows to port 7 prefer dsl from 8 to 18 o'clock, else fibre.
fn rules() -> RuleSet {
    let rule = |name: &str, matcher, link| Rule {
        name: name.to_owned(),
        place: String::new(),
        matcher,
        action: Action::prefer([link]),
    };
    let minutes = vec![(WeekMinute::at(MORNING_MS, 0), WeekMinute::at(MORNING_MS + 10 * HOUR_MS - 1, 0))];
    let by_day = Matcher { minutes, ..Matcher::default() };
    RuleSet::new(vec![rule("day", by_day, DSL), rule("night", Matcher::default(), LinkId(0))], Vec::new())
}

/// Runs for some seconds, in which the time of day is told each second.
fn run(world: &mut World, seconds: u64, time_of_day: impl Fn(u64) -> u64) {
    for second in 0..seconds {
        world.branch.edge.handle_time_of_day(time_of_day(second));
        world.run_for(SECOND);
    }
}

fn packets_of(world: &mut World, seconds: u64, time_of_day: impl Fn(u64) -> u64) -> [u64; 2] {
    let before = world.packets_by_link();
    run(world, seconds, time_of_day);
    let after = world.packets_by_link();
    ["fibre", "dsl"].map(|link| after[link] - before[link])
}

#[test]
fn flows_follow_the_hours_of_rules_and_a_clock_that_jumps_loses_nothing() {
    let mut world = up(51, Lifetimes::LONG, rules());
    for port in 10_000..10_010 {
        world.start_flow(port, 0, Duration::from_millis(20));
    }
    let at = |base: u64| move |second: u64| base + second * 1_000;
    run(&mut world, 5, at(MORNING_MS - 8_000));
    let [fibre, dsl] = packets_of(&mut world, 2, at(MORNING_MS - 3_000));
    assert!(fibre >= 950 && dsl == 0, "before eight: {fibre} and {dsl}\n{}", world.describe());
    run(&mut world, 10, at(MORNING_MS));
    let [fibre, dsl] = packets_of(&mut world, 2, at(MORNING_MS + 10_000));
    assert!(fibre == 0 && dsl >= 950, "after eight: {fibre} and {dsl}\n{}", world.describe());

    // Set back an hour, and forth a year.
    run(&mut world, 10, at(MORNING_MS - HOUR_MS));
    let [fibre, dsl] = packets_of(&mut world, 2, at(MORNING_MS - HOUR_MS + 10_000));
    assert!(fibre >= 950 && dsl == 0, "set back: {fibre} and {dsl}\n{}", world.describe());
    run(&mut world, 10, at(MORNING_MS + 52 * 7 * 24 * HOUR_MS));
    let moves = |world: &World| (10_000..10_010).filter_map(|port| world.flow(port)).map(|flow| flow.moves).max();
    let settled = moves(&world);
    assert_eq!(settled, Some(3), "{}", world.describe());

    // A clock that is at odds with itself, to its very ends.
    run(&mut world, 60, |second| match second % 4 {
        0 => 0,
        1 => MORNING_MS + HOUR_MS,
        2 => u64::MAX,
        _ => MORNING_MS - HOUR_MS,
    });
    world.stop_flows();
    run(&mut world, 2, at(MORNING_MS));
    assert_eq!((world.tally.returned, world.tally.refused), (world.tally.sent, 0), "{}", world.describe());
    // Once for each time that other hours began.
    assert!(moves(&world) <= settled.map(|moves| moves + 32), "{:?}", moves(&world));
}
