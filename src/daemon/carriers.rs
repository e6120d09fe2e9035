//! The threads of the packet road. As long as one core is enough, one thread serves all workers:
//! then no packet waits for a second thread to wake up. When it has more to do than its core can
//! do, it lends workers to threads of their own, and gets them back when there is less.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::share::Share;
use crate::dataplane::Worker;
use crate::model::Moment;
use crate::net::{self, Clock, Lookout, Road, RoadHandle};

/// How long a thread sleeps at most when nothing wakes it.
const NAP: Duration = Duration::from_millis(100);

/// When workers are lent and given back.
#[derive(Clone, Copy, Debug)]
pub struct Lending {
    /// Over which a thread looks at what it takes of its core.
    pub window: Duration,
    /// The first thread lends a worker after so many windows ...
    pub patience: u32,
    /// ... in which it took at least so many thousandths of a core. One that has to share its
    /// core seldom does, and there another thread would not help.
    pub full: u32,
    /// A borrower gives its worker back after so many windows ...
    pub calm: u32,
    /// ... in which the two threads together took at most so many thousandths of a core.
    pub idle: u32,
}

impl Lending {
    pub const USUAL: Lending =
        Lending { window: Duration::from_millis(10), patience: 5, full: 930, calm: 5, idle: 500 };
}

/// What all threads are given.
#[derive(Clone)]
pub struct Setting {
    pub clock: Clock,
    pub lending: Lending,
    /// Each thread stays on a core of its own.
    pub pinned: bool,
}

/// The running threads; dropping it ends them.
pub struct Carriers {
    shared: Arc<Shared>,
    handles: Vec<RoadHandle>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    /// By thread, as many as workers; the first serves whatever the others do not.
    desks: Box<[Desk]>,
    /// Wakes the first thread, which always serves the first worker.
    first: Option<RoadHandle>,
    /// Thousandths of a core that the first thread took in its latest window.
    first_share: AtomicU32,
    /// How often a worker was lent.
    lent: AtomicU64,
}

/// Where carriers are left for a thread.
#[derive(Default)]
struct Desk {
    left: Mutex<Vec<Carrier>>,
    /// Something lies there.
    full: AtomicBool,
    changed: Condvar,
}

/// A worker with its world.
struct Carrier {
    worker: Worker,
    road: Road,
    last_turn: Moment,
    /// Its last turn left something to do.
    unfinished: bool,
    /// Something that waits in it may leave then.
    due: Option<Moment>,
    /// Turns with work in this window of its thread.
    turns: u32,
}

impl Carriers {
    /// A thread for each worker; `ended` is told of the end of each, however it ends.
    pub fn start(
        workers: Vec<(Worker, Road)>,
        handles: Vec<RoadHandle>,
        setting: &Setting,
        ended: &Arc<Notify>,
    ) -> io::Result<Carriers> {
        let now = setting.clock.now();
        let carrier = |(worker, road)| Carrier { worker, road, last_turn: now, unfinished: false, due: None, turns: 0 };
        let all: Vec<Carrier> = workers.into_iter().map(carrier).collect();
        let (count, mut first) = (all.len(), Some(all));
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            desks: std::iter::repeat_with(Desk::default).take(count).collect(),
            first: handles.first().cloned(),
            first_share: AtomicU32::new(0),
            lent: AtomicU64::new(0),
        });
        let mut carriers = Carriers { shared: shared.clone(), handles, threads: Vec::new() };
        for number in 0..count {
            let (shared, setting, ending) = (shared.clone(), setting.clone(), Ending(ended.clone()));
            let (lookout, mine) = (Lookout::new()?, first.take().unwrap_or_default());
            let serve = move || {
                let _ending = ending;
                if setting.pinned
                    && let Err(error) = net::pin(number)
                {
                    tracing::warn!(worker = number, %error, "a worker's thread is not pinned to a core");
                }
                let mut thread = Thread::new(number, shared, setting, lookout);
                mine.into_iter().for_each(|carrier| thread.take_up(carrier));
                if number == 0 { thread.serve_all() } else { thread.serve_what_is_lent() }
            };
            carriers.threads.push(std::thread::Builder::new().name(format!("trefoil-{number}")).spawn(serve)?);
        }
        Ok(carriers)
    }

    /// Ends all threads; `false` when one of them had ended by a panic.
    pub fn stop(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        self.wake_all();
        let panicked = self.threads.drain(..).filter_map(|thread| thread.join().err()).count();
        panicked == 0
    }

    fn wake_all(&self) {
        self.handles.iter().for_each(RoadHandle::wake);
        self.shared.desks.iter().for_each(Desk::call);
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells that a thread has ended, in whatever way.
pub struct Ending(pub Arc<Notify>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Desk {
    fn leave(&self, mut carriers: Vec<Carrier>) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.append(&mut carriers);
        self.full.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Without waiting; costs one load while nothing lies there.
    fn take(&self) -> Vec<Carrier> {
        if !self.full.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut *left)
    }

    /// Waits until something lies there or `stop` is set.
    fn wait(&self, stop: &AtomicBool) -> Vec<Carrier> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = |left: &mut Vec<Carrier>| left.is_empty() && !stop.load(Ordering::Acquire);
        let mut left = self.changed.wait_while(left, nothing).unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut *left)
    }

    /// Makes whoever waits look again.
    fn call(&self) {
        let _left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
    }
}

