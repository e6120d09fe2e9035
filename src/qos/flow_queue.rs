use std::time::Duration;

use super::codel::{self, Codel, Patience};
use crate::model::{Mbps, Moment};
use crate::packet::SitePacket;

/// Queues that flows are spread over by their hash (RFC 8290 5.2.1): two of a hundred active flows rarely meet.
const FLOWS: usize = 1_024;

/// Bytes that a flow may send before another's turn: a full packet, or at high rates as much as leaves in this time.
const QUANTUM: u64 = 1_514;
const QUANTUM_TIME: Duration = Duration::from_micros(250);
const QUANTUM_MOST: u64 = 65_536;

/// Time of the rate that may wait in all. CoDel keeps it far shorter wherever senders listen.
const MOST_TIME: Duration = Duration::from_millis(250);
/// At the least, in bytes: two super-packets.
const MOST_LEAST: u64 = 131_072;

/// Packets of more bytes are super-packets, which have places of their own.
const SMALL: usize = 2_048;
/// Places of each kind. 16 MiB of super-packets, and 8 MiB of others, are as many as a link of a gigabit needs;
/// the kernel gives the memory as it is used.
const SMALL_PLACES: (u64, u64) = (512, 4_096);
const LARGE_PLACES: (u64, u64) = (16, 256);

/// Of a flow that has filled the queue, so many packets are dropped at once: then the search for the longest flow
/// is not made for each packet of a flood (RFC 8290 4.1).
const DROPPED_AT_ONCE: usize = 64;

/// Packets that wait for a link, each in the queue of its flow; fair by bytes, with precedence for flows that are new
/// (RFC 8290). Everything is allocated at once.
pub struct FlowQueue<N> {
    flows: Box<[Flow]>,
    /// The first `small_places` hold a packet of up to `SMALL` bytes each.
    places: Box<[Place<N>]>,
    small_places: usize,
    /// Free places: small, and large.
    free: [Vec<u32>; 2],
    /// Flows that have just begun to send, and those that have had a turn.
    fresh: List,
    known: List,
    bytes: u64,
    packets: usize,
    limit: u64,
    quantum: i64,
    patience: Patience,
}

#[derive(Clone, Default)]
struct Flow {
    packets: List,
    /// The next flow of the list that it is in.
    next: Option<u32>,
    listed: bool,
    /// Bytes that it may send yet in this turn.
    credit: i64,
    bytes: u64,
    /// Packets in small and in large places.
    held: [u32; 2],
    codel: Codel,
}

struct Place<N> {
    packet: SitePacket,
    note: Option<N>,
    /// A sender of it understands a mark.
    markable: bool,
    since: Moment,
    /// Inner bytes that have not been sent yet.
    left: u64,
    next: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct List {
    ends: Option<(u32, u32)>,
}

/// A packet that is to wait.
pub struct Arriving<'a, N> {
    pub packet: &'a mut SitePacket,
    /// Of its flow.
    pub hash: u64,
    pub note: N,
    pub markable: bool,
}

/// What is to happen to a piece of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Pass,
    /// It is to say that it met congestion.
    Mark,
    Drop,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Served {
    flow: u32,
    place: u32,
    pub fate: Fate,
    /// Bytes of its turn that are left.
    pub credit: u64,
    pub waited: Duration,
}

