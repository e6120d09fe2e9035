use std::collections::VecDeque;
use std::time::Duration;

use super::estimate::{LATEST, RttEstimate};
use super::liveness::following;
use super::trail::Trail;
use super::window::{Outcome, Window};
use super::{ProbeTarget, TargetCounts};
use crate::model::Moment;

/// What is sent within the longest patience (5 s): regular probes each 100 ms, some between them each 50 ms, and those that
/// confirm each 15 ms; and some. Then the oldest is given up.
const MAX_PENDING: usize = 512;

/// Little changes between two probes that follow each other so soon.
const SHORTLY: Duration = Duration::from_millis(250);

/// One inner target, probed through the tunnel from the tunnel's own private address.
///
/// It says something about the path only while its answers come back over the same path: before
/// the first such answer, and after an answer over another tunnel, its losses count for nothing,
/// since they may be those of the other tunnel.
#[derive(Debug)]
pub(super) struct InnerTarget {
    pub target: ProbeTarget,
    pub window: Window,
    /// The same with those between the regular ones.
    pub trail: Trail,
    pub returns: Returns,
    /// Lost or refused since the last answer over any path.
    pub lost_in_row: u16,
    /// What it said last instead of an answer, since it last answered.
    pub refusal: Option<String>,
    pub counts: TargetCounts,
    estimate: RttEstimate,
    pending: VecDeque<Pending>,
    /// When the newest probe was sent that was answered, be it late.
    answered: Option<Moment>,
    /// Counted as lost, and not answered since: the ids, and when they were sent.
    overdue: VecDeque<(u64, Moment)>,
    pub next: Moment,
    due: Option<Weight>,
}

/// What the outcome of a probe is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weight {
    /// A regular one: its outcome counts.
    Counted,
    /// Between the regular ones, to see more of the path: counts for the trail alone.
    Between,
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
pub(super) enum InnerAnswer {
    InTime,
    /// To one that does not count for verdicts, or that was counted as lost.
    Uncounted,
    /// To none that waits for one.
    Ignored,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: u64,
    sent: Moment,
    deadline: Moment,
    excused: bool,
    weight: Weight,
}

impl InnerTarget {
    pub fn new(target: ProbeTarget, window: u16, first: Moment) -> InnerTarget {
        InnerTarget {
            target,
            window: Window::new(window),
            trail: Trail::default(),
            returns: Returns::Never,
            lost_in_row: 0,
            refusal: None,
            counts: TargetCounts::default(),
            estimate: RttEstimate::default(),
            pending: VecDeque::new(),
            answered: None,
            overdue: VecDeque::new(),
            next: first,
            due: None,
        }
    }

    /// The tunnel was set up anew; what was counted stays.
    pub fn restart(&mut self, window: u16, first: Moment) {
        let counts = self.counts;
        *self = InnerTarget { counts, ..InnerTarget::new(self.target.clone(), window, first) };
    }

