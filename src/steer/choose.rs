use arrayvec::ArrayVec;

use super::rendezvous::{flow_hash, winner};
use super::{
    Action, Candidate, Choice, Condition, Links, NewFlow, OnFailback, PathStrategy, Rule, RuleSet, SlaId, Standing,
    Stay, Steering, Why,
};
use crate::model::{FlowKey, LinkId, PathId, Permille, RuleId, Verdict};

/// Three tunnels in each of two roles.
pub const MAX_CANDIDATES: usize = 6;

/// A flow stays on a path that measures no more than this part worse than the best one.
pub const SWITCH_MARGIN: Permille = match Permille::new(100) {
    Some(margin) => margin,
    None => Permille::ZERO,
};

/// Nor for less than this, in microseconds of delay: nobody hears it (ITU-T G.107: a quarter of a point of a
/// hundred), and chance makes as much.
pub const SWITCH_LEAST: u32 = 10_000;

/// How flows are steered that no rule matches.
static WITHOUT_RULE: Steering = Steering {
    links: Links::Any,
    strategy: PathStrategy::Balance,
    sla: None,
    on_failback: OnFailback::Move,
    set_dscp: None,
};

/// Where a flow that chooses again is at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    pub path: PathId,
    /// The rule that it was chosen by.
    pub rule: Option<RuleId>,
    /// It has been there for as long as a flow stays at least.
    pub dwelt: bool,
    /// Of a path that is drained: it need not stay any longer.
    pub let_go: bool,
}

/// Decides the path of a flow's first packet; see `choose_again`.
pub fn choose(rules: &RuleSet, flow: &NewFlow, candidates: &[Candidate]) -> Choice {
    choose_by(rules.first_match(flow), &flow.key, candidates, None)
}

/// Decides the path of a flow that may have one already. The candidates are of the active role and
/// cover the flow; one that is `Down` is passed over. Depends on nothing but its arguments,
/// allocates nothing.
///
/// Health comes before everything, and with it the rule's SLA class; within it a rule's links
/// decide, else the links' preference; what is then equal shares the flows by weight. A flow that
/// is on one of the best paths stays there.
pub fn choose_by(
    matched: Option<(RuleId, &Rule)>,
    key: &FlowKey,
    candidates: &[Candidate],
    present: Option<Present>,
) -> Choice {
    let candidates = candidates.get(..MAX_CANDIDATES).unwrap_or(candidates);
    let rule = matched.map(|(id, _)| id);
    let steering = match matched.map(|(_, rule)| &rule.action) {
        None => &WITHOUT_RULE,
        Some(Action::Steer(steering)) => steering,
        Some(Action::BreakOut(breakout)) => {
            let is_up = |link| candidates.iter().any(|one| one.link == link && one.verdict != Verdict::Down);
            let why = breakout.choose(None, |link| key.source.is_ipv4() && is_up(link));
            let standings = [Standing::NotAllowed; MAX_CANDIDATES];
            return Choice { rule, path: None, why, stay: None, standings, best: 0 };
        }
        Some(Action::Drop) => {
            let field = Field::new(candidates);
            return Choice { rule, path: None, why: Why::RuleDrop, stay: None, standings: field.standings, best: 0 };
        }
    };
    let mut field = Field::new(candidates);
    let why = field.narrow(steering);
    let stay = present.and_then(|present| field.stay(steering, rule, present));
    let best = field.best;
    let path = match (stay, present) {
        (Some(_), Some(present)) => Some(present.path),
        _ => {
            // It can wait for a path that has settled, and there is one, or it would stay.
            let settled = field.bits(|candidate| candidate.settled);
            if settled != 0 && present.is_some_and(|present| field.is_well_enough(steering, present.path)) {
                field.best = settled;
            }
            let picked = field.pick(key);
            field.mark_full(picked);
            picked
        }
    };
    Choice { rule, path, why, stay, standings: field.standings, best }
}

