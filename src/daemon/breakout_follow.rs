use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::edge::{Plan, RoutePlan};
use crate::model::LinkId;
use crate::net::{BreakoutNeed, BreakoutRoutes};

/// Changes that come together are looked at once, this much later.
const SETTLING: Duration = Duration::from_millis(50);

/// Even when nothing was heard: the kernel may have had too much to tell.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The links by which flows can leave outside of the tunnels at present.
pub type BreakoutFollower = watch::Receiver<Vec<LinkId>>;

/// What the kernel needs to know of the links by which rules let flows out of the tunnels.
pub fn needs(plan: &Plan) -> Vec<BreakoutNeed> {
    let need = |link: LinkId| {
        let underlay = plan.links.get(usize::from(link.0))?.underlay;
        Some(BreakoutNeed { link, underlay: plan.underlays.get(usize::from(underlay.0))?.clone() })
    };
    plan.breakouts().into_iter().filter_map(need).collect()
}

/// Keeps the host ready, and tells by which links it is, until it is aborted.
pub fn follow(
    plan: &RoutePlan,
    needs: Vec<BreakoutNeed>,
    ready: watch::Sender<Vec<LinkId>>,
) -> io::Result<JoinHandle<()>> {
    let mut host = BreakoutRoutes::open(plan, needs)?;
    Ok(tokio::spawn(async move {
        let mut trouble = String::new();
        loop {
            let (present, error) = host.look().await;
            let now = error.map(|error| error.to_string()).unwrap_or_default();
            if trouble != now && !now.is_empty() {
                let links = present.len();
                tracing::error!(error = now, links, "flows cannot break out by every WAN link that rules name");
            }
            trouble = now;
            ready.send_if_modified(|known| {
                let changed = *known != present;
                *known = present;
                changed
            });
            let _ = tokio::time::timeout(LOOK_AGAIN, host.changed()).await;
            tokio::time::sleep(SETTLING).await;
        }
    }))
}
