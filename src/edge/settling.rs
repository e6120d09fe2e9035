use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::machine::{Connector, Edge};
use super::steering;
use super::tunnel::Tunnel;
use super::{Effect, Fact, SiteEvent, snapshot};
use crate::forward::HeavyFlow;
use crate::model::{ConnectorId, Moment, PathId, Role, Verdict};
use crate::steer::Quality;

/// What follows from what tunnels have become: which role carries, how paths stand, which flows choose again, and
/// whether there is something to publish.
impl Edge {
    /// Brings everything in line with what has just become known: IKE's events, the roles, the
    /// published value.
    pub(super) fn settle(&mut self, now: Moment) {
        while let Some((path, sa, event)) = self.endpoint.poll_event() {
            self.with_tunnel(usize::from(path.0), now, |tunnel, context| tunnel.handle_ike_event(sa, event, context));
        }
        self.publish_names(now);
        let mut changed: BTreeSet<usize> = BTreeSet::new();
        let touched = std::mem::take(&mut self.touched);
        for index in &touched {
            if self.tunnels.get(*index).is_some_and(Tunnel::is_calling) {
                self.calling.insert(*index);
            } else {
                self.calling.remove(index);
            }
        }
        self.table.set_calling(!self.calling.is_empty());
        let of = |index: &usize| self.plan.tunnels.get(*index).map(|tunnel| usize::from(tunnel.connector.0));
        let connectors: BTreeSet<usize> = touched.iter().filter_map(of).collect();
        for index in connectors {
            let usable = self.usable(index);
            let roles = &mut self.connectors[index].roles;
            let before = self.watch.is_some().then(|| roles.clone());
            for role in Role::ALL {
                roles.handle_usable(role, usable[role.index()], now);
            }
            if before.is_some_and(|before| before != *roles) {
                let fact = Fact::Usable { connector: ConnectorId(index as u16), usable, active: roles.active() };
                self.effects.push_back(Effect::Record(now, fact));
            }
        }
        for index in 0..self.connectors.len() {
            while let Some(mut switch) = self.connectors[index].roles.poll_switch() {
                changed.insert(index);
                let drained = self.count(index, |tunnel| tunnel.usable() && tunnel.duty().is_drained());
                if let Some(drained @ 1..) = drained.get(switch.from.index()) {
                    switch.reason.push_str(&format!(" ({drained} drained)"));
                }
                self.connectors[index].last_switch = Some(super::tunnel::Change {
                    at: switch.at,
                    from: switch.from.to_string(),
                    to: switch.to.to_string(),
                    reason: switch.reason.clone(),
                });
                self.effects.push_back(Effect::Event(SiteEvent::RoleSwitched {
                    connector: ConnectorId(index as u16),
                    from: switch.from,
                    to: switch.to,
                    reason: switch.reason,
                }));
            }
        }
        for connector in &changed {
            // Every flow of it chooses among the tunnels of the role that carries now.
            self.let_choose(*connector);
        }
        let restood = self.follow(&touched, now);
        changed.extend(self.compare(touched, restood));
        if std::mem::take(&mut self.underlays_changed) {
            changed.extend(0..self.connectors.len());
        }
        if changed.is_empty() {
            return;
        }
        let until = now + self.plan.steering.dwell() + self.plan.steering.interval;
        for connector in changed {
            if let Some(connector) = self.connectors.get_mut(connector) {
                connector.steer_until = until;
            }
        }
        self.publish();
    }

    /// The connectors of which there is something to publish, of the tunnels that were touched, or that steering holds
    /// to stand otherwise.
    fn compare(&mut self, mut touched: BTreeSet<usize>, restood: Vec<usize>) -> BTreeSet<usize> {
        let of = |index: usize| {
            let tunnel = self.tunnels.get(index)?;
            Some(snapshot::Published::of(PathId(index as u16), tunnel, &self.steering))
        };
        if self.published.len() != self.tunnels.len() {
            self.published = (0..self.tunnels.len()).filter_map(of).collect();
            return (0..self.connectors.len()).collect();
        }
        touched.extend(restood);
        let mut changed = BTreeSet::new();
        for index in touched {
            if let (Some(known), Some(present)) = (self.published.get_mut(index), of(index))
                && *known != present
            {
                *known = present;
                changed.extend(self.plan.tunnels.get(index).map(|tunnel| usize::from(tunnel.connector.0)));
            }
        }
        changed
    }

