use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::block::{BlockHeader, HEADER_LEN, last_block};
use super::storage::Storage;
use crate::model::Moment;

/// Files of a full ring, about: as much as is forgotten at once.
const FILES: u64 = 32;

/// A file is read as a whole, so it does not grow beyond this, in bytes.
const FILE_MOST: u64 = 8 << 20;

/// Smaller ones would be little but beginnings, in bytes.
const FILE_LEAST: u64 = 64 << 10;

/// Files spread over the longest time that is kept: one that is older as a whole is forgotten.
const FILES_IN_AGE: u32 = 16;

/// What is written reaches the disk itself after this time at the latest; what is urgent at once.
const SYNC: Duration = Duration::from_secs(30);

/// How often that may be: flash memory wears off.
const SYNC_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingLimits {
    /// Of all files together.
    pub bytes: u64,
    /// Of time that the daemon ran, in this run and those before, as the blocks tell: no time of day decides what is
    /// forgotten, neither the clock's nor a file's.
    pub age: Duration,
}

/// The files of a recording: appended to, and the oldest go first.
#[derive(Debug)]
pub struct Ring<S> {
    storage: S,
    limits: RingLimits,
    files: VecDeque<Kept>,
    /// The last of the files is being written.
    open: bool,
    began: Moment,
    synced: Moment,
    unsynced: bool,
    /// Some of it is urgent.
    urgent: bool,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    bytes: u64,
    /// When it was last written; of files of earlier runs, when this one was found.
    last: Moment,
    /// For how long daemons ran between its end and `last`.
    before: Duration,
    first_unix_ms: Option<u64>,
    last_unix_ms: Option<u64>,
}

/// What is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// Of all files.
    pub bytes: u64,
    /// When the oldest and the latest was told, in milliseconds since the Unix epoch.
    pub first_unix_ms: Option<u64>,
    pub last_unix_ms: Option<u64>,
}

/// Runs of the daemon, from the present one back.
struct Runs {
    run: u64,
    /// What is known of the one looked at: from its first block to its last, or to now.
    first: Moment,
    last: Moment,
    /// How long the later ones took.
    later: Duration,
}

impl Runs {
    /// For how long daemons have run since the last of a file, when those behind it have been asked about.
    fn since(&mut self, first: &BlockHeader, last: &BlockHeader) -> Duration {
        if self.run != first.run {
            self.later = self.later.saturating_add(self.last.since(self.first));
            (self.run, self.first, self.last) = (first.run, first.first, last.last);
        }
        self.first = self.first.min(first.first);
        self.later.saturating_add(self.last.since(last.last))
    }
}

impl<S: Storage> Ring<S> {
    /// Goes on where earlier runs, and this one, have left off.
    pub fn open(storage: S, limits: RingLimits, run: u64, now: Moment) -> io::Result<Ring<S>> {
        let mut files = VecDeque::new();
        let mut runs = Runs { run, first: now, last: now, later: Duration::ZERO };
        for (number, bytes) in storage.list()?.into_iter().rev() {
            let first = storage.head(number).ok().and_then(|head| BlockHeader::read(&head).ok());
            let last = storage.tail(number).ok().and_then(|tail| last_block(&tail)).or(first);
            let before = match first.zip(last) {
                Some((first, last)) => runs.since(&first, &last),
                // Damaged: it is as old as what comes after it.
                None => files.front().map_or(Duration::ZERO, |next: &Kept| next.before),
            };
            let (first_unix_ms, last_unix_ms) = (first.map(first_unix_ms), last.map(last_unix_ms));
            files.push_front(Kept { number, bytes, last: now, before, first_unix_ms, last_unix_ms });
        }
        let mut ring =
            Ring { storage, limits, files, open: false, began: now, synced: now, unsynced: false, urgent: false };
        ring.forget(now)?;
        Ok(ring)
    }

    /// The next block had better begin a file.
    pub fn wants_file(&self, now: Moment) -> bool {
        let most = (self.limits.bytes / FILES).clamp(FILE_LEAST, FILE_MOST);
        let full = self.files.back().is_none_or(|file| file.bytes >= most);
        !self.open || full || now.since(self.began) >= self.limits.age / FILES_IN_AGE
    }

    /// The next block begins a file; what the one before holds is safe first.
    pub fn begin_file(&mut self, now: Moment) -> io::Result<()> {
        self.sync(now)?;
        let number = self.files.back().map_or(1, |last| last.number.saturating_add(1));
        let before = Duration::ZERO;
        self.files.push_back(Kept { number, bytes: 0, last: now, before, first_unix_ms: None, last_unix_ms: None });
        (self.open, self.began) = (true, now);
        Ok(())
    }

    /// Appends a block. When that fails nothing of it is left, as far as can be, and the next block
    /// begins a file.
    pub fn append(&mut self, block: &[u8], urgent: bool, now: Moment) -> io::Result<()> {
        let Some(file) = self.files.back_mut().filter(|_| self.open) else {
            return Err(io::Error::other("no file was begun"));
        };
        if let Err(error) = self.storage.append(file.number, block) {
            self.open = false;
            if file.bytes > 0 {
                let _ = self.storage.truncate(file.number, file.bytes);
            } else {
                // Nothing of it is worth a file.
                let _ = self.storage.remove(file.number);
                self.files.pop_back();
            }
            return Err(error);
        }
        let header = block.get(..HEADER_LEN).and_then(|head| BlockHeader::read(head).ok());
        file.first_unix_ms = file.first_unix_ms.or(header.map(first_unix_ms));
        file.last_unix_ms = header.map(last_unix_ms).or(file.last_unix_ms);
        file.bytes = file.bytes.saturating_add(block.len() as u64);
        file.last = now;
        self.unsynced = true;
        self.urgent |= urgent;
        self.sync_if_due(now)?;
        self.forget(now)
    }

    /// What waits too long is made to outlast a loss of power.
    pub fn sync_if_due(&mut self, now: Moment) -> io::Result<()> {
        let since = now.since(self.synced);
        let due = self.unsynced && since >= SYNC || self.urgent && since >= SYNC_PAUSE;
        if due { self.sync(now) } else { Ok(()) }
    }

    /// What was appended outlasts a loss of power.
    pub fn sync(&mut self, now: Moment) -> io::Result<()> {
        self.synced = now;
        self.urgent = false;
        if std::mem::take(&mut self.unsynced) { self.storage.sync() } else { Ok(()) }
    }

    /// Of all files, in bytes.
    fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    pub fn extent(&self) -> Extent {
        Extent {
            bytes: self.bytes(),
            first_unix_ms: self.files.iter().find_map(|file| file.first_unix_ms),
            last_unix_ms: self.files.iter().rev().find_map(|file| file.last_unix_ms),
        }
    }

    fn forget(&mut self, now: Moment) -> io::Result<()> {
        let age = self.limits.age;
        // The one that is being written stays.
        while self.files.len() > usize::from(self.open) {
            let Some(oldest) = self.files.front() else { return Ok(()) };
            let old = now.since(oldest.last).saturating_add(oldest.before);
            if self.bytes() <= self.limits.bytes && old <= age {
                return Ok(());
            }
            self.storage.remove(oldest.number)?;
            self.files.pop_front();
        }
        Ok(())
    }
}

fn first_unix_ms(header: BlockHeader) -> u64 {
    header.unix_ms_at_zero.saturating_add(header.first.as_nanos() / 1_000_000)
}

fn last_unix_ms(header: BlockHeader) -> u64 {
    header.unix_ms_at_zero.saturating_add(header.last.as_nanos() / 1_000_000)
}
