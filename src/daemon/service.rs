use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::breakout_follow;
use super::key_log::KeyLog;
use super::lan_follow;
use super::node::{Node, Parts};
use crate::control::{BindError, Server};
use crate::edge::{OUTER_MTU, OnStop, Plan, RoutePlan, UnderlayPlan};
use crate::net::{
    Breakouts, Claim, Clock, Interface, Names, RouteNeeds, RouteWatch, Routes, SiteDevice, Tun, map_large_buffers,
};

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("{0}")]
    Socket(#[from] BindError),
    #[error("cannot open the tunnel device {device}: {source}")]
    Device { device: String, source: io::Error },
    #[error("the WAN interface {name} has an MTU of {mtu} bytes, which leaves no room for a tunnel: raise it")]
    Mtu { name: String, mtu: u16 },
    #[error("cannot install routes: {0}")]
    Routes(io::Error),
    #[error(
        "{0}: stop it first, or give this one a routes.device, a routes.table and a routes.rule_priority of its own"
    )]
    Claimed(io::Error),
    #[error("{0}, and what it leads into tunnels would leave in clear: stop it first")]
    Runs(io::Error),
    #[error("cannot remove rules and routes: {0} (it needs root, or CAP_NET_ADMIN)")]
    Release(io::Error),
    #[error("cannot write the key log {}: {source}", path.display())]
    KeyLog { path: PathBuf, source: io::Error },
    #[error("a part of the daemon has ended by itself, which is an error in trefoil; its message stands above")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What IPv4 promises to carry in one piece (RFC 791 3.1), less the largest overhead of a tunnel.
const SMALLEST_MTU: u16 = 476;

/// Between one look for missing rules and routes and the next.
const RESTORE_PAUSE: Duration = Duration::from_millis(20);

/// Runs a site on this host until SIGTERM, SIGINT or SIGHUP: device, routes, node, control socket. What
/// was made is removed at the end, in reverse order.
pub fn serve(plan: Plan, key_log: Option<PathBuf>) -> Result<(), ServiceError> {
    map_large_buffers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_in_runtime(plan, key_log))
}

