use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::edge::{Plan, RecordingPlan, RecordingStatus};
use crate::forward::{Forwarding, Notebook};
use crate::model::Moment;
use crate::net::Clock;
use crate::recording::{
    Batch, Disk, Gauge, Inbox, Journal, News, Outbox, QUEUE_BYTES, QUEUE_ENTRIES, RingLimits, Writer, WriterStatus,
    queue,
};

/// When the daemon ends, so long the disk is given for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often workers' notes are taken, and urgent lines written.
const TICK: Duration = Duration::from_millis(250);

/// The flight recorder: a thread of its own, that neither control nor workers ever wait for.
pub struct Recorder {
    queue: Option<Outbox>,
    shared: Arc<Shared>,
    directory: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
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
        let (queue, inbox) = queue();
        let shared = Arc::new(Shared::default());
        let journal = Journal::new(plan.clone(), first, clock.unix_ms_of_zero());
        let limits = RingLimits { bytes: recording.bytes, age: recording.age };
        // Whoever asks where it is may stand in another directory.
        let directory = std::path::absolute(&recording.directory)?;
        let told = directory.display().to_string();
        // Differs from run to run, which is all that is asked of it.
        let run = RandomState::new().build_hasher().finish();
        let writer = Writer::new(journal, limits, run, Box::new(move || Disk::open(&directory)));
        let work = Work { writer, inbox, notes, shared: shared.clone(), clock, directory: told.clone() };
        let thread = std::thread::Builder::new().name("trefoil-record".to_owned()).spawn(move || work.run())?;
        Ok(Recorder { queue: Some(queue), shared, directory: told, thread: Some(thread) })
    }

    /// Never waits; what finds no room is lost, and counted: that stands where it is missing.
    pub fn tell(&self, at: Moment, news: News) {
        if let Some(queue) = &self.queue {
            queue.tell(at, news);
        }
    }

    /// Whether everything must be told anew; asked about once.
    pub fn wants_whole(&self) -> bool {
        self.shared.wants_whole.swap(false, Ordering::Relaxed)
    }

    pub fn status(&self) -> RecordingStatus {
        let (status, left_out) = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        let gauge = self.queue.as_ref().map(Outbox::gauge);
        let (waiting, lost) = gauge.map_or((0, 0), |gauge| (gauge.bytes() as u64, gauge.lost()));
        let fault = match status.fault {
            _ if ended => Some("the recorder's thread has ended; the log says why".to_owned()),
            None if gauge.is_some_and(Gauge::is_losing) => Some(format!(
                "the disk takes less than is told: {:.1} MB wait, and what finds no room is lost ({} MB or {QUEUE_ENTRIES} \
                 entries may wait); it goes on, behind a gap, when there is room",
                waiting as f64 / 1e6,
                QUEUE_BYTES >> 20
            )),
            fault => fault,
        };
        RecordingStatus {
            directory: self.directory.clone(),
            bytes: status.extent.bytes,
            first_ms: status.extent.first_unix_ms,
            last_ms: status.extent.last_unix_ms,
            waiting_bytes: waiting,
            lost: status.lost.saturating_add(lost),
            left_out,
            fault,
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
                tracing::warn!(
                    directory = self.directory,
                    "the flight recorder's disk does not answer; what it had not written yet is lost"
                );
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
    inbox: Inbox,
    notes: Arc<Notebook>,
    shared: Arc<Shared>,
    clock: Clock,
    directory: String,
}

impl Work {
    fn run(mut self) {
        loop {
            let goes_on = self.inbox.wait(TICK);
            self.take();
            if !goes_on {
                return self.writer.finish(self.clock.now());
            }
        }
    }

    fn take(&mut self) {
        // The notes first: so what they rest on, told before, is among the news.
        let notes = std::iter::from_fn(|| self.notes.take()).collect();
        let batch = Batch {
            notes,
            news: self.inbox.take(),
            left_out: self.notes.left_out(),
            unix_ms_at_zero: self.clock.unix_ms_of_zero(),
        };
        let known_fault = self.writer.status().fault.is_some();
        match self.writer.handle(batch, self.clock.now()) {
            Err(error) => {
                tracing::warn!(directory = self.directory, %error, "the flight recorder cannot write; trying again");
            }
            Ok(()) if known_fault && self.writer.status().fault.is_none() => {
                tracing::info!(directory = self.directory, "the flight recorder writes again");
            }
            Ok(()) => {}
        }
        if self.writer.wants_whole() {
            self.shared.wants_whole.store(true, Ordering::Relaxed);
        }
        let status = (self.writer.status(), self.notes.left_out());
        self.inbox.done();
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::{self, Fact};
    use crate::forward::{HeavyFlow, SaTable};
    use crate::model::{FlowKey, PathId};

    #[test]
    fn a_relative_directory_is_told_so_that_it_is_found_from_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let here = std::env::current_dir().unwrap();
        let up: std::path::PathBuf = here.components().skip(1).map(|_| "..").collect();
        let relative = up.join(folder.path().strip_prefix("/").unwrap());
        assert!(relative.is_relative());
        let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws.toml");
        let plan = Arc::new(crate::config::load(&example).unwrap().plan);
        let first = Arc::new(edge::blank(&plan, &Arc::new(SaTable::new(1, 1))));
        let recording = RecordingPlan { directory: relative, bytes: 1 << 20, age: Duration::from_secs(3_600) };
        let recorder = Recorder::start(&plan, &recording, first, Arc::default(), Clock::new()).unwrap();
        let told = std::path::PathBuf::from(recorder.status().directory);
        assert!(told.is_absolute(), "{told:?}");
        assert_eq!(told.canonicalize().unwrap(), folder.path().canonicalize().unwrap());
    }

    #[test]
    fn a_disk_that_hangs_costs_bounded_memory_is_told_and_keeps_nobody() {
        let folder = tempfile::tempdir().unwrap();
        // A pipe that nobody writes to: whoever opens it to look at its first block waits.
        let hung = folder.path().join("0000000001.trefoil.gz");
        nix::unistd::mkfifo(&hung, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws.toml");
        let plan = Arc::new(crate::config::load(&example).unwrap().plan);
        let first = Arc::new(edge::blank(&plan, &Arc::new(SaTable::new(1, 1))));
        let recording =
            RecordingPlan { directory: folder.path().to_owned(), bytes: 1 << 20, age: Duration::from_secs(3_600) };
        let clock = Clock::new();
        let recorder = Recorder::start(&plan, &recording, first, Arc::default(), clock.clone()).unwrap();
        assert_eq!(recorder.status().fault, None);
        let any = [10, 0, 0, 1].into();
        let key =
            FlowKey { segment: 0, protocol: 6, source: any, destination: any, source_port: 1, destination_port: 2 };
        let flow = HeavyFlow { key, path: PathId(0), peers: 0, rate: 0, moved_at: None };
        for number in 0..100 {
            let flows = vec![flow; (1 << 20) / size_of::<HeavyFlow>()];
            let fact = Fact::Surveyed { number, flows, shifts: Vec::new() };
            recorder.tell(clock.now(), News::Fact(Box::new(fact)));
        }
        let status = recorder.status();
        assert!(status.waiting_bytes <= QUEUE_BYTES as u64 && status.waiting_bytes > 30 << 20, "{status:?}");
        assert!((65..=70).contains(&status.lost), "{status:?}");
        let fault = status.fault.unwrap_or_default();
        assert!(fault.starts_with("the disk takes less than is told: 3") && fault.contains("32 MB"), "{fault}");

        let asked = std::time::Instant::now();
        drop(recorder);
        assert!(asked.elapsed() < PATIENCE * 3, "{:?}", asked.elapsed());
        // Lets the thread go.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&hung).unwrap());
    }
}
