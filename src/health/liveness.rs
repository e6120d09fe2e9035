use std::collections::VecDeque;
use std::time::Duration;

use super::estimate::{LATEST, RttEstimate};
use super::window::{Outcome, Window};
use crate::model::Moment;

/// The longest patience (5 s) at the shortest interval (100 ms), and some; then the oldest goes.
const MAX_SENT: usize = 64;

/// One kind of a path's own probes: IKE liveness exchanges. IKE allows one request at a time, so
/// a probe that is due while another waits sends the same request again, and the one answer that
/// comes is for all of its transmissions.
#[derive(Debug)]
pub(super) struct Liveness {
    pub window: Window,
    /// Probes lost since the last answer.
    pub lost_in_row: u16,
    estimate: RttEstimate,
    /// Transmissions since the last answer, oldest first.
    sent: VecDeque<Transmission>,
    /// When the next probe is due.
    pub next: Moment,
    due: Option<Waits>,
}

#[derive(Clone, Copy, Debug)]
struct Transmission {
    at: Moment,
    deadline: Moment,
    excused: bool,
    waits: Waits,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// A regular probe whose outcome will count.
    Counted,
    /// Sent at once after a loss, to learn whether it was only that one; counts for nothing.
    Confirming,
    /// Counted as lost.
    Lost,
}

impl Liveness {
    pub fn new(window: u16, first: Moment) -> Liveness {
        Liveness {
            window: Window::new(window),
            lost_in_row: 0,
            estimate: RttEstimate::default(),
            sent: VecDeque::new(),
            next: first,
            due: None,
        }
    }

    /// Gives up on probes whose time is over; tells how many of them were sent after `alive`,
    /// the path's last sign of life.
    pub fn expire(&mut self, now: Moment, alive: Option<Moment>, confirm: bool) -> u16 {
        let mut in_row: u16 = 0;
        let mut latest_lost = false;
        for transmission in &mut self.sent {
            latest_lost = false;
            if transmission.waits == Waits::Counted && transmission.deadline <= now {
                transmission.waits = Waits::Lost;
                self.window.push(Outcome::Lost);
                self.lost_in_row = self.lost_in_row.saturating_add(1);
                latest_lost = true;
                if alive.is_none_or(|alive| alive < transmission.at) {
                    in_row = in_row.saturating_add(1);
                }
            }
        }
        if latest_lost && confirm && self.due.is_none() {
            self.due = Some(Waits::Confirming);
        }
        in_row
    }

    pub fn schedule(&mut self, now: Moment, pace: Duration) {
        if now < self.next {
            return;
        }
        self.next = following(self.next, pace, now);
        let too_soon = self.sent.back().is_some_and(|last| now < last.at + self.estimate.resend_after());
        if !too_soon {
            self.due = Some(Waits::Counted);
        }
    }

    /// Whether a probe has to be sent now; if so, it is taken as sent.
    pub fn poll(&mut self, now: Moment) -> bool {
        let Some(waits) = self.due.take() else { return false };
        if self.sent.len() >= MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(Transmission { at: now, deadline: now + self.estimate.patience(), excused: false, waits });
        true
    }

    /// The exchange was answered. `rtt` when the request had been sent once.
    pub fn answer(&mut self, rtt: Option<Duration>, now: Moment) {
        let rtt = rtt.map(|rtt| rtt.min(LATEST));
        if let Some(rtt) = rtt {
            self.estimate.sample(rtt);
        } else if let (Some(first), Some(latest)) = (self.sent.front(), self.sent.back()) {
            self.estimate.ambiguous(now.since(first.at), now.since(latest.at));
        }
        // The answer is taken to be for the latest transmission that leaves time for a round
        // trip. Those before it had waited longer than is usual, and are lost; those after it
        // will never be answered by themselves, so nothing is known of them.
        let plausible = self.estimate.plausible();
        let answered = self.sent.iter().rposition(|sent| now.since(sent.at) >= plausible).unwrap_or(0);
        for (index, transmission) in self.sent.drain(..).enumerate() {
            if transmission.waits != Waits::Counted {
                continue;
            }
            if index < answered {
                self.window.push(Outcome::Lost);
            } else if index == answered {
                self.window.push(Outcome::Answered(rtt));
            }
        }
        self.lost_in_row = 0;
        if self.due == Some(Waits::Confirming) {
            self.due = None;
        }
    }

    /// After a pause of our own, answers may wait unread: judge nothing, once, before `until`.
    pub fn excuse(&mut self, until: Moment) {
        for transmission in self.sent.iter_mut().filter(|sent| !sent.excused) {
            transmission.deadline = transmission.deadline.max(until);
            transmission.excused = true;
        }
    }

    pub fn next_event(&self) -> Moment {
        let waiting = self.sent.iter().filter(|sent| sent.waits == Waits::Counted).map(|sent| sent.deadline).min();
        waiting.map_or(self.next, |deadline| deadline.min(self.next))
    }
}

/// The next point of the schedule after `due`; after a pause, of a new one, so that missed
/// probes are not caught up with.
pub(super) fn following(due: Moment, pace: Duration, now: Moment) -> Moment {
    let next = due + pace;
    if next > now { next } else { now + pace }
}