    /// Gives up on probes whose time is over; tells how many of them count, for the trail too.
    pub fn expire(&mut self, now: Moment) -> u32 {
        // Patience changes with the estimate, so deadlines need not be in order.
        let (mut lost, mut between) = (0, 0);
        let overdue = &mut self.overdue;
        self.pending.retain(|pending| {
            let over = pending.deadline <= now;
            if over {
                lost += u32::from(pending.weight == Weight::Counted);
                between += u32::from(pending.weight == Weight::Between);
                overdue.push_back((pending.id, pending.sent));
            }
            !over
        });
        while self.overdue.len() > MAX_PENDING {
            self.overdue.pop_front();
        }
        for _ in 0..lost {
            self.lose(now);
        }
        for _ in 0..between {
            self.leave_trail(Outcome::Lost, now);
        }
        lost + between
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

    /// Makes a probe due that counts for the trail alone.
    pub fn ask_between(&mut self) {
        self.due.get_or_insert(Weight::Between);
    }

    /// Whether a probe has to be sent now; if so, it is taken as sent with this id.
    pub fn poll(&mut self, id: u64, now: Moment) -> bool {
        let Some(weight) = self.due.take() else { return false };
        if self.pending.len() >= MAX_PENDING {
            // Its answer may still come, and shows then that the path lives.
            self.give_up_oldest(now);
        }
        let deadline = now + self.estimate.patience();
        self.pending.push_back(Pending { id, sent: now, deadline, excused: false, weight });
        self.counts.sent += 1;
        true
    }

    /// An answer over the same path. One that comes after its probe was counted as lost shows that the probe
    /// got through, and how long to wait, but is no result; one that comes twice is nothing at all.
    pub fn answer(&mut self, id: u64, rtt: Duration, now: Moment) -> InnerAnswer {
        let weight = match self.take(id, rtt) {
            Taken::Waiting(weight) => weight,
            Taken::Overdue => return InnerAnswer::Uncounted,
            Taken::Unknown => return InnerAnswer::Ignored,
        };
        self.estimate.sample(rtt);
        (self.lost_in_row, self.refusal) = (0, None);
        self.counts.answered += 1;
        self.returns = Returns::SamePath;
        let outcome = Outcome::Answered(Some(rtt));
        match weight {
            Weight::Confirming => return InnerAnswer::Uncounted,
            Weight::Between => {
                self.leave_trail(outcome, now);
                return InnerAnswer::Uncounted;
            }
            Weight::Counted => {}
        }
        self.leave_trail(outcome, now);
        self.window.push(outcome);
        InnerAnswer::InTime
    }

    /// An answer over another tunnel. Even a late one tells which way the answers take.
    pub fn answer_elsewhere(&mut self, id: u64, rtt: Duration) {
        match self.take(id, rtt) {
            Taken::Waiting(_) => self.estimate.sample(rtt),
            Taken::Overdue => {}
            Taken::Unknown => return,
        }
        self.counts.elsewhere += 1;
        self.returns = Returns::OtherPath;
        (self.lost_in_row, self.refusal) = (0, None);
        self.window.clear();
        self.trail.clear();
    }

    /// The target answered over the same path, and said no. The path has carried both packets, so this is no
    /// loss of its; but who refuses is as good as silent.
    pub fn refuse(&mut self, id: u64, rtt: Duration, why: String) {
        let Taken::Waiting(weight) = self.take(id, rtt) else { return };
        self.estimate.sample(rtt);
        self.counts.refused += 1;
        self.returns = Returns::SamePath;
        self.refusal = Some(why);
        if weight == Weight::Counted {
            self.lost_in_row = self.lost_in_row.saturating_add(1);
        }
    }

    /// The target takes its time after a first sign of it.
    pub fn prolong(&mut self, id: u64, until: Moment) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.deadline = pending.deadline.max(until);
        }
    }

    /// The first probe since one that was answered, if that was sent shortly before. `echoed` is when the path last answered
    /// whomever: what was late by then says nothing of now, and nobody may have been asked here since.
    pub fn missing(&self, echoed: Option<Moment>) -> Option<MissingEcho> {
        let prompt = self.estimate.prompt()?;
        let is_news = |sent: &Moment| self.answered < Some(*sent) && echoed < Some(*sent + prompt);
        let sent = self.pending.iter().map(|pending| pending.sent).find(is_news)?;
        let late = sent + prompt;
        let before = sent.since(self.answered?);
        (before <= SHORTLY).then_some(MissingEcho { late, before })
    }

    /// At any time, over whatever path; who says no does not answer.
    pub fn has_answered(&self) -> bool {
        self.counts.answered + self.counts.late + self.counts.elsewhere > 0
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

    fn give_up_oldest(&mut self, now: Moment) {
        let Some(oldest) = self.pending.pop_front() else { return };
        self.overdue.push_back((oldest.id, oldest.sent));
        match oldest.weight {
            Weight::Counted => self.lose(now),
            Weight::Between => self.leave_trail(Outcome::Lost, now),
            Weight::Confirming => {}
        }
    }

    fn lose(&mut self, now: Moment) {
        self.lost_in_row = self.lost_in_row.saturating_add(1);
        if self.returns == Returns::SamePath {
            self.window.push(Outcome::Lost);
        }
        self.leave_trail(Outcome::Lost, now);
    }

    fn leave_trail(&mut self, outcome: Outcome, now: Moment) {
        if self.returns == Returns::SamePath {
            self.trail.push(outcome, now);
        }
    }

    /// The probe that this answers; what does not belong to one that waits is counted.
    fn take(&mut self, id: u64, rtt: Duration) -> Taken {
        if let Some(index) = self.pending.iter().position(|pending| pending.id == id)
            && rtt <= LATEST
            && let Some(pending) = self.pending.remove(index)
        {
            self.answered = self.answered.max(Some(pending.sent));
            return Taken::Waiting(pending.weight);
        }
        match self.overdue.iter().position(|(overdue, _)| *overdue == id) {
            Some(index) if rtt <= LATEST => {
                let sent = self.overdue.remove(index).map(|(_, sent)| sent);
                self.answered = self.answered.max(sent);
                self.counts.late += 1;
                self.estimate.sample(rtt);
                Taken::Overdue
            }
            Some(_) | None => {
                self.counts.unexpected += 1;
                Taken::Unknown
            }
        }
    }
}

/// An inner probe that was not answered yet, nor was any later one; the one before it, shortly before, was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MissingEcho {
    /// From when on that is unusual.
    pub late: Moment,
    /// So long before it the one was sent that was answered.
    pub before: Duration,
}

/// Which probe an answer is to.
enum Taken {
    Waiting(Weight),
    /// Counted as lost.
    Overdue,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> InnerTarget {
        let described = ProbeTarget { name: "198.51.100.7".to_owned(), light: true };
        InnerTarget::new(described, 30, Moment::ZERO)
    }

    #[test]
    fn what_was_late_before_the_path_answered_anybody_is_not_missing() {
        let (at, ms) = (Moment::from_millis, Duration::from_millis);
        let mut target = target();
        let ask = |target: &mut InnerTarget, id, now| {
            target.ask();
            assert!(target.poll(id, at(now)));
        };
        ask(&mut target, 0, 1_000);
        target.answer(0, ms(20), at(1_020));
        ask(&mut target, 1, 1_100);
        assert_eq!(target.missing(Some(at(1_020))), Some(MissingEcho { late: at(1_170), before: ms(100) }));
        assert_eq!(target.missing(Some(at(1_200))), None);
        // And an answer that is late shows what has got through as well as one in time.
        ask(&mut target, 2, 1_300);
        target.expire(at(1_650));
        assert_eq!(target.answer(1, ms(560), at(1_660)), InnerAnswer::Uncounted);
        assert_eq!(target.missing(Some(at(1_660))).map(|missing| missing.before), Some(ms(200)));
    }

    #[test]
    fn a_slow_path_that_is_asked_quickly_is_heard_when_its_answers_come() {
        let (start, rtt) = (Moment::from_millis(1_000), Duration::from_millis(1_950));
        let asked = |number: u64| start + Duration::from_millis(15 * number);
        let mut target = target();
        for number in 0..400 {
            let now = asked(number);
            target.expire(now);
            if let Some(answered) = (0..number).find(|past| asked(*past) + rtt == now) {
                assert_ne!(target.answer(answered, rtt, now), InnerAnswer::Ignored, "{answered}");
            }
            target.ask();
            assert!(target.poll(number, now));
        }
        assert_eq!((target.counts.answered, target.counts.unexpected), (270, 0));
    }
}
