use tracing::{info, warn};

use crate::edge::{Plan, SiteEvent, TunnelState};
use crate::model::{PathId, Verdict};

/// Writes an event to the log: one line a change, as fields, with the reason. What follows from a
/// stop that was asked for (`stopping`) is no reason to warn.
pub fn announce(event: &SiteEvent, plan: &Plan, stopping: bool) {
    match event {
        SiteEvent::TunnelState { path, from, to, reason } => {
            let tunnel = name(*path, plan);
            match (from, to) {
                _ if stopping => info!(%tunnel, %from, %to, reason, "tunnel closed"),
                (TunnelState::Waiting, TunnelState::Waiting) => {
                    warn!(%tunnel, state = %to, reason, "tunnel did not come up")
                }
                (_, TunnelState::Down) => info!(%tunnel, %from, %to, reason, "tunnel closed"),
                (_, TunnelState::Up) => info!(%tunnel, %from, %to, reason, "tunnel up"),
                (TunnelState::Up, _) => warn!(%tunnel, %from, %to, reason, "tunnel lost"),
                (_, TunnelState::Waiting | TunnelState::Listening) => {
                    warn!(%tunnel, %from, %to, reason, "tunnel did not come up")
                }
                (_, TunnelState::Resolving | TunnelState::Connecting) => {
                    info!(%tunnel, %from, %to, reason, "tunnel attempt")
                }
            }
        }
        SiteEvent::Verdict { path, from, to, reason } => {
            let tunnel = name(*path, plan);
            match to {
                Verdict::Down | Verdict::Degraded => warn!(%tunnel, %from, %to, reason, "verdict changed"),
                Verdict::Healthy | Verdict::Unknown => info!(%tunnel, %from, %to, reason, "verdict changed"),
            }
        }
        SiteEvent::RoleSwitched { connector, from, to, reason } => {
            let connector = plan.connectors.get(usize::from(connector.0)).map_or("?", |connector| &connector.name);
            if stopping {
                info!(connector, %from, %to, reason, "active role changed");
            } else {
                warn!(connector, %from, %to, reason, "active role changed");
            }
        }
        SiteEvent::AddressChanged { path, name: fqdn, from, to } => {
            let tunnel = name(*path, plan);
            info!(%tunnel, fqdn, %from, %to, "the PoP's name leads to another address");
        }
        SiteEvent::ResolutionFailed { path, name: fqdn, reason, fallback } => {
            let tunnel = name(*path, plan);
            match fallback {
                Some(address) => warn!(%tunnel, fqdn, reason, last_good = %address, "using the last good address"),
                None => warn!(%tunnel, fqdn, reason, "no address for the PoP"),
            }
        }
        SiteEvent::RolesAlike { connector, address } => {
            let connector = plan.connectors.get(usize::from(connector.0)).map_or("?", |connector| &connector.name);
            warn!(connector, %address, "both roles lead to the same PoP: there is no redundancy");
        }
        SiteEvent::PathMtu { path, from, to } => info!(tunnel = %name(*path, plan), from, to, "path MTU found"),
        SiteEvent::Duty { path, from, to } => {
            let (tunnel, reason) = (name(*path, plan), "an operator said so");
            info!(%tunnel, from = from.name(), to = to.name(), reason, "tunnel duty changed");
        }
        SiteEvent::Rekeyed { path, what } => info!(tunnel = %name(*path, plan), what, "rekeyed"),
    }
}

fn name(path: PathId, plan: &Plan) -> String {
    plan.tunnels.get(usize::from(path.0)).map_or_else(|| "?".to_owned(), |tunnel| tunnel.full_name(&plan.connectors))
}
