use std::collections::BTreeMap;
use std::sync::Arc;

use super::outbox::Outbox;
use super::spi_pool::SpiPool;
use super::table::Table;
use super::{CloseReason, Event, Identity, Peer, SaId};
use crate::model::{Chance, Leg, Moment, PathId, Spi};

/// What every step of an IKE SA may use besides its own state: time, chance, the inbound SPIs,
/// the other IKE SAs, and where datagrams and events go.
pub struct Context<'a> {
    pub now: Moment,
    /// Whose step it is.
    pub id: SaId,
    pub chance: &'a mut Chance,
    pub spis: &'a mut SpiPool,
    pub outbox: &'a mut Outbox,
    pub peers: &'a BTreeMap<PathId, Arc<Peer>>,
    /// Without the IKE SA whose step it is.
    pub table: &'a mut Table,
    pub export_keys: bool,
}

impl Context<'_> {
    pub fn send(&mut self, leg: Leg, bytes: Vec<u8>) {
        self.outbox.send(leg, bytes);
    }

    pub fn report(&mut self, path: PathId, sa: SaId, event: Event) {
        self.outbox.report(path, sa, event);
    }

    pub fn allocate_spi(&mut self) -> Option<Spi> {
        self.spis.allocate(self.chance)
    }

    pub fn release_spi(&mut self, spi: Spi) {
        self.spis.release(spi);
    }

    /// Ends the other IKE SAs of this path: the peer has set it up anew (INITIAL_CONTACT).
    pub fn replace_others(&mut self, path: PathId) {
        let others: Vec<SaId> = self.table.live_of(path).collect();
        for id in others {
            if let Some(state) = self.table.take(id) {
                state.forget(id, CloseReason::Replaced, self);
            }
        }
    }

    /// An SPI for an IKE SA; zero is not one (RFC 7296 3.1).
    pub fn new_ike_spi(&mut self) -> u64 {
        self.chance.next_u64().max(1)
    }

    /// A nonce of 32 bytes: at least half the key size of every PRF that we have
    /// (RFC 7296 2.10), and within what the seed's PoPs take (256 bits).
    pub fn new_nonce(&mut self) -> Vec<u8> {
        self.chance.bytes::<32>().to_vec()
    }

    /// The tunnels whose peer calls itself `remote` and, where it said so, us `local`.
    pub fn peers_named(&self, remote: &Identity, local: Option<&Identity>) -> Vec<(PathId, Arc<Peer>)> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.remote_id == *remote && local.is_none_or(|local| peer.local_id == *local))
            .map(|(path, peer)| (*path, peer.clone()))
            .collect()
    }
}
