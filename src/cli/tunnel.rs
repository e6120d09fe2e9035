use std::path::PathBuf;
use std::process::ExitCode;

use super::failover::give;
use crate::control::Request;
use crate::edge::TunnelOrder;

/// Takes one tunnel out of service, or into service again.
#[derive(clap::Args, Debug)]
pub struct TunnelArgs {
    #[command(subcommand)]
    order: Order,
}

#[derive(clap::Subcommand, Debug)]
enum Order {
    /// Moves its flows to the others, at a pause of each where there is one, within a second; the
    /// tunnel stays up and is probed
    Drain(Leaving),
    /// Drains it, then tells the peer that it is closed; nobody can open it
    Down(Leaving),
    /// Takes it into service again
    Up(Target),
}

#[derive(clap::Args, Debug)]
struct Leaving {
    #[command(flatten)]
    target: Target,
    /// Even if it is the last tunnel in service of the role that carries the traffic
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args, Debug)]
struct Target {
    /// `connector/role/tunnel`, or the end of it where that is enough
    name: String,
    /// The daemon's control socket
    #[arg(long, default_value = "/run/trefoil/control.sock")]
    socket: PathBuf,
}

pub fn run(args: &TunnelArgs) -> ExitCode {
    let (order, target, force) = match &args.order {
        Order::Drain(leaving) => (TunnelOrder::Drain, &leaving.target, leaving.force),
        Order::Down(leaving) => (TunnelOrder::Down, &leaving.target, leaving.force),
        Order::Up(target) => (TunnelOrder::Up, target, false),
    };
    give(&target.socket, Request::Tunnel { name: target.name.clone(), order, force })
}
