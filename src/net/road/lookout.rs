use std::io;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::Road;
use crate::model::WorkerId;
use crate::net::bell::round_up;

/// Roads named after one wait; of more, the poller tells the next time.
const EVENT_LIMIT: usize = 64;

/// Waits for several roads at once, where one thread serves them.
#[derive(Debug)]
pub struct Lookout {
    poller: Epoll,
}

impl Lookout {
    pub fn new() -> io::Result<Lookout> {
        Ok(Lookout { poller: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// From now on its waits are for this road too.
    pub fn add(&self, road: &Road) -> io::Result<()> {
        let name = EpollEvent::new(EpollFlags::EPOLLIN, road.worker().0.into());
        Ok(self.poller.add(&road.poller.0, name)?)
    }

    pub fn remove(&self, road: &Road) {
        // It can only fail for a road that was not added.
        let _ = self.poller.delete(&road.poller.0);
    }

    /// As `Road::wait`, for all of the roads, which must be those that were added.
    pub fn wait<'a>(&self, roads: impl Iterator<Item = &'a mut Road>, timeout: Duration) {
        std::thread::yield_now();
        let mut roads: ArrayVec<&mut Road, EVENT_LIMIT> = roads.take(EVENT_LIMIT).collect();
        let mut calm = true;
        for road in &mut roads {
            calm &= road.fall_asleep();
        }
        let named = self.ask(if calm { round_up(timeout) } else { PollTimeout::ZERO });
        for road in roads {
            road.wake_up();
            if named.contains(&road.worker()) {
                road.ask(PollTimeout::ZERO);
            }
        }
    }

    /// Looks for what has come for any of the roads meanwhile. While one of them has work without
    /// end, the others are not asked otherwise.
    pub fn glance<'a>(&self, roads: impl Iterator<Item = &'a mut Road>) {
        let named = self.ask(PollTimeout::ZERO);
        for road in roads.filter(|road| named.contains(&road.worker())) {
            road.ask(PollTimeout::ZERO);
        }
    }

    fn ask(&self, timeout: PollTimeout) -> ArrayVec<WorkerId, EVENT_LIMIT> {
        let mut events = [EpollEvent::empty(); EVENT_LIMIT];
        // The only error that can occur is EINTR, an early return like any other.
        let count = self.poller.wait(&mut events, timeout).unwrap_or(0);
        events.iter().take(count).map(|event| WorkerId(event.data() as u16)).collect()
    }
}
