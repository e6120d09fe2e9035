use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::estimate::{LATEST, RttEstimate};
use super::liveness::following;
use super::window::{Outcome, Window};
use crate::model::Moment;

/// The longest patience (5 s) at the shortest interval (100 ms), and some; then the oldest goes.
const MAX_PENDING: usize = 64;

/// One inner target, probed through the tunnel from the tunnel's own private address.
///
/// It says something about the path only while its answers come back over the same path: before
/// the first such answer, and after an answer over another tunnel, its losses count for nothing,
/// since they may be those of the other tunnel.
#[derive(Debug)]
pub(super) struct EchoTarget {
    pub address: IpAddr,
    pub window: Window,
    pub returns: Returns,
    /// Lost since the last answer over any path.
    pub lost_in_row: u16,
    estimate: RttEstimate,
    pending: VecDeque<Pending>,
    pub next: Moment,
    due: Option<Weight>,
}

/// What the outcome of a probe is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weight {
    /// A regular one: its outcome counts.
    Counted,
    /// Sent to learn quickly whether the path lives; counts for nothing.
    Confirming,
}

/// Over what a target's answers come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Returns {
    /// Not answered yet.
    Never,
    /// The same path: its results count.
    SamePath,
    /// Another tunnel.
    OtherPath,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EchoAnswer {
    InTime,
    /// After its probe was counted as lost, or to one that does not count.
    Uncounted,
    Ignored,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: u64,
    deadline: Moment,
    excused: bool,
    weight: Weight,
}

impl EchoTarget {
    pub fn new(address: IpAddr, window: u16, first: Moment) -> EchoTarget {
        EchoTarget {
            address,
            window: Window::new(window),
            returns: Returns::Never,
            lost_in_row: 0,
            estimate: RttEstimate::default(),
            pending: VecDeque::new(),
            next: first,
            due: None,
        }
    }

    pub fn expire(&mut self, now: Moment) {
        // Patience changes with the estimate, so deadlines need not be in order.
        let over = |pending: &Pending| pending.deadline <= now;
        let lost = self.pending.iter().filter(|pending| over(pending) && pending.weight == Weight::Counted).count();
        self.pending.retain(|pending| !over(pending));
        for _ in 0..lost {
            self.lose();
        }
    }

    pub fn schedule(&mut self, now: Moment, pace: Duration) {
        if self.next <= now {
            self.next = following(self.next, pace, now);
            self.due = Some(Weight::Counted);
        }
    }

    /// Makes a probe due that counts for nothing.
    pub fn ask(&mut self) {
        self.due.get_or_insert(Weight::Confirming);
    }

    /// Whether a probe has to be sent now; if so, it is taken as sent with this id.
    pub fn poll(&mut self, id: u64, now: Moment) -> bool {
        let Some(weight) = self.due.take() else { return false };
        if self.pending.len() >= MAX_PENDING
            && self.pending.pop_front().is_some_and(|oldest| oldest.weight == Weight::Counted)
        {
            self.lose();
        }
        self.pending.push_back(Pending { id, deadline: now + self.estimate.patience(), excused: false, weight });
        true
    }

    /// An answer over the same path. One that comes after its probe was counted as lost, or
    /// twice, is a sign of life and teaches how long to wait, but is no result.
    pub fn answer(&mut self, id: u64, rtt: Duration) -> EchoAnswer {
        if rtt > LATEST {
            return EchoAnswer::Ignored;
        }
        self.estimate.sample(rtt);
        self.lost_in_row = 0;
        let Some(weight) = self.take(id) else { return EchoAnswer::Uncounted };
        self.returns = Returns::SamePath;
        if weight == Weight::Confirming {
            return EchoAnswer::Uncounted;
        }
        self.window.push(Outcome::Answered(Some(rtt)));
        EchoAnswer::InTime
    }

    /// An answer over another tunnel. Even a late one tells which way the answers take.
    pub fn answer_elsewhere(&mut self, id: u64, rtt: Duration) {
        if rtt > LATEST {
            return;
        }
        self.take(id);
        self.estimate.sample(rtt);
        self.returns = Returns::OtherPath;
        self.lost_in_row = 0;
        self.window.clear();
    }

    pub fn excuse(&mut self, until: Moment) {
        for pending in self.pending.iter_mut().filter(|pending| !pending.excused) {
            pending.deadline = pending.deadline.max(until);
            pending.excused = true;
        }
    }

    pub fn next_event(&self) -> Moment {
        let waiting = self.pending.iter().map(|pending| pending.deadline).min();
        waiting.map_or(self.next, |deadline| deadline.min(self.next))
    }

    fn lose(&mut self) {
        self.lost_in_row = self.lost_in_row.saturating_add(1);
        if self.returns == Returns::SamePath {
            self.window.push(Outcome::Lost);
        }
    }

    fn take(&mut self, id: u64) -> Option<Weight> {
        let found = self.pending.iter().position(|pending| pending.id == id);
        found.and_then(|index| self.pending.remove(index)).map(|pending| pending.weight)
    }
}