struct Thread {
    number: usize,
    shared: Arc<Shared>,
    setting: Setting,
    lookout: Lookout,
    carriers: Vec<Carrier>,
    share: Share,
    /// Windows in a row that speak for lending, or for giving back.
    windows: u32,
}

impl Thread {
    fn new(number: usize, shared: Arc<Shared>, setting: Setting, lookout: Lookout) -> Thread {
        let share = Share::new(setting.lending.window, setting.clock.now(), net::processor_time());
        Thread { number, shared, setting, lookout, carriers: Vec::new(), share, windows: 0 }
    }

    /// The first thread: everything that is not lent.
    fn serve_all(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let desk = self.shared.desks.first().map(Desk::take).unwrap_or_default();
            desk.into_iter().for_each(|carrier| self.take_up(carrier));
            let now = self.turns();
            if self.share.is_due(now) {
                let permille = self.share.end_window(now, net::processor_time());
                self.shared.first_share.store(permille, Ordering::Relaxed);
                self.lend_if_full(permille);
            }
        }
    }

    /// The others: one worker at a time, until it is given back.
    fn serve_what_is_lent(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.carriers.is_empty() {
                let lent = self.shared.desks.get(self.number).map(|desk| desk.wait(&self.shared.stop));
                lent.unwrap_or_default().into_iter().for_each(|carrier| self.take_up(carrier));
                self.windows = 0;
                self.share.end_window(self.setting.clock.now(), net::processor_time());
                continue;
            }
            let now = self.turns();
            if self.share.is_due(now) {
                let mine = self.share.end_window(now, net::processor_time());
                self.give_back_if_calm(mine);
            }
        }
    }

    /// A turn of every worker that has something to do, after rest if none has.
    fn turns(&mut self) -> Moment {
        let now = self.setting.clock.now();
        let busy = self.carriers.iter_mut().any(|carrier| carrier.is_due(now));
        if !busy {
            self.carriers.iter().for_each(|carrier| carrier.worker.waits());
        }
        let due = self.carriers.iter().filter_map(|carrier| carrier.due).min();
        let nap = due.map_or(NAP, |due| due.since(now).min(NAP));
        let roads = self.carriers.iter_mut().map(|carrier| &mut carrier.road);
        if busy {
            self.lookout.glance(roads)
        } else {
            self.lookout.wait(roads, nap)
        }
        let now = self.setting.clock.now();
        for carrier in &mut self.carriers {
            if carrier.is_due(now) {
                carrier.turn(now);
            }
        }
        now
    }

    fn lend_if_full(&mut self, permille: u32) {
        let Lending { patience, full, .. } = self.setting.lending;
        self.windows = if permille >= full { self.windows + 1 } else { 0 };
        if self.windows >= patience {
            self.windows = 0;
            // Its own worker it keeps.
            let others = self.carriers.iter().filter(|carrier| carrier.number() != self.number && carrier.turns > 0);
            if let Some(busiest) = others.max_by_key(|carrier| carrier.turns).map(Carrier::number) {
                let times = self.shared.lent.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::debug!(worker = busiest, times, "one core is not enough: lent to a thread of its own");
                self.give(busiest, busiest);
            }
        }
        self.carriers.iter_mut().for_each(|carrier| carrier.turns = 0);
    }

    fn give_back_if_calm(&mut self, mine: u32) {
        let Lending { calm, idle, .. } = self.setting.lending;
        let both = mine.saturating_add(self.shared.first_share.load(Ordering::Relaxed));
        self.windows = if both <= idle { self.windows + 1 } else { 0 };
        if self.windows >= calm {
            tracing::debug!(worker = self.number, "one core is enough again: given back");
            self.give(self.number, 0);
        }
    }

    fn take_up(&mut self, mut carrier: Carrier) {
        carrier.turns = 0;
        if let Err(error) = self.lookout.add(&mut carrier.road) {
            // Only a lack of memory makes it fail; then its turns come by the nap alone.
            tracing::error!(worker = carrier.number(), %error, "a worker cannot be watched");
        }
        self.carriers.push(carrier);
    }

    /// Hands a worker over to another thread.
    fn give(&mut self, worker: usize, thread: usize) {
        let Some(place) = self.carriers.iter().position(|carrier| carrier.number() == worker) else { return };
        let mut carrier = self.carriers.swap_remove(place);
        self.lookout.remove(&mut carrier.road);
        if let Some(desk) = self.shared.desks.get(thread) {
            desk.leave(vec![carrier]);
        }
        // The first thread does not wait at its desk.
        if let Some(first) = self.shared.first.as_ref().filter(|_| thread == 0) {
            first.wake();
        }
    }
}

