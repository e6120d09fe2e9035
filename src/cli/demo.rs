use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, thread};

use tokio::signal::unix::{SignalKind, signal};

use super::output;
use crate::lab::{DemoSettings, LONGEST_SECONDS, SHORTEST_SECONDS, demo};

/// Shows six tunnels, live traffic and four outages in one unprivileged process.
///
/// An edge with three tunnels to each of two PoPs over three emulated WAN links (fibre, DSL,
/// LTE), with voice, web and bulk traffic. A brownout, a cut link and a lost PoP show what
/// happens to it. The exit code is 0 when everything that the demo shows was seen, 1 when not,
/// and 130 when it was interrupted.
#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// How long the whole run takes
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(RANGE))]
    seconds: u32,
    /// Repeats the randomness of another run's links
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// No table: events and the closing summary only
    #[arg(long)]
    headless: bool,
    /// One JSON document at the end (its shape: docs/demo.md); events go to standard error
    #[arg(long)]
    json: bool,
}

const RANGE: std::ops::RangeInclusive<i64> = SHORTEST_SECONDS as i64..=LONGEST_SECONDS as i64;

/// As shells report a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

pub fn run(args: &DemoArgs) -> ExitCode {
    let settings = DemoSettings {
        time: Duration::from_secs(args.seconds.into()),
        seed: args.seed,
        headless: args.headless,
        json: args.json,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let outcome = listen_for_signals(Arc::clone(&stop)).map_err(Into::into).and_then(|()| demo(&settings, &stop));
    match outcome {
        Ok(summary) if !summary.passed => ExitCode::FAILURE,
        Ok(summary) if !summary.complete => ExitCode::from(INTERRUPTED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error.to_string()),
    }
}

/// Sets `stop` at the first SIGINT or SIGTERM. Those that follow do nothing: a run ends within
/// a fraction of a second.
fn listen_for_signals(stop: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(wait);
        stop.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}
