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

/// With every number alike: the shape and the words.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' if masked.ends_with('0') => {}
            '0'..='9' => masked.push('0'),
            other => masked.push(other),
        }
    }
    masked
}

#[test]
fn the_simulation_of_the_policy_page_comes_out_as_it_says_and_as_json_too() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/policy.md")).expect("the page");
    let block = |before: &str| {
        let rest = page.split_once(before).expect("the example").1;
        rest.split_once("```\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block").0.to_owned()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let flows = folder.path().join("flows.txt");
    std::fs::write(&flows, block("`flows.txt`")).expect("the flows");
    let run = |more: &[&str]| {
        let arguments = ["policy", "simulate", "policy/branch.toml", "--scenario", "scenarios/cut.toml", "--flows"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trefoil"));
        let output = command.current_dir(root).args(arguments).arg(&flows).args(more).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    // What changed is told by health, whose words have their own page.
    let stories = |text: &str| masked(text.split_once("\nlink ").expect("the table of links").0);
    let told = run(&[]);
    assert_eq!(stories(&told), stories(&block("prints")), "{told}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).expect("JSON");
    let steps = json["flows"][0]["steps"].as_array().expect("steps");
    let links: Vec<&str> = steps.iter().filter_map(|step| step["link"].as_str()).collect();
    assert_eq!(links, ["fibre", "dsl", "fibre"]);
    assert_eq!((steps[1]["cause"].as_str(), steps[1]["rule"].as_str()), (Some("path_lost"), Some("voice")));
    assert!(json["flows"][0]["outage_ms"].as_u64().is_some_and(|outage| (60..1_000).contains(&outage)), "{json}");
}
