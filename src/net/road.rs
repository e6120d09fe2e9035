use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tokio::sync::mpsc;

use super::bell::round_up;
use super::{Bell, MemorySite, MultiMessage, Tun, UnderlaySockets, Underlays};
use crate::dataplane::RoadIo;
use crate::forward::{ToControl, ToWorker};
use crate::packet::{Batch, Datagram, PacketBuf};

/// Orders that may wait for a worker: a probe for each of some hundred tunnels at once, many
/// times over. Beyond it control keeps the order, and a probe counts as not sent.
const ORDER_LIMIT: usize = 1_024;

/// Events looked at after one wait. More would be found by the next wait; only the bell and the
/// site device are told apart.
const EVENT_LIMIT: usize = 16;

const BELL: u64 = 0;
const SITE: u64 = 1;
const SOCKET: u64 = 2;

/// The device on the site's side.
pub enum SiteDevice {
    Tun(Tun),
    Memory(MemorySite),
}

/// A worker's world in production: the site device, the sockets of all underlays, and the two
/// queues to control.
pub struct Road {
    site: SiteDevice,
    /// False once the device is gone: nothing comes from it any more.
    site_lives: bool,
    underlays: Arc<Underlays>,
    /// The list that the poller watches, which keeps a replaced pair open until we let go of it.
    watched: Arc<Vec<Arc<UnderlaySockets>>>,
    /// Which underlay is received from first, so that a busy one does not starve the others.
    first: usize,
    calls: MultiMessage,
    poller: Epoll,
    bell: Bell,
    orders: Arc<ArrayQueue<ToWorker>>,
    to_control: mpsc::Sender<ToControl>,
}

/// Control's end of one worker. Clones reach the same worker.
#[derive(Clone)]
pub struct RoadHandle {
    orders: Arc<ArrayQueue<ToWorker>>,
    bell: Bell,
}

impl RoadHandle {
    /// Queues an order and wakes the worker; `false` when its queue is full and the order lost.
    pub fn order(&self, order: ToWorker) -> bool {
        let queued = self.orders.push(order).is_ok();
        self.bell.ring();
        queued
    }

    /// Wakes the worker, so that it sees at once what was published or which sockets changed.
    pub fn wake(&self) {
        self.bell.ring();
    }
}

impl Road {
    /// `to_control` is bounded by whoever made it.
    pub fn new(
        site: SiteDevice,
        underlays: Arc<Underlays>,
        to_control: mpsc::Sender<ToControl>,
    ) -> io::Result<(Road, RoadHandle)> {
        let poller = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = Bell::new()?;
        poller.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        match &site {
            SiteDevice::Tun(tun) => poller.add(tun, EpollEvent::new(EpollFlags::EPOLLIN, SITE))?,
            SiteDevice::Memory(memory) => poller.add(memory, EpollEvent::new(EpollFlags::EPOLLIN, SITE))?,
        }
        let orders = Arc::new(ArrayQueue::new(ORDER_LIMIT));
        let handle = RoadHandle { orders: orders.clone(), bell: bell.clone() };
        let mut road = Road {
            site,
            site_lives: true,
            underlays,
            watched: Arc::default(),
            first: 0,
            calls: MultiMessage::default(),
            poller,
            bell,
            orders,
            to_control,
        };
        road.take_up_sockets();
        Ok((road, handle))
    }

