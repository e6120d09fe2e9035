//! `trefoil policy`: what authors of rules do with their files before a device sees them.

mod check;
mod diff;
mod flows;
mod fmt;
mod simulate;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::config::{self, Diagnostic, PolicyFiles};

/// Checks, tests, compares and formats policy files.
#[derive(clap::Args, Debug)]
pub struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(clap::Subcommand, Debug)]
enum PolicyVerb {
    /// Reports every error, rules that are never reached, and rules that overlap
    Check(check::CheckArgs),
    /// Runs the `[[test]]` tables beside the rules
    #[command(override_usage = "trefoil policy test [OPTIONS] <FILE...|--site <SITE.toml>>")]
    Test(Named),
    /// Tells which flows would go elsewhere, and why
    Diff(diff::DiffArgs),
    /// Plays flows of a file under a scenario, in simulated time: which went where, when they moved and why
    Simulate(simulate::SimulateArgs),
    /// Formats files in place; comments stay where they are
    Fmt(fmt::FmtArgs),
}

/// Which policy is meant.
#[derive(clap::Args, Debug)]
struct Named {
    /// Policy files, in the order in which they apply; without any, those of the site
    #[arg(value_name = "FILE", required_unless_present = "site")]
    files: Vec<PathBuf>,
    /// The site file: its links and connectors are the ones that rules may name, and rules for other sites are left out
    #[arg(long, value_name = "SITE.toml")]
    site: Option<PathBuf>,
}

pub fn run(args: &PolicyArgs) -> ExitCode {
    match &args.verb {
        PolicyVerb::Check(args) => check::run(args),
        PolicyVerb::Test(named) => test::run(named),
        PolicyVerb::Diff(args) => diff::run(args),
        PolicyVerb::Simulate(args) => simulate::run(args),
        PolicyVerb::Fmt(args) => fmt::run(args),
    }
}

impl Named {
    fn load(&self) -> Result<PolicyFiles, Vec<Diagnostic>> {
        load(&self.files, self.site.as_deref())
    }

    /// How messages call it.
    fn title(&self) -> String {
        let files = self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        match &self.site {
            Some(site) if files.is_empty() => format!("the policy of {}", site.display()),
            _ => files,
        }
    }
}

fn load(files: &[PathBuf], site: Option<&std::path::Path>) -> Result<PolicyFiles, Vec<Diagnostic>> {
    let Some(site) = site else { return config::load_policy(files, None) };
    let (plan, of_site) = config::policy_files_of(site)?;
    config::load_policy(if files.is_empty() { &of_site } else { files }, Some(&plan))
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|one| format!("{one}\n")).collect()
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Ends with the findings that make it impossible to go on.
fn refuse(title: &str, diagnostics: &[Diagnostic]) -> ExitCode {
    output::finish(&format!("{}{title}: not right, see above\n", lines(diagnostics)), ExitCode::FAILURE)
}
