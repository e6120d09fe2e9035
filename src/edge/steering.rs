use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::burden::Line;
use super::fact::PathStanding;
use super::memory::Memory;
use super::relief::{RELIEF_PAUSE, Relief};
use super::tunnel::{DRAIN_PATIENCE, Tunnel};
use super::{Effect, Plan, SiteKind, TunnelPlan, snapshot};
use crate::forward::{HEAVY_PER_PATH, HeavyFlow, MoveOrder, ToWorker};
use crate::health::{self, Metrics};
use crate::model::{ConnectorId, LinkId, Moment, PathId, Permille, Role, Verdict, WorkerId};
use crate::probe::Direction;
use crate::steer::{Condition, Elephant, Load, Quality, Recent, Shift, rebalance};

/// A moved flow that never pauses moves all the same after this time: well within an interval.
const PATIENCE: Duration = DRAIN_PATIENCE;

/// Added to the difference of the paths' delays for a pause that is long enough.
const GAP_MARGIN: Duration = Duration::from_millis(2);

/// A pause that is long enough wherever nothing was measured, or the difference is extreme.
const GAP_MOST: Duration = Duration::from_millis(100);

/// How often paths are judged: as often as they are probed.
const JUDGE: Duration = Duration::from_secs(1);

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
    /// Two for each connector, by role.
    #[serde(default)]
    reliefs: Vec<Relief>,
    /// For which of them the survey is; none: it is for the shares of all.
    #[serde(default)]
    relieved: Vec<usize>,
    /// When the last survey began, for whatever.
    #[serde(default)]
    surveyed_at: Moment,
}

impl Steering {
    pub fn new(plan: &Plan, now: Moment) -> Steering {
        let measures = plan.rules.asks_for_quality();
        Steering {
            paths: vec![Memory::new(now); plan.tunnels.len()],
            started: now,
            measures,
            next_judge: now,
            next_settled: None,
            survey: 0,
            counted_at: now,
            span: plan.steering.interval,
            reliefs: vec![Relief::default(); plan.connectors.len() * Role::ALL.len()],
            relieved: Vec::new(),
            surveyed_at: now,
        }
    }

    pub fn path(&self, id: PathId) -> Option<&Memory> {
        self.paths.get(usize::from(id.0))
    }

    /// How it holds each path to stand.
    pub fn standings(&self) -> impl Iterator<Item = PathStanding> {
        self.paths.iter().map(Memory::standing)
    }

    /// Would `follow` change anything, if no path but these has another verdict? Of thousands of paths, few
    /// change at a time.
    pub fn is_behind(&self, mut verdicts: impl Iterator<Item = (PathId, Verdict)>, now: Moment) -> bool {
        let is_other = |(path, verdict)| self.path(path).is_some_and(|memory| memory.verdict != verdict);
        self.next_settled.is_some_and(|at| at <= now) || verdicts.any(is_other)
    }

    /// Follows the verdicts, by `PathId`; that of a path which is not usable is `Down`. Gives the places of those that
    /// it comes to hold to stand otherwise.
    pub fn follow(&mut self, plan: &Plan, verdicts: impl Iterator<Item = Verdict>, now: Moment) -> Vec<usize> {
        let stood: Vec<PathStanding> = self.standings().collect();
        let hold_down = plan.steering.hold_down();
        self.next_settled = None;
        let mut better = Vec::new();
        for (index, (memory, verdict)) in self.paths.iter_mut().zip(verdicts).enumerate() {
            if memory.follow(verdict, now) {
                better.push(index);
            }
            // At the start nothing has come and gone yet.
            let early = memory.since().since(self.started) < hold_down;
            memory.settled = verdict == Verdict::Healthy && (early || now.since(memory.since()) >= hold_down);
            if verdict == Verdict::Healthy && !memory.settled {
                let settles = memory.since() + hold_down;
                self.next_settled = Some(self.next_settled.map_or(settles, |next| next.min(settles)));
            }
        }
        self.offer(plan, &better, now);
        self.restood(&stood)
    }

    fn restood(&self, stood: &[PathStanding]) -> Vec<usize> {
        let pairs = self.standings().zip(stood).enumerate();
        pairs.filter(|(_, (now, before))| now != *before).map(|(index, _)| index).collect()
    }