    /// Waits until there may be something to do, at most `timeout`, rounded up to milliseconds.
    /// It may return early for nothing.
    pub fn wait(&mut self, timeout: Duration) {
        self.take_up_sockets();
        // An order that did not fit into the last turn has rung already.
        let timeout = if self.orders.is_empty() { timeout } else { Duration::ZERO };
        let mut events = [EpollEvent::empty(); EVENT_LIMIT];
        // The only error that can occur is EINTR, an early return like any other.
        let count = self.poller.wait(&mut events, round_up(timeout)).unwrap_or(0);
        for event in events.iter().take(count) {
            match event.data() {
                // Cleared before the next turn looks at what it announces, so nothing is missed.
                BELL => self.bell.clear(),
                SITE if event.events().intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) => self.lose_site(),
                _ => {}
            }
        }
    }

    /// False once the site device has been deleted under us; only a new `Road` helps.
    pub fn site_lives(&self) -> bool {
        self.site_lives
    }

    /// Makes the poller watch the sockets that are now in the shared list.
    fn take_up_sockets(&mut self) {
        let current = self.underlays.all();
        if Arc::ptr_eq(&current, &self.watched) {
            return;
        }
        let is_in = |list: &[Arc<UnderlaySockets>], pair| list.iter().any(|other| Arc::ptr_eq(other, pair));
        for gone in self.watched.iter().filter(|pair| !is_in(&current, pair)) {
            for natt in [false, true] {
                // It can only fail where watching it had failed.
                let _ = self.poller.delete(gone.descriptor(natt));
            }
        }
        for new in current.iter().filter(|pair| !is_in(&self.watched, pair)) {
            for natt in [false, true] {
                let watch = EpollEvent::new(EpollFlags::EPOLLIN, SOCKET);
                if let Err(error) = self.poller.add(new.descriptor(natt), watch) {
                    // Still served, though only when something else wakes us.
                    tracing::error!(local = %new.local(natt), %error, "a socket cannot be watched");
                }
            }
        }
        self.watched = current;
    }

    /// A device that is gone is always "ready": watching it further would spin.
    fn lose_site(&mut self) {
        if !std::mem::replace(&mut self.site_lives, false) {
            return;
        }
        let (name, unwatched) = match &self.site {
            SiteDevice::Tun(tun) => (tun.name(), self.poller.delete(tun.as_fd())),
            SiteDevice::Memory(memory) => ("memory", self.poller.delete(memory.as_fd())),
        };
        tracing::error!(device = name, ?unwatched, "the site device is gone");
    }
}

impl RoadIo for Road {
    fn receive_site(&mut self, batch: &mut Batch<PacketBuf>) {
        match &mut self.site {
            SiteDevice::Tun(tun) if self.site_lives => {
                if let Err(error @ (Errno::EBADFD | Errno::ENODEV)) = tun.receive(batch) {
                    tracing::error!(%error, "reading from the site device");
                    self.lose_site();
                }
            }
            SiteDevice::Tun(_) => {}
            SiteDevice::Memory(memory) => memory.receive(batch),
        }
    }

    fn send_site(&mut self, batch: &mut Batch<PacketBuf>) -> usize {
        match &mut self.site {
            SiteDevice::Tun(tun) => tun.send(batch),
            SiteDevice::Memory(memory) => memory.send(batch),
        }
    }

    fn receive_wan(&mut self, batch: &mut Batch<Datagram>) {
        self.take_up_sockets();
        let count = self.watched.len();
        self.first = self.first.checked_add(1).filter(|first| *first < count).unwrap_or(0);
        let (before, from_first) = self.watched.split_at(self.first.min(count));
        for pair in from_first.iter().chain(before) {
            // IKE first: it is little, and a path's life hangs on it.
            for natt in [false, true] {
                if let Err(error) = pair.receive(natt, &mut self.calls, batch) {
                    tracing::debug!(local = %pair.local(natt), %error, "receiving from the WAN");
                }
            }
        }
    }

    fn send_wan(&mut self, batch: &mut Batch<Datagram>, refused: &mut dyn FnMut(usize, i32)) {
        self.take_up_sockets();
        let same_socket =
            |one: &Datagram, next: &Datagram| one.leg.underlay == next.leg.underlay && one.leg.natt == next.leg.natt;
        let mut offset = 0;
        for run in batch.filled().chunk_by(same_socket) {
            let Some(leg) = run.first().map(|datagram| datagram.leg) else { continue };
            match self.watched.iter().find(|pair| pair.id() == leg.underlay) {
                Some(pair) => pair.send(leg.natt, &mut self.calls, run, &mut |index, errno| {
                    refused(offset + index, errno);
                }),
                // Its sockets are closed at present.
                None => (offset..offset + run.len()).for_each(|index| refused(index, libc::ENOTCONN)),
            }
            offset += run.len();
        }
        batch.clear();
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        self.orders.pop()
    }

