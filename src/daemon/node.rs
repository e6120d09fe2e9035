use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::control_loop::{ControlLoop, Inboxes};
use super::key_log::KeyLog;
use crate::control::{Call, Request, Response};
use crate::dataplane::{FlowTable, Worker};
use crate::edge::{Edge, Plan, SiteEvent, SiteStatus};
use crate::model::{Chance, DropCounters, Moment, WorkerId};
use crate::net::{Clock, Names, Road, RoadHandle, SiteDevice, Underlays};
use crate::packet::ProbeKey;

/// Messages from the worker that may wait for control; beyond it they are lost and counted, and
/// IKE is retransmitted.
const MESSAGE_QUEUE: usize = 4_096;

/// Requests of clients that may wait.
const CALL_QUEUE: usize = 64;

/// How long the worker sleeps at most when nothing wakes it.
const WORKER_NAP: Duration = Duration::from_millis(100);

/// What a node is made of besides its plan.
pub struct Parts {
    pub site: SiteDevice,
    pub names: Names,
    pub clock: Clock,
    /// The mark of our own packets, where routing rules keep them out of the tunnels.
    pub fwmark: Option<u32>,
    pub key_log: Option<KeyLog>,
    /// Tells a listener of every event.
    pub events: Option<mpsc::UnboundedSender<(Moment, SiteEvent)>>,
    /// Follows the addresses that the WAN links have at present, for the host's routing.
    pub addresses: Option<watch::Sender<Vec<Ipv4Addr>>>,
}

/// A running site: one thread for control, one for packets.
pub struct Node {
    calls: mpsc::Sender<Call>,
    stop: Option<oneshot::Sender<()>>,
    stop_worker: Arc<AtomicBool>,
    wake_worker: RoadHandle,
    ended: Arc<Notify>,
    control: Option<JoinHandle<()>>,
    worker: Option<JoinHandle<()>>,
}

/// Tells that a thread has ended, in whatever way.
struct Ending(Arc<Notify>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Node {
    pub fn start(plan: Plan, parts: Parts) -> io::Result<Node> {
        let clock = parts.clock;
        let started = clock.now();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let mut chance = Chance::from_seed(seed);
        let (edge, first) = Edge::new(Arc::new(plan), parts.key_log.is_some(), chance.bytes(), started);

        let published = Arc::new(ArcSwap::new(first));
        let flows = Arc::new(FlowTable::new(chance.next_u64()));
        let drops = Arc::new(DropCounters::default());
        let seen = Arc::new(AtomicU64::new(0));
        let underlays = Arc::new(Underlays::new(Vec::new()));
        let (to_control, messages) = mpsc::channel(MESSAGE_QUEUE);
        let (calls, call_inbox) = mpsc::channel(CALL_QUEUE);
        let (stop, stop_inbox) = oneshot::channel();

        let probe_key = ProbeKey::new(chance.bytes());
        let (mut road, handle) = Road::new(parts.site, underlays.clone(), to_control)?;
        let mut worker =
            Worker::new(WorkerId(0), published.clone(), flows.clone(), seen.clone(), drops.clone(), probe_key);
        let stop_worker = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(Notify::new());
        let worker_thread = {
            let (stop, clock, ending) = (stop_worker.clone(), clock.clone(), Ending(ended.clone()));
            std::thread::Builder::new().name("trefoil-worker".to_owned()).spawn(move || {
                let _ending = ending;
                while !stop.load(Ordering::Acquire) {
                    if !worker.turn(&mut road, clock.now()).worked {
                        road.wait(WORKER_NAP);
                    }
                }
            })?
        };
        let control = ControlLoop {
            edge,
            clock,
            started,
            published,
            seen,
            road: handle.clone(),
            underlays,
            fwmark: parts.fwmark,
            names: parts.names,
            flows,
            drops,
            key_log: parts.key_log,
            events: parts.events,
            addresses: parts.addresses,
            troubles: BTreeMap::new(),
            replaced: VecDeque::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ending = Ending(ended.clone());
        let control_thread = std::thread::Builder::new().name("trefoil-control".to_owned()).spawn(move || {
            let _ending = ending;
            runtime.block_on(control.run(Inboxes { messages, calls: call_inbox, stop: stop_inbox }));
        })?;
        Ok(Node {
            calls,
            stop: Some(stop),
            stop_worker,
            wake_worker: handle,
            ended,
            control: Some(control_thread),
            worker: Some(worker_thread),
        })
    }

    /// Where requests of clients go.
    pub fn calls(&self) -> mpsc::Sender<Call> {
        self.calls.clone()
    }

    /// The status now, asked from a thread outside any async runtime; `None` when control has
    /// stopped.
    pub fn status(&self) -> Option<SiteStatus> {
        let (reply, answer) = oneshot::channel();
        self.calls.blocking_send(Call { request: Request::Status {}, reply }).ok()?;
        match answer.blocking_recv().ok()? {
            Response::Status(status) => Some(*status),
            Response::Refused { .. } => None,
        }
    }

    /// Waits until one of the threads has ended by itself: with half of it the site is dead.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Deletes the tunnels, tells the peers and ends both threads.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // Control first: while it tells the peers, the worker still carries their answers.
        for thread in [self.control.take(), self.worker.take()].into_iter().flatten() {
            if thread.thread().name() == Some("trefoil-worker") {
                self.stop_worker.store(true, Ordering::Release);
                self.wake_worker.wake();
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the node ended with a panic; see above");
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_end_of_a_thread_is_noticed() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws.toml");
        let (site, _hosts) = crate::net::memory_site(16).unwrap();
        let parts = Parts {
            site: SiteDevice::Memory(site),
            names: Names::Static(Default::default()),
            clock: Clock::new(),
            fwmark: None,
            key_log: None,
            events: None,
            addresses: None,
        };
        let node = Node::start(crate::config::load(&example).unwrap().plan, parts).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let within = |patience| runtime.block_on(async { tokio::time::timeout(patience, node.ended()).await.is_ok() });
        assert!(!within(Duration::from_millis(300)), "both threads run");
        // As if it had panicked.
        node.stop_worker.store(true, Ordering::Release);
        node.wake_worker.wake();
        assert!(within(Duration::from_secs(5)));
    }
}
