//! Trefoil beside plain veth, strongSwan's user-space ESP and the user-space WireGuards: the same
//! loads through the same network namespaces, in turns, in one run.
//!
//! ```text
//! cargo bench --bench throughput                     # as root; 15 to 20 minutes
//! cargo bench --bench throughput -- --quick          # about a minute: veth, wireguard-go, Trefoil
//! cargo bench --bench throughput -- --build-peers    # first installs boringtun and gotatun from crates.io
//! cargo bench --bench throughput -- --write-docs     # also writes docs/performance.md and .svg
//! ```

mod bed;
mod cpu;
mod document;
mod flood;
mod goals;
mod measure;
mod metric;
mod ping_pong;
mod plot;
mod product;
mod results;
mod settings;
mod steady_flows;
mod trefoil_pair;
mod wireguard;

// The laboratory of the tests; not all of it is needed here.
#[allow(dead_code)]
#[path = "../../tests/lab/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../../tests/lab/namespace.rs"]
mod namespace;
#[allow(dead_code)]
#[path = "../../tests/lab/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../../tests/lab/strongswan.rs"]
mod strongswan;
#[allow(dead_code)]
#[path = "../../tests/lab/traffic.rs"]
mod traffic;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use product::Product;
use results::Results;
use settings::Settings;

/// Set by SIGINT and SIGTERM. Whatever runs ends at its next look, and everything that was
/// started goes the way of its owner.
static STOP: AtomicBool = AtomicBool::new(false);

/// For what else the machine does, before each turn.
const LOOK_AROUND: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let settings = match Settings::of_command_line() {
        Ok(settings) => settings,
        Err(refusal) => {
            eprintln!("throughput: {refusal}");
            return ExitCode::from(2);
        }
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("throughput: needs root, for network namespaces and tunnel devices");
        return ExitCode::FAILURE;
    }
    if let Err(error) = watch_signals() {
        eprintln!("throughput: cannot listen for signals: {error}");
        return ExitCode::FAILURE;
    }
    namespace::remove_leftovers();
    let products = match settings.products() {
        Ok(products) => products,
        Err(refusal) => {
            eprintln!("throughput: {refusal}");
            return ExitCode::FAILURE;
        }
    };
    let mut results = Results::new(&settings, &products);
    for round in 1..=settings.rounds {
        for (index, product) in products.iter().enumerate() {
            if stopped() {
                eprintln!("throughput: stopped");
                return ExitCode::FAILURE;
            }
            let busy = cpu::busy_share(LOOK_AROUND);
            results.busy_between.push(busy);
            println!("round {round} of {}: {} ({:.0} % busy before)", settings.rounds, product.name, busy * 100.0);
            run(product, index, &settings, &mut results);
        }
        results.end_of_round();
    }
    print!("\n{}", document::plain(&results));
    match settings.write_docs.then(|| document::write(&results)) {
        Some(Err(error)) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
        Some(Ok(())) | None => ExitCode::SUCCESS,
    }
}

/// What fails for one product is told and missing in its column; the others go on.
fn run(product: &Product, index: usize, settings: &Settings, results: &mut Results) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        measure::run(product, settings, |metric, value| {
            println!("  {:<52} {}", metric.label(), metric.show(value));
            results.add(index, metric, value);
        })
    }));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("  {} failed: {error}", product.name),
        Err(_) => eprintln!("  {} failed, see above", product.name),
    }
}

pub fn stopped() -> bool {
    STOP.load(Ordering::Acquire)
}

fn watch_signals() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        STOP.store(true, Ordering::Release);
    });
    Ok(())
}
