use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::tunnel::Tunnel;
use super::{Effect, Plan, snapshot};
use crate::forward::{HeavyFlow, MoveOrder, ToWorker};
use crate::health::Metrics;
use crate::model::{Moment, PathId, Role, Verdict, WorkerId};
use crate::steer::{Action, Elephant, Load, Quality, Shift, SlaStanding, rebalance};

/// A moved flow that never pauses moves all the same after this time: well within an interval.
const PATIENCE: Duration = Duration::from_millis(900);

/// Added to the difference of the paths' delays for a pause that is long enough.
const GAP_MARGIN: Duration = Duration::from_millis(2);

/// A pause that is long enough wherever nothing was measured, or the difference is extreme.
const GAP_MOST: Duration = Duration::from_millis(100);

/// How often SLA classes are judged: as often as paths are probed.
const JUDGE: Duration = Duration::from_secs(1);

/// A score that is published again must have changed by this part of it: one eighth.
const SCORE_STEP: u32 = 8;

/// What steering remembers between one re-steer and the next.
pub(super) struct Steering {
    /// By `PathId`.
    paths: Vec<Memory>,
    started: Moment,
    /// A rule asks what paths measure.
    measures: bool,
    next_judge: Moment,
    /// The survey that is under way, or was last.
    survey: u64,
    counted_at: Moment,
    /// Between the last two counts.
    span: Duration,
}

/// What steering remembers of a path.
#[derive(Clone)]
pub(super) struct Memory {
    verdict: Verdict,
    since: Moment,
    /// See `Candidate`.
    pub settled: bool,
    pub sla: SlaStanding,
    pub score: Option<u32>,
    /// Counts how often it came to miss a class, so that its flows choose again.
    pub epoch: u32,
    /// Bytes sent, at the last count.
    counted: u64,
    /// Bytes sent in each interval, the latest last.
    sent: VecDeque<u64>,
}

impl Steering {
    pub fn new(plan: &Plan, now: Moment) -> Steering {
        let measures = plan.rules.rules().iter().any(|rule| match &rule.action {
            Action::Drop => false,
            Action::Steer(steering) => steering.asks_for_quality(),
        });
        let memory = Memory {
            verdict: Verdict::Down,
            since: now,
            settled: false,
            sla: SlaStanding::UNMEASURED,
            score: None,
            epoch: 0,
            counted: 0,
            sent: VecDeque::new(),
        };
        Steering {
            paths: vec![memory; plan.tunnels.len()],
            started: now,
            measures,
            next_judge: now,
            survey: 0,
            counted_at: now,
            span: plan.steering.interval,
        }
    }

    pub fn path(&self, id: PathId) -> Option<&Memory> {
        self.paths.get(usize::from(id.0))
    }

