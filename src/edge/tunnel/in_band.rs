use std::time::Duration;

use super::{Context, Tunnel};
use crate::edge::{Effect, Plan};
use crate::forward::ToWorker;
use crate::model::{Moment, PathId};
use crate::probe::{Direction, MEASURE_BYTES, Measure, TwoWay};

/// Tunnels for which control takes as much as can be said: some hundred messages a second each way.
const MANY_TUNNELS: usize = 32;

/// Between the first messages of one tunnel and the next, within their pace: of three tunnels or of thousands, no two have the
/// same place in it.
const SPREAD: Duration = Duration::from_micros(61_003);

/// What is told to and by the Trefoil at the other end.
#[derive(Debug)]
pub(super) struct InBand {
    two_way: TwoWay,
    due: Moment,
}

impl InBand {
    pub fn new(path: PathId, plan: &Plan, now: Moment) -> InBand {
        let tunnel = &plan.tunnels[usize::from(path.0)];
        let sparing = plan.links[usize::from(tunnel.link.0)].metered || plan.tunnels.len() > MANY_TUNNELS;
        let two_way = TwoWay::new(sparing, now);
        // The other end is not up at the same moment, and drops what it hears before.
        let soonest = now + two_way.pace();
        // Of thousands of tunnels that come up together, not all speak together.
        let spread = SPREAD * u32::from(path.0);
        let due = soonest + Duration::from_nanos((spread.as_nanos() % two_way.pace().as_nanos()) as u64);
        InBand { two_way, due }
    }
}

impl Tunnel {
    /// What the Trefoil at the other end says. Of a peer that is none, it is nothing.
    pub fn handle_measure(&mut self, bytes: &[u8; MEASURE_BYTES], at: Moment) {
        if let (Some(in_band), Some(measure)) = (&mut self.in_band, Measure::read(bytes)) {
            in_band.two_way.handle(&measure, at);
        }
    }

    /// The peer is a Trefoil, and is listened to.
    pub fn is_kin(&self) -> bool {
        self.live.is_some() && self.in_band.is_some()
    }

    /// The directions in which we send and receive, where the peer is a Trefoil and enough has been measured.
    pub fn directions(&self, now: Moment) -> Option<(Direction, Direction)> {
        let two_way = self.two_way()?;
        Some((two_way.sending(now), two_way.receiving(now)))
    }

    /// The one in which we send.
    pub fn sending(&self, now: Moment) -> Option<Direction> {
        Some(self.two_way()?.sending(now))
    }

    fn two_way(&self) -> Option<&TwoWay> {
        Some(&self.in_band.as_ref().filter(|_| self.live.is_some())?.two_way)
    }

    pub(super) fn in_band_due(&self) -> Option<Moment> {
        self.in_band.as_ref().filter(|_| self.children().next().is_some()).map(|in_band| in_band.due)
    }

    /// Says what is due.
    pub(super) fn say_in_band(&mut self, context: &mut Context) {
        if self.in_band_due().is_none_or(|due| due > context.now) {
            return;
        }
        let Some(in_band) = &mut self.in_band else { return };
        let bytes = in_band.two_way.message(context.now).write();
        let pace = in_band.two_way.pace();
        // What is late today would else be late together with others from now on.
        in_band.due = (in_band.due + pace).max(context.now + pace / 2);
        let order = ToWorker::Measure { path: self.path, bytes };
        context.effects.push_back(Effect::Order(context.plan.home(self.path), order));
    }
}