impl<N: Copy> FlowQueue<N> {
    /// For a link of this rate, with room for packets of up to `longest` bytes.
    pub fn new(rate: Mbps, longest: usize) -> FlowQueue<N> {
        let in_time = |time: Duration| u64::from(rate.value()).saturating_mul(time.as_nanos() as u64) / 8_000;
        let limit = in_time(MOST_TIME).max(MOST_LEAST);
        let small = (limit / 1_000).clamp(SMALL_PLACES.0, SMALL_PLACES.1);
        let large = (limit / longest.max(1) as u64).clamp(LARGE_PLACES.0, LARGE_PLACES.1);
        let place = |bytes| Place {
            packet: SitePacket::with_capacity(bytes),
            note: None,
            markable: false,
            since: Moment::ZERO,
            left: 0,
            next: None,
        };
        let places: Box<[Place<N>]> =
            (0..small).map(|_| place(SMALL)).chain((0..large).map(|_| place(longest))).collect();
        let small = small as u32;
        FlowQueue {
            flows: vec![Flow::default(); FLOWS].into_boxed_slice(),
            free: [(0..small).rev().collect(), (small..places.len() as u32).rev().collect()],
            small_places: small as usize,
            places,
            fresh: List::default(),
            known: List::default(),
            bytes: 0,
            packets: 0,
            limit,
            quantum: in_time(QUANTUM_TIME).clamp(QUANTUM, QUANTUM_MOST) as i64,
            patience: Patience::at(rate),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Inner bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Takes a packet in, and perhaps leaves another buffer in its place. `lost` is told of what is dropped for it: it
    /// is taken from the flow that has most, and only where nothing else helps it is the packet itself.
    pub fn push(&mut self, arriving: Arriving<N>, now: Moment, lost: &mut dyn FnMut(&N)) {
        let Arriving { packet, hash, note, markable } = arriving;
        let length = packet.packet.len();
        let kind = usize::from(length > SMALL);
        if self.bytes.saturating_add(length as u64) > self.limit {
            self.make_room(|flow| flow.bytes, lost);
        }
        if self.free[kind].is_empty() {
            self.make_room(|flow| u64::from(flow.held[kind]), lost);
        }
        let Some(index) = self.free[kind].pop() else { return lost(&note) };
        let Some(place) = self.places.get_mut(index as usize) else { return lost(&note) };
        if kind == 0 {
            (place.packet.offload, place.packet.queue) = (packet.offload, packet.queue);
            place.packet.packet.fill(packet.packet.bytes());
        } else {
            std::mem::swap(&mut place.packet, packet);
        }
        (place.note, place.markable, place.since) = (Some(note), markable, now);
        (place.left, place.next) = (length as u64, None);

        let number = (hash % FLOWS as u64) as u32;
        self.append(number, index);
        let Some(flow) = self.flows.get_mut(number as usize) else { return };
        flow.bytes += length as u64;
        flow.held[kind] += 1;
        self.bytes += length as u64;
        self.packets += 1;
        if !flow.listed {
            (flow.listed, flow.credit) = (true, self.quantum);
            self.fresh.append(number, &mut self.flows, |flow| &mut flow.next);
        }
    }

    /// The next packet whose turn it is; `None` when nothing waits.
    pub(super) fn next(&mut self, now: Moment) -> Option<Served> {
        loop {
            let is_fresh = self.fresh.first().is_some();
            let number = self.fresh.first().or_else(|| self.known.first())?;
            let flow = self.flows.get_mut(number as usize)?;
            let Some(index) = flow.packets.first() else {
                self.leave_list(is_fresh);
                // RFC 8290 4.2: one that was fresh waits a round, or it would always come first.
                if is_fresh && self.known.first().is_some() {
                    self.known.append(number, &mut self.flows, |flow| &mut flow.next);
                } else if let Some(flow) = self.flows.get_mut(number as usize) {
                    flow.listed = false;
                }
                continue;
            };
            if flow.credit <= 0 {
                flow.credit += self.quantum;
                self.leave_list(is_fresh);
                self.known.append(number, &mut self.flows, |flow| &mut flow.next);
                continue;
            }
            let place = self.places.get(index as usize)?;
            let waited = now.since(place.since);
            let fate = match flow.codel.strikes(self.patience, waited, codel::is_more(flow.bytes), now) {
                true if place.markable => Fate::Mark,
                true => Fate::Drop,
                false => Fate::Pass,
            };
            return Some(Served { flow: number, place: index, fate, credit: flow.credit.unsigned_abs(), waited });
        }
    }

    /// The packet whose turn it is.
    pub(super) fn packet(&mut self, served: &Served) -> Option<(&mut SitePacket, &mut N)> {
        let place = self.places.get_mut(served.place as usize)?;
        Some((&mut place.packet, place.note.as_mut()?))
    }

    /// Of the packet whose turn it was, `wire` bytes have left, and so many inner ones are still to be sent.
    pub(super) fn finish(&mut self, served: &Served, wire: u64, left: u64) {
        let Some(place) = self.places.get_mut(served.place as usize) else { return };
        let gone = place.left.saturating_sub(left);
        place.left -= gone;
        let is_done = place.left == 0;
        self.bytes = self.bytes.saturating_sub(gone);
        if let Some(flow) = self.flows.get_mut(served.flow as usize) {
            flow.credit -= wire as i64;
            flow.bytes = flow.bytes.saturating_sub(gone);
        }
        if is_done {
            self.remove(served.flow, None, served.place);
        }
    }

    /// Takes out the next packet that is wanted, each flow's in order: into `packet`, and another buffer is perhaps left
    /// here for it. `flow` is where the search goes on.
    pub(super) fn withdraw(
        &mut self,
        flow: &mut u32,
        wanted: &dyn Fn(&N) -> bool,
        packet: &mut SitePacket,
    ) -> Option<N> {
        while let Some(queue) = self.flows.get(*flow as usize) {
            let (mut before, mut here) = (None, queue.packets.first());
            while let Some(index) = here {
                let place = self.places.get_mut(index as usize)?;
                if let Some(note) = place.note.filter(wanted) {
                    if (index as usize) < self.small_places {
                        (packet.offload, packet.queue) = (place.packet.offload, place.packet.queue);
                        packet.packet.fill(place.packet.packet.bytes());
                    } else {
                        std::mem::swap(&mut place.packet, packet);
                    }
                    self.forget_bytes(*flow, index);
                    self.remove(*flow, before, index);
                    return Some(note);
                }
                (before, here) = (Some(index), place.next);
            }
            *flow += 1;
        }
        None
    }

    /// Drops what came first of the flow that has most, since what comes after it says more of the flow.
    fn make_room(&mut self, of: impl Fn(&Flow) -> u64, lost: &mut dyn FnMut(&N)) {
        let longest = self.flows.iter().zip(0..).max_by_key(|(flow, _)| of(flow));
        let Some((longest, number)) = longest.map(|(flow, number)| (of(flow), number)) else { return };
        for _ in 0..DROPPED_AT_ONCE {
            let Some(flow) = self.flows.get(number as usize).filter(|flow| of(flow) > longest / 2) else { return };
            let Some(index) = flow.packets.first() else { return };
            let Some(place) = self.places.get_mut(index as usize) else { return };
            if let Some(note) = &place.note {
                lost(note);
            }
            self.forget_bytes(number, index);
            self.remove(number, None, index);
        }
    }

    /// What is left of a packet will not be sent from here.
    fn forget_bytes(&mut self, number: u32, index: u32) {
        let left = self.places.get_mut(index as usize).map_or(0, |place| std::mem::take(&mut place.left));
        self.bytes = self.bytes.saturating_sub(left);
        if let Some(flow) = self.flows.get_mut(number as usize) {
            flow.bytes = flow.bytes.saturating_sub(left);
        }
    }

    /// Takes a packet out of its flow, which stands behind `before`, or first.
    fn remove(&mut self, number: u32, before: Option<u32>, index: u32) {
        let Some(flow) = self.flows.get_mut(number as usize) else { return };
        flow.packets.remove(before, index, &mut self.places, |place| &mut place.next);
        let kind = usize::from(index as usize >= self.small_places);
        flow.held[kind] = flow.held[kind].saturating_sub(1);
        self.packets = self.packets.saturating_sub(1);
        self.free[kind].push(index);
    }

    fn append(&mut self, number: u32, index: u32) {
        if let Some(flow) = self.flows.get_mut(number as usize) {
            flow.packets.append(index, &mut self.places, |place| &mut place.next);
        }
    }

    fn leave_list(&mut self, is_fresh: bool) {
        let list = if is_fresh { &mut self.fresh } else { &mut self.known };
        if let Some(first) = list.first() {
            list.remove(None, first, &mut self.flows, |flow| &mut flow.next);
        }
    }
}

/// A chain through the items of a slice, each of which holds the number of the next.
impl List {
    fn first(&self) -> Option<u32> {
        self.ends.map(|(first, _)| first)
    }

    fn append<T>(&mut self, number: u32, items: &mut [T], next: impl Fn(&mut T) -> &mut Option<u32>) {
        if let Some(item) = items.get_mut(number as usize) {
            *next(item) = None;
        }
        self.ends = Some(match self.ends {
            None => (number, number),
            Some((first, last)) => {
                if let Some(item) = items.get_mut(last as usize) {
                    *next(item) = Some(number);
                }
                (first, number)
            }
        });
    }

    /// Takes out the one with this number, which stands behind `before`, or first.
    fn remove<T>(
        &mut self,
        before: Option<u32>,
        number: u32,
        items: &mut [T],
        next: impl Fn(&mut T) -> &mut Option<u32>,
    ) {
        let Some((first, last)) = self.ends else { return };
        let behind = items.get_mut(number as usize).and_then(|item| next(item).take());
        if let Some(item) = before.and_then(|before| items.get_mut(before as usize)) {
            *next(item) = behind;
        }
        let first = if before.is_some() { Some(first) } else { behind };
        let last = if behind.is_some() { Some(last) } else { before };
        self.ends = first.zip(last);
    }
}
