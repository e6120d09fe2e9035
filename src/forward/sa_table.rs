use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::esp::{InboundSa, OutboundSa};
use crate::model::{OutboundSlot, Spi};

/// The SAs in use, each in a place of its own, so that a rekey among thousands of tunnels swaps
/// one pointer and rebuilds nothing. Control stores, workers load.
#[derive(Debug)]
pub struct SaTable {
    inbound: Box<[ArcSwapOption<InboundSa>]>,
    outbound: Box<[ArcSwapOption<OutboundSa>]>,
    calling: AtomicBool,
}

impl SaTable {
    /// `inbound` and `outbound` are numbers of places; a busy tunnel needs one outbound place
    /// for each Child SA and, during a rekey, two or three inbound ones.
    pub fn new(inbound: usize, outbound: usize) -> SaTable {
        SaTable {
            inbound: (0..inbound).map(|_| ArcSwapOption::empty()).collect(),
            outbound: (0..outbound).map(|_| ArcSwapOption::empty()).collect(),
            calling: AtomicBool::new(false),
        }
    }

    /// A peer is being called, and may send before its answer has made an SA here.
    pub fn is_calling(&self) -> bool {
        self.calling.load(Ordering::Relaxed)
    }

    pub fn set_calling(&self, calling: bool) {
        self.calling.store(calling, Ordering::Relaxed);
    }

    pub fn inbound(&self, spi: Spi) -> Option<&ArcSwapOption<InboundSa>> {
        self.inbound.get(spi.slot())
    }

    pub fn outbound(&self, slot: OutboundSlot) -> Option<&ArcSwapOption<OutboundSa>> {
        self.outbound.get(usize::from(slot.0))
    }
}
