use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::explain::named_link;
use super::machine::Edge;
use super::snapshot;
use super::status::{
    BreakoutStatus, ChangeStatus, ConnectorState, ConnectorStatus, DropStatus, FailureStatus, ForgottenStatus,
    LinkStatus, OneWayStatus, ProbeStatus, SiteStatus, TunnelStatus, WorkerStatus,
};
use super::tunnel::{Change, Failure, Tunnel};
use super::{ConnectorPlan, SiteKind};
use crate::forward::{BreakoutFace, Forgetting, Forgotten, WorkerCounters};
use crate::health::{TargetReport, TargetStanding};
use crate::model::{DropCounters, DropReason, LinkId, Mbps, Moment, PathId, Permille, Role};
use crate::probe::Direction;
use crate::steer;

/// What the status needs from outside the machine.
#[derive(Clone, Copy, Debug)]
pub struct StatusFacts<'a> {
    /// Milliseconds since the Unix epoch at `Moment::ZERO`.
    pub unix_ms_at_zero: u64,
    pub started: Moment,
    /// Drops that no path is to blame for.
    pub drops: &'a DropCounters,
    pub flows: u64,
    pub flow_limit: u64,
    pub forgotten: &'a Forgotten,
    /// By `WorkerId`.
    pub workers: &'a [WorkerCounters],
}

impl Edge {
    pub fn status(&self, facts: StatusFacts, now: Moment) -> SiteStatus {
        SiteStatus {
            site: self.plan.site.name.clone(),
            kind: match self.plan.site.kind {
                SiteKind::Branch => "branch",
                SiteKind::CloudVpc => "cloud-vpc",
            }
            .to_owned(),
            at_ms: unix_ms(&facts, now),
            started_ms: unix_ms(&facts, facts.started),
            generation: self.generation,
            connectors: (0..self.plan.connectors.len())
                .map(|index| self.connector_status(index, &facts, now))
                .collect(),
            drops: drops(facts.drops),
            flows: facts.flows,
            recording: None,
            flow_limit: facts.flow_limit,
            forgotten: forgotten(facts.forgotten),
            links: (0..self.plan.links.len()).map(|index| self.link_status(LinkId(index as u16))).collect(),
            shaped_mbps: self.plan.site_cap().0.map(Mbps::value),
            policed_mbps: self.plan.site_cap().1.map(Mbps::value),
            breakouts: self.breakout_status(),
            names: (!self.plan.rules.names().is_empty()).then(|| self.names.status()),
            workers: (0..).zip(facts.workers).map(|(id, counters)| worker_status(id, counters)).collect(),
        }
    }

    fn breakout_status(&self) -> Vec<BreakoutStatus> {
        let one = |face: BreakoutFace| BreakoutStatus {
            link: named_link(&self.plan, face.link),
            usable: face.usable,
            packets: face.live.packets.load(Ordering::Relaxed),
            bytes: face.live.bytes.load(Ordering::Relaxed),
        };
        self.breakouts().into_iter().map(one).collect()
    }

    fn connector_status(&self, index: usize, facts: &StatusFacts, now: Moment) -> ConnectorStatus {
        let plan = &self.plan.connectors[index];
        let connector = &self.connectors[index];
        let active = connector.roles.active();
        let shares = self.shares(plan, active);
        let tunnels: Vec<TunnelStatus> = Role::ALL
            .iter()
            .flat_map(|role| plan.roles[role.index()].iter().flat_map(|role| &role.tunnels))
            .map(|path| {
                let share =
                    shares.iter().find(|(shared, _)| shared == path).map_or(Permille::ZERO, |(_, share)| *share);
                self.tunnel_status(*path, share, facts, now)
            })
            .collect();
        let usable = tunnels.iter().filter(|tunnel| tunnel.usable).count();
        ConnectorStatus {
            name: plan.name.clone(),
            state: match usable {
                0 => ConnectorState::Down,
                some if some == tunnels.len() => ConnectorState::Up,
                _ => ConnectorState::PartiallyUp,
            },
            active_role: active.to_string(),
            last_switch: connector.last_switch.as_ref().map(|change| change_status(change, facts)),
            held: connector.roles.is_held(),
            tunnels,
        }
    }