/// What part of the flows without a rule each candidate can expect, in the order given; together
/// exactly 1,000, or all zero when none is up.
///
/// Candidates beyond `MAX_CANDIDATES` are left out.
pub fn shares(candidates: &[Candidate]) -> ArrayVec<(PathId, Permille), MAX_CANDIDATES> {
    let shown = candidates.get(..MAX_CANDIDATES).unwrap_or(candidates);
    let mut field = Field::new(shown);
    field.narrow(&WITHOUT_RULE);
    let weight = |candidate: &Candidate| u64::from(candidate.weight.max(1));
    let whole: u64 = field.best().map(|(_, candidate)| weight(candidate)).sum();
    let mut upto = 0;
    let mut told = 0;
    let part = |(index, candidate): (usize, &Candidate)| {
        if field.has(index) {
            upto += weight(candidate);
        }
        // Differences of rounded sums: single rounded shares might add up to 999.
        let sum = Permille::of(upto, whole).value();
        let share = Permille::new(sum.saturating_sub(told)).unwrap_or(Permille::ZERO);
        told = sum;
        (candidate.path, share)
    };
    shown.iter().enumerate().map(part).collect()
}

/// The candidates, and which of them are still the best after each step.
struct Field<'a> {
    candidates: &'a [Candidate],
    /// Bit n: the nth candidate.
    best: u8,
    standings: [Standing; MAX_CANDIDATES],
}

