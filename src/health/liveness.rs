use std::collections::VecDeque;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::estimate::{LATEST, RttEstimate};
use super::trail::Trail;
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
    pub trail: Trail,
    /// Probes lost since the last answer.
    pub lost_in_row: u16,
    estimate: RttEstimate,
    /// Transmissions since the last answer, oldest first.
    sent: VecDeque<Transmission>,
    /// When the next probe is due.
    pub next: Moment,
    due: Option<Waits>,
    loss: LossMemory,
}

/// What share of single probes is lost, quickly and slowly learned.
#[derive(Clone, Copy, Debug)]
struct LossMemory {
    quick: f64,
    slow: f64,
}

/// Transmissions that follow each other so soon, or before an answer was late, ask the same question.
const SUCCESSION: Duration = Duration::from_millis(110);
/// So unlikely that it is not what happened.
const BY_CHANCE: f64 = 0.01;

/// Every path is taken to lose as much at least: nobody knows better before thousands of probes.
const LEAST_LOSS: f64 = 0.02;

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
            trail: Trail::default(),
            lost_in_row: 0,
            estimate: RttEstimate::default(),
            sent: VecDeque::new(),
            next: first,
            due: None,
            loss: LossMemory { quick: LEAST_LOSS, slow: LEAST_LOSS },
        }
    }

    /// The same path with a new tunnel: what it loses stays known.
    pub fn restart(&mut self, window: u16, first: Moment) {
        *self = Liveness { loss: self.loss, ..Liveness::new(window, first) };
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
                self.trail.push(Outcome::Lost, now);
                self.loss.count(true, self.lost_in_row);
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
        let soonest = self.sent.back().map(|last| (last.waits, last.at + self.estimate.resend_after()));
        match soonest.filter(|(_, at)| now < *at) {
            // It counts for nothing, so this one, which does, comes a little later.
            Some((Waits::Confirming, at)) => self.next = at,
            Some((Waits::Counted | Waits::Lost, _)) => self.next = following(self.next, pace, now),
            None => {
                self.next = following(self.next, pace, now);
                self.due = Some(Waits::Counted);
            }
        }
    }

    /// Makes a probe due that counts for nothing.
    pub fn ask(&mut self) {
        self.due.get_or_insert(Waits::Confirming);
    }

    /// The probe that `poll` gave could not be sent.
    pub fn retract(&mut self) -> Option<Moment> {
        self.sent.pop_back().map(|sent| sent.at)
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
            self.learn_from_ambiguous(now.since(first.at), now.since(latest.at), now);
            if self.estimate.prompt().is_none() {
                // Until a round trip is measured, nothing can be noticed quickly.
                self.next = self.next.min(now);
            }
        }
        // The answer is taken to be for the latest transmission that leaves time for a round
        // trip. Those before it had waited longer than is usual, and are lost; those after it
        // will never be answered by themselves, so nothing is known of them.
        let plausible = self.estimate.plausible();
        let latest = self.sent.iter().rposition(|sent| now.since(sent.at) >= plausible).unwrap_or(0);
        // Those that were sent to confirm come in quick succession: the answer may well be for one
        // before them, which counts.
        let near = self.estimate.near();
        let fits = |sent: &Transmission| now.since(sent.at) <= near && now.since(sent.at) >= plausible;
        let counted = self.sent.iter().rposition(|sent| sent.waits == Waits::Counted && fits(sent));
        let answered = counted.unwrap_or(latest);
        for (index, transmission) in self.sent.drain(..).enumerate() {
            if transmission.waits != Waits::Counted {
                continue;
            }
            if index < answered {
                self.window.push(Outcome::Lost);
                self.trail.push(Outcome::Lost, now);
                self.loss.count(true, self.lost_in_row);
            } else if index == answered {
                self.window.push(Outcome::Answered(rtt));
                self.trail.push(Outcome::Answered(rtt), now);
                self.loss.count(false, 0);
            }
        }
        self.lost_in_row = 0;
        if self.due == Some(Waits::Confirming) {
            self.due = None;
        }
    }

    /// The transmissions since `heard` that nothing has answered, oldest first.
    pub fn unanswered(&self, heard: Option<Moment>) -> impl Iterator<Item = Moment> + '_ {
        self.sent.iter().map(|sent| sent.at).filter(move |at| heard.is_none_or(|heard| *at > heard))
    }

    /// The first transmission of the outstanding request.
    pub fn oldest(&self) -> Option<Moment> {
        self.sent.front().map(|sent| sent.at)
    }

    /// See `RttEstimate::prompt`.
    pub fn prompt(&self) -> Option<Duration> {
        self.estimate.prompt()
    }

    /// The share of probes that this path loses by chance.
    pub fn loss(&self) -> f64 {
        self.loss.quick.max(self.loss.slow).max(LEAST_LOSS)
    }

    /// An answer to one of several transmissions.
    fn learn_from_ambiguous(&mut self, first: Duration, latest: Duration, now: Moment) {
        let fitting = self.estimate.fitting().unwrap_or(Duration::MAX);
        // The transmissions that were sent in quick succession up to the latest.
        let pace = self.estimate.prompt().unwrap_or_default().max(SUCCESSION);
        let mut after = now;
        let quick = self.sent.iter().rev().take_while(|sent| {
            let follows = std::mem::replace(&mut after, sent.at).since(sent.at) <= pace;
            follows || now.since(sent.at) <= fitting
        });
        let ages: ArrayVec<Duration, MAX_SENT> = quick.map(|sent| now.since(sent.at)).collect();
        let late = ages.iter().filter(|age| **age > fitting).count();
        let by_chance = self.loss().powi(i32::try_from(late).unwrap_or(i32::MAX));
        if late > 1 && by_chance < BY_CHANCE {
            // Hardly were all of these lost: the path has become slower.
            return self.estimate.sample(ages.last().copied().unwrap_or(first));
        }
        // What is much older than a round trip was lost, rather than answered so late.
        let within = ages.into_iter().filter(|age| *age <= fitting.saturating_mul(4)).max();
        self.estimate.ambiguous(first, latest, within.unwrap_or_default());
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

impl LossMemory {
    /// What is lost in a row is an outage, and says nothing of chance.
    fn count(&mut self, lost: bool, lost_before: u16) {
        if !lost || lost_before < 3 {
            let sample = f64::from(u8::from(lost));
            self.quick += (sample - self.quick) / 32.0;
            self.slow += (sample - self.slow) / 256.0;
        }
    }
}

/// The next point of the schedule after `due`; after a pause, of a new one, so that missed
/// probes are not caught up with.
pub(super) fn following(due: Moment, pace: Duration, now: Moment) -> Moment {
    let next = due + pace;
    if next > now { next } else { now + pace }
}
