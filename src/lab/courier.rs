use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::clock::Clock;
use super::relay::{Direction, Parcel, Relay};
use super::wan::{Lines, lock};
use crate::model::Moment;

/// Carries datagrams between the two ends of the relays, each as late as its line says.
pub struct Courier {
    relays: Vec<Relay>,
    lines: Arc<Mutex<Lines>>,
    clock: Clock,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// Counts parcels, so that those due at the same moment keep their order.
    order: u64,
}

/// A parcel between its relay's two ends.
struct UnderWay {
    at: Moment,
    order: u64,
    relay: usize,
    parcel: Parcel,
}

/// 32,768 datagrams of 1,500 bytes, 48 MiB: far more than the links' queues and delays hold.
const UNDER_WAY_LIMIT: usize = 32_768;

/// Datagrams taken from one socket before the others get their turn.
const RECEIVE_BURST: usize = 32;

/// How long to sleep at most, and so how long a stop takes.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

impl Courier {
    pub fn new(relays: Vec<Relay>, lines: Arc<Mutex<Lines>>, clock: Clock) -> Courier {
        Courier { relays, lines, clock, under_way: BinaryHeap::new(), order: 0 }
    }

    /// Takes what waits in the sockets and delivers what is due.
    pub fn turn(&mut self) {
        for index in 0..self.relays.len() {
            for direction in Direction::ALL {
                for _ in 0..RECEIVE_BURST {
                    let Some(relay) = self.relays.get_mut(index) else { break };
                    let Some(parcel) = relay.receive(direction) else { break };
                    let way = relay.way();
                    self.accept(index, way, parcel);
                }
            }
        }
        let now = self.clock.now();
        while self.under_way.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(due)) = self.under_way.pop() else { break };
            let Some(relay) = self.relays.get(due.relay) else { continue };
            if lock(&self.lines).handle_exit(relay.way(), due.parcel.direction, due.parcel.bytes.len()) {
                relay.deliver(&due.parcel);
            }
        }
    }

    /// Waits for a datagram or for the next one to be due.
    pub fn sleep(&self) {
        let due = self.under_way.peek().map(|Reverse(next)| next.at.since(self.clock.now()));
        let timeout = TimeSpec::from_duration(due.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP));
        let sockets = self.relays.iter().flat_map(Relay::sockets);
        let mut waiting: Vec<PollFd> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
        // An interrupted wait is one that ended early.
        let _early = ppoll(&mut waiting, Some(timeout), None);
    }

    fn accept(&mut self, relay: usize, way: (usize, usize), parcel: Parcel) {
        let mut lines = lock(&self.lines);
        if self.under_way.len() >= UNDER_WAY_LIMIT {
            lines.handle_overflow(way.0, parcel.direction);
            return;
        }
        let bytes = parcel.bytes.len();
        if let Some(at) = lines.handle_entry(way, parcel.direction, parcel.tos, bytes, self.clock.now()) {
            self.order += 1;
            self.under_way.push(Reverse(UnderWay { at, order: self.order, relay, parcel }));
        }
    }
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &UnderWay) -> bool {
        self.order == other.order
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &UnderWay) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &UnderWay) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
