use std::path::PathBuf;
use std::process::ExitCode;

use super::{log, output};
use crate::{config, daemon};

/// Runs the daemon of a site in the foreground, until SIGTERM or Ctrl-C.
///
/// Logs go to standard error; the environment variable TREFOIL_LOG sets their level (error, warn,
/// info, debug or trace; info without it).
#[derive(clap::Args, Debug)]
pub struct RunArgs {
    /// The site file
    #[arg(long, value_name = "SITE.toml")]
    config: PathBuf,
    /// Write the keys of all SAs into this directory, as Wireshark tables, to decrypt captures
    #[arg(long, value_name = "DIR", requires = "expose_traffic_keys")]
    debug_key_log: Option<PathBuf>,
    /// Confirms --debug-key-log: whoever reads the keys reads all traffic
    #[arg(long)]
    expose_traffic_keys: bool,
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
}

pub fn run(args: RunArgs) -> ExitCode {
    if let Err(reason) = log::start(args.log_json) {
        return output::fail(&reason);
    }
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            for diagnostic in diagnostics {
                output::complain(&diagnostic.to_string());
            }
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for warning in daemon::host_warnings(&loaded.plan) {
        tracing::warn!("{warning}");
    }
    match daemon::serve(loaded.plan, args.debug_key_log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error.to_string()),
    }
}
