use super::run_limits::{MAX_RUN, RunLimits};
use crate::net::mmsg::Message;
use crate::packet::{TRAIN_CAPACITY, Train};

/// Datagrams of one train that one send takes.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The slot of the train.
    pub index: usize,
    pub train: &'a Train,
    pub bytes: &'a [u8],
    pub datagrams: usize,
}

impl<'a> Run<'a> {
    pub fn message(self) -> Message<'a> {
        let segment = (self.datagrams > 1).then_some(self.train.segment);
        Message { remote: self.train.leg.remote, tos: self.train.tos, bytes: self.bytes, segment }
    }
}

/// What may be sent in one call.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub limits: &'a RunLimits,
    /// Can the socket cut a long send into datagrams?
    pub segmentation: bool,
    /// Of this train each datagram is sent alone.
    pub alone: Option<usize>,
}

/// Where in a list of trains sending stands.
#[derive(Clone, Copy, Default)]
pub struct Place {
    train: usize,
    /// Datagrams of it that are done.
    done: usize,
}

impl Place {
    /// The run that begins here, or at the next train that has any; steps behind it.
    pub fn next<'a>(&mut self, trains: &'a [Train], rules: Rules) -> Option<Run<'a>> {
        loop {
            let train = trains.get(self.train)?;
            let (bytes, segment) = (train.packet.bytes(), train.segment.max(1));
            let datagrams = bytes.len().div_ceil(segment);
            if self.done >= datagrams {
                *self = Place { train: self.train + 1, done: 0 };
                continue;
            }
            let limit = if !rules.segmentation || rules.alone == Some(self.train) {
                1
            } else {
                rules.limits.of(&train.leg).min(MAX_RUN).min(TRAIN_CAPACITY / segment).max(1)
            };
            let count = limit.min(datagrams - self.done);
            let start = self.done * segment;
            let end = bytes.len().min(start + count * segment);
            let run = Run { index: self.train, train, bytes: bytes.get(start..end)?, datagrams: count };
            self.done += count;
            return Some(run);
        }
    }

    /// Skips the datagrams of the present train that are as long as the one that was just passed,
    /// and returns how many.
    pub fn skip_equal(&mut self, trains: &[Train]) -> usize {
        let Some(train) = trains.get(self.train) else { return 0 };
        let full = train.packet.len() / train.segment.max(1);
        let skipped = full.saturating_sub(self.done);
        self.done += skipped;
        skipped
    }

    /// Datagrams from here on, train by train.
    pub fn rest(self, trains: &[Train]) -> impl Iterator<Item = (usize, usize)> {
        let counts = trains.iter().map(|train| train.packet.len().div_ceil(train.segment.max(1))).enumerate();
        counts.skip(self.train).filter_map(move |(index, datagrams)| {
            let done = if index == self.train { self.done } else { 0 };
            (datagrams > done).then_some((index, datagrams - done))
        })
    }
}

/// The runs of a list of trains from some place on.
#[derive(Clone)]
pub struct Runs<'a, 'r> {
    pub trains: &'a [Train],
    pub place: Place,
    pub rules: Rules<'r>,
}

impl<'a> Iterator for Runs<'a, '_> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        self.place.next(self.trains, self.rules)
    }
}
