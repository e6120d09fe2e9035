//! A worker's world in production: its queue of the site device, its sockets, and the queues to
//! control and to the other workers.

mod lookout;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use tokio::sync::mpsc;

pub use self::lookout::Lookout;
use super::doorbell::Doorbell;
use super::{Breakouts, MemorySite, MultiMessage, RunLimits, Tun, UnderlaySockets, Underlays};
use crate::dataplane::{HandOver, RoadIo, Unsent};
use crate::forward::{ToControl, ToWorker};
use crate::model::{LinkId, UnderlayId, WorkerId};
use crate::packet::{Batch, SiteOffloads, SitePacket, Train};

/// Orders that may wait for a worker: a probe for each of some hundred tunnels at once, many
/// times over. Beyond it control keeps the order for a moment.
const ORDER_LIMIT: usize = 1_024;

/// Bytes taken from the WAN in one turn; see `tun::TURN_BYTES`.
const TURN_BYTES: usize = 160 << 10;

// What an event of a road tells of. The rest are sockets: underlay and port, see `name_socket`.
const BELL: u64 = 0;
const SITE: u64 = 1;
const SOCKETS: u64 = 2;

/// The device on the site's side.
pub enum SiteDevice {
    Tun(Tun),
    Memory(MemorySite),
}

/// One worker's world.
pub struct Road {
    worker: WorkerId,
    site: Arc<SiteDevice>,
    /// False once the device is gone: nothing comes from it any more.
    site_lives: bool,
    underlays: Arc<Underlays>,
    /// The list that the poller watches, which keeps a replaced one open until we let go of it.
    watched: Arc<Vec<Arc<UnderlaySockets>>>,
    /// Which underlay is received from first, so that a busy one does not starve the others.
    first: usize,
    ready: Ready,
    /// Somebody has called since the last turn began.
    called: bool,
    calls: MultiMessage,
    limits: RunLimits,
    /// That of the lookout which serves it at present.
    poller: Option<Arc<Epoll>>,
    /// By `WorkerId`.
    doorbells: Arc<[Doorbell]>,
    hand_over: Arc<HandOver>,
    orders: Arc<ArrayQueue<ToWorker>>,
    to_control: mpsc::Sender<ToControl>,
    breakouts: Arc<Breakouts>,
}

/// What may have something to read. What was found empty is left alone until the poller names it.
#[derive(Default)]
struct Ready {
    site: bool,
    /// By the position in `watched`: the IKE port, and the NAT-traversal port.
    sockets: Vec<[bool; 2]>,
}

/// Control's end of one worker. Clones reach the same worker.
#[derive(Clone)]
pub struct RoadHandle {
    orders: Arc<ArrayQueue<ToWorker>>,
    doorbell: Doorbell,
}

impl RoadHandle {
    /// Queues an order and wakes the worker; gives it back when the queue is full.
    pub fn order(&self, order: ToWorker) -> Result<(), ToWorker> {
        let queued = self.orders.push(order);
        self.doorbell.call();
        queued
    }

    /// Wakes the worker, so that it sees at once what was published or which sockets changed.
    pub fn wake(&self) {
        self.doorbell.call();
    }
}

/// One road for each worker that `hand_over` was made for, by `WorkerId`, and control's end of
/// each. Each reads its own queue of the site device, where it has so many, and its own socket
/// of each underlay. `to_control` is bounded by whoever made it.
pub fn roads(
    site: SiteDevice,
    hand_over: Arc<HandOver>,
    underlays: Arc<Underlays>,
    to_control: mpsc::Sender<ToControl>,
) -> io::Result<(Vec<Road>, Vec<RoadHandle>)> {
    let (site, workers) = (Arc::new(site), hand_over.workers());
    let doorbells = std::iter::repeat_with(Doorbell::new).take(workers).collect::<io::Result<Arc<[_]>>>()?;
    let (mut roads, mut handles) = (Vec::new(), Vec::new());
    for (worker, doorbell) in (0..).map(WorkerId).zip(doorbells.iter()) {
        let orders = Arc::new(ArrayQueue::new(ORDER_LIMIT));
        handles.push(RoadHandle { orders: orders.clone(), doorbell: doorbell.clone() });
        roads.push(Road {
            worker,
            site: site.clone(),
            site_lives: true,
            underlays: underlays.clone(),
            watched: Arc::default(),
            first: 0,
            ready: Ready::default(),
            called: false,
            calls: MultiMessage::default(),
            limits: RunLimits::default(),
            poller: None,
            doorbells: doorbells.clone(),
            hand_over: hand_over.clone(),
            orders,
            to_control: to_control.clone(),
            breakouts: Arc::default(),
        });
    }
    Ok((roads, handles))
}

impl SiteDevice {
    /// What the poller watches for this worker, if it reads anything from the device.
    fn descriptor(&self, worker: WorkerId) -> Option<BorrowedFd<'_>> {
        match self {
            SiteDevice::Tun(tun) => tun.queue(worker),
            SiteDevice::Memory(memory) => (worker == WorkerId(0)).then(|| memory.as_fd()),
        }
    }
}

