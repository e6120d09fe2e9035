use std::collections::VecDeque;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::alarm::{Alarm, Echoes, Life, PeerSigns, Surroundings, Trouble};
use super::inner::InnerAnswer;
use super::inner_targets::{InnerTargets, MAX_TARGETS, TargetReport};
use super::judge::{Exceeded, Judge, Worse, metrics};
use super::liveness::Liveness;
use super::scrutiny::Scrutiny;
use super::window::Window;
use super::{HealthSettings, Metrics, ProbeTarget};
use crate::model::{Chance, Moment, Verdict};

/// So many answers make a new path's numbers worth a verdict.
const START_ANSWERS: u16 = 3;
/// The range of `HealthSettings::interval`.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// While the verdict is open (new, silent, or coming back), probes are at most this far apart.
const OPEN_PACE: Duration = Duration::from_secs(1);
/// And so far when a path that is new, or was down, has answered.
const RETURN_PACE: Duration = Duration::from_millis(250);
/// Called later than this, we were paused, and answers may wait unread.
const PAUSED: Duration = Duration::from_millis(250);
/// Changes that nobody has asked for yet; the oldest is forgotten. Each fact makes at most one.
const MAX_UNREAD: usize = 8;

/// Measures and judges one path.
///
/// Order: `handle_*`, then `poll_probe` and `poll_change` until `None`, then `poll_timeout`. What
/// decides: the path's own signs of life, which are answers to its IKE liveness exchange and to
/// inner probes that come back on it; see `docs/steering.md`.
#[derive(Debug)]
pub struct PathHealth {
    settings: HealthSettings,
    judge: Judge,
    verdict: Verdict,
    verdict_since: Moment,
    exceeded: Exceeded,
    liveness: Liveness,
    alarm: Alarm,
    scrutiny: Option<Scrutiny>,
    targets: InnerTargets,
    /// The last sign of life since the last restart.
    alive: Option<Moment>,
    /// Answered own probes: since the restart, and since the last one that was lost.
    answers: u16,
    answered_in_row: u16,
    /// Liveness probes lost since the last sign of life.
    lost_in_row: u16,
    changes: VecDeque<VerdictChange>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerdictChange {
    pub from: Verdict,
    pub to: Verdict,
    /// In plain words.
    pub reason: String,
    pub at: Moment,
}

/// A probe to send now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Names an `Inner` in what is told of it.
    pub id: u64,
    pub kind: ProbeKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeKind {
    /// An IKE liveness exchange (RFC 7296 1.4); when one is outstanding, the same request again.
    Liveness,
    /// What the target with this place in the list is to be asked, through the tunnel.
    Inner(usize),
}

impl PathHealth {
    /// The first probes are spread by chance, so that the paths of a site take turns.
    pub fn new(settings: HealthSettings, targets: &[ProbeTarget], now: Moment, chance: &mut Chance) -> PathHealth {
        let interval = settings.interval.clamp(INTERVALS.0, INTERVALS.1);
        let inner_interval = settings.inner_interval.clamp(INTERVALS.0, INTERVALS.1);
        let settings = HealthSettings { interval, inner_interval, ..settings };
        let spread = interval.min(OPEN_PACE);
        let first = |chance: &mut Chance| now + spread.mul_f64(f64::from(chance.below(1000)) / 1000.0);
        let liveness = Liveness::new(settings.window, first(chance));
        PathHealth {
            settings,
            judge: Judge::new(settings, liveness.window.size()),
            verdict: Verdict::Unknown,
            verdict_since: now,
            exceeded: Exceeded::default(),
            liveness,
            alarm: Alarm::new(settings.sensitivity.nerves(), now),
            scrutiny: Scrutiny::new(settings.scrutiny, now),
            targets: InnerTargets::new(&settings, targets, first, chance),
            alive: None,
            answers: 0,
            answered_in_row: 0,
            lost_in_row: 0,
            changes: VecDeque::new(),
        }
    }

