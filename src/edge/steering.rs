use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::burden::{Burden, Line};
use super::fact::PathStanding;
use super::outages::Outages;
use super::tunnel::{DRAIN_PATIENCE, Tunnel};
use super::{Effect, Plan, SiteKind, TunnelPlan, snapshot};
use crate::forward::{HeavyFlow, MoveOrder, ToWorker};
use crate::health::{self, Metrics};
use crate::model::{ConnectorId, LinkId, Moment, PathId, Permille, Role, Verdict, WorkerId};
use crate::probe::Direction;
use crate::steer::{Condition, Elephant, Load, Quality, Recent, Shift, SlaStanding, rebalance};

/// A moved flow that never pauses moves all the same after this time: well within an interval.
const PATIENCE: Duration = DRAIN_PATIENCE;

/// Added to the difference of the paths' delays for a pause that is long enough.
const GAP_MARGIN: Duration = Duration::from_millis(2);

/// A pause that is long enough wherever nothing was measured, or the difference is extreme.
const GAP_MOST: Duration = Duration::from_millis(100);

/// How often paths are judged: as often as they are probed.
const JUDGE: Duration = Duration::from_secs(1);

/// A survey before its time is asked for no sooner than this after the last: what flows send cannot be
/// told in less. Each further one waits twice as long, up to the interval.
const RELIEF_PAUSE: Duration = Duration::from_secs(2);

/// A flow that is worth moving sends a packet, and so chooses again, within this time.
const OFFER_PAUSE: Duration = Duration::from_millis(300);

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
    next_judge: Moment,
    /// When the next path that is well will have been so for the hold-down time.
    #[serde(default)]
    next_settled: Option<Moment>,
    /// The survey that is under way, or was last.
    survey: u64,
    counted_at: Moment,
    /// Between the last two counts.
    span: Duration,
    /// A link is full, and another of the same role has room.
    #[serde(default)]
    crowded: bool,
    /// The survey is to relieve a link that is full.
    #[serde(default)]
    relief: bool,
    /// When there may be another such one, and how long to wait then.
    #[serde(default)]
    relief_at: Moment,
    #[serde(default)]
    relief_pause: Duration,
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
    #[serde(default)]
    pub condition: Condition,
    #[serde(default)]
    burden: Burden,
    #[serde(default)]
    outages: Outages,
    /// Sent by the path at the last judgement, in kilobits a second.
    #[serde(default)]
    rate: u32,
    /// See `Quality::single_kbps`.
    #[serde(default)]
    single: Option<u32>,
}

impl Steering {
    pub fn new(plan: &Plan, now: Moment) -> Steering {
        let measures = plan.rules.asks_for_quality();
        let memory = Memory {
            verdict: Verdict::Down,
            since: now,
            settled: false,
            sla: SlaStanding::UNMEASURED,
            score: None,
            epoch: 0,
            counted: 0,
            sent: VecDeque::new(),
            condition: Condition::default(),
            burden: Burden::default(),
            outages: Outages::default(),
            rate: 0,
            single: None,
        };
        Steering {
            paths: vec![memory; plan.tunnels.len()],
            started: now,
            measures,
            next_judge: now,
            next_settled: None,
            survey: 0,
            counted_at: now,
            span: plan.steering.interval,
            crowded: false,
            relief: false,
            relief_at: now,
            relief_pause: RELIEF_PAUSE,
        }
    }

    pub fn path(&self, id: PathId) -> Option<&Memory> {
        self.paths.get(usize::from(id.0))
    }

    /// How it holds each path to stand.
    pub fn standings(&self) -> impl Iterator<Item = PathStanding> {
        let standing = |&Memory { settled, sla, score, epoch, condition, .. }: &Memory| PathStanding {
            settled,
            sla,
            score,
            epoch,
            condition,
        };
        self.paths.iter().map(standing)
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
        let mut has_outage = false;
        let mut better = Vec::new();
        for (index, (memory, verdict)) in self.paths.iter_mut().zip(verdicts).enumerate() {
            if memory.verdict != verdict {
                if verdict < memory.verdict {
                    better.push(index);
                }
                match (memory.verdict, verdict) {
                    (_, Verdict::Down) => memory.outages.fall(now),
                    (Verdict::Down, _) => memory.outages.rise(now),
                    _ => {}
                }
                has_outage |= [memory.verdict, verdict].contains(&Verdict::Down);
                (memory.verdict, memory.since) = (verdict, now);
                memory.condition.unsteady = memory.outages.is_unsteady(now);
                memory.condition.fleeting = memory.outages.is_fleeting(now);
            }
            // At the start nothing has come and gone yet.
            let early = memory.since.since(self.started) < hold_down;
            memory.settled = verdict == Verdict::Healthy && (early || now.since(memory.since) >= hold_down);
            if verdict == Verdict::Healthy && !memory.settled {
                let settles = memory.since + hold_down;
                self.next_settled = Some(self.next_settled.map_or(settles, |next| next.min(settles)));
            }
        }
        if has_outage {
            // What a path could not carry is not made up for.
            self.paths.iter_mut().for_each(|memory| memory.sent.clear());
        }
        self.offer(plan, &better, now);
    }