impl Carrier {
    /// Is there something to do, or was it long ago that somebody looked?
    fn is_due(&mut self, now: Moment) -> bool {
        let is_time = self.due.is_some_and(|due| now >= due) || now.since(self.last_turn) >= NAP;
        self.road.has_work() || self.unfinished || is_time
    }

    fn turn(&mut self, now: Moment) {
        self.road.begin_turn();
        let turn = self.worker.turn(&mut self.road, now);
        (self.last_turn, self.unfinished, self.due) = (now, turn.unfinished, turn.due);
        self.turns = self.turns.saturating_add(u32::from(turn.worked));
    }

    fn number(&self) -> usize {
        usize::from(self.worker.id().0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::path::Path;
    use std::time::Instant;

    use arc_swap::ArcSwap;
    use tokio::sync::mpsc;

    use super::*;
    use crate::crypto::Backends;
    use crate::dataplane::{Crew, FlowTable};
    use crate::edge::{Edge, PortPlan};
    use crate::model::{DropReason, Spi, UnderlayId, WorkerId};
    use crate::net::{SiteDevice, UnderlaySockets, Underlays};
    use crate::packet::ProbeKey;

    const WORKERS: u16 = 3;
    const LONG: Duration = Duration::from_secs(30);

    /// Real threads and sockets of a site whose tunnels are all down.
    struct World {
        carriers: Carriers,
        crew: Crew,
        gate: std::net::SocketAddr,
        _inbox: mpsc::Receiver<crate::forward::ToControl>,
    }

    fn world(lending: Lending) -> World {
        let clock = Clock::new();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws.toml");
        let plan = Arc::new(crate::config::load(&example).unwrap().plan);
        let (_, forwarding) =
            Edge::new(plan, Backends::only(crate::crypto::Backend::RustCrypto), false, [1; 32], clock.now());
        let published = Arc::new(ArcSwap::new(forwarding));
        let crew = Crew::new(WORKERS.into(), published, FlowTable::new(1), ProbeKey::new([1; 32]));
        let (id, ports) = (UnderlayId(0), PortPlan { ike: 0, natt: 0 });
        let sockets = UnderlaySockets::open(id, None, Some(Ipv4Addr::LOCALHOST), ports, WORKERS.into(), None).unwrap();
        let gate = sockets.local(true);
        let underlays = Arc::new(Underlays::new(vec![sockets]));
        let (to_control, _inbox) = mpsc::channel(8);
        let (memory, _) = net::memory_site(8).unwrap();
        let site = SiteDevice::Memory(memory);
        let (roads, handles) = net::roads(site, crew.hand_over.clone(), underlays, to_control).unwrap();
        let pairs = (0..).map(|id| Worker::new(WorkerId(id), crew.clone())).zip(roads).collect();
        let setting = Setting { clock, lending, pinned: false };
        World { carriers: Carriers::start(pairs, handles, &setting, &Arc::default()).unwrap(), crew, gate, _inbox }
    }

    /// Packets of SAs that nobody knows, for every worker in turn; returns when all are counted.
    fn send_and_await(world: &World, rounds: u64) {
        let (peer, started) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Instant::now());
        for round in 1..=rounds {
            for slot in 0..WORKERS {
                peer.send_to(&[&Spi::of_slot(slot, 1).0.to_be_bytes()[..], &[0; 60]].concat(), world.gate).unwrap();
            }
            while world.crew.drops.get(DropReason::UnknownSpi) < round * u64::from(WORKERS) {
                assert!(started.elapsed() < LONG, "a worker sleeps over its packets in round {round}");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn workers_that_move_between_threads_all_the_time_miss_nothing() {
        let restless = Lending { window: Duration::from_micros(50), patience: 1, full: 0, calm: 1, idle: u32::MAX };
        let world = world(restless);
        send_and_await(&world, 3_000);
        let lent = world.carriers.shared.lent.load(Ordering::Relaxed);
        assert!(lent > 100, "lent {lent} times");
        assert!(world.carriers.stop());
    }

    #[test]
    fn one_thread_serves_all_workers_while_its_core_is_not_full() {
        let world = world(Lending { full: 1_001, ..Lending::USUAL });
        send_and_await(&world, 300);
        assert_eq!(world.carriers.shared.lent.load(Ordering::Relaxed), 0);
        assert!(world.crew.counters.iter().all(|counters| counters.totals().waits > 0));
        assert!(world.carriers.stop());
    }
}