    /// Counts probes whose time is over as lost, makes those due that are, and looks for what is
    /// unusual.
    pub fn handle_timeout(&mut self, now: Moment, mut around: Surroundings) {
        let due = self.poll_timeout();
        if now.since(due) > PAUSED {
            self.liveness.excuse(now + PAUSED);
            self.targets.excuse(now + PAUSED);
        }
        let confirm = self.verdict != Verdict::Down;
        let lost = self.liveness.expire(now, self.alive, confirm);
        if lost > 0 {
            self.lost_in_row = self.lost_in_row.saturating_add(lost);
            self.answered_in_row = 0;
        }
        let watched = self.scrutiny.as_ref().and_then(|_| self.targets.watched());
        let lost_of_watched = self.targets.expire(watched, now);
        if let Some(scrutiny) = self.scrutiny.as_mut().filter(|_| lost_of_watched) {
            scrutiny.handle_loss(now);
        }
        let (echoes, is_down) = (self.echoes(), self.verdict == Verdict::Down);
        let findings = self.alarm.run(&self.liveness, &mut around, (due, now), echoes, is_down);
        if let Some(reason) = findings.dead {
            self.answered_in_row = 0;
            self.change(Verdict::Down, reason, now);
        }
        self.decide(now);
        if findings.probe {
            self.probe_now();
        }
        if let Some(scrutiny) = &mut self.scrutiny {
            let target = watched.and_then(|index| self.targets.get_mut(index)).filter(|_| !is_down);
            let interval = self.settings.inner_interval;
            let is_due = scrutiny.is_due(around.traffic, interval, target.is_some(), around.budget, now);
            if let Some(target) = target.filter(|_| is_due) {
                target.ask_between();
            }
        }
        self.liveness.schedule(now, self.pace(self.settings.interval));
        let pace = self.pace(self.settings.inner_interval);
        self.targets.schedule(now, pace);
    }

    /// The IKE exchange of this path was answered. `rtt` is `None` when the request had been
    /// sent more than once, since it cannot be told which one was answered.
    pub fn handle_liveness(&mut self, rtt: Option<Duration>, now: Moment) {
        self.alarm.hear(Life::Ike, &self.liveness, now);
        self.liveness.answer(rtt, now);
        self.count_answer();
        self.sign_of_life(now);
    }

    /// An authentic request of the peer's came over this path: it lives, whoever asks.
    pub fn handle_request(&mut self, now: Moment) {
        self.alarm.hear(Life::Packet, &self.liveness, now);
    }

    /// Something speaks against the path. It is asked at once.
    pub fn handle_trouble(&mut self, trouble: Trouble, now: Moment) {
        self.alarm.trouble(trouble, self.verdict == Verdict::Down, now);
    }

    /// The liveness probe that was polled last could not be sent: another exchange is not over.
    pub fn handle_unsent(&mut self) {
        if let Some(at) = self.liveness.retract() {
            self.alarm.handle_unsent(at);
        }
    }

    /// It repeats a request that costs the peer a Diffie-Hellman exchange.
    pub fn handle_heavy(&mut self) {
        self.alarm.ask_is_heavy();
    }

    /// Another path to the same peer wants to know whether its IKE daemon answers.
    pub fn bear_witness(&mut self) {
        if self.liveness.oldest().is_none() {
            self.liveness.ask();
        }
    }

    /// An inner probe was answered. Not over the same path: neither good nor bad for this one.
    pub fn handle_inner(&mut self, id: u64, target: usize, same_path: bool, rtt: Duration, now: Moment) {
        let Some(target) = self.targets.asked(id, target) else { return };
        if same_path {
            match target.answer(id, rtt, now) {
                InnerAnswer::InTime => self.count_answer(),
                InnerAnswer::Uncounted => {}
                InnerAnswer::Ignored => return,
            }
            self.alarm.hear(Life::Echo, &self.liveness, now);
            self.sign_of_life(now);
        } else {
            target.answer_elsewhere(id, rtt);
            self.decide(now);
        }
    }

    /// A target answered, and said no.
    pub fn handle_refusal(&mut self, id: u64, target: usize, same_path: bool, rtt: Duration, why: String, now: Moment) {
        let Some(target) = self.targets.asked(id, target) else { return };
        if same_path {
            target.refuse(id, rtt, why);
        } else {
            target.answer_elsewhere(id, rtt);
        }
        self.decide(now);
    }

    /// The target has begun to answer, and may take until then.
    pub fn handle_greeting(&mut self, id: u64, target: usize, until: Moment) {
        if let Some(target) = self.targets.asked(id, target) {
            target.prolong(id, until);
        }
    }

    /// Something came from the target that is no answer.
    pub fn handle_malformed(&mut self, target: usize) {
        if let Some(target) = self.targets.get_mut(target) {
            target.counts.malformed += 1;
        }
    }

    /// The target answered what was not asked, or once more.
    pub fn handle_unexpected(&mut self, target: usize) {
        if let Some(target) = self.targets.get_mut(target) {
            target.counts.unexpected += 1;
        }
    }

    /// The tunnel was set up anew: whatever was measured is of another one.
    pub fn handle_restart(&mut self, now: Moment) {
        let first = now + self.settings.interval.min(OPEN_PACE) / 4;
        self.liveness.restart(self.settings.window, first);
        self.alarm.restart(now);
        self.targets.restart(self.settings.window, first);
        self.alive = None;
        self.answers = 0;
        self.answered_in_row = 0;
        self.lost_in_row = 0;
        if self.verdict != Verdict::Unknown {
            self.change(Verdict::Unknown, "the tunnel was set up anew".into(), now);
        }
    }

