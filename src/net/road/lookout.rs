use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent};

use super::{Road, WORKER_BITS};
use crate::model::WorkerId;
use crate::net::bell::round_up;

/// Events taken at once: all sockets of several workers with many WAN links. The poller tells of
/// more the next time.
const EVENT_LIMIT: usize = 64;

/// Roads that one thread looks after; there are no more workers than cores.
const ROAD_LIMIT: usize = 64;

/// Looks for what there is to do on the roads that one thread serves, with one system call for all.
#[derive(Debug)]
pub struct Lookout {
    poller: Arc<Epoll>,
}

impl Lookout {
    pub fn new() -> io::Result<Lookout> {
        Ok(Lookout { poller: Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?) })
    }

    /// From now on it looks after this road too.
    pub fn add(&self, road: &mut Road) -> io::Result<()> {
        road.watch_by(self.poller.clone())
    }

    pub fn remove(&self, road: &mut Road) {
        road.unwatch();
    }

    /// Looks what has come for any of the roads, which must be those that were added.
    pub fn glance<'a>(&self, roads: impl Iterator<Item = &'a mut Road>) {
        self.ask(&mut roads.take(ROAD_LIMIT).collect(), PollTimeout::ZERO);
    }

    /// Waits until there may be something to do on one of them, at most `timeout`, rounded up to
    /// milliseconds. It may return early for nothing.
    pub fn wait<'a>(&self, roads: impl Iterator<Item = &'a mut Road>, timeout: Duration) {
        let mut roads: ArrayVec<&mut Road, ROAD_LIMIT> = roads.take(ROAD_LIMIT).collect();
        let mut calm = true;
        for road in &mut roads {
            calm &= road.fall_asleep();
        }
        self.ask(&mut roads, if calm { round_up(timeout) } else { PollTimeout::ZERO });
        roads.into_iter().for_each(Road::wake_up);
    }

    fn ask(&self, roads: &mut ArrayVec<&mut Road, ROAD_LIMIT>, timeout: PollTimeout) {
        let mut events = [EpollEvent::empty(); EVENT_LIMIT];
        // The only error that can occur is EINTR, an early return like any other.
        let count = self.poller.wait(&mut events, timeout).unwrap_or(0);
        for event in events.iter().take(count) {
            let worker = WorkerId(event.data() as u16);
            if let Some(road) = roads.iter_mut().find(|road| road.worker() == worker) {
                road.note(event.data() >> WORKER_BITS, event.events());
            }
        }
    }
}
