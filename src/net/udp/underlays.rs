use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::UnderlaySockets;
use crate::model::{Leg, UnderlayId};

/// The sockets of all underlays, shared by control and workers and replaceable while both use
/// them. A worker takes up a change at its next turn, so wake it; a replaced pair closes when
/// the last worker has let go of it.
#[derive(Debug, Default)]
pub struct Underlays(ArcSwap<Vec<Arc<UnderlaySockets>>>);

impl Underlays {
    pub fn new(sockets: Vec<UnderlaySockets>) -> Underlays {
        Underlays(ArcSwap::from_pointee(sockets.into_iter().map(Arc::new).collect()))
    }

    /// Adds a pair, or puts it in the place of the one with the same id.
    pub fn put(&self, sockets: UnderlaySockets) {
        let sockets = Arc::new(sockets);
        self.0.rcu(|list| {
            let others = list.iter().filter(|other| other.id() != sockets.id()).cloned();
            others.chain([sockets.clone()]).collect::<Vec<_>>()
        });
    }

    pub fn remove(&self, id: UnderlayId) {
        self.0.rcu(|list| list.iter().filter(|other| other.id() != id).cloned().collect::<Vec<_>>());
    }

    pub fn get(&self, id: UnderlayId) -> Option<Arc<UnderlaySockets>> {
        self.0.load().iter().find(|sockets| sockets.id() == id).cloned()
    }

    /// The present list; `None` when it is the known one still.
    pub fn other_than(&self, known: &Arc<Vec<Arc<UnderlaySockets>>>) -> Option<Arc<Vec<Arc<UnderlaySockets>>>> {
        let current = self.0.load();
        (!Arc::ptr_eq(&current, known)).then(|| Arc::clone(&current))
    }

    pub fn all(&self) -> Arc<Vec<Arc<UnderlaySockets>>> {
        self.0.load_full()
    }

    /// Sends one IKE message by the leg's underlay; see `UnderlaySockets::send_ike`.
    pub fn send_ike(&self, leg: Leg, bytes: &[u8]) -> io::Result<()> {
        let sockets = self.get(leg.underlay).ok_or(io::ErrorKind::NotConnected)?;
        sockets.send_ike(leg, bytes)
    }
}
