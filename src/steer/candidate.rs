use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SlaClass, SlaId};
use crate::model::{LinkId, PathId, Permille, Verdict};

/// A path that could carry the flow: up, of the active role, and its selectors cover the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub path: PathId,
    pub link: LinkId,
    pub verdict: Verdict,
    /// The link's preference: 1 is first. Metered links come after all others of equal health
    /// unless a preference was configured.
    pub preference: u8,
    /// Proportional to the path's configured bandwidth in our sending direction; never 0.
    pub weight: u32,
    /// Traffic over the link is paid for.
    pub metered: bool,
    /// For use only while no other path is up, unless a rule names the link.
    pub last_resort: bool,
    /// An operator wants it free of flows.
    pub drained: bool,
    /// It has been in its present health for the hold-down time: flows that are well off elsewhere
    /// may come over.
    pub settled: bool,
    pub sla: SlaStanding,
    /// What it measures, as one number: see `Quality::score`.
    pub score: Option<u32>,
    /// By how much it may be worse, as far as is known: see `Quality::doubt_beside`.
    pub doubt: u32,
    pub condition: Condition,
}

/// What steering knows of a path besides its verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// New flows had better go elsewhere: its link carries what it can.
    pub full: bool,
    /// The site's own traffic fills the queue of its link, and so makes it slow. Whoever only wants to get
    /// much through gains nothing by leaving it.
    pub strained: bool,
    /// It was down of late and is not steady yet: nothing for calls.
    pub unsteady: bool,
    /// And it was up for so short a time before that it is of no use to any flow.
    pub fleeting: bool,
}

impl Condition {
    pub const GOOD: Condition = Condition { full: false, strained: false, unsteady: false, fleeting: false };

    /// In plain words, where there is something to say.
    pub const fn note(self) -> Option<&'static str> {
        match self {
            Condition { fleeting: true, .. } => {
                Some("down of late, a few seconds after it came up: flows keep off it for a while")
            }
            Condition { unsteady: true, .. } => Some("down of late, and not steady yet: calls keep off it for a while"),
            Condition { strained: true, .. } => Some("the site's own traffic fills its link, and so makes it slow"),
            Condition { full: true, .. } => Some("its link is nearly full: new flows go elsewhere"),
            Condition { full: false, strained: false, unsteady: false, fleeting: false } => None,
        }
    }
}

impl Candidate {
    /// A path of a link that is neither metered nor a last resort, settled, and not measured.
    pub const fn new(path: PathId, link: LinkId, verdict: Verdict, preference: u8, weight: u32) -> Candidate {
        Candidate {
            path,
            link,
            verdict,
            preference,
            weight,
            metered: false,
            last_resort: false,
            drained: false,
            settled: true,
            sla: SlaStanding::UNMEASURED,
            score: None,
            doubt: 0,
            condition: Condition::GOOD,
        }
    }
}

/// Which SLA classes a path meets and which it misses. A class that is in neither was not
/// measured: that is never taken for meeting it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SlaStanding {
    meets: u64,
    misses: u64,
    /// Those of the missed ones that are missed for what the path loses.
    #[serde(default)]
    lossy: u64,
}

impl SlaStanding {
    pub const UNMEASURED: SlaStanding = SlaStanding { meets: 0, misses: 0, lossy: 0 };

    /// Meets whatever is asked for.
    pub const ALL_MET: SlaStanding = SlaStanding { meets: u64::MAX, misses: 0, lossy: 0 };