    /// These paths are better than they were: the flows of their siblings choose again, so that those that
    /// are worse off go over, and the others can be told to.
    fn offer(&mut self, plan: &Plan, better: &[usize], now: Moment) {
        let mut groups: Vec<usize> = better.iter().filter_map(|index| plan.tunnels.get(*index)).map(group_of).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            for path in paths_of(plan, group) {
                if let Some(memory) = self.paths.get_mut(usize::from(path.0)) {
                    memory.choose_again();
                }
            }
            let at = self.reliefs.get_mut(group).map(|relief| relief.offer(now));
            let has_full = paths_of(plan, group).filter_map(|path| self.path(path)).any(Memory::is_full);
            if let Some(at) = at.filter(|_| has_full) {
                self.next_judge = self.next_judge.min(at);
            }
        }
    }

    pub fn is_to_judge(&self, now: Moment) -> bool {
        self.next_judge <= now
    }

    /// Judges what was measured, by `PathId`. Gives what `follow` does.
    pub fn judge(&mut self, plan: &Plan, measured: impl Iterator<Item = Quality>, now: Moment) -> Vec<usize> {
        let stood: Vec<PathStanding> = self.standings().collect();
        self.next_judge = now + JUDGE;
        let measured: Vec<Quality> = measured.collect();
        let lines = lines(plan, &measured);
        let mut better = Vec::new();
        for (index, ((memory, measured), tunnel)) in self.paths.iter_mut().zip(&measured).zip(&plan.tunnels).enumerate()
        {
            let line = lines.get(&line_of(plan, tunnel)).copied().unwrap_or_default();
            if memory.judge_load(measured, line, now) {
                better.push(index);
            }
        }
        self.offer(plan, &better, now);
        self.reliefs.resize(plan.connectors.len() * Role::ALL.len(), Relief::default());
        for group in 0..self.reliefs.len() {
            let crowded = self.is_crowded(plan, group);
            if let Some(relief) = self.reliefs.get_mut(group) {
                relief.judge(crowded, now);
            }
        }
        if self.measures {
            self.judge_quality(plan, &measured);
        }
        self.restood(&stood)
    }

    /// What rules ask for: SLA classes and scores.
    fn judge_quality(&mut self, plan: &Plan, measured: &[Quality]) {
        // Of each role, what the path may lose at most that is known to lose least.
        let mut spared = vec![Permille::FULL; plan.connectors.len() * Role::ALL.len()];
        for ((measured, tunnel), memory) in measured.iter().zip(&plan.tunnels).zip(&self.paths) {
            if let Some(spared) = spared.get_mut(group_of(tunnel)).filter(|_| memory.verdict != Verdict::Down) {
                *spared = (*spared).min(measured.loss_most());
            }
        }
        for ((memory, measured), tunnel) in self.paths.iter_mut().zip(measured).zip(&plan.tunnels) {
            // Looked at each second, chance goes beyond its bounds now and then, but hardly ever by half.
            let spared = spared.get(group_of(tunnel)).map_or(u16::MAX, |loss| loss.value() / 2 * 3);
            let spared = Permille::new(spared).unwrap_or(Permille::FULL);
            memory.judge_quality(plan.rules.sla_classes(), *measured, spared);
        }
    }

    pub fn poll_timeout(&self) -> Moment {
        self.next_judge
    }

    /// Has a link so much to carry, and another of the same role so little, that it should not wait for the
    /// next re-steer?
    pub fn wants_relief(&self, now: Moment) -> bool {
        // A survey takes a walk through all flows, whoever it is for.
        now.since(self.surveyed_at) >= RELIEF_PAUSE && self.reliefs.iter().any(|relief| relief.is_wanted(now))
    }

    fn is_crowded(&self, plan: &Plan, group: usize) -> bool {
        let known = |path: PathId| Some((self.path(path)?, plan.tunnels.get(usize::from(path.0))?));
        let of_role = || paths_of(plan, group).filter_map(known);
        let has_room = |memory: &Memory, tunnel: &TunnelPlan| {
            memory.verdict == Verdict::Healthy
                && !memory.condition.fleeting
                && memory.burden.has_room(snapshot::weight(plan, tunnel).saturating_mul(1_000))
        };
        of_role().any(|(memory, _)| memory.is_full()) && of_role().any(|(memory, tunnel)| has_room(memory, tunnel))
    }

    /// Gives the number of a survey for that.
    pub fn relieve(&mut self, plan: &Plan, now: Moment) -> u64 {
        self.relieved.clear();
        for (group, relief) in self.reliefs.iter_mut().enumerate().filter(|(_, relief)| relief.is_wanted(now)) {
            relief.begin(plan.steering.interval, now);
            self.relieved.push(group);
        }
        self.begin_survey(now)
    }

    fn begin_survey(&mut self, now: Moment) -> u64 {
        self.surveyed_at = now;
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
        let before = std::mem::replace(&mut self.counted_at, now);
        let kept = plan.steering.horizon().as_nanos().div_ceil(plan.steering.interval.as_nanos().max(1)) as usize;
        for (memory, bytes) in self.paths.iter_mut().zip(sent) {
            memory.count(bytes, before, kept);
        }
        self.relieved.clear();
        self.begin_survey(now)
    }

    /// Which flows of a survey are to move, so that the shares come in line.
    pub fn shifts(&self, number: u64, flows: &[HeavyFlow], active: &[Role], plan: &Plan, now: Moment) -> Vec<Shift> {
        if number != self.survey {
            return Vec::new();
        }
        let mut shifts = Vec::new();
        for (index, connector) in plan.connectors.iter().enumerate() {
            let role = active.get(index).copied().unwrap_or(Role::Primary);
            if !self.relieved.is_empty() && !self.relieved.contains(&(index * Role::ALL.len() + role.index())) {
                continue;
            }
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
        let mut loads: Vec<Load> = group.iter().filter_map(|(_, path)| self.load(plan, *path)).collect();
        if loads.len() != group.len() {
            return Vec::new();
        }
        for load in &mut loads {
            let single = self.path(load.path).and_then(|memory| memory.single);
            let there = flows.iter().filter(|flow| flow.path == load.path).count().max(1);
            // Beyond so many there are more that nobody told of.
            if let Some(single) = single.filter(|_| there < HEAVY_PER_PATH) {
                let most = single.saturating_mul(there as u32);
                // Flows that send far less than they could are not held back by what is lost.
                let is_held_back = load.expected == 0 || load.expected >= ahead(plan, most) / 2;
                load.weight = if is_held_back { load.weight.min(most).max(1) } else { load.weight };
            }
        }
        if self.relieved.is_empty() {
            self.add_past(&mut loads);
        }
        let elephants: Vec<Elephant> = flows
            .iter()
            .filter(|flow| self.relieved.is_empty() || self.path(flow.path).is_some_and(|memory| memory.condition.full))
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
        let ahead = |kbps: u32| ahead(plan, kbps);
        let weight = snapshot::weight(plan, tunnel);
        let room = ahead(memory.burden.measured().unwrap_or(u32::MAX).min(weight.saturating_mul(1_000)));
        let (weight, single) = (weight.saturating_mul(1_000), memory.single.map_or(u64::MAX, ahead));
        let &Memory { rate, loss_least, loss_likely, condition: Condition { full, .. }, .. } = memory;
        let expected = ahead(rate);
        let at_this_rate = Load { path, weight, room, single, sent: 0, expected, loss_least, loss_likely, full };
        let Some(last) = memory.sent.back().filter(|_| self.relieved.is_empty()) else { return Some(at_this_rate) };
        let expected = u128::from(*last) * horizon.as_nanos() / self.span.as_nanos().max(1);
        Some(Load { expected: u64::try_from(expected).unwrap_or(u64::MAX), ..at_this_rate })
    }

    /// What the paths of a group have sent. What one of them could not carry because it was down is not made up
    /// for: for that time it is taken to have had its share of what the others sent.
    fn add_past(&self, loads: &mut [Load]) {
        let weight_of = |load: &Load| u128::from(load.weight.max(1));
        let intervals = |load: &Load| self.path(load.path).map_or(0, |memory| memory.sent.len());
        let longest = loads.iter().map(intervals).max().unwrap_or_default();
        for ago in 0..longest {
            let sent = |load: &Load| self.path(load.path).and_then(|memory| memory.sent.iter().rev().nth(ago).copied());
            let known = || loads.iter().filter_map(|load| Some((load, sent(load)?)));
            let whole: u128 = known().map(|(_, bytes)| u128::from(bytes)).sum();
            let weights: u128 = known().map(|(load, _)| weight_of(load)).sum();
            let each = |load: &Load| {
                let share = || u64::try_from(whole * weight_of(load) / weights.max(1)).unwrap_or(u64::MAX);
                sent(load).unwrap_or_else(share)
            };
            let sent: Vec<u64> = loads.iter().map(each).collect();
            loads.iter_mut().zip(sent).for_each(|(load, bytes)| load.sent = load.sent.saturating_add(bytes));
        }
    }
}

