//! `trefoil lab`: what is measured without a network.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::config;
use crate::lab::score::{Board, shipped};

/// Measures steering in simulated time.
#[derive(clap::Args, Debug)]
pub struct LabArgs {
    #[command(subcommand)]
    verb: LabVerb,
}

#[derive(clap::Subcommand, Debug)]
enum LabVerb {
    /// Plays scenarios with this steering and with models of what people use, and compares
    Score(ScoreArgs),
}

#[derive(clap::Args, Debug)]
struct ScoreArgs {
    /// A scenario file; may be repeated. Without any, those that are shipped
    #[arg(long, value_name = "FILE")]
    scenario: Vec<PathBuf>,
    /// The first seed, instead of that of the files
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// With so many seeds, one after the other: the mean of all
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,
    /// One JSON document (its shape: docs/scoreboard.md)
    #[arg(long)]
    json: bool,
}

pub fn run(args: &LabArgs) -> ExitCode {
    match &args.verb {
        LabVerb::Score(args) => score(args),
    }
}

fn score(args: &ScoreArgs) -> ExitCode {
    let mut scenarios = Vec::new();
    for file in &args.scenario {
        match config::load_scenario(file) {
            Ok(scenario) => scenarios.push(scenario),
            Err(found) => {
                let lines: String = found.iter().map(|one| format!("{one}\n")).collect();
                return output::finish(
                    &format!("{lines}{}: not right, see above\n", file.display()),
                    ExitCode::FAILURE,
                );
            }
        }
    }
    if scenarios.is_empty() {
        scenarios = shipped();
    }
    if let Some(seed) = args.seed {
        scenarios.iter_mut().for_each(|scenario| scenario.seed = seed);
    }
    let board = match Board::over_seeds(&scenarios, args.seeds) {
        Ok(board) => board,
        Err(unplayable) => return output::fail(&unplayable.0),
    };
    if args.json {
        return match serde_json::to_string_pretty(&board) {
            Ok(text) => output::finish(&format!("{text}\n"), ExitCode::SUCCESS),
            Err(error) => output::fail(&error.to_string()),
        };
    }
    let shortfalls: String = board.shortfalls().iter().map(|line| format!("not reached: {line}\n")).collect();
    output::finish(&format!("{}{}\n{shortfalls}", board.tables(), board.summary()), ExitCode::SUCCESS)
}