    /// `None`: not measured.
    pub fn of(self, class: SlaId) -> Option<bool> {
        let bit = 1u64.checked_shl(u32::from(class.0)).unwrap_or(0);
        match (self.meets & bit != 0, self.misses & bit != 0) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Misses a class that it did not miss before.
    pub const fn misses_more_than(self, before: SlaStanding) -> bool {
        self.misses & !before.misses != 0
    }

    /// What two judgements in a row agree upon; on what they do not, it is as it was. Where nothing was known,
    /// the first one is believed.
    pub const fn settle(self, before: SlaStanding, now: SlaStanding) -> SlaStanding {
        let meets = before.meets & now.meets;
        let misses = before.misses & now.misses;
        let unknown = !(before.meets | before.misses | now.meets | now.misses);
        let open = !(meets | misses | unknown);
        let known = self.meets | self.misses;
        let as_before = open & known;
        let misses = misses | as_before & self.misses | open & !known & now.misses;
        let agreed = self.lossy & (before.lossy | now.lossy) | before.lossy & now.lossy;
        SlaStanding {
            meets: meets | as_before & self.meets | open & !known & now.meets,
            misses,
            lossy: misses & (agreed | !self.misses & now.lossy),
        }
    }

    /// How a path that measures this stands, class by class, given how it stood before: a class
    /// that it missed it meets again below nine tenths of each limit, so that a value at its limit
    /// does not move flows to and fro.
    pub fn judge(self, classes: &[SlaClass], quality: &Quality) -> SlaStanding {
        let mut standing = SlaStanding::UNMEASURED;
        for (index, class) in (0u8..).zip(classes) {
            let bit = 1u64.checked_shl(u32::from(index)).unwrap_or(0);
            let within = quality.within(class, self.missed(SlaId(index)));
            // One limit that is broken is enough to miss the class; to meet it all must be known.
            if within.contains(&Some(false)) {
                standing.misses |= bit;
                standing.lossy |= if within[0] == Some(false) { bit } else { 0 };
            } else if !within.contains(&None) {
                standing.meets |= bit;
            }
        }
        standing
    }

    /// Why a path that measures this misses the class, in plain words, or meets it although its window shows more
    /// loss than that allows; `None` if it does neither.
    pub fn remark(self, id: SlaId, class: &SlaClass, quality: &Quality) -> Option<String> {
        if self.of(id) == Some(true) {
            let (shown, known, allowed) = (quality.loss?, quality.loss_known(), class.loss_max?);
            let unsure = shown > allowed && known <= allowed;
            return unsure.then(|| {
                format!(
                    "meets {}: of the {shown} that it lost in the window {known} is certain, and {allowed} allowed",
                    class.name
                )
            });
        }
        let missed = self.missed(id).filter(|_| self.of(id) == Some(false))?;
        let [loss, rtt, jitter] = quality.within(class, Some(missed));
        let again = |limit: Option<Duration>| limit.unwrap_or_default().as_secs_f64() * 900.0;
        let ms = |span: Option<Duration>| span.unwrap_or_default().as_secs_f64() * 1e3;
        let part = |part: Permille| f64::from(part.value()) / 10.0;
        let mut parts = Vec::new();
        if loss == Some(false) {
            let again = part(class.loss_max.unwrap_or_default()) * 0.9;
            parts.push(match (missed, quality.recent) {
                (Missed::ByLoss, Some(recent)) => format!(
                    "it lost too much, and so far it is only sure that it loses less than {:.1} % now, not that it is \
                     {again:.2} % at most",
                    part(recent.loss_most)
                ),
                _ => format!(
                    "it is certain that it loses {:.1} %, and {again:.2} % is allowed",
                    part(quality.loss_known())
                ),
            });
        }
        if rtt == Some(false) {
            parts.push(format!(
                "the round trip takes {:.1} ms, and must be {:.1} ms",
                ms(quality.rtt_now()),
                again(class.rtt_max)
            ));
        }
        if jitter == Some(false) {
            parts.push(format!(
                "the jitter is {:.1} ms, and must be {:.1} ms",
                ms(quality.jitter_now()),
                again(class.jitter_max)
            ));
        }
        if parts.is_empty() {
            parts.push("what it measures now would do, if the next judgement says so too".to_owned());
        }
        Some(format!("misses {}: {}", class.name, parts.join("; ")))
    }

    fn missed(self, class: SlaId) -> Option<Missed> {
        let bit = 1u64.checked_shl(u32::from(class.0)).unwrap_or(0);
        (self.misses & bit != 0).then_some(if self.lossy & bit != 0 { Missed::ByLoss } else { Missed::ByDelay })
    }
}

/// What of a class was missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missed {
    /// And maybe by its delay too.
    ByLoss,
    ByDelay,
}

/// What was measured of a path. `None` is never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quality {
    pub loss: Option<Permille>,
    /// Median round-trip time.
    pub rtt: Option<Duration>,
    pub jitter: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<Recent>,
    /// Median round-trip time of the newest few probes, and whose these are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<u8>,
    /// It is `Degraded` for nothing but round-trip time or jitter.
    #[serde(default)]
    pub only_slow: bool,
    /// Of the site's flows, in the last second, in kilobits a second.
    #[serde(default)]
    pub sent_kbps: u32,
    #[serde(default)]
    pub received_kbps: u32,
}

/// What the newest probes say by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recent {
    pub rtt: Duration,
    pub jitter: Duration,
    /// Of all of the last half minute.
    pub loss: Permille,
    /// It loses more than this, with a certainty of 99 %.
    pub loss_least: Permille,
    /// And less than this, with one of 90 %.
    #[serde(default = "all")]
    pub loss_most: Permille,
}

fn all() -> Permille {
    Permille::FULL
}

/// A single loss in a window says nothing, in thousandths.
const ONE_OF_THIRTY: u16 = 34;
const PACKET_KILOBITS: f64 = 11.2;