    /// A branch sends up, a gateway down.
    pub(super) fn one_way(&self, tunnel: &Tunnel, now: Moment) -> Option<OneWayStatus> {
        let (sending, receiving) = tunnel.directions(now)?;
        let (up, down) = match self.plan.site.kind {
            SiteKind::Branch => (sending, receiving),
            SiteKind::CloudVpc => (receiving, sending),
        };
        let percent = |direction: Direction| direction.loss.map(|loss| f64::from(loss.value()) / 10.0);
        Some(OneWayStatus {
            loss_up_percent: percent(up),
            loss_down_percent: percent(down),
            jitter_up_ms: up.jitter.map(ms),
            jitter_down_ms: down.jitter.map(ms),
            rise_up_ms: up.rise.map(ms),
            rise_down_ms: down.rise.map(ms),
        })
    }

    fn link_status(&self, id: LinkId) -> LinkStatus {
        let plan = &self.plan.links[usize::from(id.0)];
        let live = &self.links[usize::from(id.0)].live;
        let (shaped, policed) = self.plan.link_cap(id);
        let queue = self.plan.is_shaped(id).then(|| live.queue());
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStatus {
            name: plan.name.clone(),
            downstream_mbps: plan.downstream.value(),
            upstream_mbps: plan.upstream.value(),
            shaped_mbps: shaped.map(Mbps::value),
            policed_mbps: policed.map(Mbps::value),
            queued_packets: queue.map(|(packets, ..)| packets),
            queued_bytes: queue.map(|(_, bytes, _)| bytes),
            queue_ms: queue.map(|(.., waited)| ms(waited)),
            shaper_drops: read(&live.dropped_out),
            shaper_marks: read(&live.marked_out),
            policer_drops: read(&live.dropped_in),
            policer_marks: read(&live.marked_in),
        }
    }

    fn shares(&self, connector: &ConnectorPlan, active: Role) -> Vec<(PathId, Permille)> {
        let candidates: Vec<steer::Candidate> = connector.roles[active.index()]
            .iter()
            .flat_map(|role| &role.tunnels)
            .filter(|path| self.tunnels[usize::from(path.0)].usable())
            .map(|path| snapshot::candidate(&self.plan, *path, &self.tunnels[usize::from(path.0)], &self.steering))
            .collect();
        steer::shares(&candidates).into_iter().collect()
    }

