use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::journal::News;
use crate::model::Moment;

/// What control has told and the recorder has not yet taken to the disk, in bytes of memory: that of a site of three thousand
/// tunnels that publishes ten times a second while its disk stands still for three, and far more of any branch. What it is
/// told then costs no machine its memory.
pub const QUEUE_BYTES: usize = 32 << 20;

/// The same in entries. An entry has some hundred bytes at least.
pub const QUEUE_ENTRIES: usize = 8_192;

/// Control's end of the way to the recorder. What finds no room is lost, and that is told in its place as soon as there is
/// room: nobody waits.
#[derive(Debug)]
pub struct Outbox {
    queue: SyncSender<Item>,
    gauge: Arc<Gauge>,
}

/// The recorder's end.
#[derive(Debug)]
pub struct Inbox {
    queue: Receiver<Item>,
    gauge: Arc<Gauge>,
    first: Option<Item>,
    /// What is being written: its bytes, and the losses that it tells of.
    taken: (usize, u64),
}

/// How the way between them stands: for whoever asks.
#[derive(Debug, Default)]
pub struct Gauge {
    bytes: AtomicUsize,
    /// Entries that found no room since the last that did, and those that what waits tells of.
    losing: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Item {
    at: Moment,
    news: News,
    bytes: usize,
}

/// The two ends.
pub fn queue() -> (Outbox, Inbox) {
    let (sender, receiver) = sync_channel(QUEUE_ENTRIES);
    let gauge = Arc::new(Gauge::default());
    let outbox = Outbox { queue: sender, gauge: gauge.clone() };
    (outbox, Inbox { queue: receiver, gauge, first: None, taken: (0, 0) })
}

impl Outbox {
    /// Never waits.
    pub fn tell(&self, at: Moment, news: News) {
        let losing = self.gauge.losing.load(Ordering::Relaxed);
        if losing > 0 {
            // With half of all free, one loss is told once, and not each small thing between large ones.
            let has_room = self.gauge.bytes() <= QUEUE_BYTES / 2;
            if !has_room || !self.put(at, News::Lost(losing)) {
                // Behind a loss that could not be told nothing is.
                self.gauge.losing.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.gauge.lost.fetch_add(losing, Ordering::Relaxed);
            self.gauge.losing.store(0, Ordering::Relaxed);
        }
        if !self.put(at, news) {
            self.gauge.losing.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    fn put(&self, at: Moment, news: News) -> bool {
        let (bytes, waiting) = (news.bytes(), self.gauge.bytes());
        // Where nothing waits, anything has room: else a large site would never be recorded.
        if waiting > 0 && waiting.saturating_add(bytes) > QUEUE_BYTES {
            return false;
        }
        self.gauge.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = self.queue.try_send(Item { at, news, bytes }).is_ok();
        if !taken {
            self.gauge.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }
}

impl Inbox {
    /// Waits for news. `false`: nobody will tell anything more.
    pub fn wait(&mut self, patience: Duration) -> bool {
        match self.queue.recv_timeout(patience) {
            Ok(item) => {
                self.first = Some(item);
                true
            }
            Err(error) => error == RecvTimeoutError::Timeout,
        }
    }

    /// All that waits.
    pub fn take(&mut self) -> Vec<(Moment, News)> {
        let mut all = Vec::new();
        let rest = self.queue.try_iter().take(QUEUE_ENTRIES);
        for Item { at, news, bytes } in self.first.take().into_iter().chain(rest) {
            let lost = if let News::Lost(entries) = &news { *entries } else { 0 };
            self.taken = (self.taken.0.saturating_add(bytes), self.taken.1.saturating_add(lost));
            all.push((at, news));
        }
        all
    }

    /// What was taken is written, or lost.
    pub fn done(&mut self) {
        let (bytes, lost) = std::mem::take(&mut self.taken);
        self.gauge.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.gauge.lost.fetch_sub(lost, Ordering::Relaxed);
    }
}

impl Gauge {
    /// Of memory that what waits, or is being written, takes; about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// There is no room at present.
    pub fn is_losing(&self) -> bool {
        self.losing.load(Ordering::Relaxed) > 0
    }

    /// Entries that found no room, of which nothing is written yet.
    pub fn lost(&self) -> u64 {
        self.losing.load(Ordering::Relaxed).saturating_add(self.lost.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::Fact;
    use crate::forward::HeavyFlow;
    use crate::model::{FlowKey, PathId};

    /// An entry of about so many bytes.
    fn news(bytes: usize) -> News {
        let any = [10, 0, 0, 1].into();
        let key =
            FlowKey { segment: 0, protocol: 6, source: any, destination: any, source_port: 1, destination_port: 2 };
        let flow = HeavyFlow { key, path: PathId(0), peers: 0, rate: 0, moved_at: None };
        let flows = vec![flow; bytes / size_of::<HeavyFlow>()];
        News::Fact(Box::new(Fact::Surveyed { number: 1, flows, shifts: Vec::new() }))
    }

    fn kinds(news: &[(Moment, News)]) -> Vec<Option<u64>> {
        let lost = |(_, news): &(Moment, News)| match news {
            News::Lost(entries) => Some(*entries),
            News::Fact(_) | News::Published(_) | News::Event(_) => None,
        };
        news.iter().map(lost).collect()
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_what_is_lost_stands_where_it_is_missing() {
        let (outbox, mut inbox) = queue();
        let tell = |bytes| outbox.tell(Moment::from_millis(1), news(bytes));
        (0..200).for_each(|_| tell(1 << 20));
        assert!(
            (QUEUE_BYTES - (2 << 20)..=QUEUE_BYTES).contains(&outbox.gauge().bytes()),
            "{}",
            outbox.gauge().bytes()
        );
        let lost = outbox.gauge().lost();
        assert!((168..=170).contains(&lost), "{lost}");
        // A small one would have room, but what it rests on is lost.
        tell(100);
        assert_eq!(outbox.gauge().lost(), lost + 1);
        assert!(inbox.wait(Duration::ZERO));
        assert_eq!(kinds(&inbox.take()), vec![None; 200 - lost as usize]);
        // While it is being written it still takes memory.
        tell(1 << 20);
        assert_eq!((outbox.gauge().lost(), outbox.gauge().is_losing()), (lost + 2, true));
        inbox.done();
        assert_eq!(outbox.gauge().bytes(), 0);
        tell(100);
        assert_eq!((outbox.gauge().lost(), outbox.gauge().is_losing()), (lost + 2, false), "told, but not yet written");
        inbox.wait(Duration::ZERO);
        assert_eq!(kinds(&inbox.take()), [Some(lost + 2), None]);
        inbox.done();
        assert_eq!((outbox.gauge().lost(), outbox.gauge().bytes()), (0, 0));
    }

    #[test]
    fn what_is_larger_than_all_that_may_wait_is_taken_by_itself() {
        let (outbox, mut inbox) = queue();
        outbox.tell(Moment::ZERO, news(QUEUE_BYTES * 2));
        outbox.tell(Moment::ZERO, news(100));
        assert_eq!(outbox.gauge().lost(), 1);
        assert!(inbox.wait(Duration::ZERO));
        assert_eq!(inbox.take().len(), 1);
        inbox.done();
        outbox.tell(Moment::ZERO, news(QUEUE_BYTES * 2));
        inbox.wait(Duration::ZERO);
        assert_eq!(kinds(&inbox.take()), [Some(1), None], "also behind a loss");
    }

    #[test]
    fn entries_without_weight_are_bounded_by_their_number() {
        let (outbox, mut inbox) = queue();
        (0..QUEUE_ENTRIES + 5).for_each(|_| outbox.tell(Moment::ZERO, news(0)));
        assert_eq!(outbox.gauge().lost(), 5);
        assert!(inbox.wait(Duration::ZERO));
        assert_eq!(inbox.take().len(), QUEUE_ENTRIES);
        assert!(inbox.wait(Duration::ZERO), "more may come");
        drop(outbox);
        assert!(!inbox.wait(Duration::from_secs(5)));
    }
}
