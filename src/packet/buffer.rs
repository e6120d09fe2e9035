use std::slice::{Chunks, ChunksMut};

use crate::model::{Leg, UnderlayId};

/// Room in front of a packet, for the headers that sealing adds in place: the ESP header and IV
/// (16 bytes), rounded up so that what follows stays aligned.
pub const HEADROOM: usize = 64;
/// Room behind a packet, for padding, pad length, next header and integrity check value.
pub const TAILROOM: usize = 64;

/// One packet with room around it, so that sealing and opening happen in place. Its storage is
/// allocated once and reused.
pub struct PacketBuf {
    storage: Box<[u8]>,
    start: usize,
    end: usize,
}

impl PacketBuf {
    /// An empty packet that can grow to `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> PacketBuf {
        PacketBuf {
            storage: vec![0; HEADROOM + capacity + TAILROOM].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
        }
    }

    /// Bytes that it can grow to.
    pub fn capacity(&self) -> usize {
        self.storage.len() - HEADROOM - TAILROOM
    }

    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Empties the packet and returns the room for a new one, which `set_len` then claims.
    pub fn reset(&mut self) -> &mut [u8] {
        self.start = HEADROOM;
        self.end = HEADROOM;
        let limit = self.storage.len() - TAILROOM;
        &mut self.storage[HEADROOM..limit]
    }

    /// Sets the length of the packet whose bytes were written into `reset`'s room; at most the
    /// capacity.
    pub fn set_len(&mut self, length: usize) {
        self.end = (self.start + length).min(self.storage.len());
    }

    /// Replaces the contents; `false`, and empty, when `bytes` do not fit.
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        self.fill_parts(bytes, &[])
    }

    /// Replaces the contents by `front` and `back` behind it; `false`, and empty, when they do
    /// not fit.
    pub fn fill_parts(&mut self, front: &[u8], back: &[u8]) -> bool {
        let Some((place, rest)) = self.reset().split_at_mut_checked(front.len()) else { return false };
        let Some(rest) = rest.get_mut(..back.len()) else { return false };
        place.copy_from_slice(front);
        rest.copy_from_slice(back);
        self.set_len(front.len() + back.len());
        true
    }

    /// Grows at the front by `count` bytes; `None` when the headroom is used up.
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        Some(&mut self.storage[self.start..self.start + count])
    }

    /// Grows at the back by `count` bytes; `None` when the tailroom is used up.
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        let end = self.end.checked_add(count).filter(|end| *end <= self.storage.len())?;
        let grown = &mut self.storage[self.end..end];
        self.end = end;
        Some(grown)
    }

    /// The free bytes behind the packet, of which `append` then claims some.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.storage[self.end..]
    }

    /// Drops `count` bytes from the front, at most all.
    pub fn trim_front(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    /// Keeps the first `length` bytes, at most all.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.start.saturating_add(length).min(self.end);
    }
}

/// Most bytes of one train: the payload of the longest UDP datagram over IPv4, which is also what
/// the kernel takes and gives in one call.
pub const TRAIN_CAPACITY: usize = 65_507;

/// Datagrams on the underlay, one behind the other in one buffer, that go or came the same way:
/// what UDP segmentation offload takes in one call, and receive offload gives. Often only one.
pub struct Train {
    pub leg: Leg,
    /// TOS byte of the outer header.
    pub tos: u8,
    /// Length of each datagram; the last one may be shorter, and is never longer.
    pub segment: usize,
    pub packet: PacketBuf,
}

impl Train {
    /// A train without datagrams, whose buffer holds `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Train {
        let unspecified = ([0, 0, 0, 0], 0).into();
        let leg = Leg { underlay: UnderlayId(0), natt: false, local: unspecified, remote: unspecified };
        Train { leg, tos: 0, segment: 0, packet: PacketBuf::with_capacity(capacity) }
    }

    pub fn datagrams(&self) -> Chunks<'_, u8> {
        self.packet.bytes().chunks(self.segment.max(1))
    }

    pub fn datagrams_mut(&mut self) -> ChunksMut<'_, u8> {
        self.packet.bytes_mut().chunks_mut(self.segment.max(1))
    }
}

/// Slots that are allocated once and filled again and again: the first `filled` are in use.
pub struct Batch<T> {
    slots: Box<[T]>,
    filled: usize,
}

impl<T> Batch<T> {
    pub fn new(capacity: usize, slot: impl FnMut() -> T) -> Batch<T> {
        Batch { slots: std::iter::repeat_with(slot).take(capacity).collect(), filled: 0 }
    }

    pub fn clear(&mut self) {
        self.filled = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub fn is_full(&self) -> bool {
        self.filled == self.slots.len()
    }

    /// The next free slot, which `claim` then puts in use.
    pub fn next_free(&mut self) -> Option<&mut T> {
        self.slots.get_mut(self.filled)
    }

    /// All free slots, for a system call that fills several.
    pub fn free(&mut self) -> &mut [T] {
        &mut self.slots[self.filled..]
    }

    /// Puts the next `count` free slots in use, at most all.
    pub fn claim(&mut self, count: usize) {
        self.filled = self.filled.saturating_add(count).min(self.slots.len());
    }

    pub fn filled(&self) -> &[T] {
        &self.slots[..self.filled]
    }

    pub fn filled_mut(&mut self) -> &mut [T] {
        &mut self.slots[..self.filled]
    }
}
