use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::edge::Plan;
use crate::forward::{FlowNote, Forwarding};
use crate::model::Moment;
use crate::recording::{Batch, Disk, Journal, News, RingLimits, Writer, WriterStatus};

/// More than any simulation writes.
const LIMITS: RingLimits = RingLimits { bytes: 1 << 30, age: Duration::from_secs(7 * 24 * 3600) };

/// Takes what a machine in simulated time is told to a directory, as the daemon's thread does.
pub struct SimulatedRecorder {
    writer: Writer<Disk>,
    pub news: Vec<(Moment, News)>,
    /// The time of day at moment zero.
    pub unix_ms_at_zero: u64,
}

impl SimulatedRecorder {
    pub fn start(plan: &Arc<Plan>, first: Arc<Forwarding>, directory: &Path, unix_ms_at_zero: u64) -> Self {
        let journal = Journal::new(plan.clone(), first, unix_ms_at_zero);
        let directory = directory.to_owned();
        let writer = Writer::new(journal, LIMITS, 7, Box::new(move || Disk::open(&directory)));
        SimulatedRecorder { writer, news: Vec::new(), unix_ms_at_zero }
    }

    /// Writes what was told since, and these notes. What the disk refuses stands in `status`.
    pub fn take(&mut self, notes: Vec<FlowNote>, left_out: u64, now: Moment) {
        let news = std::mem::take(&mut self.news);
        let batch = Batch { news, notes, left_out, unix_ms_at_zero: self.unix_ms_at_zero };
        let _told_by_status = self.writer.handle(batch, now);
    }

    /// Writes what has gathered.
    pub fn finish(&mut self, now: Moment) {
        self.writer.finish(now);
    }

    pub fn status(&self) -> WriterStatus {
        self.writer.status()
    }
}
