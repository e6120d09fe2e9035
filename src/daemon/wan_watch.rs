use std::future::pending;

use crate::net::{LinkChange, LinkWatch, Unreachable, UnreachableWatch};

/// What the host itself says of its WAN links. Where it may not be asked, it says nothing, and the
/// probes find out.
pub struct WanWatch {
    links: Option<LinkWatch>,
    unreachable: Option<UnreachableWatch>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WanNews {
    Link(LinkChange),
    Unreachable(Unreachable),
}

impl WanWatch {
    /// Needs a tokio runtime.
    pub fn open() -> WanWatch {
        let links = LinkWatch::open().inspect_err(|error| {
            tracing::warn!(%error, "not told when an interface goes down; probes find out");
        });
        let unreachable = UnreachableWatch::open().inspect_err(|error| {
            tracing::debug!(%error, "not told of ICMP errors (it needs CAP_NET_RAW); probes find out");
        });
        WanWatch { links: links.ok(), unreachable: unreachable.ok() }
    }

    pub async fn next(&mut self) -> WanNews {
        loop {
            tokio::select! {
                change = next_link(&mut self.links) => match change {
                    Some(change) => return WanNews::Link(change),
                    None => self.links = None,
                },
                unreachable = next_unreachable(&mut self.unreachable) => match unreachable {
                    Some(unreachable) => return WanNews::Unreachable(unreachable),
                    None => self.unreachable = None,
                },
            }
        }
    }
}

async fn next_link(links: &mut Option<LinkWatch>) -> Option<LinkChange> {
    match links {
        Some(links) => links.next().await,
        None => pending().await,
    }
}

async fn next_unreachable(unreachable: &mut Option<UnreachableWatch>) -> Option<Unreachable> {
    match unreachable {
        Some(watch) => watch.next().await.ok(),
        None => pending().await,
    }
}