    /// What to send now.
    pub fn poll_probe(&mut self, now: Moment) -> Option<Probe> {
        if self.liveness.poll(now) {
            return Some(Probe { id: 0, kind: ProbeKind::Liveness });
        }
        let (id, target) = self.targets.poll(now)?;
        Some(Probe { id, kind: ProbeKind::Inner(target) })
    }

    pub fn poll_change(&mut self) -> Option<VerdictChange> {
        self.changes.pop_front()
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Moment {
        let alarm = self.alarm.next_event(&self.liveness, self.echoes(), self.verdict == Verdict::Down);
        let scrutiny = self.scrutiny.as_ref().map(Scrutiny::next_event);
        self.targets.next_event().into_iter().chain(scrutiny).fold(self.liveness.next_event(), Moment::min).min(alarm)
    }

    /// Asks the path itself once more, before what cannot be taken back.
    pub fn ask_again(&mut self) {
        self.liveness.ask();
    }

    /// The path is suspect, and no other path to its peer has shown that the peer answers.
    pub fn wants_witness(&self, peer: PeerSigns, now: Moment) -> bool {
        self.verdict != Verdict::Down && self.alarm.wants_witness(&self.liveness, peer, now)
    }

    /// It is being found out whether the path lives.
    pub fn is_suspicious(&self) -> bool {
        self.alarm.is_suspicious()
    }

    /// The last sign of life of any kind, since the tunnel was set up.
    pub fn heard(&self) -> Option<Moment> {
        self.alarm.heard()
    }

    /// When a verdict `Down` has stood so long, without a sign of life, that what cannot be taken
    /// back may be done.
    pub fn confirmed_at(&self) -> Option<Moment> {
        self.alarm.confirmed_at().filter(|_| self.verdict == Verdict::Down)
    }

    /// How long an answer of the peer takes at most, as a rule; `None` until that is known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.prompt()
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// It is `Degraded`, and all that is wrong with it is that what it delivers is late.
    pub fn is_only_slow(&self) -> bool {
        self.verdict == Verdict::Degraded && self.exceeded.is_slowness_alone()
    }

    /// Of the whole window of the source that decides: of the inner targets that are answered over this path the
    /// best but `need` less one, or IKE when there is none.
    pub fn metrics(&self) -> Metrics {
        let trail = self.targets.speaking().map_or(&self.liveness.trail, |(_, trail)| trail);
        Metrics { recent: trail.recent(), ..self.metrics_at_large() }
    }

    /// Without what only a close look tells.
    pub fn metrics_at_large(&self) -> Metrics {
        let mut all = self.each_window(metrics);
        all.sort_by_key(|metrics| (metrics.loss, metrics.rtt));
        let speaker = self.targets.speaking();
        let trail = speaker.map_or(&self.liveness.trail, |(_, trail)| trail);
        Metrics {
            recent: None,
            latest: trail.latest(),
            source: speaker.and_then(|(index, _)| u8::try_from(index).ok()),
            ..all.get(self.targets.needed(all.len()) - 1).copied().unwrap_or_default()
        }
    }

    /// In the order in which the targets were given.
    pub fn targets(&self) -> impl Iterator<Item = TargetReport<'_>> {
        self.targets.reports()
    }