    fn tunnel_status(&self, path: PathId, share: Permille, facts: &StatusFacts, now: Moment) -> TunnelStatus {
        let plan = &self.plan.tunnels[usize::from(path.0)];
        let tunnel = &self.tunnels[usize::from(path.0)];
        let metrics = tunnel.health().metrics();
        let live = tunnel.leg().is_some();
        let counters = tunnel.counters();
        let computed = snapshot::inner_mtu(&self.plan, plan.connector, &self.underlays);
        let failure =
            |failure: &Failure| FailureStatus { at_ms: unix_ms(facts, failure.at), reason: failure.reason.clone() };
        let health = if live { tunnel.health().note() } else { tunnel.unanswered(&self.endpoint) };
        let condition = self.steering.path(path).filter(|_| tunnel.usable()).and_then(|known| known.condition.note());
        let notes: Vec<String> = health.into_iter().chain(condition.map(str::to_owned)).collect();
        TunnelStatus {
            name: plan.name.clone(),
            role: plan.role.to_string(),
            link: self.plan.links[usize::from(plan.link.0)].name.clone(),
            remote: tunnel.remote(&self.plan).map(|remote| remote.to_string()),
            state: tunnel.state().to_string(),
            usable: tunnel.usable(),
            duty: tunnel.duty().name().to_owned(),
            duty_since_ms: tunnel.duty_since().map(|since| unix_ms(facts, since)),
            verdict: tunnel.verdict().to_string(),
            loss_percent: metrics.loss.filter(|_| live).map(|loss| f64::from(loss.value()) / 10.0),
            rtt_ms: metrics.rtt.filter(|_| live).map(ms),
            jitter_ms: metrics.jitter.filter(|_| live).map(ms),
            share_percent: f64::from(share.value()) / 10.0,
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            packets_out: counters.packets_out.load(Ordering::Relaxed),
            packets_in: counters.packets_in.load(Ordering::Relaxed),
            drops_out: drops(&counters.drops_out),
            drops_in: drops(&counters.drops_in),
            mtu: live.then(|| computed.min(tunnel.path_mtu().unwrap_or(u16::MAX))),
            path_mtu: tunnel.proven_path_mtu().filter(|_| live),
            asymmetric_in: counters.asymmetric_in.load(Ordering::Relaxed),
            child_sas: u32::try_from(tunnel.children().count()).unwrap_or(u32::MAX),
            rekeys: tunnel.rekeys(),
            probes: tunnel.health().targets().map(probe_status).collect(),
            stray_answers: tunnel.stray_answers(),
            one_way: self.one_way(tunnel, now),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            last_change: tunnel.last_change().map(|change| change_status(change, facts)),
            went_down: tunnel.when_down().map(failure),
            last_failure: tunnel.last_failure().map(failure),
        }
    }
}

fn probe_status(target: TargetReport) -> ProbeStatus {
    let counts = target.counts;
    ProbeStatus {
        target: target.name.to_owned(),
        state: match target.standing {
            TargetStanding::Answers => "answers",
            TargetStanding::Silent => "silent",
            TargetStanding::Elsewhere => "elsewhere",
            TargetStanding::Never => "never",
        }
        .to_owned(),
        loss_percent: target.metrics.loss.map(|loss| f64::from(loss.value()) / 10.0),
        rtt_ms: target.metrics.rtt.map(ms),
        jitter_ms: target.metrics.jitter.map(ms),
        refusal: target.refusal.map(str::to_owned),
        sent: counts.sent,
        answered: counts.answered,
        refused: counts.refused,
        late: counts.late,
        elsewhere: counts.elsewhere,
        unexpected: counts.unexpected,
        malformed: counts.malformed,
    }
}

fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn worker_status(worker: u16, counters: &WorkerCounters) -> WorkerStatus {
    let totals = counters.totals();
    WorkerStatus {
        worker,
        turns: totals.turns,
        waits: totals.waits,
        packets_out: totals.packets_out,
        bytes_out: totals.bytes_out,
        packets_in: totals.packets_in,
        bytes_in: totals.bytes_in,
        handed_over: totals.handed_over,
        taken_over: totals.taken_over,
        drops: drops(counters.drops()),
    }
}

pub(super) fn unix_ms(facts: &StatusFacts, moment: Moment) -> u64 {
    facts.unix_ms_at_zero.saturating_add(moment.as_nanos() / 1_000_000)
}

fn change_status(change: &Change, facts: &StatusFacts) -> ChangeStatus {
    ChangeStatus {
        at_ms: unix_ms(facts, change.at),
        from: change.from.clone(),
        to: change.to.clone(),
        reason: change.reason.clone(),
    }
}

fn forgotten(counters: &Forgotten) -> Vec<ForgottenStatus> {
    Forgetting::ALL
        .iter()
        .map(|reason| ForgottenStatus { reason: reason.name().to_owned(), flows: counters.get(*reason) })
        .filter(|forgotten| forgotten.flows > 0)
        .collect()
}

fn drops(counters: &DropCounters) -> Vec<DropStatus> {
    DropReason::ALL
        .iter()
        .map(|reason| DropStatus { reason: reason.name().to_owned(), packets: counters.get(*reason) })
        .filter(|drop| drop.packets > 0)
        .collect()
}
