//! Floor 8: the command line, one file a verb. A verb has its arguments and a `run` that ends in
//! an exit code: 0 done, 1 failed, 2 called wrongly.

pub mod check;
pub mod demo;
pub mod run;
pub mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(name = "trefoil", version, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// In the order in which an operator comes to need them.
#[derive(Subcommand, Debug)]
enum Verb {
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
}

pub fn main() -> ExitCode {
    match Args::parse().verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Run(args) => run::run(args),
        Verb::Status(args) => status::run(&args),
    }
}
