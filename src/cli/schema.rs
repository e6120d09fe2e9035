use std::process::ExitCode;

use super::output;

/// Prints the JSON Schema of a kind of file, for editors that complete and check TOML.
#[derive(clap::Args, Debug)]
pub struct SchemaArgs {
    #[arg(value_enum)]
    kind: Kind,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Kind {
    /// The site file
    Site,
    /// An IKE profile
    Profile,
    /// Rules
    Policy,
    /// What happens to links in a simulation
    Scenario,
}

pub fn run(args: &SchemaArgs) -> ExitCode {
    output::finish(text(args.kind), ExitCode::SUCCESS)
}

/// The shipped file itself, so that the two cannot differ.
const fn text(kind: Kind) -> &'static str {
    match kind {
        Kind::Site => include_str!("../../schemas/site.schema.json"),
        Kind::Profile => include_str!("../../schemas/profile.schema.json"),
        Kind::Policy => include_str!("../../schemas/policy.schema.json"),
        Kind::Scenario => include_str!("../../schemas/scenario.schema.json"),
    }
}