    /// Follows the verdicts, and judges what was measured when it is time.
    pub fn follow(&mut self, plan: &Plan, tunnels: &[Tunnel], now: Moment) {
        let hold_down = plan.steering.hold_down();
        for (memory, tunnel) in self.paths.iter_mut().zip(tunnels) {
            let verdict = if tunnel.usable() { tunnel.verdict() } else { Verdict::Down };
            if memory.verdict != verdict {
                (memory.verdict, memory.since) = (verdict, now);
            }
            // At the start nothing has come and gone yet.
            let early = memory.since.since(self.started) < hold_down;
            memory.settled = verdict == Verdict::Healthy && (early || now.since(memory.since) >= hold_down);
        }
        if self.measures && now >= self.next_judge {
            self.next_judge = now + JUDGE;
            for (memory, tunnel) in self.paths.iter_mut().zip(tunnels) {
                let measured = quality(tunnel);
                let standing = memory.sla.judge(plan.rules.sla_classes(), &measured);
                if standing.misses_more_than(memory.sla) {
                    memory.epoch = memory.epoch.wrapping_add(1);
                }
                memory.sla = standing;
                let score = measured.score();
                if !is_alike(memory.score, score) {
                    memory.score = score;
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        self.measures.then_some(self.next_judge)
    }

    /// What a path has sent between the last two counts.
    pub fn load_mbps(&self, path: PathId) -> f64 {
        let bytes = self.path(path).and_then(|memory| memory.sent.back().copied()).unwrap_or_default();
        let mbps = bytes as f64 * 8.0 / 1e6 / self.span.as_secs_f64();
        (mbps * 1e3).round() / 1e3
    }

    /// Counts what each path has sent, and asks a worker which flows it was.
    pub fn count(&mut self, plan: &Plan, tunnels: &[Tunnel], now: Moment) -> Effect {
        self.span = now.since(self.counted_at).max(Duration::from_millis(1));
        self.counted_at = now;
        let kept = plan.steering.horizon().as_nanos().div_ceil(plan.steering.interval.as_nanos().max(1));
        for (memory, tunnel) in self.paths.iter_mut().zip(tunnels) {
            let bytes = tunnel.counters().bytes_out.load(Ordering::Relaxed);
            memory.sent.push_back(bytes.saturating_sub(memory.counted));
            memory.counted = bytes;
            while memory.sent.len() as u128 > kept {
                memory.sent.pop_front();
            }
        }
        self.survey += 1;
        let workers = u64::from(plan.dataplane.workers.get());
        let worker = WorkerId((self.survey % workers) as u16);
        Effect::Order(worker, ToWorker::Survey { number: self.survey })
    }

    /// The answer to `count`: the moves that bring the shares in line.
    pub fn moves(
        &self,
        number: u64,
        flows: &[HeavyFlow],
        active: &[Role],
        plan: &Plan,
        tunnels: &[Tunnel],
        now: Moment,
    ) -> Vec<Effect> {
        if number != self.survey {
            return Vec::new();
        }
        let mut effects = Vec::new();
        for (index, connector) in plan.connectors.iter().enumerate() {
            let role = active.get(index).copied().unwrap_or(Role::Primary);
            let Some(of_role) = &connector.roles[role.index()] else { continue };
            let of_connector = flows.iter().filter(|flow| of_role.tunnels.contains(&flow.path));
            for shift in self.shifts(plan, &of_role.tunnels, of_connector, now) {
                effects.push(self.order(plan, tunnels, shift, now));
            }
        }
        effects
    }

    fn shifts<'a>(
        &self,
        plan: &Plan,
        paths: &[PathId],
        flows: impl Iterator<Item = &'a HeavyFlow>,
        now: Moment,
    ) -> Vec<Shift> {
        let flows: Vec<&HeavyFlow> = flows.collect();
        let shared = flows.iter().fold(0, |bits, flow| bits | flow.peers);
        let group: Vec<(usize, PathId)> =
            paths.iter().copied().enumerate().filter(|(index, _)| shared & 1 << index != 0).collect();
        let loads: Vec<Load> = group.iter().filter_map(|(_, path)| self.load(plan, *path)).collect();
        if loads.len() != group.len() {
            return Vec::new();
        }
        let elephants: Vec<Elephant> = flows
            .iter()
            .filter(|flow| flow.moved_at.is_none_or(|at| now.since(at) >= plan.steering.dwell()))
            .map(|flow| Elephant {
                key: flow.key,
                path: flow.path,
                peers: (0..).zip(&group).fold(0, |bits, (place, (index, _))| bits | (flow.peers >> index & 1) << place),
                expected: flow.rate.saturating_mul(plan.steering.horizon().as_secs()),
            })
            .collect();
        rebalance(&loads, &elephants)
    }

    fn load(&self, plan: &Plan, path: PathId) -> Option<Load> {
        let memory = self.path(path)?;
        let tunnel = plan.tunnels.get(usize::from(path.0))?;
        let last = u128::from(memory.sent.back().copied().unwrap_or_default());
        let expected = last * plan.steering.horizon().as_nanos() / self.span.as_nanos().max(1);
        Some(Load {
            path,
            weight: snapshot::weight(plan, tunnel),
            sent: memory.sent.iter().sum(),
            expected: u64::try_from(expected).unwrap_or(u64::MAX),
        })
    }

    fn order(&self, plan: &Plan, tunnels: &[Tunnel], shift: Shift, now: Moment) -> Effect {
        let metrics = |path: PathId| tunnels.get(usize::from(path.0)).map(|tunnel| tunnel.health().metrics());
        let gap = gap(metrics(shift.from).unwrap_or_default(), metrics(shift.to).unwrap_or_default());
        let order = MoveOrder { key: shift.key, from: shift.from, to: shift.to, gap, by: now + PATIENCE };
        Effect::Order(plan.home(shift.from), ToWorker::Move(order))
    }
}

/// After which pause no packet on the new path overtakes one on the old: none, when the new one
/// is slower.
fn gap(from: Metrics, to: Metrics) -> Duration {
    let (Some(from_rtt), Some(to_rtt)) = (from.rtt, to.rtt) else { return GAP_MOST };
    let jitter = from.jitter.unwrap_or_default() + to.jitter.unwrap_or_default();
    let sooner = (from_rtt / 2 + jitter).saturating_sub(to_rtt / 2);
    if sooner.is_zero() { Duration::ZERO } else { (sooner + GAP_MARGIN).min(GAP_MOST) }
}

pub(super) fn quality(tunnel: &Tunnel) -> Quality {
    let Metrics { loss, rtt, jitter, .. } = tunnel.health().metrics();
    match tunnel.leg() {
        Some(_) => Quality { loss, rtt, jitter },
        None => Quality::default(),
    }
}

fn is_alike(published: Option<u32>, measured: Option<u32>) -> bool {
    match (published, measured) {
        (None, None) => true,
        (Some(old), Some(new)) => old.abs_diff(new) <= old / SCORE_STEP,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rtt_ms: u64, jitter_ms: u64) -> Metrics {
        let ms = |ms| Some(Duration::from_millis(ms));
        Metrics { rtt: ms(rtt_ms), jitter: ms(jitter_ms), ..Metrics::default() }
    }

    #[test]
    fn a_flow_waits_for_a_pause_as_long_as_the_new_path_is_faster() {
        assert_eq!(gap(measured(60, 0), measured(20, 0)), Duration::from_millis(22));
        assert_eq!(gap(measured(20, 0), measured(60, 0)), Duration::ZERO);
        assert_eq!(gap(measured(20, 5), measured(20, 5)), Duration::from_millis(12));
        assert_eq!(gap(measured(900, 0), measured(20, 0)), GAP_MOST);
        assert_eq!(gap(Metrics::default(), measured(20, 0)), GAP_MOST);
    }
}
