use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{Backends, PacketCipher, PacketSuite};
use crate::esp::{InboundSa, OutboundSa};
use crate::forward::{ChildFace, SaTable};
use crate::ike::ChildSa;
use crate::model::{Moment, OutboundSlot, PathId, Secret, Selectors, Spi};

/// How long a deleted inbound SA still opens packets: they were sealed before the peer knew of
/// the DELETE and may have been overtaken by it. strongSwan waits as long.
const LINGER: Duration = Duration::from_secs(5);

/// A Child SA over its rekeys: one place for sending, and every inbound SA that may still see
/// packets. It ends when its last SA is deleted without a successor.
#[derive(Debug)]
pub struct ChildLineage {
    slot: OutboundSlot,
    selectors: Arc<Selectors>,
    /// Oldest first.
    sas: Vec<Generation>,
    /// The generation whose outbound SA is in the slot.
    sending: Spi,
    pub rekeys: u64,
}

#[derive(Debug)]
struct Generation {
    inbound: Spi,
    outbound: Arc<OutboundSa>,
    deleted: Option<Moment>,
}

impl ChildLineage {
    /// Installs both directions of a first Child SA.
    pub fn establish(
        child: &ChildSa,
        path: PathId,
        slot: OutboundSlot,
        table: &SaTable,
        backends: &Backends,
    ) -> Option<ChildLineage> {
        let selectors = Arc::new(child.selectors.clone());
        let mut lineage =
            ChildLineage { slot, selectors: selectors.clone(), sas: Vec::new(), sending: child.inbound, rekeys: 0 };
        lineage.install(child, path, selectors, table, backends)?;
        lineage.send_on(child.inbound, table);
        Some(lineage)
    }

    /// Takes the successor of one of this lineage's SAs. RFC 7296 2.8: who asked for the rekey
    /// sends on it at once; who answered waits for the first packet on it, or for the old one's
    /// DELETE.
    pub fn succeed(&mut self, child: &ChildSa, path: PathId, table: &SaTable, backends: &Backends) -> Option<()> {
        self.selectors = Arc::new(child.selectors.clone());
        self.install(child, path, self.selectors.clone(), table, backends)?;
        self.rekeys += 1;
        if child.initiator {
            self.send_on(child.inbound, table);
        }
        Some(())
    }

    fn install(
        &mut self,
        child: &ChildSa,
        path: PathId,
        selectors: Arc<Selectors>,
        table: &SaTable,
        backends: &Backends,
    ) -> Option<()> {
        let suite = PacketSuite::new(child.encryption, None).ok()?;
        let cipher = |key: &Secret| PacketCipher::new(backends.of(suite), suite, key.expose()).ok();
        let inbound = InboundSa::with_cipher(child.inbound, path, cipher(&child.inbound_key)?, selectors);
        let outbound = OutboundSa::with_cipher(child.outbound, path, cipher(&child.outbound_key)?);
        table.inbound(child.inbound)?.store(Some(Arc::new(inbound)));
        self.sas.push(Generation { inbound: child.inbound, outbound: Arc::new(outbound), deleted: None });
        Some(())
    }

    fn send_on(&mut self, inbound: Spi, table: &SaTable) {
        let Some(generation) = self.sas.iter().find(|generation| generation.inbound == inbound) else { return };
        if let Some(place) = table.outbound(self.slot) {
            place.store(Some(generation.outbound.clone()));
            self.sending = inbound;
        }
    }

    pub fn owns(&self, inbound: Spi) -> bool {
        self.sas.iter().any(|generation| generation.inbound == inbound)
    }

    pub fn sends_with(&self, outbound: Spi) -> bool {
        self.sas.iter().any(|generation| generation.inbound == self.sending && generation.outbound.spi() == outbound)
    }

    /// The SPI that names the Child SA in use.
    pub fn current(&self) -> Spi {
        self.sending
    }

    pub fn handle_first_use(&mut self, inbound: Spi, table: &SaTable) {
        // A deleted SA still opens packets that were on their way, but the peer has it no more.
        let used = |generation: &Generation| generation.inbound == inbound && generation.deleted.is_none();
        let Some(position) = self.sas.iter().position(used) else { return };
        let sending = self.sas.iter().position(|generation| generation.inbound == self.sending);
        // A late first packet on an older SA must not turn us back.
        if sending.is_none_or(|sending| position > sending) {
            self.send_on(inbound, table);
        }
    }

    /// An SA was deleted: sending moves to the newest that lives. `false` when none does.
    pub fn handle_deleted(&mut self, inbound: Spi, now: Moment, table: &SaTable) -> bool {
        if let Some(generation) = self.sas.iter_mut().find(|generation| generation.inbound == inbound) {
            generation.deleted.get_or_insert(now);
        }
        let newest = self.sas.iter().rev().find(|generation| generation.deleted.is_none());
        match newest.map(|generation| generation.inbound) {
            Some(newest) => {
                if self.sending == inbound {
                    self.send_on(newest, table);
                }
                true
            }
            None => {
                if let Some(place) = table.outbound(self.slot) {
                    place.store(None);
                }
                false
            }
        }
    }

    /// The IKE SA has ended, and all of this with it.
    pub fn delete_all(&mut self, now: Moment, table: &SaTable) {
        for generation in &mut self.sas {
            generation.deleted.get_or_insert(now);
        }
        if let Some(place) = table.outbound(self.slot) {
            place.store(None);
        }
    }

    /// Takes inbound SAs that have lingered long enough out of the table; `released` returns
    /// their SPIs to the pool.
    pub fn expire(&mut self, now: Moment, table: &SaTable, mut released: impl FnMut(Spi)) {
        self.sas.retain(|generation| {
            let expired = generation.deleted.is_some_and(|deleted| now >= deleted + LINGER);
            if expired {
                if let Some(place) = table.inbound(generation.inbound) {
                    place.store(None);
                }
                released(generation.inbound);
            }
            !expired
        });
    }

    pub fn next_expiry(&self) -> Option<Moment> {
        self.sas.iter().filter_map(|generation| generation.deleted).min().map(|deleted| deleted + LINGER)
    }

    pub fn is_gone(&self) -> bool {
        self.sas.is_empty()
    }

    pub fn slot(&self) -> OutboundSlot {
        self.slot
    }

    pub fn face(&self) -> ChildFace {
        ChildFace { selectors: self.selectors.clone(), slot: self.slot }
    }
}