impl<'a> Field<'a> {
    fn new(candidates: &'a [Candidate]) -> Field<'a> {
        let best = (0..candidates.len().min(MAX_CANDIDATES)).fold(0, |bits, index| bits | 1 << index);
        Field { candidates, best, standings: [Standing::Best; MAX_CANDIDATES] }
    }

    /// Leaves the paths that a flow is to be shared among, and says why these.
    fn narrow(&mut self, steering: &Steering) -> Why {
        self.remove(|candidate| (candidate.verdict == Verdict::Down).then_some(Standing::Down));
        if self.best == 0 {
            return Why::NoCandidate;
        }
        let named = steering.links.named();
        let is_named = |candidate: &Candidate| named.contains(&candidate.link);
        if let Links::Strict(_) = steering.links {
            self.remove(|candidate| (!is_named(candidate)).then_some(Standing::NotAllowed));
            if self.best == 0 {
                return Why::StrictNoLink;
            }
        }
        // What has nowhere else to go stays: to drain a path breaks no flow.
        if self.best().any(|(_, candidate)| !candidate.drained) {
            self.remove(|candidate| candidate.drained.then_some(Standing::Drained));
        }
        let up = self.best.count_ones();
        let is_spare = |candidate: &Candidate| candidate.last_resort && !is_named(candidate);
        if self.best().any(|(_, candidate)| !is_spare(candidate)) {
            self.remove(|candidate| is_spare(candidate).then_some(Standing::LastResort));
        }
        let sla = steering.sla;
        let fell_back = if named.is_empty() { None } else { self.leave_named(is_named, steering) };
        self.keep_healthiest(steering);
        let Some((_, leader)) = self.best().next() else { return Why::NoCandidate };
        let (verdict, level) = (leader.verdict, Level::of(leader, steering));

        if let Some(class) = sla.filter(|_| level.misses_sla()) {
            self.keep_best_measured();
            return Why::LeastBad { class, among: self.among() };
        }
        let by_place = !named.is_empty() && fell_back.is_none();
        match steering.strategy {
            PathStrategy::Prefer | PathStrategy::Sticky if by_place => {
                let (link, place) = self.keep_first_link(named);
                return Why::RuleLink { link, place, verdict };
            }
            PathStrategy::Best => self.keep_best_measured(),
            PathStrategy::Cheapest => {
                self.keep_least(Standing::Metered, |candidate| candidate.metered);
                self.keep_least(Standing::Preference, |candidate| candidate.preference);
            }
            PathStrategy::Balance if by_place => {}
            PathStrategy::Balance | PathStrategy::Prefer | PathStrategy::Sticky => {
                self.keep_least(Standing::Preference, |candidate| candidate.preference);
            }
        }
        let among = self.among();
        match (fell_back, steering.strategy) {
            (Some(FellBack::NoLink), _) => Why::FellBackNoLink { among },
            (Some(FellBack::Health(verdict)), _) => Why::FellBackHealth { verdict, among },
            (Some(FellBack::Unsteady), _) => Why::FellBackUnsteady { among },
            (Some(FellBack::Sla(class)), _) => Why::FellBackSla { class, among },
            (None, _) if up == 1 => Why::OnlyCandidate,
            (None, PathStrategy::Best) => Why::BestMeasured { among },
            (None, PathStrategy::Cheapest) => Why::Cheapest { among },
            (None, PathStrategy::Balance | PathStrategy::Prefer | PathStrategy::Sticky) if among == 1 => {
                Why::Best { verdict }
            }
            (None, PathStrategy::Balance | PathStrategy::Prefer | PathStrategy::Sticky) => {
                Why::Share { verdict, among }
            }
        }
    }

    /// Of the links that the rule names and the others, leaves those that are to be used.
    fn leave_named(&mut self, is_named: impl Fn(&Candidate) -> bool, steering: &Steering) -> Option<FellBack> {
        let least = |wanted: bool| {
            let some = self.best().filter(|(_, candidate)| is_named(candidate) == wanted);
            some.map(|(_, candidate)| (Level::of(candidate, steering), candidate.verdict)).min()
        };
        let (ours, others) = (least(true), least(false));
        let Some((level, verdict)) = ours else { return Some(FellBack::NoLink) };
        // Only a link known to be good is a reason to leave the ones that the rule names: an
        // unknown one might be no better.
        if level > Level::GOOD && others.is_some_and(|(level, _)| level == Level::GOOD) {
            self.remove(|candidate| is_named(candidate).then(|| Level::standing(candidate, steering)));
            return Some(match (verdict, steering.sla) {
                (Verdict::Healthy, _) if matches!(level, Level::DEGRADED | Level::UNKNOWN_AND_UNSTEADY) => {
                    FellBack::Unsteady
                }
                (Verdict::Healthy, Some(class)) => FellBack::Sla(class),
                (Verdict::Healthy | Verdict::Unknown | Verdict::Degraded | Verdict::Down, _) => {
                    FellBack::Health(verdict)
                }
            });
        }
        self.remove(|candidate| (!is_named(candidate)).then_some(Standing::NotNamed));
        None
    }

    fn keep_healthiest(&mut self, steering: &Steering) {
        let Some(least) = self.best().map(|(_, candidate)| Level::of(candidate, steering)).min() else { return };
        self.remove(|candidate| (Level::of(candidate, steering) > least).then(|| Level::standing(candidate, steering)));
    }

    /// Those that measure best; as they are while nothing was measured.
    fn keep_best_measured(&mut self) {
        let Some(least) = self.best().filter_map(|(_, candidate)| candidate.score).min() else { return };
        self.remove(|candidate| candidate.score.is_none_or(|score| score > least).then_some(Standing::Score));
    }

    fn keep_first_link(&mut self, named: &[LinkId]) -> (LinkId, u8) {
        let place = |candidate: &Candidate| named.iter().position(|link| *link == candidate.link);
        self.keep_least(Standing::LaterLink, place);
        let first = self.best().next().map_or(LinkId(0), |(_, candidate)| candidate.link);
        let place = named.iter().position(|link| *link == first).unwrap_or_default();
        (first, u8::try_from(place.saturating_add(1)).unwrap_or(u8::MAX))
    }

    fn keep_least<K: Ord + Copy>(&mut self, others: Standing, of: impl Fn(&Candidate) -> K) {
        let Some(least) = self.best().map(|(_, candidate)| of(candidate)).min() else { return };
        self.remove(|candidate| (of(candidate) > least).then_some(others));
    }

    /// Does a flow stay where it is? `None`: it goes where a new one would.
    fn stay(&mut self, steering: &Steering, rule: Option<RuleId>, present: Present) -> Option<Stay> {
        let (index, candidate) = self.find(present.path)?;
        let standing = self.standings[index];
        if standing == Standing::Best {
            return Some(Stay::AmongBest);
        }
        if standing == Standing::Drained && !present.let_go {
            return Some(Stay::Draining);
        }
        // What nobody has measured yet may be no better than a path that only misses what the rule asks for.
        let best_is_unknown = self.best().all(|(_, best)| Level::of(best, steering) == Level::UNKNOWN);
        let misses = standing == Standing::Sla && candidate.verdict == Verdict::Healthy && present.rule == rule;
        if misses && best_is_unknown && !self.best().any(|(_, candidate)| candidate.settled) {
            return Some(Stay::HoldDown);
        }
        if !self.is_well_enough(steering, present.path) || present.rule != rule {
            return None;
        }
        let keeps = steering.strategy == PathStrategy::Sticky || steering.on_failback == OnFailback::Keep;
        let least = self.best().filter_map(|(_, candidate)| candidate.score).min();
        if keeps {
            Some(Stay::Kept)
        } else if standing == Standing::Score && is_close(candidate.score, least) {
            Some(Stay::Margin)
        } else if standing == Standing::Score && !self.keep_surely_better(candidate.score) {
            Some(Stay::Doubt)
        } else if !self.best().any(|(_, candidate)| candidate.settled) {
            Some(Stay::HoldDown)
        } else if !present.dwelt {
            Some(Stay::Dwell)
        } else {
            None
        }
    }

    /// Those that would still be clearly better than this score if they lost as much as they may; if there are none,
    /// the best remain.
    fn keep_surely_better(&mut self, score: Option<u32>) -> bool {
        let at_worst = |candidate: &Candidate| Some(candidate.score?.saturating_add(candidate.doubt));
        let is_surely_better = |candidate: &Candidate| !is_close(score, at_worst(candidate));
        if self.best().any(|(_, candidate)| is_surely_better(candidate)) {
            return true;
        }
        let measured = |index: &usize| matches!(self.standings[*index], Standing::Best | Standing::Score);
        let sure = |(index, candidate): (usize, &Candidate)| {
            (measured(&index) && is_surely_better(candidate)).then_some((at_worst(candidate)?, index))
        };
        let Some((_, surest)) = self.candidates.iter().enumerate().filter_map(sure).min() else { return false };
        self.remove(|_| Some(Standing::Doubt));
        self.standings[surest] = Standing::Best;
        self.best = 1 << surest;
        true
    }

    /// Would a flow on this path leave it for what the rule or the links prefer alone?
    fn is_well_enough(&self, steering: &Steering, path: PathId) -> bool {
        let Some((index, candidate)) = self.find(path) else { return false };
        let level = |candidate: &Candidate| Level::of(candidate, steering);
        let is_as_good = self.best().next().is_some_and(|(_, best)| level(candidate) <= level(best));
        is_as_good && self.standings.get(index).is_some_and(|standing| standing.may_stay())
    }

    /// By weight among those that have room; where none has, among all.
    fn pick(&self, key: &FlowKey) -> Option<PathId> {
        let roomy = self.bits(|candidate| !candidate.condition.full);
        let from = if roomy == 0 { self.best } else { roomy };
        let some = self.best().filter(|(index, _)| from & 1 << index != 0);
        winner(flow_hash(key), some.map(|(_, candidate)| *candidate)).map(|candidate| candidate.path)
    }

    /// Says of which of the best a flow was not picked for they have no room.
    fn mark_full(&mut self, picked: Option<PathId>) {
        let has_room = |candidate: &Candidate| Some(candidate.path) == picked && !candidate.condition.full;
        if self.best().any(|(_, candidate)| has_room(candidate)) {
            for (index, candidate) in self.candidates.iter().enumerate() {
                if self.has(index) && candidate.condition.full {
                    self.standings[index] = Standing::Full;
                }
            }
        }
    }

    fn remove(&mut self, goes: impl Fn(&Candidate) -> Option<Standing>) {
        for (index, candidate) in self.candidates.iter().enumerate() {
            if self.has(index)
                && let Some(standing) = goes(candidate)
            {
                self.best &= !(1 << index);
                self.standings[index] = standing;
            }
        }
    }

    fn best(&self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let best = self.best;
        self.candidates.iter().enumerate().filter(move |(index, _)| best & 1 << index != 0)
    }

    fn bits(&self, wanted: impl Fn(&Candidate) -> bool) -> u8 {
        self.best().filter(|(_, candidate)| wanted(candidate)).fold(0, |bits, (index, _)| bits | 1 << index)
    }

    fn find(&self, path: PathId) -> Option<(usize, &'a Candidate)> {
        self.candidates.iter().enumerate().find(|(_, candidate)| candidate.path == path)
    }

    fn has(&self, index: usize) -> bool {
        self.best & 1 << index != 0
    }

    fn among(&self) -> u8 {
        self.best.count_ones() as u8
    }
}

/// Why the links that a rule prefers are not used.
#[derive(Clone, Copy)]
enum FellBack {
    NoLink,
    Health(Verdict),
    Unsteady,
    Sla(SlaId),
}

/// How good a path is for a flow, from best to worst: what it is known to do comes before what is
/// unknown, and that before what it is known not to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Level(u8);

impl Level {
    const GOOD: Level = Level(0);
    const UNKNOWN: Level = Level(1);
    const DEGRADED: Level = Level(2);
    const MISSES_SLA: Level = Level(3);
    /// What it does is not known, and that it does not last is.
    const UNKNOWN_AND_UNSTEADY: Level = Level(4);
    const DEGRADED_AND_MISSES: Level = Level(5);