/// Bytes in the time that is looked ahead, of so many kilobits a second: each is 125 bytes.
fn ahead(plan: &Plan, kbps: u32) -> u64 {
    u64::from(kbps).saturating_mul(125).saturating_mul(plan.steering.horizon().as_secs())
}

/// The place of a connector's role among those of all.
fn group_of(tunnel: &TunnelPlan) -> usize {
    usize::from(tunnel.connector.0) * Role::ALL.len() + tunnel.role.index()
}

fn paths_of(plan: &Plan, group: usize) -> impl Iterator<Item = PathId> + '_ {
    let connector = plan.connectors.get(group / Role::ALL.len());
    let role = connector.and_then(|connector| connector.roles.get(group % Role::ALL.len())?.as_ref());
    role.into_iter().flat_map(|role| role.tunnels.iter().copied())
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
/// way back, no choice of ours would spare. What rules ask for is known from a close look alone.
pub(super) fn quality(tunnel: &Tunnel, closely: bool, now: Moment) -> Quality {
    let health = tunnel.health();
    let Metrics { loss, rtt, jitter, recent, latest, source } =
        if closely { health.metrics() } else { health.metrics_at_large() };
    let sending = tunnel.sending(now).unwrap_or_default();
    match tunnel.leg() {
        Some(_) => {
            let only_slow = tunnel.health().is_only_slow();
            let (loss, recent) = (sending.loss.or(loss), recent.map(|recent| on_the_way_there(recent, &sending)));
            Quality { loss, rtt, jitter, recent, latest, source, only_slow, ..Quality::default() }
        }
        None => Quality::default(),
    }
}