impl Road {
    /// Is something known to wait for a turn?
    pub fn has_work(&mut self) -> bool {
        self.called |= self.doorbell().is_called() && self.doorbell().wake_up();
        let to_read = self.ready.site && self.site_lives || self.ready.sockets.iter().flatten().any(|ready| *ready);
        self.called || to_read || self.is_left_work()
    }

    /// A turn begins: it will find what any call so far was about.
    pub fn begin_turn(&mut self) {
        self.called = false;
        if self.poller.is_none() {
            // Nobody tells what there is to read.
            self.ready.site = true;
            self.ready.sockets.iter_mut().for_each(|ready| *ready = [true; 2]);
        }
    }

    /// By which flows leave outside of the tunnels.
    pub fn break_out_by(&mut self, breakouts: &Arc<Breakouts>) {
        self.breakouts = breakouts.clone();
    }

    /// The worker it is the world of.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// False once the site device has been deleted under us; only a new `Road` helps.
    pub fn site_lives(&self) -> bool {
        self.site_lives
    }

    /// From now on a call rings; `false` when something has been left for the worker before.
    fn fall_asleep(&mut self) -> bool {
        self.take_up_sockets();
        // A call that came before we were asleep has rung for nobody, and what it was about may
        // be nothing that waits here.
        let fell = self.doorbell().fall_asleep();
        self.called |= !fell;
        fell && !self.is_left_work()
    }

    fn wake_up(&mut self) {
        self.called |= self.doorbell().wake_up();
    }

    fn is_left_work(&self) -> bool {
        !self.orders.is_empty() || self.hand_over.is_waiting(self.worker)
    }

    /// From now on this poller tells of what there is to read here.
    fn watch_by(&mut self, poller: Arc<Epoll>) -> io::Result<()> {
        poller.add(self.doorbell(), self.event(BELL))?;
        if let Some(device) = self.site.descriptor(self.worker).filter(|_| self.site_lives) {
            poller.add(device, self.event(SITE))?;
        }
        self.poller = Some(poller);
        for pair in self.watched.clone().iter() {
            self.watch_sockets(pair);
        }
        self.take_up_sockets();
        Ok(())
    }

    /// No poller tells of it any more.
    fn unwatch(&mut self) {
        let Some(poller) = self.poller.take() else { return };
        let sockets = self.watched.iter().flat_map(|pair| self.sockets(pair)).flatten();
        let device = self.site.descriptor(self.worker).filter(|_| self.site_lives);
        for descriptor in sockets.chain(device).chain([self.doorbell().as_fd()]) {
            // It can only fail where watching it had failed.
            let _ = poller.delete(descriptor);
        }
    }

    /// What the poller has told.
    fn note(&mut self, event: u64, flags: EpollFlags) {
        match event {
            // Cleared before the next turn looks at what it announces, so nothing is missed.
            BELL => self.doorbell().clear(),
            SITE if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) => self.lose_site(),
            SITE => self.ready.site = true,
            socket => {
                let (id, natt) = named_socket(socket);
                let position = self.watched.iter().position(|pair| pair.id() == id);
                if let Some(ready) = position.and_then(|position| self.ready.sockets.get_mut(position)) {
                    ready[usize::from(natt)] = true;
                }
            }
        }
    }

    /// Makes the poller watch the sockets that are now in the shared list.
    fn take_up_sockets(&mut self) {
        let Some(current) = self.underlays.other_than(&self.watched) else { return };
        let is_in = |list: &[Arc<UnderlaySockets>], pair| list.iter().any(|other| Arc::ptr_eq(other, pair));
        for gone in self.watched.iter().filter(|pair| !is_in(&current, pair)) {
            for socket in self.sockets(gone).into_iter().flatten() {
                // It can only fail where watching it had failed.
                let _ = self.poller.as_ref().map(|poller| poller.delete(socket));
            }
        }
        for new in current.iter().filter(|pair| !is_in(&self.watched, pair)) {
            self.watch_sockets(new);
        }
        self.watched = current;
        // Positions have changed: ask all of them.
        self.ready.sockets.clear();
        self.ready.sockets.resize(self.watched.len(), [true, true]);
    }

    fn watch_sockets(&self, pair: &UnderlaySockets) {
        let Some(poller) = &self.poller else { return };
        for (natt, socket) in [false, true].into_iter().zip(self.sockets(pair)) {
            let Some(socket) = socket else { continue };
            if let Err(error) = poller.add(socket, self.event(name_socket(pair.id(), natt))) {
                // Only a lack of memory makes it fail; then the sockets stay unread.
                tracing::error!(local = %pair.local(natt), %error, "a socket cannot be watched");
            }
        }
    }

    /// How the poller names something of this road to its lookout.
    fn event(&self, what: u64) -> EpollEvent {
        EpollEvent::new(EpollFlags::EPOLLIN, what << WORKER_BITS | u64::from(self.worker.0))
    }

    /// The sockets of an underlay that this worker reads: IKE, and NAT traversal.
    fn sockets<'a>(&self, pair: &'a UnderlaySockets) -> [Option<BorrowedFd<'a>>; 2] {
        [false, true].map(|natt| pair.descriptor(natt, self.worker))
    }

    /// A device that is gone is always "ready": watching it further would spin.
    fn lose_site(&mut self) {
        if !std::mem::replace(&mut self.site_lives, false) {
            return;
        }
        let device = self.site.descriptor(self.worker);
        let unwatched = device.zip(self.poller.as_ref()).map(|(device, poller)| poller.delete(device));
        let name = match &*self.site {
            SiteDevice::Tun(tun) => tun.name(),
            SiteDevice::Memory(_) => "memory",
        };
        tracing::error!(device = name, ?unwatched, "the site device is gone");
    }

    fn doorbell(&self) -> &Doorbell {
        &self.doorbells[usize::from(self.worker.0)]
    }
}

