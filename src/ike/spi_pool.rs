use std::collections::VecDeque;

use crate::model::{Chance, Spi};

/// Hands out inbound SPIs, each with a place of its own in the inbound SA table. A place is used
/// again only after the data plane has let go of it, and the one free for longest comes first.
pub struct SpiPool {
    free: VecDeque<u16>,
    /// By slot: the SPI that holds it.
    taken: Vec<Option<Spi>>,
}

impl SpiPool {
    /// `slots` is the length of the inbound SA table; place 0 stays unused (see `Spi`).
    pub fn new(slots: u16) -> SpiPool {
        SpiPool { free: (1..slots).collect(), taken: vec![None; usize::from(slots)] }
    }

    /// `None` when every place is taken.
    pub fn allocate(&mut self, chance: &mut Chance) -> Option<Spi> {
        let slot = self.free.pop_front()?;
        let spi = Spi::of_slot(slot, chance.next_u32() as u16);
        if let Some(place) = self.taken.get_mut(spi.slot()) {
            *place = Some(spi);
        }
        Some(spi)
    }

    /// An SPI that holds no place is ignored.
    pub fn release(&mut self, spi: Spi) {
        if let Some(place) = self.taken.get_mut(spi.slot())
            && *place == Some(spi)
        {
            *place = None;
            self.free.push_back(spi.slot() as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_only_after_release() {
        let mut chance = Chance::from_number(1);
        let mut pool = SpiPool::new(3);
        let first = pool.allocate(&mut chance).unwrap();
        let second = pool.allocate(&mut chance).unwrap();
        assert_ne!(first.slot(), second.slot());
        assert!(first.slot() > 0 && second.slot() > 0);
        assert_eq!(pool.allocate(&mut chance), None);
        pool.release(first);
        pool.release(first);
        assert_eq!(pool.allocate(&mut chance).unwrap().slot(), first.slot());
        assert_eq!(pool.allocate(&mut chance), None);
    }

    #[test]
    fn a_stranger_spi_frees_nothing() {
        let mut chance = Chance::from_number(1);
        let mut pool = SpiPool::new(2);
        let held = pool.allocate(&mut chance).unwrap();
        pool.release(Spi(held.0 ^ 1));
        pool.release(Spi(0xffff_0000));
        assert_eq!(pool.allocate(&mut chance), None);
    }
}
