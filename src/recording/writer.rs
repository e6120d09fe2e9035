use std::io;
use std::time::Duration;

use super::block::{Block, PLAIN_MAX};
use super::journal::{Journal, News};
use super::line::Line;
use super::ring::{Extent, Ring, RingLimits};
use super::storage::Storage;
use crate::edge::Fact;
use crate::forward::FlowNote;
use crate::model::Moment;

/// Lines wait so long for company: it packs better. Those that are urgent do not.
const GATHER: Duration = Duration::from_secs(5);

/// A block is written when its lines have so many bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// After an error of the disk it is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// What the flight recorder's thread does: takes what it was told to the disk. What the disk does not
/// take is lost and counted.
pub struct Writer<S> {
    journal: Journal,
    limits: RingLimits,
    /// How to come by a place to write.
    open: Box<dyn FnMut() -> io::Result<S> + Send>,
    state: State<S>,
    /// What was on disk when it last failed.
    extent: Extent,
    run: u64,
    /// Of the next line.
    number: u64,
    unix_ms_at_zero: u64,
    left_out: u64,
    lost: u64,
    fault: Option<String>,
    /// In the present file something was too long for any block.
    too_long: bool,
    /// Something was lost on the way: what follows cannot be followed.
    anew: bool,
}

enum State<S> {
    /// Until then nothing is written.
    Resting {
        until: Moment,
    },
    /// Everything must be told anew before anything can be written.
    Waiting(Ring<S>),
    Writing {
        ring: Ring<S>,
        block: Block,
        since: Moment,
        urgent: bool,
    },
}

/// What was told since the last time.
#[derive(Debug, Default)]
pub struct Batch {
    pub news: Vec<(Moment, News)>,
    pub notes: Vec<FlowNote>,
    /// Decisions that were not noted, since the start.
    pub left_out: u64,
    pub unix_ms_at_zero: u64,
}

/// How the recording stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriterStatus {
    /// Also while nothing can be written.
    pub extent: Extent,
    /// Entries that were lost.
    pub lost: u64,
    /// Why nothing is written.
    pub fault: Option<String>,
}

impl<S: Storage> Writer<S> {
    /// `run` is a number that no other run has.
    pub fn new(
        journal: Journal,
        limits: RingLimits,
        run: u64,
        open: Box<dyn FnMut() -> io::Result<S> + Send>,
    ) -> Writer<S> {
        Writer {
            journal,
            limits,
            open,
            state: State::Resting { until: Moment::ZERO },
            extent: Extent::default(),
            run,
            number: 0,
            unix_ms_at_zero: 0,
            left_out: 0,
            lost: 0,
            fault: None,
            too_long: false,
            anew: false,
        }
    }

    /// Everything must be told anew.
    pub fn wants_whole(&self) -> bool {
        match self.state {
            State::Waiting(_) => true,
            State::Resting { .. } => false,
            State::Writing { .. } => self.anew,
        }
    }

