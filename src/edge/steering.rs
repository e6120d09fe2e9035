use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fact::PathStanding;
use super::tunnel::{DRAIN_PATIENCE, Tunnel};
use super::{Effect, Plan, snapshot};
use crate::forward::{HeavyFlow, MoveOrder, ToWorker};
use crate::health::Metrics;
use crate::model::{Moment, PathId, Role, Verdict, WorkerId};
use crate::steer::{Action, Elephant, Load, Quality, Shift, SlaStanding, rebalance};

/// A moved flow that never pauses moves all the same after this time: well within an interval.
const PATIENCE: Duration = DRAIN_PATIENCE;

/// Added to the difference of the paths' delays for a pause that is long enough.
const GAP_MARGIN: Duration = Duration::from_millis(2);

/// A pause that is long enough wherever nothing was measured, or the difference is extreme.
const GAP_MOST: Duration = Duration::from_millis(100);

/// How often SLA classes are judged: as often as paths are probed.
const JUDGE: Duration = Duration::from_secs(1);

/// A score that is published again must have changed by this part of it: one eighth.
const SCORE_STEP: u32 = 8;

/// What steering remembers between one re-steer and the next. It depends on nothing but what it is
/// told, so that a recording of that gives the same decisions again.
///
/// Recordings hold it as it is: a new field needs a default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Steering {
    /// By `PathId`.
    paths: Vec<Memory>,
    started: Moment,
    /// A rule asks what paths measure.
    measures: bool,
    /// What paths measure is recorded, whatever the rules ask.
    watched: bool,
    next_judge: Moment,
    /// When the next path that is well will have been so for the hold-down time.
    #[serde(default)]
    next_settled: Option<Moment>,
    /// The survey that is under way, or was last.
    survey: u64,
    counted_at: Moment,
    /// Between the last two counts.
    span: Duration,
}

/// What steering remembers of a path.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Memory {
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
            Action::BreakOut(_) | Action::Drop => false,
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
            watched: false,
            next_judge: now,
            next_settled: None,
            survey: 0,
            counted_at: now,
            span: plan.steering.interval,
        }
    }

    /// From now on it asks what paths measure once a second, whatever the rules ask.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    pub fn path(&self, id: PathId) -> Option<&Memory> {
        self.paths.get(usize::from(id.0))
    }

    /// How it holds each path to stand.
    pub fn standings(&self) -> impl Iterator<Item = PathStanding> {
        self.paths.iter().map(|&Memory { settled, sla, score, epoch, .. }| PathStanding { settled, sla, score, epoch })
    }

    /// Would `follow` change anything, if no path but these has another verdict? Of thousands of paths, few
    /// change at a time.
    pub fn is_behind(&self, mut verdicts: impl Iterator<Item = (PathId, Verdict)>, now: Moment) -> bool {
        let is_other = |(path, verdict)| self.path(path).is_some_and(|memory| memory.verdict != verdict);
        self.next_settled.is_some_and(|at| at <= now) || verdicts.any(is_other)
    }

    /// Follows the verdicts, by `PathId`; that of a path which is not usable is `Down`.
    pub fn follow(&mut self, plan: &Plan, verdicts: impl Iterator<Item = Verdict>, now: Moment) {
        let hold_down = plan.steering.hold_down();
        self.next_settled = None;
        for (memory, verdict) in self.paths.iter_mut().zip(verdicts) {
            if memory.verdict != verdict {
                (memory.verdict, memory.since) = (verdict, now);
            }
            // At the start nothing has come and gone yet.
            let early = memory.since.since(self.started) < hold_down;
            memory.settled = verdict == Verdict::Healthy && (early || now.since(memory.since) >= hold_down);
            if verdict == Verdict::Healthy && !memory.settled {
                let settles = memory.since + hold_down;
                self.next_settled = Some(self.next_settled.map_or(settles, |next| next.min(settles)));
            }
        }
    }

    pub fn is_to_judge(&self, now: Moment) -> bool {
        self.poll_timeout().is_some_and(|due| due <= now)
    }

    /// Judges what was measured, by `PathId`.
    pub fn judge(&mut self, plan: &Plan, measured: impl Iterator<Item = Quality>, now: Moment) {
        self.next_judge = now + JUDGE;
        if !self.measures {
            return;
        }
        for (memory, measured) in self.paths.iter_mut().zip(measured) {
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

    pub fn poll_timeout(&self) -> Option<Moment> {
        (self.measures || self.watched).then_some(self.next_judge)
    }

    /// What a path has sent between the last two counts.
    pub fn load_mbps(&self, path: PathId) -> f64 {
        let bytes = self.path(path).and_then(|memory| memory.sent.back().copied()).unwrap_or_default();
        let mbps = bytes as f64 * 8.0 / 1e6 / self.span.max(Duration::from_millis(1)).as_secs_f64();
        (mbps * 1e3).round() / 1e3
    }

    /// Counts what each path has sent, by `PathId`, and gives the number of the survey that is to say
    /// which flows it was.
    pub fn count(&mut self, plan: &Plan, sent: impl Iterator<Item = u64>, now: Moment) -> u64 {
        self.span = now.since(self.counted_at).max(Duration::from_millis(1));
        self.counted_at = now;
        let kept = plan.steering.horizon().as_nanos().div_ceil(plan.steering.interval.as_nanos().max(1));
        for (memory, bytes) in self.paths.iter_mut().zip(sent) {
            memory.sent.push_back(bytes.saturating_sub(memory.counted));
            memory.counted = bytes;
            while memory.sent.len() as u128 > kept {
                memory.sent.pop_front();
            }
        }
        self.survey = self.survey.wrapping_add(1);
        self.survey
    }

    /// Which flows of a survey are to move, so that the shares come in line.
    pub fn shifts(&self, number: u64, flows: &[HeavyFlow], active: &[Role], plan: &Plan, now: Moment) -> Vec<Shift> {
        if number != self.survey {
            return Vec::new();
        }
        let mut shifts = Vec::new();
        for (index, connector) in plan.connectors.iter().enumerate() {
            let role = active.get(index).copied().unwrap_or(Role::Primary);
            let Some(of_role) = &connector.roles[role.index()] else { continue };
            let of_connector = flows.iter().filter(|flow| of_role.tunnels.contains(&flow.path));
            shifts.extend(self.shifts_among(plan, &of_role.tunnels, of_connector, now));
        }
        shifts
    }

    fn shifts_among<'a>(
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
        let weight = snapshot::weight(plan, tunnel);
        // Megabits a second are 125,000 bytes.
        let room = u64::from(weight).saturating_mul(125_000).saturating_mul(plan.steering.horizon().as_secs());
        Some(Load {
            path,
            weight,
            room,
            sent: memory.sent.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)),
            expected: u64::try_from(expected).unwrap_or(u64::MAX),
        })
    }
}

