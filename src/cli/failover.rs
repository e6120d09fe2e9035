use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::control::{self, Request, Response, RoleName};

/// Sends the traffic of a connector to its other role, or back.
///
/// On the secondary role it stays, whatever the connector's failback policy, until it is sent back
/// or no tunnel of that role is usable. Refused while the role has no usable tunnel.
#[derive(clap::Args, Debug)]
pub struct FailoverArgs {
    /// May be left out where only one connector has two roles
    connector: Option<String>,
    /// The role that is to carry the traffic [default: the one that does not now]
    #[arg(long, value_enum)]
    to: Option<RoleName>,
    /// The daemon's control socket
    #[arg(long, default_value = "/run/trefoil/control.sock")]
    socket: PathBuf,
}

pub fn run(args: &FailoverArgs) -> ExitCode {
    give(&args.socket, Request::Failover { connector: args.connector.clone(), to: args.to })
}

/// Gives the daemon an order, and tells what it says.
pub(super) fn give(socket: &std::path::Path, order: Request) -> ExitCode {
    match control::ask(socket, order) {
        Ok(Response::Done { says }) => output::finish(&format!("{says}\n"), ExitCode::SUCCESS),
        Ok(Response::Refused { reason }) => output::fail(&reason),
        Ok(Response::Status(_) | Response::Flows(_) | Response::Explanation(_) | Response::Rules { .. }) => {
            output::fail("the daemon answered something else")
        }
        Err(error) => output::fail(&error.to_string()),
    }
}
