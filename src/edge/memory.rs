use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::burden::{Burden, Line, RoundTrip};
use super::fact::PathStanding;
use super::outages::Outages;
use crate::model::{Moment, Permille, Verdict};
use crate::steer::{Condition, Quality, SlaClass, SlaStanding};

/// After so many judgements without any loss the path loses nothing, whatever was lost before. Half a percent would
/// show in most of them.
const CLEAN: u32 = 240;

/// A score that is published again must have changed by this part of it: one eighth.
const SCORE_STEP: u32 = 8;

/// What steering remembers of a path between one judgement and the next.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Memory {
    pub(super) verdict: Verdict,
    since: Moment,
    /// See `Candidate`.
    pub settled: bool,
    pub sla: SlaStanding,
    /// What the last judgement by itself said; so do `scored` and `doubted`.
    #[serde(default)]
    judged: SlaStanding,
    /// Judgements in a row without any loss.
    #[serde(default)]
    clean: u32,
    pub score: Option<u32>,
    #[serde(default)]
    pub doubt: u32,
    #[serde(default)]
    scored: Option<u32>,
    #[serde(default)]
    doubted: u32,
    /// Counts how often it came to miss a class, so that its flows choose again.
    pub epoch: u32,
    /// Bytes sent, at the last count.
    counted: u64,
    /// Bytes sent in each interval, the latest last; since it was last down.
    pub(super) sent: VecDeque<u64>,
    #[serde(default)]
    pub condition: Condition,
    #[serde(default)]
    pub(super) burden: Burden,
    #[serde(default)]
    outages: Outages,
    /// Sent by the path at the last judgement, in kilobits a second.
    #[serde(default)]
    pub(super) rate: u32,
    /// See `Quality::single_kbps`.
    #[serde(default)]
    pub(super) single: Option<u32>,
    /// At the last judgement: see `Quality::loss_least` and `loss_likely`.
    #[serde(default)]
    pub(super) loss_least: Permille,
    #[serde(default)]
    pub(super) loss_likely: Permille,
}

impl Memory {
    pub(super) fn new(now: Moment) -> Memory {
        Memory {
            verdict: Verdict::Down,
            since: now,
            settled: false,
            sla: SlaStanding::UNMEASURED,
            judged: SlaStanding::UNMEASURED,
            clean: 0,
            score: None,
            doubt: 0,
            scored: None,
            doubted: 0,
            epoch: 0,
            counted: 0,
            sent: VecDeque::new(),
            condition: Condition::default(),
            burden: Burden::default(),
            outages: Outages::default(),
            rate: 0,
            single: None,
            loss_least: Permille::ZERO,
            loss_likely: Permille::ZERO,
        }
    }

    /// The path has this verdict; true when it is a better one than before.
    pub(super) fn follow(&mut self, verdict: Verdict, now: Moment) -> bool {
        if self.verdict == verdict {
            return false;
        }
        match (self.verdict, verdict) {
            (_, Verdict::Down) => self.outages.fall(now),
            (Verdict::Down, _) => self.outages.rise(now),
            (Verdict::Unknown | Verdict::Healthy | Verdict::Degraded, _) => {}
        }
        if self.verdict == Verdict::Down || verdict == Verdict::Unknown {
            // It may take another way now.
            self.burden.restart();
        }
        let is_better = verdict < self.verdict;
        (self.verdict, self.since) = (verdict, now);
        self.condition.unsteady = self.outages.is_unsteady(now);
        self.condition.fleeting = self.outages.is_fleeting(now);
        is_better
    }

    /// Its flows choose again.
    pub(super) fn choose_again(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Since when it has had its verdict.
    pub(super) fn since(&self) -> Moment {
        self.since
    }

    /// Judges what the path and its line carry; true when it may be used as it might not before.
    pub(super) fn judge_load(&mut self, measured: &Quality, line: Line, now: Moment) -> bool {
        let before = self.condition;
        self.rate = measured.sent_kbps;
        self.single = measured.single_kbps();
        (self.loss_least, self.loss_likely) = (measured.loss_least(), measured.loss_likely());
        let round_trip = measured.latest.or(measured.rtt).map(|rtt| RoundTrip { rtt, source: measured.source });
        self.burden.judge(round_trip, line, now);
        // What is lost, or not answered at all, is not forgiven as what is late is.
        let is_late = self.verdict != Verdict::Degraded || measured.only_slow;
        let strained = is_late && self.burden.is_strained(now);
        if before.strained && !strained && self.verdict == Verdict::Degraded {
            self.choose_again();
        }
        let (unsteady, fleeting) = (self.outages.is_unsteady(now), self.outages.is_fleeting(now));
        self.condition = Condition { full: self.burden.is_full(), strained, unsteady, fleeting };
        before.unsteady && !unsteady || before.fleeting && !fleeting
    }

    /// Judges what rules ask for: SLA classes and the score. Of loss only what goes beyond `spared` makes one path of a
    /// role worse than another.
    pub(super) fn judge_quality(&mut self, classes: &[SlaClass], mut measured: Quality, spared: Permille) {
        self.clean = if measured.loss == Some(Permille::ZERO) { self.clean.saturating_add(1) } else { 0 };
        if let Some(recent) = measured.recent.as_mut().filter(|_| self.clean >= CLEAN) {
            recent.loss_most = Permille::ZERO;
        }
        let judged = self.sla.judge(classes, &measured);
        let standing = self.sla.settle(self.judged, judged);
        if standing.misses_more_than(self.sla) {
            self.choose_again();
        }
        (self.sla, self.judged) = (standing, judged);
        let now = (measured.score_beside(spared), measured.doubt_beside(spared));
        let before = (self.scored, self.doubted);
        (self.scored, self.doubted) = now;
        // As with classes, two judgements in a row must say so.
        let published = (self.score, self.doubt);
        if !is_alike(published, now) && (self.score.is_none() || !is_alike(published, before)) {
            (self.score, self.doubt) = now;
        }
    }

    /// So many bytes were sent by now; before that it was counted then. So many counts are kept.
    pub(super) fn count(&mut self, bytes: u64, before: Moment, kept: usize) {
        let sent = bytes.saturating_sub(self.counted);
        self.counted = bytes;
        if self.outages.up_since().is_none_or(|since| since > before) {
            // Part of an interval tells nothing.
            self.sent.clear();
            return;
        }
        self.sent.push_back(sent);
        while self.sent.len() > kept {
            self.sent.pop_front();
        }
    }

    /// It carries flows, and its link can carry no more.
    pub(super) fn is_full(&self) -> bool {
        self.verdict != Verdict::Down && self.condition.full && self.rate > 0
    }

    pub(super) fn standing(&self) -> PathStanding {
        let &Memory { settled, sla, score, doubt, epoch, condition, .. } = self;
        PathStanding { settled, sla, score, doubt, epoch, condition }
    }
}

/// Are a score and the doubt in it about what was published of them?
fn is_alike(published: (Option<u32>, u32), measured: (Option<u32>, u32)) -> bool {
    let is_near = |old: u32, new: u32| old.abs_diff(new) <= old / SCORE_STEP;
    match (published, measured) {
        ((None, _), (None, _)) => true,
        ((Some(old), doubt), (Some(new), doubted)) => {
            is_near(old, new) && is_near(old.saturating_add(doubt), new.saturating_add(doubted))
        }
        ((None, _), (Some(_), _)) | ((Some(_), _), (None, _)) => false,
    }
}