/// Asks a worker which flows have sent what was counted; they take turns.
pub(super) fn survey(plan: &Plan, number: u64) -> Effect {
    let workers = u64::from(plan.dataplane.workers.get());
    Effect::Order(WorkerId((number % workers) as u16), ToWorker::Survey { number })
}

/// Moves a flow without packets overtaking each other.
pub(super) fn order(plan: &Plan, tunnels: &[Tunnel], shift: Shift, now: Moment) -> Effect {
    let metrics = |path: PathId| tunnels.get(usize::from(path.0)).map(|tunnel| tunnel.health().metrics());
    let gap = gap(metrics(shift.from).unwrap_or_default(), metrics(shift.to).unwrap_or_default());
    let order = MoveOrder { key: shift.key, from: shift.from, to: shift.to, gap, by: now + PATIENCE };
    Effect::Order(plan.home(shift.from), ToWorker::Move(order))
}

/// After which pause no packet on the new path overtakes one on the old: none, when the new one
/// is slower.
pub(super) fn gap(from: Metrics, to: Metrics) -> Duration {
    let (Some(from_rtt), Some(to_rtt)) = (from.rtt, to.rtt) else { return GAP_MOST };
    let jitter = from.jitter.unwrap_or_default() + to.jitter.unwrap_or_default();
    let sooner = (from_rtt / 2 + jitter).saturating_sub(to_rtt / 2);
    if sooner.is_zero() { Duration::ZERO } else { (sooner + GAP_MARGIN).min(GAP_MOST) }
}

/// What is known of a path. Where the peer is a Trefoil, loss is that of the direction in which we send: what is lost on the
/// way back, no choice of ours would spare.
pub(super) fn quality(tunnel: &Tunnel, now: Moment) -> Quality {
    let Metrics { loss, rtt, jitter, .. } = tunnel.health().metrics();
    let loss = tunnel.directions(now).and_then(|(sending, _)| sending.loss).or(loss);
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
