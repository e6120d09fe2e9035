use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::{config, daemon};

/// Runs the daemon of a site in the foreground, until SIGTERM or Ctrl-C.
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
    start_log(args.log_json);
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            for diagnostic in diagnostics {
                eprintln!("{diagnostic}");
            }
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match daemon::serve(loaded.plan, args.debug_key_log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trefoil: {error}");
            ExitCode::FAILURE
        }
    }
}

/// To standard error; `TREFOIL_LOG` sets the level (error, warn, info, debug, trace).
fn start_log(json: bool) {
    let filter = EnvFilter::try_from_env("TREFOIL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder.init();
    }
}