    fn of(candidate: &Candidate, steering: &Steering) -> Level {
        let Condition { strained, unsteady, fleeting, full: _ } = candidate.condition;
        let is_delicate = steering.asks_for_quality();
        let meets = steering.sla.map_or(Some(true), |class| candidate.sla.of(class));
        match (candidate.verdict, meets) {
            (Verdict::Healthy, Some(true)) if fleeting || unsteady && is_delicate => Level::DEGRADED,
            (Verdict::Healthy, Some(true)) => Level::GOOD,
            // To leave it for what the site itself does to it would only do the same to another.
            (Verdict::Degraded, Some(true)) if strained && !fleeting && !is_delicate => Level::GOOD,
            (Verdict::Unknown, _) | (Verdict::Healthy, None) if fleeting || unsteady && is_delicate => {
                Level::UNKNOWN_AND_UNSTEADY
            }
            (Verdict::Unknown, _) | (Verdict::Healthy, None) => Level::UNKNOWN,
            (Verdict::Degraded, Some(true) | None) => Level::DEGRADED,
            (Verdict::Healthy, Some(false)) => Level::MISSES_SLA,
            (Verdict::Degraded | Verdict::Down, _) => Level::DEGRADED_AND_MISSES,
        }
    }

    fn misses_sla(self) -> bool {
        matches!(self, Level::MISSES_SLA | Level::DEGRADED_AND_MISSES)
    }

    /// Why a candidate is not among the best, when its level is not.
    fn standing(candidate: &Candidate, steering: &Steering) -> Standing {
        let level = Level::of(candidate, steering);
        match candidate.verdict {
            _ if level == Level::MISSES_SLA => Standing::Sla,
            _ if level == Level::UNKNOWN_AND_UNSTEADY => Standing::Unsteady,
            Verdict::Healthy if level == Level::DEGRADED => Standing::Unsteady,
            Verdict::Healthy | Verdict::Unknown | Verdict::Degraded | Verdict::Down => Standing::Health,
        }
    }
}

/// Is the score within the switch margins of the best?
fn is_close(score: Option<u32>, best: Option<u32>) -> bool {
    let (Some(score), Some(best)) = (score, best) else { return false };
    let allowed = u64::from(best) * u64::from(1_000 + SWITCH_MARGIN.value());
    u64::from(score) * 1_000 <= allowed || score.saturating_sub(best) <= SWITCH_LEAST
}
