use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::breakout_follow::BreakoutFollower;
use super::carriers::{Carriers, Ending, Lending, Setting};
use super::complaints::Complaints;
use super::control_loop::{ControlLoop, Inboxes};
use super::inquiries::Inquiries;
use super::key_log::KeyLog;
use super::lan_follow::LanFollower;
use super::recorder::Recorder;
use crate::control::{Call, Request, Response};
use crate::crypto::Backends;
use crate::dataplane::{Crew, FlowTable, Worker};
use crate::edge::{Edge, Effect, Plan, SiteEvent, SiteStatus};
use crate::forward::Notebook;
use crate::model::{Chance, Moment, WorkerId};
use crate::net::{self, Breakouts, Clock, Names, SiteDevice, Underlays};
use crate::packet::ProbeKey;

/// Messages from the workers that may wait for control; beyond it they are lost and counted, and
/// IKE is retransmitted.
const MESSAGE_QUEUE: usize = 4_096;

/// Requests of clients that may wait.
const CALL_QUEUE: usize = 64;

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
    /// By which interfaces the site's networks are reached, where rules ask for it.
    pub lan: Option<LanFollower>,
    /// The devices by which flows leave outside of the tunnels, and by which links they can.
    pub breakouts: Option<(Arc<Breakouts>, BreakoutFollower)>,
}

/// A running site: one thread for control, one for each worker.
pub struct Node {
    calls: mpsc::Sender<Call>,
    stop: Option<oneshot::Sender<()>>,
    ended: Arc<Notify>,
    control: Option<JoinHandle<()>>,
    carriers: Option<Carriers>,
}

impl Node {
    pub fn start(plan: Plan, parts: Parts) -> io::Result<Node> {
        let clock = parts.clock;
        let started = clock.now();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        let mut chance = Chance::from_seed(seed);
        let (workers, pinned) = (plan.dataplane.workers, plan.dataplane.pinned);
        let flow_limit = plan.dataplane.flow_limit;
        let backends = match plan.dataplane.aead_backend {
            Some(backend) => Backends::only(backend),
            None => {
                let origin = Instant::now();
                Backends::measure(|| origin.elapsed())
            }
        };
        for served in backends.served().iter().filter(|served| served.suite.encryption().is_supported()) {
            let (cipher, backend, times) = (served.suite.encryption().name(), served.backend, served.times);
            tracing::debug!(cipher, %backend, ?times, "who seals and opens packets");
        }
        let plan = Arc::new(plan);
        let (mut edge, mut first) = Edge::new(plan.clone(), backends, parts.key_log.is_some(), chance.bytes(), started);

        // No packet comes before it is known where from.
        if let Some(lan) = &parts.lan {
            edge.handle_lan(lan.borrow().clone());
            if let Some(Effect::Publish(next)) = edge.poll_effect() {
                first = next;
            }
        }

        let workers = usize::from(workers.get());
        let published = Arc::new(ArcSwap::new(first.clone()));
        let flows = FlowTable::with_limit(chance.next_u64(), flow_limit);
        let mut crew = Crew::new(workers, published, flows, ProbeKey::new(chance.bytes()));
        let recorder = match &plan.recording {
            None => None,
            Some(recording) => {
                let notes = Arc::new(Notebook::default());
                crew.notes = Some(notes.clone());
                Some(Recorder::start(&plan, recording, first, notes, clock.clone())?)
            }
        };
        let underlays = Arc::new(Underlays::new(Vec::new()));
        let (to_control, messages) = mpsc::channel(MESSAGE_QUEUE);
        let (calls, call_inbox) = mpsc::channel(CALL_QUEUE);
        let (stop, stop_inbox) = oneshot::channel();

        let (mut roads, handles) = net::roads(parts.site, crew.hand_over.clone(), underlays.clone(), to_control)?;
        let mut node = Node { calls, stop: Some(stop), ended: Arc::new(Notify::new()), control: None, carriers: None };
        if let Some((devices, _)) = &parts.breakouts {
            roads.iter_mut().for_each(|road| road.break_out_by(devices));
        }
        let pairs = (0..).map(|id| Worker::new(WorkerId(id), crew.clone())).zip(roads).collect();
        let setting = Setting { clock: clock.clone(), lending: Lending::USUAL, pinned };
        node.carriers = Some(Carriers::start(pairs, handles.clone(), &setting, &node.ended)?);
        let control = ControlLoop {
            edge,
            clock,
            started,
            crew,
            roads: handles,
            underlays,
            fwmark: parts.fwmark,
            names: parts.names,
            key_log: parts.key_log,
            events: parts.events,
            addresses: parts.addresses,
            lan: parts.lan,
            breakouts: parts.breakouts.map(|(_, follower)| follower),
            replaced: VecDeque::new(),
            orders: VecDeque::new(),
            complaints: Complaints::default(),
            inquiries: Inquiries::default(),
            recorder,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ending = Ending(node.ended.clone());
        node.control = Some(std::thread::Builder::new().name("trefoil-control".to_owned()).spawn(move || {
            let _ending = ending;
            runtime.block_on(control.run(Inboxes { messages, calls: call_inbox, stop: stop_inbox }));
        })?);
        Ok(node)
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
            Response::Flows(_)
            | Response::Explanation(_)
            | Response::Rules { .. }
            | Response::Done { .. }
            | Response::Refused { .. } => None,
        }
    }

    /// Waits until one of the threads has ended by itself: with half of it the site is dead.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Deletes the tunnels, tells the peers and ends all threads.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // Control first: while it tells the peers, the workers still carry their answers.
        let ended = self.control.take().is_none_or(|control| control.join().is_ok());
        let all_ended = self.carriers.take().is_none_or(Carriers::stop) && ended;
        if !all_ended {
            tracing::error!("a thread of the node ended with a panic; see above");
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
    use std::time::Duration;

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
            lan: None,
            breakouts: None,
        };
        let plan = Plan { recording: None, ..crate::config::load(&example).unwrap().plan };
        let mut node = Node::start(plan, parts).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let within = |node: &Node, patience| {
            runtime.block_on(async { tokio::time::timeout(patience, node.ended()).await.is_ok() })
        };
        assert!(!within(&node, Duration::from_millis(300)), "all threads run");
        // As if it had panicked.
        drop(node.carriers.take());
        assert!(within(&node, Duration::from_secs(20)));
    }
}
