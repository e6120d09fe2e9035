use super::attempt::Attempt;
use super::{Context, Tunnel};
use crate::edge::{Effect, SiteEvent, TunnelState};
use crate::forward::Duty;
use crate::model::{Moment, Verdict};

/// What was last told of a tunnel.
#[derive(Clone, Debug)]
pub struct Change {
    pub at: Moment,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// Why an attempt to set a tunnel up, or the tunnel itself, has ended.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at: Moment,
    pub reason: String,
}

impl Tunnel {
    /// Kept while further attempts run, so that an operator can see it whenever they look.
    pub(super) fn failed(&mut self, reason: &str, now: Moment) {
        self.last_failure = Some(Failure { at: now, reason: reason.to_owned() });
    }

    /// Why it does not carry any more. What is done about it, and what comes of that, is another matter.
    pub(super) fn went_down(&mut self, reason: &str, at: Moment) {
        self.went_down.get_or_insert_with(|| Failure { at, reason: reason.to_owned() });
    }

    pub(super) fn report_state(&mut self, reason: String, context: &mut Context) {
        let to = if self.live.as_ref().is_some_and(|live| !live.children.is_empty()) {
            TunnelState::Up
        } else {
            match self.attempt {
                Attempt::Idle if self.duty() == Duty::Down => TunnelState::Down,
                Attempt::Idle if self.initiates => TunnelState::Connecting,
                Attempt::Idle => TunnelState::Listening,
                Attempt::Waiting { .. } => TunnelState::Waiting,
                Attempt::Resolving { .. } => TunnelState::Resolving,
                Attempt::Connecting { .. } => TunnelState::Connecting,
            }
        };
        if to == TunnelState::Up {
            self.last_failure = None;
            self.went_down.take_if(|_| self.health.verdict() != Verdict::Down);
        }
        let from = std::mem::replace(&mut self.state, to);
        let worth_telling = from != to
            || (to == TunnelState::Waiting && self.last_change.as_ref().is_none_or(|last| last.reason != reason));
        if worth_telling {
            self.last_change =
                Some(Change { at: context.now, from: from.to_string(), to: to.to_string(), reason: reason.clone() });
            context.effects.push_back(Effect::Event(SiteEvent::TunnelState { path: self.path, from, to, reason }));
        }
    }

    pub(super) fn report_verdict(&mut self, context: &mut Context) {
        while let Some(change) = self.health.poll_change() {
            match change.to {
                Verdict::Down => {
                    self.down_since = Some(change.at);
                    self.went_down(&change.reason, change.at);
                    self.epoch = self.epoch.wrapping_add(1);
                }
                // An unhealthy path loses its flows at once; a better one gains them at the re-steer.
                Verdict::Degraded => {
                    self.down_since = None;
                    self.epoch = self.epoch.wrapping_add(1);
                }
                Verdict::Healthy | Verdict::Unknown => self.down_since = None,
            }
            if self.down_since.is_none() && self.live.is_some() {
                self.went_down = None;
                self.cancel_attempt(context);
            }
            self.last_change = Some(Change {
                at: change.at,
                from: change.from.to_string(),
                to: change.to.to_string(),
                reason: change.reason.clone(),
            });
            context.effects.push_back(Effect::Event(SiteEvent::Verdict {
                path: self.path,
                from: change.from,
                to: change.to,
                reason: change.reason,
            }));
        }
    }
}
