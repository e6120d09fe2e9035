use crate::forward::PathFace;
use crate::model::PathId;
use crate::packet::{Batch, TRAIN_CAPACITY, Train};

/// Trains that leave in one call. Traffic of mixed sizes makes short ones, so there are some.
const TRAINS: usize = 32;

/// Datagrams of one train, which is what UDP segmentation offload takes (`UDP_MAX_SEGMENTS`).
const MAX_DATAGRAMS: usize = 64;

/// The sealed packets of a turn on their way to the WAN: each path's in trains of equal length,
/// in the order in which they were sealed. Allocated once.
pub(super) struct Trains {
    batch: Batch<Train>,
    /// For each filled slot of `batch`.
    notes: Vec<Note>,
    /// By `PathId`: the slot of the train that may still grow.
    open: Vec<Option<usize>>,
}

/// What is counted once a train was sent.
#[derive(Clone, Copy)]
pub(super) struct Note {
    pub path: PathId,
    /// Datagrams of the train, of which `traffic` is the site's, with as many inner `bytes`. The
    /// rest are probes, and answers to them.
    pub datagrams: usize,
    pub traffic: u64,
    pub bytes: u64,
    pub unsent: usize,
    pub errno: i32,
}

/// A place at the end of a train.
#[derive(Clone, Copy)]
pub(super) struct Place {
    slot: usize,
    path: PathId,
    is_new: bool,
}

impl Trains {
    pub fn new() -> Trains {
        Trains {
            batch: Batch::new(TRAINS, || Train::with_capacity(TRAIN_CAPACITY)),
            notes: Vec::with_capacity(TRAINS),
            open: Vec::new(),
        }
    }

    /// Before the first place of a turn: so many paths are there.
    pub fn begin(&mut self, paths: usize) {
        self.open.clear();
        self.open.resize(paths, None);
    }

    /// Finds a place for a sealed packet of `length` bytes; `None` when all trains are taken and
    /// have to leave first.
    pub fn place(&mut self, path: &PathFace, tos: u8, length: usize) -> Option<Place> {
        let open = self.open.get(usize::from(path.id.0)).copied().flatten();
        let fits = |slot: &usize| {
            let (train, note) = (self.batch.filled().get(*slot), self.notes.get(*slot));
            train.zip(note).is_some_and(|(train, note)| {
                train.tos == tos
                    && train.leg == path.leg
                    && length <= train.segment
                    && note.datagrams < MAX_DATAGRAMS
                    && train.packet.len() + length <= TRAIN_CAPACITY
            })
        };
        if let Some(slot) = open.filter(fits) {
            return Some(Place { slot, path: path.id, is_new: false });
        }
        let slot = self.batch.filled().len();
        let train = self.batch.next_free()?;
        train.packet.reset();
        (train.leg, train.tos, train.segment) = (path.leg, tos, length);
        Some(Place { slot, path: path.id, is_new: true })
    }

    /// The free bytes at a place.
    pub fn room(&mut self, place: Place) -> &mut [u8] {
        let train = if place.is_new { self.batch.next_free() } else { self.batch.filled_mut().get_mut(place.slot) };
        train.map_or(&mut [], |train| train.packet.room())
    }

    /// A sealed packet stands at the place now, with so many bytes of the site's traffic in it;
    /// `None` when it is none.
    pub fn claim(&mut self, place: Place, length: usize, traffic: Option<usize>) {
        if place.is_new {
            self.batch.claim(1);
            self.notes.push(Note { path: place.path, datagrams: 0, traffic: 0, bytes: 0, unsent: 0, errno: 0 });
        }
        let (train, note) = (self.batch.filled_mut().get_mut(place.slot), self.notes.get_mut(place.slot));
        let Some((train, note)) = train.zip(note) else { return };
        train.packet.append(length);
        note.datagrams += 1;
        if let Some(bytes) = traffic {
            note.traffic += 1;
            note.bytes += bytes as u64;
        }
        if let Some(open) = self.open.get_mut(usize::from(place.path.0)) {
            // A shorter datagram can only be the last.
            *open = (length == train.segment).then_some(place.slot);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// All trains, with their notes, to be sent.
    pub fn leaving(&mut self) -> (&mut Batch<Train>, &mut [Note]) {
        (&mut self.batch, &mut self.notes)
    }

    /// Lends the notes of the trains that were sent, until `gone` brings them back.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub fn gone(&mut self, mut notes: Vec<Note>) {
        notes.clear();
        self.notes = notes;
        self.batch.clear();
        self.open.fill(None);
    }
}