/// Of a thousandth of loss, in microseconds of delay: see `Quality::score`.
const LOSS_COST: u32 = 10_000;

impl Quality {
    /// How bad the path is for whoever listens, in microseconds of delay; less is better. `None`
    /// while something was not measured.
    ///
    /// One way of the round trip, twice the jitter (a playout buffer of that size), and 10 ms for
    /// each thousandth of loss: in the E-model (ITU-T G.107) 1 % of loss costs G.711 some 2.5
    /// points, as does a delay of 100 ms.
    ///
    /// Of loss only what is certain counts.
    pub fn score(&self) -> Option<u32> {
        self.score_beside(Permille::ZERO)
    }

    /// The same beside a path that may lose so much, and is known to lose least: what goes beyond it. For few probes
    /// and many show the same loss differently, and paths that lose alike are alike.
    pub fn score_beside(&self, loss_of_best: Permille) -> Option<u32> {
        let micros = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        let (rtt, jitter, loss) = match self.recent {
            Some(recent) => (recent.rtt, recent.jitter, recent.loss_least),
            None => (self.rtt?, self.jitter?, self.loss?),
        };
        let delay = micros(rtt) / 2;
        let jitter = micros(jitter).saturating_mul(2);
        let loss = loss.value().saturating_sub(loss_of_best.value());
        Some(delay.saturating_add(jitter).saturating_add(u32::from(loss) * LOSS_COST))
    }

    /// How much more that would be if it lost as much as it may, as far as is known.
    pub fn doubt_beside(&self, loss_of_best: Permille) -> u32 {
        let known = self.recent.map_or(Permille::ZERO, |recent| recent.loss_least).max(loss_of_best);
        u32::from(self.loss_most().value().saturating_sub(known.value())) * LOSS_COST
    }

    /// It loses less than this.
    pub fn loss_most(&self) -> Permille {
        self.recent.map_or(Permille::FULL, |recent| recent.loss_most)
    }

    /// What a single sender can get over the path at most, in kilobits a second: 1.22 full packets a round
    /// trip over the root of the loss (Mathis et al. 1997). `None` while it is not certain that any is lost.
    pub fn single_kbps(&self) -> Option<u32> {
        let rtt = self.recent.map(|recent| recent.rtt).or(self.rtt)?.as_secs_f64().max(1e-3);
        // Of the round trip; only what is lost on the way there slows a sender down.
        let part = f64::from(self.loss_least().value()) / 2_000.0;
        (part > 0.0).then(|| (1.22 * PACKET_KILOBITS / (rtt * part.sqrt())) as u32)
    }

    /// It certainly loses more than this.
    pub fn loss_least(&self) -> Permille {
        match self.recent {
            Some(recent) => recent.loss_least,
            None => {
                self.loss.and_then(|loss| Permille::new(loss.value().saturating_sub(ONE_OF_THIRTY))).unwrap_or_default()
            }
        }
    }

    /// It seems to lose this.
    pub fn loss_likely(&self) -> Permille {
        self.recent.map(|recent| recent.loss).or(self.loss).unwrap_or_default()
    }

    /// Whether loss, round trip and jitter are within the limits of a class; `None` where that is not known. `missed`: so it
    /// was before.
    fn within(&self, class: &SlaClass, missed: Option<Missed>) -> [Option<bool>; 3] {
        let within = |value: Option<u64>, limit: Option<u64>| match (value, limit) {
            (_, None) => Some(true),
            (None, Some(_)) => None,
            (Some(value), Some(limit)) if missed.is_some() => Some(value.saturating_mul(10) <= limit.saturating_mul(9)),
            (Some(value), Some(limit)) => Some(value <= limit),
        };
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let permille = |part: Permille| u64::from(part.value());
        // A single loss among few probes says little of what is lost, and the lack of any as little of what is not.
        let loss = match self.recent {
            Some(recent) if missed == Some(Missed::ByLoss) => Some(recent.loss_most),
            Some(recent) => Some(recent.loss_least),
            None => self.loss,
        };
        [
            within(loss.map(permille), class.loss_max.map(permille)),
            within(self.rtt_now().map(micros), class.rtt_max.map(micros)),
            within(self.jitter_now().map(micros), class.jitter_max.map(micros)),
        ]
    }

    fn loss_known(&self) -> Permille {
        self.recent.map(|recent| recent.loss_least).or(self.loss).unwrap_or_default()
    }

    fn rtt_now(&self) -> Option<Duration> {
        self.recent.map(|recent| recent.rtt).or(self.rtt)
    }

    fn jitter_now(&self) -> Option<Duration> {
        self.recent.map(|recent| recent.jitter).or(self.jitter)
    }
}