    /// These paths are better than they were: the flows of their siblings choose again, so that those that
    /// are worse off go over, and the others can be told to.
    fn offer(&mut self, plan: &Plan, better: &[usize], now: Moment) {
        let groups: BTreeSet<(ConnectorId, Role)> = better
            .iter()
            .filter_map(|index| plan.tunnels.get(*index))
            .map(|tunnel| (tunnel.connector, tunnel.role))
            .collect();
        if groups.is_empty() {
            return;
        }
        for (memory, tunnel) in self.paths.iter_mut().zip(&plan.tunnels) {
            if groups.contains(&(tunnel.connector, tunnel.role)) {
                memory.epoch = memory.epoch.wrapping_add(1);
            }
        }
        // Not before they have.
        (self.relief_at, self.relief_pause) = (now + OFFER_PAUSE, RELIEF_PAUSE);
    }

    pub fn is_to_judge(&self, now: Moment) -> bool {
        self.next_judge <= now
    }

    /// Judges what was measured, by `PathId`.
    pub fn judge(&mut self, plan: &Plan, measured: impl Iterator<Item = Quality>, now: Moment) {
        self.next_judge = now + JUDGE;
        let measured: Vec<Quality> = measured.collect();
        let lines = lines(plan, &measured);
        let mut better = Vec::new();
        for (index, ((memory, measured), tunnel)) in self.paths.iter_mut().zip(&measured).zip(&plan.tunnels).enumerate()
        {
            let before = memory.condition;
            let line = lines.get(&line_of(plan, tunnel)).copied().unwrap_or_default();
            memory.rate = measured.sent_kbps;
            memory.single = measured.single_kbps();
            memory.burden.judge(measured.recent.map(|recent| recent.rtt).or(measured.rtt), line, now);
            let strained = memory.burden.is_strained(now);
            if memory.condition.strained && !strained && memory.verdict == Verdict::Degraded {
                memory.epoch = memory.epoch.wrapping_add(1);
            }
            memory.condition = Condition {
                full: memory.burden.is_full(),
                strained,
                unsteady: memory.outages.is_unsteady(now),
                fleeting: memory.outages.is_fleeting(now),
            };
            let Condition { unsteady, fleeting, .. } = memory.condition;
            if before.unsteady && !unsteady || before.fleeting && !fleeting {
                better.push(index);
            }
        }
        self.offer(plan, &better, now);
        self.crowded = self.is_crowded(plan);
        if !self.crowded {
            self.relief_pause = RELIEF_PAUSE;
        }
        if !self.measures {
            return;
        }
        for (memory, measured) in self.paths.iter_mut().zip(&measured) {
            let standing = memory.sla.judge(plan.rules.sla_classes(), measured);
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

    pub fn poll_timeout(&self) -> Moment {
        self.next_judge
    }

    /// Has a link so much to carry, and another of the same role so little, that it should not wait for the
    /// next re-steer?
    pub fn wants_relief(&self, now: Moment) -> bool {
        self.crowded && now >= self.relief_at && now.since(self.counted_at) >= RELIEF_PAUSE
    }

    fn is_crowded(&self, plan: &Plan) -> bool {
        let mut roles = plan.connectors.iter().flat_map(|connector| connector.roles.iter().flatten());
        roles.any(|role| {
            let known = |path: &PathId| Some((self.path(*path)?, plan.tunnels.get(usize::from(path.0))?));
            let of_role = || role.tunnels.iter().filter_map(known);
            let is_full = |memory: &Memory| memory.verdict != Verdict::Down && memory.condition.full && memory.rate > 0;
            let has_room = |memory: &Memory, tunnel: &TunnelPlan| {
                memory.verdict == Verdict::Healthy
                    && !memory.condition.fleeting
                    && memory.burden.has_room(snapshot::weight(plan, tunnel).saturating_mul(1_000))
            };
            of_role().any(|(memory, _)| is_full(memory)) && of_role().any(|(memory, tunnel)| has_room(memory, tunnel))
        })
    }

    /// Gives the number of a survey for that.
    pub fn relieve(&mut self, plan: &Plan, now: Moment) -> u64 {
        self.relief = true;
        self.relief_at = now + self.relief_pause;
        self.relief_pause = (self.relief_pause * 2).min(plan.steering.interval);
        self.survey = self.survey.wrapping_add(1);
        self.survey
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
        self.relief = false;
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
            .filter(|flow| !self.relief || self.path(flow.path).is_some_and(|memory| memory.condition.full))
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
        let horizon = plan.steering.horizon();
        // A kilobit a second is 125 bytes.
        let ahead = |kbps: u32| u64::from(kbps).saturating_mul(125).saturating_mul(horizon.as_secs());
        let weight = snapshot::weight(plan, tunnel);
        let room = ahead(memory.burden.measured().unwrap_or(u32::MAX).min(weight.saturating_mul(1_000)));
        let single = memory.single.map_or(u64::MAX, ahead);
        if self.relief {
            return Some(Load { path, weight, room, single, sent: 0, expected: ahead(memory.rate) });
        }
        let last = u128::from(memory.sent.back().copied().unwrap_or_default());
        let expected = last * horizon.as_nanos() / self.span.as_nanos().max(1);
        Some(Load {
            path,
            weight,
            room,
            single,
            sent: memory.sent.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)),
            expected: u64::try_from(expected).unwrap_or(u64::MAX),
        })
    }
}