    /// Tells steering what paths are like, and the flight recorder of it; gives those that it holds to stand
    /// otherwise.
    fn follow(&mut self, touched: &BTreeSet<usize>, now: Moment) -> Vec<usize> {
        let verdict = |tunnel: &Tunnel| if tunnel.usable() { tunnel.verdict() } else { Verdict::Down };
        let of = |index: &usize| Some((PathId(*index as u16), verdict(self.tunnels.get(*index)?)));
        let behind = self.steering.is_behind(touched.iter().filter_map(of), now);
        let mut restood = Vec::new();
        if behind {
            restood = self.steering.follow(&self.plan, self.tunnels.iter().map(verdict), now);
        }
        let judged = self.steering.is_to_judge(now).then(|| {
            let measured = self.measured(now);
            restood.extend(self.steering.judge(&self.plan, measured.iter().copied(), now));
            measured
        });
        let steered = behind || judged.is_some();
        let relief = judged.is_some() && self.steering.wants_relief(now);
        if let Some(watch) = &mut self.watch {
            let verdicts = self.tunnels.iter().map(verdict);
            let followed =
                (steered || watch.is_new()).then(|| watch.followed(&self.steering, verdicts, judged)).flatten();
            let whole = watch.whole(&self.steering, self.connectors.iter().map(|connector| &connector.roles), now);
            self.effects.extend(followed.into_iter().chain(whole).map(|fact| Effect::Record(now, fact)));
        }
        if relief {
            let number = self.steering.relieve(&self.plan, now);
            self.note(Fact::Relieved { number }, now);
            self.effects.push_back(steering::survey(&self.plan, number));
        }
        restood
    }

    /// What was measured of each tunnel, and carried by it since this was last asked.
    fn measured(&mut self, now: Moment) -> Vec<Quality> {
        let (before, at) = &mut self.tallied;
        before.resize(self.tunnels.len(), [0; 2]);
        let closely = self.plan.rules.asks_for_quality();
        // Bits in so many milliseconds are kilobits in as many seconds.
        let millis = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX).max(1);
        *at = now;
        let each = self.tunnels.iter().zip(before).map(|(tunnel, before)| {
            let counters = tunnel.counters();
            let carried = [&counters.bytes_out, &counters.bytes_in].map(|bytes| bytes.load(Ordering::Relaxed));
            let [sent_kbps, received_kbps] = [0, 1].map(|direction| {
                let bytes = carried[direction].saturating_sub(before[direction]);
                u32::try_from(bytes.saturating_mul(8) / millis).unwrap_or(u32::MAX)
            });
            *before = carried;
            Quality { sent_kbps, received_kbps, ..steering::quality(tunnel, closely, now) }
        });
        each.collect()
    }

    /// The flows of a connector choose again at their next packets.
    fn let_choose(&mut self, connector: usize) {
        let roles =
            self.plan.connectors.get(connector).into_iter().flat_map(|connector| connector.roles.iter().flatten());
        for path in roles.flat_map(|role| &role.tunnels) {
            let index = usize::from(path.0);
            if let Some(tunnel) = self.tunnels.get_mut(index) {
                tunnel.choose_again();
                // That is no reason to do it once more.
                if let Some(published) = self.published.get_mut(index) {
                    published.follow_epoch(*path, tunnel, &self.steering);
                }
            }
        }
    }

    /// Lets the flows choose again for which something has changed of late; those whose best path has not stay.
    pub(super) fn resteer(&mut self, now: Moment) {
        let due = |(index, connector): (usize, &Connector)| (now <= connector.steer_until).then_some(index);
        let due: Vec<usize> = self.connectors.iter().enumerate().filter_map(due).collect();
        if !due.is_empty() {
            // Those outside of the tunnels too.
            self.policy_epoch = self.policy_epoch.wrapping_add(u32::from(!self.breakouts.is_empty()));
            due.into_iter().for_each(|connector| self.let_choose(connector));
            self.publish();
        }
        let sent = || self.tunnels.iter().map(|tunnel| tunnel.counters().bytes_out.load(Ordering::Relaxed));
        let sent: Vec<u64> = sent().collect();
        let number = self.steering.count(&self.plan, sent.iter().copied(), now);
        if let Some(watch) = &mut self.watch {
            self.effects.push_back(Effect::Record(now, watch.counted(number, sent.into_iter())));
        }
        self.effects.push_back(steering::survey(&self.plan, number));
    }

    /// What the flows have sent since the re-steer before.
    pub(super) fn handle_survey(&mut self, number: u64, flows: &[HeavyFlow], now: Moment) {
        let active = self.active_roles();
        let shifts = self.steering.shifts(number, flows, &active, &self.plan, now);
        if self.watch.is_some() {
            let flows = if shifts.is_empty() { Vec::new() } else { flows.to_vec() };
            let fact = Fact::Surveyed { number, flows, shifts: shifts.clone() };
            self.effects.push_back(Effect::Record(now, fact));
        }
        let orders = shifts.into_iter().map(|shift| steering::order(&self.plan, &self.tunnels, shift, now));
        self.effects.extend(orders);
    }
}
