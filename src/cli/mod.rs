//! Floor 8: the command line, one file a verb. A verb has its arguments and a `run` that ends in
//! an exit code: 0 done, 1 failed, 2 called wrongly.

pub mod check;
pub mod demo;
pub mod explain;
pub mod failover;
pub mod flows;
pub mod lab;
mod log;
mod output;
pub mod policy;
pub mod release;
pub mod replay;
pub mod rules;
pub mod run;
pub mod schema;
pub mod status;
pub mod tunnel;
mod workers;

use std::process::ExitCode;

use clap::error::ErrorKind;
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
    Policy(policy::PolicyArgs),
    Lab(lab::LabArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Rules(rules::RulesArgs),
    Flows(flows::FlowsArgs),
    Explain(explain::ExplainArgs),
    Failover(failover::FailoverArgs),
    Tunnel(tunnel::TunnelArgs),
    Replay(replay::ReplayArgs),
    Release(release::ReleaseArgs),
    Schema(schema::SchemaArgs),
}

const CALLED_WRONGLY: u8 = 2;

pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return tell(&error),
    };
    match args.verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Policy(args) => policy::run(&args),
        Verb::Lab(args) => lab::run(&args),
        Verb::Run(args) => run::run(args),
        Verb::Status(args) => status::run(&args),
        Verb::Rules(args) => rules::run(&args),
        Verb::Flows(args) => flows::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Failover(args) => failover::run(&args),
        Verb::Tunnel(args) => tunnel::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Release(args) => release::run(&args),
        Verb::Schema(args) => schema::run(&args),
    }
}

/// Help and version are answers; anything else was a wrong call.
fn tell(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::finish(&error.render().to_string(), ExitCode::SUCCESS)
        }
        _ => {
            let _ = error.print();
            ExitCode::from(CALLED_WRONGLY)
        }
    }
}
