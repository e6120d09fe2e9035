use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::attempt::{Attempt, FIRST_PAUSE, REFUSED_PAUSE};
use super::in_band::InBand;
use super::{CHILDREN_LIMIT, Change, Context, Tunnel};
use crate::edge::child::ChildLineage;
use crate::edge::{Effect, KeyRecord, SiteEvent};
use crate::forward::Duty;
use crate::ike::{ChildSa, CloseReason, Event, SaId};
use crate::model::{Leg, Moment, OutboundSlot, Secret, Spi, Verdict};

/// The IKE SA that is up, with its Child SAs.
pub(super) struct Live {
    pub sa: SaId,
    pub leg: Leg,
    /// Set by the peer's authenticated messages rather than by our configuration.
    pub follows_peer: bool,
    pub children: Vec<ChildLineage>,
    pub last_answer: Moment,
    /// When the peer was last to be told over another way that this one is dead, but there was none
    /// or this one was to be asked once more.
    pub rescue_tried: Option<Moment>,
    pub asked_again: bool,
}

impl Tunnel {
    pub fn handle_ike_event(&mut self, sa: SaId, event: Event, context: &mut Context) {
        match event {
            Event::Established { leg, initiator, kin, .. } => {
                self.established(sa, leg, initiator, context);
                if self.live.as_ref().is_some_and(|live| live.sa == sa) {
                    let measures = kin && context.plan.health.in_band;
                    self.in_band = measures.then(|| InBand::new(self.path, context.plan, context.now));
                }
            }
            Event::ChildEstablished(child) => self.child_established(sa, &child, context),
            Event::ChildDeleted { inbound, reason } => self.child_deleted(sa, inbound, &reason, context),
            Event::Rekeyed { .. } => {
                self.rekeys += 1;
                context.effects.push_back(Effect::Event(SiteEvent::Rekeyed { path: self.path, what: "IKE SA" }));
            }
            Event::Answered { leg, first_sent, transmissions, .. } => {
                // Over another link it says nothing of this path.
                let own = |live: &&mut Live| live.sa == sa && live.leg.underlay == leg.underlay;
                if let Some(live) = self.live.as_mut().filter(own) {
                    live.last_answer = context.now;
                    let rtt = (transmissions == 1).then(|| context.now.since(first_sent));
                    self.health.handle_liveness(rtt, context.now);
                    self.report_verdict(context);
                }
            }
            Event::Asked { leg } => {
                if self.live.as_ref().is_some_and(|live| live.sa == sa && live.leg.underlay == leg.underlay) {
                    self.health.handle_request(context.now);
                }
            }
            Event::Moved { leg } => {
                if let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) {
                    live.leg = leg;
                }
            }
            Event::Closed { reason } => self.closed(sa, &reason, context),
            Event::Keys(keys) => context.effects.push_back(Effect::Keys(KeyRecord::Ike(keys))),
        }
    }

    fn established(&mut self, sa: SaId, leg: Leg, initiator: bool, context: &mut Context) {
        if self.duty() == Duty::Down {
            // It was under way when an operator took the tunnel down.
            return context.endpoint.close(sa, "an operator took it down", context.now);
        }
        match self.attempt {
            // Both ends have called at once. If each gave its own call up for the other's, none
            // would be left, so ours goes on, and will replace this one.
            Attempt::Connecting { sa: ours } if ours != sa && self.call_prevails(context) => {}
            Attempt::Connecting { sa: ours } if ours != sa => {
                context.endpoint.abandon(ours, "the peer opened the tunnel first");
                self.attempt = Attempt::Idle;
            }
            Attempt::Connecting { .. } | Attempt::Idle | Attempt::Waiting { .. } | Attempt::Resolving { .. } => {
                self.attempt = Attempt::Idle;
            }
        }
        if let Some(old) = self.live.take() {
            self.retire(old.children, context);
            if old.sa != sa {
                context.endpoint.close(old.sa, "replaced by a new IKE SA", context.now);
            }
        }
        self.failures = 0;
        self.down_since = None;
        self.live = Some(Live {
            sa,
            leg,
            follows_peer: !initiator,
            children: Vec::new(),
            last_answer: context.now,
            rescue_tried: None,
            asked_again: false,
        });
        self.health.handle_restart(context.now);
        self.questions.forget();
        self.restart_path_mtu(context);
        self.epoch = self.epoch.wrapping_add(1);
    }

    fn child_established(&mut self, sa: SaId, child: &ChildSa, context: &mut Context) {
        let path = self.path;
        let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) else {
            // The answer of an IKE SA that is being closed.
            return context.endpoint.release_spi(child.inbound);
        };
        if context.export_keys {
            export_child(child, live.leg, context.effects);
        }
        let predecessor = child.replaces.and_then(|old| live.children.iter_mut().find(|lineage| lineage.owns(old)));
        let installed = match predecessor {
            Some(lineage) => {
                self.rekeys += 1;
                context.effects.push_back(Effect::Event(SiteEvent::Rekeyed { path, what: "Child SA" }));
                lineage.succeed(child, path, context.table, context.backends)
            }
            None => {
                let base = path.0 * CHILDREN_LIMIT;
                let free = (base..base + CHILDREN_LIMIT)
                    .map(OutboundSlot)
                    .find(|slot| live.children.iter().all(|lineage| lineage.slot() != *slot));
                free.and_then(|slot| ChildLineage::establish(child, path, slot, context.table, context.backends))
                    .map(|lineage| live.children.push(lineage))
            }
        };
        if installed.is_none() {
            // Beyond the limit, or keys that fit no algorithm: the IKE SA goes, so that both
            // ends agree on what there is.
            context.endpoint.release_spi(child.inbound);
            return context.endpoint.close(sa, "a Child SA cannot be installed", context.now);
        }
        self.report_state("Child SA established".to_owned(), context);
    }

    fn child_deleted(&mut self, sa: SaId, inbound: Spi, reason: &str, context: &mut Context) {
        let now = context.now;
        let Some(live) = self.live.as_mut().filter(|live| live.sa == sa) else { return };
        let Some(position) = live.children.iter().position(|lineage| lineage.owns(inbound)) else { return };
        if live.children[position].handle_deleted(inbound, now, context.table) {
            return;
        }
        let ended = live.children.remove(position);
        self.retired.push(ended);
        // A flow's pin names its Child SA by place, and those behind this one have moved up.
        self.epoch = self.epoch.wrapping_add(1);
        if self.live.as_ref().is_some_and(|live| live.children.is_empty()) {
            let reason = format!("its Child SA was deleted: {reason}");
            self.went_down(&reason, now);
            self.report_state(reason, context);
            // Without a Child SA the IKE SA is of no use: start over.
            context.endpoint.close(sa, "no Child SA is left", now);
        }
    }

    fn closed(&mut self, sa: SaId, reason: &CloseReason, context: &mut Context) {
        if matches!(self.attempt, Attempt::Connecting { sa: ours } if ours == sa) {
            if self.live.is_some() && self.down_since.is_none() {
                // The peer's call has come to something.
                self.attempt = Attempt::Idle;
                return;
            }
            let pause = if is_refusal(reason) { REFUSED_PAUSE } else { FIRST_PAUSE };
            return self.wait(pause, reason.to_string(), context);
        }
        if self.live.as_ref().is_some_and(|live| live.sa == sa) {
            if let Some(old) = self.live.take() {
                self.retire(old.children, context);
            }
            self.down_since = None;
            self.epoch = self.epoch.wrapping_add(1);
            if self.duty() != Duty::Down {
                self.went_down(&reason.to_string(), context.now);
                self.failed(&reason.to_string(), context.now);
            }
            if matches!(self.attempt, Attempt::Idle) && self.initiates && self.duty() != Duty::Down {
                self.wait(FIRST_PAUSE, reason.to_string(), context);
            } else {
                self.report_state(reason.to_string(), context);
            }
        } else if matches!(self.attempt, Attempt::Idle) && self.live.is_none() && is_refusal(reason) {
            // A peer called us and was refused, or refused us: say why the tunnel is not there.
            self.failed(&reason.to_string(), context.now);
            self.last_change = Some(Change {
                at: context.now,
                from: self.state.to_string(),
                to: self.state.to_string(),
                reason: reason.to_string(),
            });
            context.effects.push_back(Effect::Event(SiteEvent::TunnelState {
                path: self.path,
                from: self.state,
                to: self.state,
                reason: reason.to_string(),
            }));
        }
    }

    /// Of two calls at the same moment, one from each end, is it ours that stays? Both ends know
    /// both identities, and so come to the same answer.
    fn call_prevails(&self, context: &Context) -> bool {
        self.peer(self.destination(context), context).is_some_and(|peer| peer.local_id > peer.remote_id)
    }

    /// Child SAs whose IKE SA has ended: they send no more, and open what is still on its way.
    fn retire(&mut self, children: Vec<ChildLineage>, context: &mut Context) {
        for mut lineage in children {
            lineage.delete_all(context.now, context.table);
            self.retired.push(lineage);
        }
    }

    /// Seed: no data and no answer for so long tears the tunnel down for a rebuild.
    pub(super) fn give_up_when_dead(&mut self, context: &mut Context) {
        let dead_after = self.plan(context.plan).dead_after;
        let Some(live) = &self.live else { return };
        let last_in = Moment::from_nanos(self.counters.last_in.load(Ordering::Relaxed));
        let silent = context.now.since(live.last_answer.max(last_in));
        // Probes farther apart than `dead_after` leave a silence that says nothing by itself.
        if silent >= dead_after && self.health.verdict() == Verdict::Down {
            let sa = live.sa;
            context.endpoint.abandon(sa, &format!("nothing heard for {} s", silent.as_secs()));
        }
    }
}

/// A refusal stays until somebody changes a configuration; silence may end by itself.
fn is_refusal(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::AuthenticationFailed { .. }
        | CloseReason::IdentityMismatch { .. }
        | CloseReason::LocalIdentityMismatch { .. }
        | CloseReason::NoProposalChosen { .. }
        | CloseReason::SelectorsUnacceptable { .. }
        | CloseReason::RefusedByPeer { .. }
        | CloseReason::ProtocolError { .. } => true,
        CloseReason::Unanswered { .. }
        | CloseReason::DeletedByPeer
        | CloseReason::ClosedLocally { .. }
        | CloseReason::Replaced => false,
    }
}

fn export_child(child: &ChildSa, leg: Leg, effects: &mut VecDeque<Effect>) {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (leg.local.ip(), leg.remote.ip()) else { return };
    let mut export = |source, destination, spi, key: &Secret| {
        effects.push_back(Effect::Keys(KeyRecord::Esp {
            source,
            destination,
            spi,
            encryption: child.encryption,
            key: key.clone(),
        }));
    };
    export(local, remote, child.outbound, &child.outbound_key);
    export(remote, local, child.inbound, &child.inbound_key);
}
