//! The scoreboard in its short form: every shipped scenario once, and what holds of the outcome.

use trefoil::lab::score::{Board, CONTENDERS, ORACLE, OURS, Outcome, shipped};

/// Moves of a flow or call in a scenario of three minutes, and overtaken packets of it, at most. The mice
/// are so many flows that they keep far below.
const MOVES_EACH: u64 = 12;
const OVERTAKEN_EACH: u64 = 400;
/// Calls and transfers of the scenarios that have the most.
const FLOWS: u64 = 10;

fn outage(outcome: &Outcome, contender: &str) -> f64 {
    outcome.row(contender).expect("everybody plays").figures.outage_seconds
}

#[test]
fn our_calls_are_silent_for_less_time_than_anybody_else_s_and_moves_stay_in_their_budget() {
    let board = Board::of(&shipped()).expect("the shipped scenarios can be played");
    println!("{}{}", board.tables(), board.summary());
    println!("{}", board.shortfalls().join("\n"));
    for outcome in &board.scenarios {
        assert_eq!(outcome.rows.len(), CONTENDERS.len());
        let ours = outcome.row(OURS).expect("we play").figures;
        assert!(ours.moves <= MOVES_EACH * FLOWS, "{}: {} moves", outcome.scenario, ours.moves);
        assert!(ours.reordered <= OVERTAKEN_EACH * FLOWS, "{}: {} overtaken", outcome.scenario, ours.reordered);
        assert!(ours.outage_seconds < 2.0, "{}: silent for {} s", outcome.scenario, ours.outage_seconds);
    }
    let all = |contender: &str| board.scenarios.iter().map(|outcome| outage(outcome, contender)).sum::<f64>();
    for other in CONTENDERS.into_iter().filter(|name| ![OURS, ORACLE].contains(name)) {
        assert!(all(OURS) < all(other), "{other} is silent for less: {} and {} s", all(OURS), all(other));
    }
}

#[test]
fn a_scenario_comes_out_the_same_each_time() {
    let mut scenario = shipped().into_iter().find(|scenario| scenario.name == "cut").expect("it is shipped");
    scenario.duration = std::time::Duration::from_secs(75);
    let play = || Board::of(std::slice::from_ref(&scenario)).expect("it can be played");
    assert_eq!(play(), play());
}