/// What round trips say of late, without what is lost on the way back as far as that is known: of what is certain of both
/// ways together as much as of all that was lost, or what is certain of the way there by itself, whatever is more.
fn on_the_way_there(recent: health::Recent, sending: &Direction) -> Recent {
    let health::Recent { rtt, jitter, loss, loss_least, loss_most } = recent;
    let Some(there) = sending.loss else { return Recent { rtt, jitter, loss, loss_least, loss_most } };
    let there = there.min(loss);
    let part = u32::from(loss_least.value()) * u32::from(there.value()) / u32::from(loss.value().max(1));
    let part = u16::try_from(part).ok().and_then(Permille::new).unwrap_or(loss_least);
    let least = part.min(loss_least).max(sending.loss_least.unwrap_or_default());
    Recent { rtt, jitter, loss: there.max(least), loss_least: least, loss_most }
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
            loss_most: permille(90),
        };
        let told = |loss, least| {
            let way =
                Direction { loss: Some(permille(loss)), loss_least: Some(permille(least)), ..Direction::default() };
            let told = on_the_way_there(recent, &way);
            (told.loss.value(), told.loss_least.value())
        };
        assert_eq!(told(0, 0), (0, 0), "all is lost on the way back");
        assert_eq!(told(7, 0), (7, 4), "one message in 150: nearly all the rest is");
        assert_eq!(told(30, 12), (30, 20));
        assert_eq!(told(30, 25), (30, 25));
        assert_eq!(told(90, 70), (70, 70), "messages saw more of it than probes");
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
