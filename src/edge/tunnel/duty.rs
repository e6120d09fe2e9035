use std::time::Duration;

use super::attempt::Attempt;
use super::{Context, Tunnel};
use crate::edge::{Effect, SiteEvent};
use crate::forward::Duty;
use crate::model::Moment;

/// A flow that never pauses leaves a drained tunnel after this time: as a moved flow anywhere else.
pub const DRAIN_PATIENCE: Duration = Duration::from_millis(900);

/// A tunnel that is to go down is closed so long after it was drained: what the last flows have sent is on its way
/// by then, and a peer that is busy has some time more to open it.
const CLOSE_AFTER: Duration = Duration::from_millis(1_500);

/// What an operator has told a tunnel to do. It outlives rekeys and IKE SAs, not the daemon.
#[derive(Default)]
pub(super) struct Orders {
    pub duty: Duty,
    pub since: Option<Moment>,
    /// Drained, and then down.
    close_at: Option<Moment>,
}

impl Tunnel {
    /// Its flows go elsewhere, at the latest after `DRAIN_PATIENCE`; those that have paused for `gap` at once.
    pub fn drain(&mut self, gap: Duration, context: &mut Context) {
        let by = context.now + DRAIN_PATIENCE;
        self.obey(Duty::Drained { gap, by }, context);
        self.orders.close_at = None;
    }

    /// As `drain`, and then the peer is told and nobody may open it.
    pub fn take_down(&mut self, gap: Duration, context: &mut Context) {
        if self.live.is_none() {
            return self.shut(context);
        }
        if !self.duty().is_drained() {
            self.drain(gap, context);
        }
        self.orders.close_at = Some(context.now + CLOSE_AFTER);
    }

    /// It serves again.
    pub fn take_up(&mut self, context: &mut Context) {
        let was = self.duty();
        self.obey(Duty::InService, context);
        self.orders = Orders::default();
        if was == Duty::Down {
            self.announce_peer(context);
            self.failures = 0;
            if self.initiates {
                self.attempt = Attempt::Waiting { until: context.now };
            }
            self.report_state("an operator took it up".to_owned(), context);
        }
    }

    pub fn duty(&self) -> Duty {
        self.orders.duty
    }

    /// Since when it is drained or down.
    pub fn duty_since(&self) -> Option<Moment> {
        self.orders.since
    }

    /// It will be down soon.
    pub fn is_closing(&self) -> bool {
        self.orders.close_at.is_some()
    }

    pub(super) fn close_when_drained(&mut self, context: &mut Context) {
        if self.orders.close_at.is_some_and(|at| at <= context.now) {
            self.shut(context);
        }
    }

    pub(super) fn close_at(&self) -> Option<Moment> {
        self.orders.close_at
    }

    fn shut(&mut self, context: &mut Context) {
        const REASON: &str = "an operator took it down";
        self.obey(Duty::Down, context);
        self.orders.close_at = None;
        context.endpoint.remove_peer(self.path);
        if let Attempt::Connecting { sa } = std::mem::replace(&mut self.attempt, Attempt::Idle) {
            context.endpoint.abandon(sa, REASON);
        }
        match &self.live {
            Some(live) => context.endpoint.close(live.sa, REASON, context.now),
            None => self.report_state(REASON.to_owned(), context),
        }
    }

    fn obey(&mut self, to: Duty, context: &mut Context) {
        let from = std::mem::replace(&mut self.orders.duty, to);
        if from.name() != to.name() {
            self.orders.since = (to != Duty::InService).then_some(context.now);
            context.effects.push_back(Effect::Event(SiteEvent::Duty { path: self.path, from, to }));
        }
    }
}
