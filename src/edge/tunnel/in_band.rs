use std::time::Duration;

use super::{Context, Tunnel};
use crate::edge::{Effect, Plan};
use crate::forward::ToWorker;
use crate::model::{Moment, PathId};
use crate::probe::{Direction, MEASURE_BYTES, Measure, TwoWay};

/// Between two messages: often enough that half a minute tells 5 % of loss from none.
const PACE: Duration = Duration::from_millis(200);

/// Over a metered link, and for a site of very many tunnels.
const PACE_SPARING: Duration = Duration::from_secs(1);

/// Tunnels for which control keeps the quicker pace: some hundred messages a second each way.
const MANY_TUNNELS: usize = 32;

/// What is told to and by the Trefoil at the other end.
#[derive(Debug)]
pub(super) struct InBand {
    two_way: TwoWay,
    due: Moment,
    pace: Duration,
}

impl InBand {
    pub fn new(path: PathId, plan: &Plan, now: Moment) -> InBand {
        let tunnel = &plan.tunnels[usize::from(path.0)];
        let sparing = plan.links[usize::from(tunnel.link.0)].metered || plan.tunnels.len() > MANY_TUNNELS;
        // The other end is not up at the same moment, and drops what it hears before.
        InBand { two_way: TwoWay::new(now), due: now + PACE, pace: if sparing { PACE_SPARING } else { PACE } }
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
        let two_way = &self.in_band.as_ref().filter(|_| self.live.is_some())?.two_way;
        Some((two_way.sending(now), two_way.receiving(now)))
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
        in_band.due = context.now + in_band.pace;
        let order = ToWorker::Measure { path: self.path, bytes };
        context.effects.push_back(Effect::Order(context.plan.home(self.path), order));
    }
}
