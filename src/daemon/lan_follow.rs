use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;

use crate::edge::LanPlan;
use crate::model::InterfaceId;
use crate::net::{LanRoutes, LanWatch};

/// Changes that come together are looked at once, this much later.
const SETTLING: Duration = Duration::from_millis(50);

/// Even when nothing was heard: the kernel may have had too much to tell.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// By which interfaces the host reaches which networks, as it is now.
pub type LanFollower = watch::Receiver<Vec<(IpNet, InterfaceId)>>;

/// Follows the host's routes to the networks of the interfaces that rules ask for, beginning with what
/// they are now. `None`: no rule asks.
pub async fn follow(lan: &LanPlan, device: &str) -> Option<LanFollower> {
    if lan.interfaces.is_empty() {
        return None;
    }
    let mut host = match LanWatch::open(&lan.interfaces, device) {
        Ok(host) => host,
        Err(error) => {
            tracing::warn!(%error, "no rule about segments or interfaces will match: the host's routes are not told");
            return None;
        }
    };
    let mut known = LanRoutes::default();
    look(&mut host, &mut known).await;
    let (told, follower) = watch::channel(known.networks.clone());
    tokio::spawn(async move {
        while !told.is_closed() {
            let _ = tokio::time::timeout(LOOK_AGAIN, host.changed()).await;
            look(&mut host, &mut known).await;
            told.send_if_modified(|networks| {
                let changed = *networks != known.networks;
                networks.clone_from(&known.networks);
                changed
            });
            tokio::time::sleep(SETTLING).await;
        }
    });
    Some(follower)
}

async fn look(host: &mut LanWatch, known: &mut LanRoutes) {
    match host.read().await {
        Ok(present) => {
            for interface in present.missing.iter().filter(|name| !known.missing.contains(name)) {
                tracing::warn!(interface, "segments or rules name an interface that does not exist");
            }
            for interface in known.missing.iter().filter(|name| !present.missing.contains(name)) {
                tracing::info!(interface, "an interface that segments or rules name has come");
            }
            if known.networks != present.networks {
                tracing::debug!(networks = ?present.networks, "by which interfaces the LAN is reached");
            }
            *known = present;
        }
        Err(error) => tracing::warn!(%error, "the host's routes cannot be read; rules go by what was known"),
    }
}
