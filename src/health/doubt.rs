use std::time::Duration;

use super::budget::ProbeBudget;
use super::inner::MissingEcho;
use super::liveness::Liveness;
use crate::model::Moment;

/// Between two probes while IKE alone is silent.
const SLOW_STEP: Duration = Duration::from_millis(100);
/// A doubt that has led to nothing for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(3);
/// A path that brings packets is not judged before its IKE was silent for so long.
const ONE_WAY_PATIENCE: Duration = Duration::from_millis(700);
/// Where inner probes are as silent, no sooner than so long after one is late and a queue could have grown since the last
/// that was answered: as fast as time passes.
const ECHO_PATIENCE: Duration = Duration::from_millis(50);
/// And no sooner than so long after the last answer to one, which proves both directions: a single loss after it is none.
const ECHO_SILENCE: Duration = Duration::from_millis(100);
/// Inner probes that were silent for so long after IKE had answered were so by themselves: their target says no more than
/// so many in a second, or is busy. Then their silence says nothing for some time.
const ECHO_ALONE: Duration = Duration::from_millis(200);
const ECHO_DISTRUST: Duration = Duration::from_secs(60);

/// Packets come in, but probes are not answered: the peer may be busy, or the way there be cut. It is cut only if the peer's
/// IKE daemon answers over other paths.
#[derive(Debug)]
pub(super) struct Doubt {
    /// Between two probes while inner ones are as silent.
    step: Duration,
    inquiry: Option<Inquiry>,
    /// The last answer to an inner probe, which proves both directions.
    echoed: Option<Moment>,
    /// Inner probes were silent while IKE answered, and say nothing until one is answered; since when that was so, and until
    /// when they are not trusted after that.
    echo_is_mute: bool,
    echo_alone: Option<Moment>,
    echo_trusted: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Inquiry {
    began: Moment,
    next: Moment,
    pace: Duration,
    /// No verdict before.
    patient_until: Moment,
    /// Nor before that, since the peer's daemon has answered nobody until lately, or since we were late ourselves.
    withheld_until: Moment,
    /// An inner probe is not answered either.
    by_echo: bool,
}

/// What else is known of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    pub liveness: &'a Liveness,
    /// IKE's silence says nothing.
    pub ike_is_mute: bool,
    pub missing: Option<MissingEcho>,
    /// The last sign of life of any kind.
    pub heard: Option<Moment>,
}

/// What an inquiry comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inquired {
    Goes {
        probe: bool,
    },
    /// The way to the peer is cut.
    Cut,
    InVain,
}

impl Doubt {
    pub fn new(step: Duration, now: Moment) -> Doubt {
        Doubt { step, inquiry: None, echoed: None, echo_is_mute: false, echo_alone: None, echo_trusted: now }
    }

    /// The peer's IKE daemon has answered.
    pub fn hear_ike(&mut self, now: Moment) {
        if self.inquiry.take().is_some_and(|inquiry| inquiry.by_echo) {
            self.echo_is_mute = true;
            self.echo_alone.get_or_insert(now);
        }
    }

    /// An inner probe was answered over the path.
    pub fn hear_echo(&mut self, now: Moment) {
        if self.echo_alone.take().is_some_and(|since| now.since(since) >= ECHO_ALONE) {
            self.echo_trusted = now + ECHO_DISTRUST;
        }
        (self.echo_is_mute, self.inquiry) = (false, None);
        self.echoed = self.echoed.max(Some(now));
    }

    /// Begins to look into what is due, and says whether anything is looked into.
    pub fn begins(&mut self, evidence: Evidence, now: Moment) -> bool {
        if self.due(evidence).is_some_and(|at| at <= now) {
            self.inquiry = Some(Inquiry {
                began: now,
                next: now,
                pace: SLOW_STEP,
                patient_until: now + ONE_WAY_PATIENCE,
                withheld_until: now,
                by_echo: false,
            });
        }
        self.inquiry.is_some()
    }

    /// No verdict before then.
    pub fn withhold(&mut self, until: Moment) {
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.withheld_until = inquiry.withheld_until.max(until);
        }
    }

    /// The path is down, whatever else was looked into.
    pub fn drop_inquiry(&mut self) {
        self.inquiry = None;
    }

    /// `enough`: so many probes were not answered that the path is dead if it is cut. `others`: when the peer's daemon last
    /// answered over other paths.
    pub fn run(
        &mut self,
        evidence: Evidence,
        enough: bool,
        others: Option<Moment>,
        budget: &mut ProbeBudget,
        now: Moment,
    ) -> Inquired {
        let missing = self.telling(evidence.missing).filter(|missing| missing.late <= now);
        let Some(inquiry) = &mut self.inquiry else { return Inquired::Goes { probe: false } };
        if let Some(missing) = missing {
            (inquiry.by_echo, inquiry.pace) = (true, self.step);
            let heard = self.echoed.unwrap_or_default() + ECHO_SILENCE;
            let silent = heard.max(missing.late + missing.before + ECHO_PATIENCE);
            inquiry.patient_until = inquiry.patient_until.min(silent);
        }
        let others_answer = others.is_some_and(|answer| answer > inquiry.began);
        if enough && !others_answer {
            // Once its daemon answers somebody, it is given the time to answer here.
            let until = now + SLOW_STEP + evidence.liveness.prompt().unwrap_or_default();
            inquiry.withheld_until = inquiry.withheld_until.max(until);
        }
        let is_cut = others_answer && enough && inquiry.patient_until.max(inquiry.withheld_until) <= now;
        if is_cut || now.since(inquiry.began) >= GIVE_UP {
            (self.inquiry, self.echo_is_mute) = (None, true);
            return if is_cut { Inquired::Cut } else { Inquired::InVain };
        }
        let is_due = inquiry.next <= now;
        if is_due {
            inquiry.next = now + inquiry.pace;
        }
        Inquired::Goes { probe: is_due && budget.turn_now(now).is_ok() }
    }

    /// The last answer to an inner probe, since the tunnel was set up.
    pub fn echoed(&self) -> Option<Moment> {
        self.echoed
    }

    /// Since when something is looked into.
    pub fn began(&self) -> Option<Moment> {
        self.inquiry.map(|inquiry| inquiry.began)
    }

    /// When to run next; `looked` is when the path was last looked at.
    pub fn next_event(&self, evidence: Evidence, looked: Moment) -> Option<Moment> {
        // What came to light only after the latest look is for the next.
        let later = |at| if at > looked { at } else { looked + self.step };
        self.inquiry.map(|inquiry| inquiry.next).or(self.due(evidence).map(later))
    }

    /// When there is something to look into.
    fn due(&self, evidence: Evidence) -> Option<Moment> {
        let Evidence { liveness, ike_is_mute, missing, heard } = evidence;
        let prompt = liveness.prompt().filter(|_| self.inquiry.is_none() && !ike_is_mute)?;
        let late = liveness.oldest().map(|oldest| oldest.max(self.echoed.unwrap_or_default()) + prompt);
        // One that a burst has passed over is looked into when the burst is over; and one beside others that are answered
        // no more quickly than in a burst.
        let echoed = self.echoed.map_or(Moment::ZERO, |echoed| echoed + self.step);
        let missing = self.telling(missing).map(|missing| missing.late.max(heard.unwrap_or_default()).max(echoed));
        late.into_iter().chain(missing).min()
    }

    /// The inner probe that is not answered, unless such have been silent while IKE answered.
    fn telling(&self, missing: Option<MissingEcho>) -> Option<MissingEcho> {
        missing.filter(|missing| !self.echo_is_mute && missing.late >= self.echo_trusted)
    }
}
