use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::edge::{Plan, RecordingPlan, RecordingStatus};
use crate::forward::{Forwarding, Notebook};
use crate::model::Moment;
use crate::net::Clock;
use crate::recording::{Batch, Disk, Journal, News, RingLimits, Writer, WriterStatus};

/// What control has told and the recorder not yet taken: seconds of a site of thousands of tunnels.
/// Beyond it the recording has a gap; control never waits.
const QUEUE: usize = 8_192;

/// When the daemon ends, so long the disk is given for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often workers' notes are taken, and urgent lines written.
const TICK: Duration = Duration::from_millis(250);

/// The flight recorder: a thread of its own, that neither control nor workers ever wait for.
pub struct Recorder {
    queue: Option<SyncSender<(Moment, News)>>,
    shared: Arc<Shared>,
    directory: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    lost: AtomicU64,
    /// Everything must be told anew.
    wants_whole: AtomicBool,
    status: Mutex<(WriterStatus, u64)>,
}

impl Recorder {
    /// Records a site that begins with the value `first`.
    pub fn start(
        plan: &Arc<Plan>,
        recording: &RecordingPlan,
        first: Arc<Forwarding>,
        notes: Arc<Notebook>,
        clock: Clock,
    ) -> io::Result<Recorder> {
        let (queue, inbox) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let journal = Journal::new(plan.clone(), first, clock.unix_ms_of_zero());
        let limits = RingLimits { bytes: recording.bytes, age: recording.age };
        let directory = recording.directory.clone();
        // Differs from run to run, which is all that is asked of it.
        let run = RandomState::new().build_hasher().finish();
        let writer = Writer::new(journal, limits, run, Box::new(move || Disk::open(&directory)));
        let work = Work { writer, inbox, notes, shared: shared.clone(), clock };
        let thread = std::thread::Builder::new().name("trefoil-record".to_owned()).spawn(move || work.run())?;
        let directory = recording.directory.display().to_string();
        Ok(Recorder { queue: Some(queue), shared, directory, thread: Some(thread) })
    }

    /// Never waits; what finds no room is lost, and counted: that stands where it is missing.
    pub fn tell(&self, at: Moment, news: News) {
        let fits = |news| self.queue.as_ref().is_some_and(|queue| queue.try_send((at, news)).is_ok());
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 && fits(News::Lost(lost)) {
            self.shared.lost.store(0, Ordering::Relaxed);
        }
        // Behind a loss that could not be told nothing is.
        if self.shared.lost.load(Ordering::Relaxed) > 0 || !fits(news) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether everything must be told anew; asked about once.
    pub fn wants_whole(&self) -> bool {
        self.shared.wants_whole.swap(false, Ordering::Relaxed)
    }

    pub fn status(&self) -> RecordingStatus {
        let (status, left_out) = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        RecordingStatus {
            directory: self.directory.clone(),
            bytes: status.bytes,
            first_ms: status.first_unix_ms,
            last_ms: status.last_unix_ms,
            lost: status.lost.saturating_add(self.shared.lost.load(Ordering::Relaxed)),
            left_out,
            fault: if ended {
                Some("the recorder's thread has ended; the log says why".to_owned())
            } else {
                status.fault
            },
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Closing the queue is the sign.
        drop(self.queue.take());
        let Some(thread) = self.thread.take() else { return };
        let asked = std::time::Instant::now();
        while !thread.is_finished() {
            if asked.elapsed() > PATIENCE {
                // A disk that hangs must not keep routes and sockets.
                tracing::warn!("the flight recorder's disk does not answer; what it had not written yet is lost");
                return;
            }
            std::thread::sleep(PATIENCE / 100);
        }
        // A panic there has been printed already, and costs the recording alone.
        let _panicked = thread.join();
    }
}

struct Work {
    writer: Writer<Disk>,
    inbox: Receiver<(Moment, News)>,
    notes: Arc<Notebook>,
    shared: Arc<Shared>,
    clock: Clock,
}

impl Work {
    fn run(mut self) {
        loop {
            let first = self.inbox.recv_timeout(TICK);
            let ended = first.as_ref().is_err_and(|error| *error == RecvTimeoutError::Disconnected);
            self.take(first.ok());
            if ended {
                return self.writer.finish(self.clock.now());
            }
        }
    }

    fn take(&mut self, first: Option<(Moment, News)>) {
        // The notes first: so what they rest on, told before, is among the news.
        let notes = std::iter::from_fn(|| self.notes.take()).collect();
        let rest = self.inbox.try_iter().take(QUEUE);
        let batch = Batch {
            notes,
            news: first.into_iter().chain(rest).collect(),
            left_out: self.notes.left_out(),
            unix_ms_at_zero: self.clock.unix_ms_of_zero(),
        };
        let known_fault = self.writer.status().fault.is_some();
        match self.writer.handle(batch, self.clock.now()) {
            Err(error) => tracing::warn!(%error, "the flight recorder cannot write; trying again"),
            Ok(()) if known_fault && self.writer.status().fault.is_none() => {
                tracing::info!("the flight recorder writes again");
            }
            Ok(()) => {}
        }
        if self.writer.wants_whole() {
            self.shared.wants_whole.store(true, Ordering::Relaxed);
        }
        let status = (self.writer.status(), self.notes.left_out());
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}