async fn serve_in_runtime(plan: Plan, key_log: Option<PathBuf>) -> Result<(), ServiceError> {
    // First the socket and the claim: a second daemon ends here and has touched nothing. So they go last, or the
    // successor's routes would be removed with ours.
    let server = Server::bind(&plan.control_socket)?;
    let claim = Claim::take(&plan.routes).map_err(ServiceError::Claimed)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The terminal has gone.
    let mut hangup = signal(SignalKind::hangup())?;
    let key_log = match key_log {
        Some(path) => {
            tracing::warn!(directory = %path.display(), "writing keys: whoever reads them reads all traffic");
            Some(KeyLog::create(&path).map_err(|source| ServiceError::KeyLog { path, source })?)
        }
        None => None,
    };
    let route_plan = plan.routes.clone();
    let interfaces: Vec<Interface> = plan.underlays.iter().filter_map(present_interface).collect();
    let outer = interfaces.iter().map(|interface| interface.mtu).min().unwrap_or(u16::MAX);
    let (mtu, narrow) = (plan.device_mtu(outer), plan.narrow_ranges(outer));
    let device_failed = |source| ServiceError::Device { device: route_plan.device.clone(), source };
    if plan.smallest_inner_mtu(outer) < SMALLEST_MTU {
        let smallest = interfaces.iter().min_by_key(|interface| interface.mtu);
        let (name, mtu) = smallest.map_or(("", 0), |interface| (interface.name.as_str(), interface.mtu));
        return Err(ServiceError::Mtu { name: name.to_owned(), mtu });
    }
    let tun = Tun::open(&route_plan.device, mtu, plan.dataplane.workers).map_err(device_failed)?;
    let ranges = ranges(&plan);
    let (site, native) = (plan.site.name.clone(), plan.site.native.clone());
    let underlay_addresses: Vec<Ipv4Addr> = interfaces.iter().map(|interface| interface.address).collect();
    let routes = Routes::open(&route_plan).map_err(ServiceError::Routes)?;
    let mut route_watch = RouteWatch::open(&route_plan, tun.index()).map_err(ServiceError::Routes)?;
    let needs = RouteNeeds {
        device_index: tun.index(),
        mtu,
        ranges: &ranges,
        narrow: &narrow,
        native: &native,
        underlay_addresses: &underlay_addresses,
    };
    warn_unless_forwarding();
    let breakout_needs = breakout_follow::needs(&plan);
    let mut breakouts = None;
    if !breakout_needs.is_empty() {
        let (links, workers) = (plan.breakouts(), plan.dataplane.workers);
        let devices = Breakouts::open(&links, &route_plan.device, outer.min(OUTER_MTU), workers);
        breakouts = Some((Arc::new(devices.map_err(device_failed)?), watch::channel(Vec::new())));
    }
    let ready = breakouts.as_ref().map(|(_, (ready, _))| ready.clone());
    let (present_addresses, mut addresses) = watch::channel(underlay_addresses.clone());
    let parts = Parts {
        site: SiteDevice::Tun(tun),
        names: Names::System,
        clock: Clock::new(),
        fwmark: Some(Routes::mark(&route_plan)),
        key_log,
        events: None,
        addresses: Some(present_addresses),
        lan: lan_follow::follow(&plan.lan, &route_plan.device).await,
        breakouts: breakouts.map(|(devices, (_, follower))| (devices, follower)),
    };
    let node = Node::start(plan, parts)?;
    let mut server = Some(server);
    let mut serving = None;
    let mut breaking_out = None;
    let mut installed = routes.install(&needs).await;
    if let (Ok(()), Some(ready)) = (&installed, ready) {
        match breakout_follow::follow(&route_plan, breakout_needs, ready) {
            Ok(task) => breaking_out = Some(task),
            Err(error) => installed = Err(error),
        }
    }
    let outcome = match installed {
        Ok(()) => {
            tracing::info!(site, device = route_plan.device, mtu, "trefoil runs");
            serving = server.take().map(|server| tokio::spawn(server.serve(node.calls())));
            loop {
                tokio::select! {
                    _ = terminate.recv() => {
                        tracing::info!("SIGTERM: stopping");
                        break Ok(());
                    }
                    _ = interrupt.recv() => {
                        tracing::info!("SIGINT: stopping");
                        break Ok(());
                    }
                    _ = hangup.recv() => {
                        tracing::info!("SIGHUP: stopping");
                        break Ok(());
                    }
                    () = node.ended() => break Err(ServiceError::Ended),
                    () = route_watch.removed() => {
                        let present = addresses.borrow().clone();
                        restore(&routes, &RouteNeeds { underlay_addresses: &present, ..needs }).await;
                    }
                    Ok(()) = addresses.changed() => {
                        let addresses = addresses.borrow_and_update().clone();
                        if let Err(error) = routes.set_underlay_addresses(&addresses).await {
                            tracing::warn!(?addresses, %error, "the rules do not follow the WAN links' addresses");
                        }
                    }
                }
            }
        }
        Err(error) => Err(ServiceError::Routes(error)),
    };
    if let Some(task) = breaking_out {
        task.abort();
        let _ = task.await;
    }
    node.stop();
    if route_plan.on_stop == OnStop::Block {
        tracing::info!("the network ranges stay closed; `trefoil release --config SITE.toml` opens them");
    }
    let removed = routes.remove().await.map_err(ServiceError::Routes);
    // Who waits for the socket to go finds the routes free as well.
    drop(claim);
    if let Some(serving) = serving {
        serving.abort();
        let _ = serving.await;
    }
    outcome.and(removed)
}

/// Removes the rules and routes that a stopped daemon left. Refused while one runs with any of them.
pub fn release(plan: &RoutePlan) -> Result<(), ServiceError> {
    let _claim = Claim::take(plan).map_err(ServiceError::Runs)?;
    let plan = RoutePlan { on_stop: OnStop::Release, ..plan.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Routes::open(&plan)?.remove().await }).map_err(ServiceError::Release)
}

/// Traffic leaves in clear as long as they are missing.
async fn restore(routes: &Routes, needs: &RouteNeeds<'_>) {
    match routes.restore(needs).await {
        Ok(0) => {}
        Ok(count) => tracing::warn!(count, "somebody removed rules or routes of ours; they stand again"),
        Err(error) => tracing::warn!(%error, "somebody removed rules or routes of ours; not all stand again"),
    }
    // Who removes them again and again keeps us from nothing else.
    tokio::time::sleep(RESTORE_PAUSE).await;
}

fn ranges(plan: &Plan) -> Vec<IpNet> {
    if plan.is_route_based() {
        return Vec::new();
    }
    plan.connectors.iter().flat_map(|connector| &connector.ranges).map(|range| range.range).collect()
}

fn present_interface(underlay: &UnderlayPlan) -> Option<Interface> {
    match (underlay.address, &underlay.interface) {
        (Some(address), _) => Interface::with_address(address).ok(),
        (None, Some(name)) => Interface::named(name).ok(),
        (None, None) => None,
    }
}

/// A site that does not forward carries only its own packets; most such hosts forgot a sysctl.
fn warn_unless_forwarding() {
    let file = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(file).is_ok_and(|value| value.trim() == "0") {
        tracing::warn!("net.ipv4.ip_forward is 0: hosts behind this one will not reach the tunnels");
    }
}