    fn tell_control(&mut self, message: ToControl) -> bool {
        self.to_control.try_send(message).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Instant;

    use super::*;
    use crate::edge::PortPlan;
    use crate::forward::ProbeOrder;
    use crate::model::{Leg, PathId, Spi, UnderlayId};
    use crate::net::{HostSide, memory_site};

    /// Longer than any test waits; a wait that ends by it has failed.
    const LONG: Duration = Duration::from_secs(20);

    struct World {
        road: Road,
        handle: RoadHandle,
        hosts: HostSide,
        underlays: Arc<Underlays>,
        inbox: mpsc::Receiver<ToControl>,
    }

    fn world(underlays: u8) -> World {
        let (memory, hosts) = memory_site(64).unwrap();
        let underlays = Arc::new(Underlays::new((0..underlays).map(sockets).collect()));
        let (to_control, inbox) = mpsc::channel(1);
        let (road, handle) = Road::new(SiteDevice::Memory(memory), underlays.clone(), to_control).unwrap();
        World { road, handle, hosts, underlays, inbox }
    }

    fn sockets(id: u8) -> UnderlaySockets {
        let address = Some(Ipv4Addr::new(127, 0, 1, id + 1));
        UnderlaySockets::open(UnderlayId(id.into()), None, address, PortPlan { ike: 0, natt: 0 }, None).unwrap()
    }

    fn leg(underlays: &Underlays, from: u16, to: u16, natt: bool) -> Leg {
        let local = |id| underlays.get(UnderlayId(id)).unwrap().local(natt);
        Leg { underlay: UnderlayId(from), natt, local: local(from), remote: local(to) }
    }

    fn datagrams(capacity: usize) -> Batch<Datagram> {
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let blank = Leg { underlay: UnderlayId(0), natt: false, local: nowhere, remote: nowhere };
        Batch::new(capacity, || Datagram { leg: blank, tos: 0, packet: PacketBuf::with_capacity(2_000) })
    }

    fn put(batch: &mut Batch<Datagram>, leg: Leg, bytes: &[u8]) {
        let slot = batch.next_free().unwrap();
        slot.leg = leg;
        slot.tos = 0;
        assert!(slot.packet.fill(bytes));
        batch.claim(1);
    }

    fn order(id: u64) -> ToWorker {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        ToWorker::Probe(ProbeOrder { path: PathId(0), id, source: nobody, target: nobody })
    }

    #[test]
    fn a_host_a_peer_and_control_each_end_the_wait() {
        let World { mut road, handle, hosts, underlays, .. } = world(2);
        let started = Instant::now();
        assert!(hosts.send(b"packet"));
        road.wait(LONG);
        let mut packets = Batch::new(4, || PacketBuf::with_capacity(100));
        road.receive_site(&mut packets);
        road.receive_site(&mut packets);
        assert_eq!(packets.filled().len(), 1);

        underlays.send_ike(leg(&underlays, 0, 1, true), b"ike").unwrap();
        road.wait(LONG);
        let mut arrived = datagrams(4);
        road.receive_wan(&mut arrived);
        assert_eq!(arrived.filled()[0].leg, leg(&underlays, 1, 0, true));
        assert_eq!(arrived.filled()[0].packet.bytes(), b"\0\0\0\0ike");

        let ringing = std::thread::spawn(move || handle.order(order(5)));
        road.wait(LONG);
        assert!(ringing.join().unwrap());
        assert!(matches!(road.next_order(), Some(ToWorker::Probe(ProbeOrder { id: 5, .. }))));
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn with_nothing_to_do_the_wait_lasts() {
        let World { mut road, handle, .. } = world(1);
        handle.wake();
        road.wait(LONG);
        let started = Instant::now();
        road.wait(Duration::from_millis(30));
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn an_order_that_was_left_over_keeps_the_worker_awake() {
        let World { mut road, handle, .. } = world(1);
        assert!(handle.order(order(1)) && handle.order(order(2)));
        road.wait(LONG);
        assert!(road.next_order().is_some());
        let started = Instant::now();
        road.wait(LONG);
        assert!(started.elapsed() < LONG);
        assert!(road.next_order().is_some());
    }

    #[test]
    fn orders_and_messages_beyond_the_bounds_are_refused() {
        let World { mut road, handle, mut inbox, .. } = world(1);
        let accepted = (0..2_000).filter(|id| handle.order(order(*id))).count();
        assert_eq!(accepted, ORDER_LIMIT);
        assert!(road.tell_control(ToControl::FirstUse { spi: Spi(1) }));
        assert!(!road.tell_control(ToControl::FirstUse { spi: Spi(2) }));
        assert!(matches!(inbox.try_recv(), Ok(ToControl::FirstUse { spi: Spi(1) })));
    }

    #[test]
    fn a_mixed_batch_leaves_by_its_legs_in_order_and_refusals_name_their_index() {
        let World { mut road, underlays, .. } = world(3);
        let (a, b) = (leg(&underlays, 0, 2, true), leg(&underlays, 1, 2, true));
        let closed = Leg { underlay: UnderlayId(9), ..a };
        let mut batch = datagrams(8);
        for (byte, leg) in (0u8..).zip([a, a, b, closed, a, b]) {
            put(&mut batch, leg, &[byte]);
        }
        let mut refused = Vec::new();
        road.send_wan(&mut batch, &mut |index, errno| refused.push((index, errno)));
        assert_eq!(refused, [(3, libc::ENOTCONN)]);
        assert!(batch.is_empty());
        let mut arrived = datagrams(8);
        road.receive_wan(&mut arrived);
        let from = |leg: Leg| {
            let same = arrived.filled().iter().filter(move |datagram| datagram.leg.remote == leg.local);
            same.map(|datagram| datagram.packet.bytes()[0]).collect::<Vec<_>>()
        };
        assert_eq!((from(a), from(b)), (vec![0, 1, 4], vec![2, 5]));
    }

    #[test]
    fn a_busy_underlay_does_not_starve_another() {
        let World { mut road, underlays, .. } = world(3);
        for _ in 0..50 {
            underlays.send_ike(leg(&underlays, 2, 0, true), b"flood").unwrap();
        }
        underlays.send_ike(leg(&underlays, 2, 1, true), b"mine").unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut batch = datagrams(4);
            road.receive_wan(&mut batch);
            seen.extend(batch.filled().iter().map(|datagram| datagram.leg.underlay));
        }
        assert!(seen.contains(&UnderlayId(1)), "{seen:?}");
    }

    #[test]
    fn replaced_sockets_are_served_and_the_old_ones_close() {
        let World { mut road, handle, underlays, .. } = world(2);
        let old = Arc::downgrade(&underlays.get(UnderlayId(0)).unwrap());
        underlays.put(sockets(0));
        handle.wake();
        road.wait(LONG);
        road.wait(Duration::ZERO);
        assert!(old.upgrade().is_none(), "nobody holds the old sockets any more");
        underlays.send_ike(leg(&underlays, 1, 0, false), b"ike").unwrap();
        let started = Instant::now();
        road.wait(LONG);
        assert!(started.elapsed() < LONG);
        let mut arrived = datagrams(4);
        road.receive_wan(&mut arrived);
        assert_eq!(arrived.filled().len(), 1);
        underlays.remove(UnderlayId(0));
        road.receive_wan(&mut datagrams(1));
        let started = Instant::now();
        road.wait(Duration::from_millis(20));
        assert!(started.elapsed() >= Duration::from_millis(20));
    }
}