/// Of an event's name, the lowest bits are the worker's.
const WORKER_BITS: u32 = u16::BITS;

/// How a road names a socket.
fn name_socket(id: UnderlayId, natt: bool) -> u64 {
    SOCKETS + (u64::from(id.0) << 1) + u64::from(natt)
}

fn named_socket(name: u64) -> (UnderlayId, bool) {
    let number = name.saturating_sub(SOCKETS);
    (UnderlayId((number >> 1) as u16), number & 1 == 1)
}

impl RoadIo for Road {
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>) {
        if !self.ready.site || !self.site_lives {
            return;
        }
        match &*self.site {
            SiteDevice::Tun(tun) => match tun.receive(self.worker, batch) {
                Ok(more) => self.ready.site = more,
                Err(error @ (Errno::EBADFD | Errno::ENODEV)) => {
                    tracing::error!(%error, "reading from the site device");
                    self.lose_site();
                }
                Err(error) => tracing::debug!(%error, "reading from the site device"),
            },
            SiteDevice::Memory(memory) => {
                memory.receive(batch);
                self.ready.site = batch.is_full();
            }
        }
    }

    fn site_offloads(&self) -> SiteOffloads {
        match &*self.site {
            SiteDevice::Tun(tun) => tun.offloads(),
            SiteDevice::Memory(_) => SiteOffloads::default(),
        }
    }

    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize {
        match &*self.site {
            SiteDevice::Tun(tun) => tun.send(batch),
            SiteDevice::Memory(memory) => memory.send(batch),
        }
    }

    fn send_breakout(&mut self, link: LinkId, packet: &mut SitePacket) -> bool {
        self.breakouts.send(link, packet)
    }

    fn receive_wan(&mut self, batch: &mut Batch<Train>) {
        self.take_up_sockets();
        let count = self.watched.len();
        self.first = self.first.checked_add(1).filter(|first| *first < count).unwrap_or(0);
        let mut bytes = TURN_BYTES;
        for position in (self.first..count).chain(0..self.first) {
            let (pair, ready) = (&self.watched[position], &mut self.ready.sockets[position]);
            // IKE first: it is little, and a path's life hangs on it.
            for (natt, ready) in [false, true].into_iter().zip(ready) {
                // Not every worker has a socket of every port.
                *ready &= pair.descriptor(natt, self.worker).is_some();
                if !*ready {
                    continue;
                }
                match pair.receive(natt, self.worker, &mut self.calls, batch, &mut bytes) {
                    Ok(more) => *ready = more,
                    Err(error) => tracing::debug!(local = %pair.local(natt), %error, "receiving from the WAN"),
                }
            }
        }
    }

    fn send_wan(&mut self, batch: &mut Batch<Train>, refused: &mut dyn FnMut(Unsent)) {
        self.take_up_sockets();
        let same_socket =
            |one: &Train, next: &Train| one.leg.underlay == next.leg.underlay && one.leg.natt == next.leg.natt;
        let mut offset = 0;
        for trains in batch.filled().chunk_by(same_socket) {
            let Some(leg) = trains.first().map(|train| train.leg) else { continue };
            let mut refuse = |unsent: Unsent| refused(Unsent { index: offset + unsent.index, ..unsent });
            match self.watched.iter().find(|pair| pair.id() == leg.underlay) {
                Some(pair) => {
                    pair.send(leg.natt, self.worker, &mut self.calls, &mut self.limits, trains, &mut refuse);
                }
                // Its sockets are closed at present.
                None => {
                    for (index, train) in trains.iter().enumerate() {
                        refuse(Unsent { index, datagrams: train.datagrams().len(), errno: libc::ENOTCONN });
                    }
                }
            }
            offset += trains.len();
        }
        batch.clear();
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        self.orders.pop()
    }

    fn tell_control(&mut self, message: ToControl) -> bool {
        self.to_control.try_send(message).is_ok()
    }

    fn wake(&mut self, worker: WorkerId) {
        if let Some(doorbell) = self.doorbells.get(usize::from(worker.0)) {
            doorbell.call();
        }
    }
}
