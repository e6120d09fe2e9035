use std::time::Duration;

use super::fact::{Fact, PathStanding, Whole};
use super::steering::Steering;
use crate::ha::RoleSelector;
use crate::model::{Moment, PathId, Verdict};
use crate::steer::Quality;

/// How often everything is told again: from there a recording can be followed, so whoever asks for a
/// moment reads no more than this, and what was lost costs no more.
const WHOLE: Duration = Duration::from_secs(60);

/// What the flight recorder was told last, so that it is told what changes.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next_whole: Moment,
    /// By `PathId`, as all that follows.
    verdicts: Vec<Verdict>,
    measured: Vec<Quality>,
    standings: Vec<PathStanding>,
    sent: Vec<u64>,
}

impl Watch {
    /// Everything is told again as soon as can be.
    pub fn start_over(&mut self, now: Moment) {
        self.next_whole = now;
    }

    /// It was told nothing yet.
    pub fn is_new(&self) -> bool {
        self.verdicts.is_empty()
    }

    pub fn poll_timeout(&self) -> Moment {
        self.next_whole
    }

    /// Everything, when it is time.
    pub fn whole<'a>(
        &mut self,
        steering: &Steering,
        roles: impl Iterator<Item = &'a RoleSelector>,
        now: Moment,
    ) -> Option<Fact> {
        if now < self.next_whole {
            return None;
        }
        self.next_whole = now + WHOLE;
        Some(Fact::Whole(Box::new(Whole {
            steering: steering.clone(),
            roles: roles.cloned().collect(),
            sent: self.sent.clone(),
            measured: self.measured.clone(),
            verdicts: self.verdicts.clone(),
        })))
    }

    /// What steering was told, and what came of it; `None` when nothing is new.
    pub fn followed(
        &mut self,
        steering: &Steering,
        verdicts: impl Iterator<Item = Verdict>,
        judged: Option<Vec<Quality>>,
    ) -> Option<Fact> {
        let verdicts = changes(&mut self.verdicts, verdicts, Verdict::Down);
        let judged = judged.map(|measured| changes(&mut self.measured, measured.into_iter(), Quality::default()));
        let standings = changes(&mut self.standings, steering.standings(), PathStanding::default());
        let is_news = !verdicts.is_empty() || judged.is_some() || !standings.is_empty();
        is_news.then_some(Fact::Followed { verdicts, judged, standings })
    }

    pub fn counted(&mut self, number: u64, sent: impl Iterator<Item = u64>) -> Fact {
        Fact::Counted { number, sent: changes(&mut self.sent, sent, 0) }
    }
}

/// What is otherwise now than it was known, which it then is.
fn changes<T: Copy + PartialEq>(known: &mut Vec<T>, now: impl Iterator<Item = T>, at_first: T) -> Vec<(PathId, T)> {
    let mut changed = Vec::new();
    for (index, value) in now.enumerate() {
        if known.len() <= index {
            known.push(at_first);
        }
        if let Some(known) = known.get_mut(index).filter(|known| **known != value) {
            *known = value;
            changed.push((PathId(index as u16), value));
        }
    }
    changed
}