    /// Takes what was told; an error is told once, when it begins.
    pub fn handle(&mut self, batch: Batch, now: Moment) -> Result<(), String> {
        let known = self.fault.clone();
        self.come_back(now);
        let mut lines = Vec::new();
        self.unix_ms_at_zero = batch.unix_ms_at_zero;
        if self.journal.handle_clock(now, batch.unix_ms_at_zero, &mut lines) {
            // A block has one clock: the next has the new one.
            self.flush(now);
        }
        let mut notes = batch.notes;
        for (at, news) in batch.news {
            let whole = is_whole(&news);
            self.anew &= !whole;
            if let News::Lost(entries) = &news {
                self.lost = self.lost.saturating_add(*entries);
                self.anew = true;
            }
            if whole && self.wants_file(now) {
                // Those that belong to what is in the old file.
                let generation = self.journal.generation();
                let rest = notes.iter().partition(|note| note.generation > generation);
                let (later, earlier): (Vec<FlowNote>, Vec<FlowNote>) = rest;
                earlier.into_iter().for_each(|note| self.journal.handle_note(note, &mut lines));
                notes = later;
                self.write(std::mem::take(&mut lines), now);
                self.begin_file(now);
            }
            self.journal.handle_news(at, news, &mut lines);
        }
        notes.into_iter().for_each(|note| self.journal.handle_note(note, &mut lines));
        if batch.left_out > self.left_out {
            self.left_out = batch.left_out;
            self.journal.handle_left_out(now, batch.left_out, &mut lines);
        }
        self.write(lines, now);
        self.flush_if_due(now);
        if let State::Writing { ring, .. } = &mut self.state {
            let synced = ring.sync_if_due(now);
            self.settle(synced, 0, now);
        }
        match &self.fault {
            Some(fault) if known.as_ref() != Some(fault) => Err(fault.clone()),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes what has gathered, for good.
    pub fn finish(&mut self, now: Moment) {
        self.flush(now);
        if let State::Writing { ring, .. } = &mut self.state {
            let synced = ring.sync(now);
            self.settle(synced, 0, now);
        }
    }

    pub fn status(&self) -> WriterStatus {
        // Most likely the rules.
        let too_long = self.too_long.then(|| {
            format!("a line of more than {} MB is left out; what rests on it cannot be explained", PLAIN_MAX >> 20)
        });
        WriterStatus {
            extent: match &self.state {
                State::Resting { .. } => self.extent,
                State::Waiting(ring) | State::Writing { ring, .. } => ring.extent(),
            },
            lost: self.lost,
            fault: self.fault.clone().or(too_long),
        }
    }

    fn come_back(&mut self, now: Moment) {
        let State::Resting { until } = self.state else { return };
        if now < until {
            return;
        }
        match (self.open)().and_then(|storage| Ring::open(storage, self.limits, self.run, now)) {
            Ok(ring) => self.state = State::Waiting(ring),
            Err(error) => {
                self.fault = Some(error.to_string());
                self.state = State::Resting { until: now + RETRY };
            }
        }
    }

    fn wants_file(&self, now: Moment) -> bool {
        match &self.state {
            State::Resting { .. } => false,
            State::Waiting(_) => true,
            State::Writing { ring, .. } => ring.wants_file(now),
        }
    }

    fn begin_file(&mut self, now: Moment) {
        self.flush(now);
        let state = std::mem::replace(&mut self.state, State::Resting { until: now + RETRY });
        let mut ring = match state {
            State::Resting { .. } => {
                self.state = state;
                return;
            }
            State::Waiting(ring) | State::Writing { ring, .. } => ring,
        };
        if let Err(error) = ring.begin_file(now) {
            self.extent = ring.extent();
            return self.settle(Err(error), 0, now);
        }
        self.journal.open_file();
        self.too_long = false;
        self.state = State::Writing { ring, block: self.block(), since: now, urgent: false };
    }

    fn block(&self) -> Block {
        Block::new(self.run, self.number, self.unix_ms_at_zero)
    }

    fn write(&mut self, lines: Vec<Line>, now: Moment) {
        for line in lines {
            let State::Writing { block, since, urgent, .. } = &mut self.state else {
                // Before everything was told there is nothing to miss.
                self.lost = self.lost.saturating_add(u64::from(self.fault.is_some()));
                continue;
            };
            if block.is_empty() {
                (*since, *urgent) = (now, false);
            }
            *urgent |= line.entry.is_urgent();
            if !block.push(&line) {
                self.lost = self.lost.saturating_add(1);
                self.too_long = true;
            }
            if block.len() >= BLOCK_BYTES {
                self.flush(now);
            }
        }
    }

    fn flush_if_due(&mut self, now: Moment) {
        if let State::Writing { since, urgent, .. } = &self.state
            && (*urgent || now.since(*since) >= GATHER)
        {
            self.flush(now);
        }
    }

    fn flush(&mut self, now: Moment) {
        let State::Writing { ring, block, urgent, .. } = &mut self.state else { return };
        if block.is_empty() {
            let unix_ms_at_zero = self.unix_ms_at_zero;
            *block = Block::new(self.run, self.number, unix_ms_at_zero);
            return;
        }
        let lines = block.next_number().saturating_sub(self.number);
        self.number = block.next_number();
        let written = block.seal().and_then(|bytes| ring.append(&bytes, *urgent, now));
        *block = Block::new(self.run, self.number, self.unix_ms_at_zero);
        self.settle(written, lines, now);
    }

    /// After an error nothing is written for a while.
    fn settle(&mut self, outcome: io::Result<()>, lost: u64, now: Moment) {
        match outcome {
            Ok(()) => self.fault = None,
            Err(error) => {
                self.lost = self.lost.saturating_add(lost);
                self.fault = Some(error.to_string());
                self.extent = self.status().extent;
                self.state = State::Resting { until: now + RETRY };
            }
        }
    }
}

fn is_whole(news: &News) -> bool {
    match news {
        News::Fact(fact) => matches!(**fact, Fact::Whole(_)),
        News::Published(_) | News::Event(_) | News::Lost(_) => false,
    }
}