    /// What an operator should know besides the verdict, in plain words.
    pub fn note(&self) -> Option<String> {
        let ike_is_silent = self.liveness.lost_in_row >= self.settings.down_after && self.verdict != Verdict::Down;
        let targets = self.targets.note(self.ike_answers(), ike_is_silent);
        let loss = self.metrics_at_large().loss.filter(|_| self.verdict == Verdict::Healthy);
        let notes: Vec<String> = targets.into_iter().chain(loss.and_then(|loss| self.judge.unsure(loss))).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// Every kind of probe that tells whether the path lives.
    fn probe_now(&mut self) {
        self.liveness.ask();
        if let Some(target) = self.targets.light().and_then(|index| self.targets.get_mut(index)) {
            target.ask();
        }
    }

    fn echoes(&self) -> Echoes {
        let close = self.scrutiny.as_ref().filter(|scrutiny| scrutiny.is_close());
        Echoes {
            asked: self.targets.light().is_some(),
            missing: close.and_then(|_| self.targets.missing(self.alarm.echoed())),
        }
    }

    fn sign_of_life(&mut self, now: Moment) {
        self.alive = Some(now);
        self.lost_in_row = 0;
        self.decide(now);
    }

    fn count_answer(&mut self) {
        self.answers = self.answers.saturating_add(1);
        self.answered_in_row = self.answered_in_row.saturating_add(1);
    }

    /// Changes the verdict if the facts ask for it.
    fn decide(&mut self, now: Moment) {
        self.alarm.handle_fact(now);
        let silent = self.lost_in_row >= self.settings.down_after.max(1);
        match self.verdict {
            Verdict::Unknown | Verdict::Healthy | Verdict::Degraded if silent => {
                let reason = match self.alive {
                    Some(_) => format!("{} probes in a row were not answered", self.lost_in_row),
                    None => format!("none of {} probes was answered", self.lost_in_row),
                };
                self.alarm.fell(now);
                self.change(Verdict::Down, reason, now);
            }
            Verdict::Unknown if self.answers >= START_ANSWERS => match self.worse() {
                Some(worse) => self.degrade(worse, now),
                None => self.change(Verdict::Healthy, "measured, and nothing is surely beyond its limit".into(), now),
            },
            Verdict::Healthy => {
                if let Some(worse) = self.worse() {
                    self.degrade(worse, now);
                }
            }
            Verdict::Degraded => {
                if let Some(worse) = self.worse() {
                    self.exceeded.add(worse);
                } else if now.since(self.verdict_since) >= self.settings.degraded_hold && self.better() {
                    self.change(Verdict::Healthy, self.exceeded.over().into(), now);
                }
            }
            Verdict::Down if self.answered_in_row >= self.settings.up_after.max(1) => {
                // What was lost was the outage, which says nothing of the path that is back.
                self.liveness.window.keep_since_loss();
                self.liveness.trail.keep_since_loss();
                self.targets.keep_since_loss();
                match self.worse() {
                    Some(worse) => self.degrade(worse, now),
                    None => {
                        let answered = format!("{} probes in a row were answered", self.answered_in_row);
                        self.change(Verdict::Healthy, answered, now);
                    }
                }
            }
            Verdict::Down if silent => self.alarm.fell(now),
            Verdict::Unknown | Verdict::Down => {}
        }
        if self.is_open() {
            self.liveness.next = self.liveness.next.min(now + self.pace(self.settings.interval));
            self.targets.hasten(now + self.pace(self.settings.inner_interval));
        }
    }

    fn degrade(&mut self, worse: Worse, now: Moment) {
        self.exceeded = Exceeded::default();
        self.exceeded.add(worse);
        self.change(Verdict::Degraded, worse.to_string(), now);
    }

    fn change(&mut self, to: Verdict, reason: String, at: Moment) {
        if self.changes.len() >= MAX_UNREAD {
            self.changes.pop_front();
        }
        self.changes.push_back(VerdictChange { from: self.verdict, to, reason, at });
        self.verdict = to;
        self.verdict_since = at;
    }

    fn pace(&self, interval: Duration) -> Duration {
        let is_returning = matches!(self.verdict, Verdict::Down | Verdict::Unknown) && self.answered_in_row > 0;
        match self.is_open() {
            true if is_returning => interval.min(RETURN_PACE),
            true => interval.min(OPEN_PACE),
            false => interval,
        }
    }

    fn is_open(&self) -> bool {
        match self.verdict {
            Verdict::Unknown => true,
            Verdict::Healthy | Verdict::Degraded => self.lost_in_row > 0,
            Verdict::Down => self.answered_in_row > 0,
        }
    }

    fn worse(&self) -> Option<Worse> {
        if self.ike_answers() && self.targets.are_silent() {
            return Some(Worse::Inner);
        }
        let all = self.each_window(|window| self.judge.worse(window));
        let good = all.iter().filter(|worse| worse.is_none()).count();
        // What is lost weighs more than what is late.
        let gravest = || all.iter().flatten().min_by_key(|worse| worse.is_slowness()).copied();
        if good >= self.targets.needed(all.len()) { None } else { gravest() }
    }

    fn better(&self) -> bool {
        let all = self.each_window(|window| self.judge.better(window, self.exceeded));
        !self.targets.are_silent() && all.iter().filter(|better| **better).count() >= self.targets.needed(all.len())
    }

    /// Asks `question` of the window of each inner target that measures this path; when there is none, of that of IKE.
    fn each_window<T>(&self, question: impl Fn(&Window) -> T) -> ArrayVec<T, MAX_TARGETS> {
        let mut answers = self.targets.each_window(&question);
        if answers.is_empty() {
            answers.push(question(&self.liveness.window));
        }
        answers
    }

    /// The last IKE probe whose time is over was answered.
    fn ike_answers(&self) -> bool {
        self.liveness.window.len() > 0 && self.liveness.lost_in_row == 0
    }
}