/// Whose traffic shares a bottleneck: all of a link's at a branch; at a gateway, where a link has one end
/// at each site, that of a connector's.
type LineId = (LinkId, Option<ConnectorId>);

fn line_of(plan: &Plan, tunnel: &TunnelPlan) -> LineId {
    match plan.site.kind {
        SiteKind::Branch => (tunnel.link, None),
        SiteKind::CloudVpc => (tunnel.link, Some(tunnel.connector)),
    }
}

/// What each of them carries, and can.
fn lines(plan: &Plan, measured: &[Quality]) -> BTreeMap<LineId, Line> {
    let mut lines: BTreeMap<LineId, Line> = BTreeMap::new();
    for (tunnel, measured) in plan.tunnels.iter().zip(measured) {
        let line = lines.entry(line_of(plan, tunnel)).or_default();
        let (up, down) = (tunnel.upstream.value(), tunnel.downstream.value());
        let capacity = match plan.site.kind {
            SiteKind::Branch => [up, down],
            SiteKind::CloudVpc => [down, up],
        };
        for (direction, load) in [measured.sent_kbps, measured.received_kbps].into_iter().enumerate() {
            line.load[direction] = line.load[direction].saturating_add(load);
            line.capacity[direction] = line.capacity[direction].max(capacity[direction].saturating_mul(1_000));
        }
    }
    lines
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
    let Metrics { loss, rtt, jitter, recent } = tunnel.health().metrics();
    let sending = tunnel.directions(now).map(|(sending, _)| sending).unwrap_or_default();
    match tunnel.leg() {
        Some(_) => {
            let recent = recent.map(|recent| on_the_way_there(recent, &sending));
            Quality { loss: sending.loss.or(loss), rtt, jitter, recent, ..Quality::default() }
        }
        None => Quality::default(),
    }
}

/// What round trips say of late, without what is lost on the way back as far as that is known: what is certain of both ways
/// together need not be lost on the way there.
fn on_the_way_there(recent: health::Recent, sending: &Direction) -> Recent {
    let health::Recent { rtt, jitter, loss, loss_least } = recent;
    let smaller = |one: Permille, other: Option<Permille>| other.map_or(one, |other| other.min(one));
    Recent { rtt, jitter, loss: smaller(loss, sending.loss), loss_least: smaller(loss_least, sending.loss_least) }
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

    #[test]
    fn what_is_certainly_lost_of_round_trips_counts_as_far_as_the_way_there_loses_it() {
        let permille = |value| Permille::new(value).expect("at most 1,000");
        let recent = health::Recent {
            rtt: Duration::from_millis(30),
            jitter: Duration::ZERO,
            loss: permille(60),
            loss_least: permille(40),
        };
        let told = |loss, least| {
            let way =
                Direction { loss: Some(permille(loss)), loss_least: Some(permille(least)), ..Direction::default() };
            let told = on_the_way_there(recent, &way);
            (told.loss.value(), told.loss_least.value())
        };
        assert_eq!(told(7, 0), (7, 0), "one message in 150: all the rest is lost on the way back");
        assert_eq!(told(30, 12), (30, 12));
        assert_eq!(told(90, 70), (60, 40));
        let unknown = on_the_way_there(recent, &Direction::default());
        assert_eq!((unknown.loss, unknown.loss_least), (permille(60), permille(40)));
    }

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
