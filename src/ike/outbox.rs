use std::collections::VecDeque;

use super::{Event, SaId};
use crate::model::{Leg, PathId};

/// 8,192 datagrams wait to be sent: some 4 MiB. What comes on top is lost like on the wire, and
/// retransmitted like that.
const TRANSMITS_MAX: usize = 8192;

/// 16,384 events wait for the caller, who drains them after every call; beyond it, datagrams are
/// refused, so that no event is ever lost.
const EVENTS_MAX: usize = 16_384;

/// What the endpoint has to say: datagrams and events, each in order.
#[derive(Default)]
pub struct Outbox {
    transmits: VecDeque<(Leg, Vec<u8>)>,
    events: VecDeque<(PathId, SaId, Event)>,
}

impl Outbox {
    pub fn send(&mut self, leg: Leg, bytes: Vec<u8>) {
        if self.transmits.len() < TRANSMITS_MAX {
            self.transmits.push_back((leg, bytes));
        }
    }

    pub fn report(&mut self, path: PathId, sa: SaId, event: Event) {
        self.events.push_back((path, sa, event));
    }

    pub fn poll_transmit(&mut self) -> Option<(Leg, Vec<u8>)> {
        self.transmits.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<(PathId, SaId, Event)> {
        self.events.pop_front()
    }

    pub fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_MAX
    }
}
