use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::{config, daemon};

/// Opens the network ranges again that a stopped daemon keeps closed.
///
/// With `on_stop = "block"` the rules and blackholes of the routes stay when the daemon stops.
/// This removes them; refused while a daemon runs with any of them.
#[derive(clap::Args, Debug)]
pub struct ReleaseArgs {
    /// The site file, if it sets [routes]
    #[arg(long, value_name = "SITE.toml")]
    config: Option<PathBuf>,
}

pub fn run(args: &ReleaseArgs) -> ExitCode {
    let routes = match &args.config {
        None => config::default_routes(),
        Some(file) => match config::load(file) {
            Ok(loaded) => loaded.plan.routes,
            Err(diagnostics) => {
                diagnostics.iter().for_each(|one| output::complain(&one.to_string()));
                return ExitCode::FAILURE;
            }
        },
    };
    match daemon::release(&routes) {
        Ok(()) => output::finish(
            "No rules or routes of Trefoil are left: the ranges go where the host\'s own routes lead.\n",
            ExitCode::SUCCESS,
        ),
        Err(error) => output::fail(&error.to_string()),
    }
}
