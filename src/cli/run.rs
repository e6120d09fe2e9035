use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

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
    match log_filter(std::env::var("TREFOIL_LOG").ok().as_deref()) {
        Ok(filter) => start_log(filter, args.log_json),
        Err(reason) => {
            eprintln!("trefoil: {reason}");
            return ExitCode::FAILURE;
        }
    }
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

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or a list of levels for parts of the program (`info,trefoil::edge=debug`). A word that is
/// no level would be taken for a part of the program, and silence all others.
fn log_filter(text: Option<&str>) -> Result<EnvFilter, String> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("info");
    let understood = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.to_lowercase().as_str()));
    let filter = understood.then(|| EnvFilter::try_new(text).ok()).flatten();
    filter.ok_or_else(|| format!("TREFOIL_LOG is {text:?}, and not one of {}", LEVELS.join(", ")))
}

/// To standard error.
fn start_log(filter: EnvFilter, json: bool) {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder.init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_does_not_silence_the_log() {
        for good in [None, Some(""), Some("debug"), Some("WARN"), Some("info,trefoil::edge=debug")] {
            assert!(log_filter(good).is_ok(), "{good:?}");
        }
        let refused = log_filter(Some("debgu")).unwrap_err();
        assert_eq!(refused, "TREFOIL_LOG is \"debgu\", and not one of off, error, warn, info, debug, trace");
        assert!(log_filter(Some("info,=")).is_err() && log_filter(Some("a=b=c")).is_err());
    }
}
