use std::time::Duration;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use super::{ChildFace, ConnectorFace, FlowReport, Forwarding, MoveCause, PathFace};
use crate::model::{DropReason, FlowKey, LinkId, Moment, PathId, Role, RuleId, Verdict};
use crate::steer::{
    Action, Breakout, Candidate, Choice, Condition, Links, MAX_CANDIDATES, NewFlow, OnFailback, PathStrategy, Present,
    Rule, SlaStanding, Standing, Stay, Why, choose_by,
};

/// Tunnels of one role.
pub const ROLE_PATHS: usize = 3;

/// A path with the Child SA on it that covers a packet.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pub path: &'a PathFace,
    /// The Child SA and its index.
    pub child: (usize, &'a ChildFace),
}

/// What is known of a flow that chooses again; all `None` for a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    pub path: Option<PathId>,
    /// By which link it leaves outside of the tunnels.
    #[serde(default)]
    pub breakout: Option<LinkId>,
    pub rule: Option<RuleId>,
    pub arrived_on: Option<PathId>,
    pub moved_at: Option<Moment>,
    /// It has been told to go here, where its rule allows it.
    pub ordered: Option<PathId>,
    /// Since a packet of it last left.
    #[serde(default)]
    pub paused: Duration,
    /// The packet before went nowhere, whatever path the flow had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// Where a flow goes, and all that was looked at to find out.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    pub choice: Choice,
    /// What the choice was made from.
    pub candidates: ArrayVec<Candidate, ROLE_PATHS>,
    /// The chosen path; `None`: refused, unless `breakout` says otherwise.
    pub way: Option<Way<'a>>,
    /// It leaves by this link outside of the tunnels.
    pub breakout: Option<LinkId>,
    /// See `HeavyFlow::peers`.
    pub peers: u8,
    /// A rule has a say in the path, and where the flow arrives has none.
    pub by_rule: bool,
    /// It stays on the secondary role's path although traffic went back.
    pub kept: bool,
    /// A usable path was left out because its traffic selectors do not cover the flow.
    pub uncovered: bool,
    /// Why it leaves the path that it had.
    pub moved: Option<MoveCause>,
}

impl Forwarding {
    /// Rules, then the pick among the active role's usable paths whose selectors cover the flow. The
    /// packet road and the explanation both come here.
    pub fn decide(&self, connector: &ConnectorFace, flow: &NewFlow, held: &Held, now: Moment) -> Decision<'_> {
        self.decide_where(connector, flow, held, now, &|way| self.has_sa(way))
    }

    /// As `decide`, where `there` says which Child SAs are there: the decision of another time, or of
    /// another machine.
    pub fn decide_where(
        &self,
        connector: &ConnectorFace,
        flow: &NewFlow,
        held: &Held,
        now: Moment,
        there: &impl Fn(Way) -> bool,
    ) -> Decision<'_> {
        let matched = self.rules.first_match(flow);
        if let Some((id, Rule { action: Action::BreakOut(breakout), .. })) = matched {
            return self.break_out(id, breakout, flow, held);
        }
        let kept = self.kept_on_secondary(connector, flow, held, matched, there);
        if let Some(way) = kept.filter(|way| !way.path.duty.is_drained() || !self.lets_go(held, now)) {
            return self.keep(way, flow, held, matched);
        }
        let mut ways: ArrayVec<Way, ROLE_PATHS> = ArrayVec::new();
        let mut uncovered = false;
        for path in connector.roles[connector.active.index()].iter().filter_map(|id| self.path(*id)) {
            if !path.usable {
                continue;
            }
            match covering(path, &flow.key, there) {
                Some(way) => ways.push(way),
                None => uncovered = true,
            }
        }
        let candidates: ArrayVec<Candidate, ROLE_PATHS> = ways.iter().map(|way| way.path.candidate()).collect();
        let dwelt = held.moved_at.is_none_or(|at| now.since(at) >= self.dwell);
        let let_go = self.lets_go(held, now);
        let choose = |path: Option<PathId>| {
            let present = path.map(|path| Present { path, rule: held.rule, dwelt, let_go });
            choose_by(matched, &flow.key, &candidates, present)
        };
        let mut choice = choose(held.ordered.or(held.path));
        if held.ordered.is_some() && (choice.path, choice.stay) != (held.ordered, Some(Stay::AmongBest)) {
            // An order is never a reason to leave what the rule asks for.
            choice = choose(held.path);
        }
        let by_rule = has_say(matched);
        if let Some(path) = self.answers_on(held, by_rule, &choice, &candidates) {
            (choice.path, choice.why, choice.stay) = (Some(path), Why::Arrival, None);
        }
        let way = ways.iter().find(|way| Some(way.path.id) == choice.path).copied();
        let best = candidates.iter().enumerate().filter(|(index, _)| choice.best & 1 << index != 0);
        let best: ArrayVec<PathId, ROLE_PATHS> = best.map(|(_, candidate)| candidate.path).collect();
        let movable = choice.path.is_some_and(|path| best.contains(&path)) && !is_sticky(matched);
        let role = connector.roles[connector.active.index()].iter().enumerate();
        let peers =
            role.filter(|(_, path)| movable && best.contains(path)).fold(0, |bits, (index, _)| bits | 1 << index);
        let moved = self.cause(connector, held, &choice, &candidates);
        Decision { choice, candidates, way, breakout: None, peers, by_rule, kept: false, uncovered, moved }
    }

    fn break_out(&self, rule: RuleId, breakout: &Breakout, flow: &NewFlow, held: &Held) -> Decision<'_> {
        // IPv6 has no address of the link that it could be given (RFC 6296 would need a prefix of its own).
        let is_up = |link| flow.key.source.is_ipv4() && self.breakout(link).is_some_and(|face| face.usable);
        let why = breakout.choose(held.breakout, is_up);
        let standings = [Standing::NotAllowed; MAX_CANDIDATES];
        Decision {
            choice: Choice { rule: Some(rule), path: None, why, stay: None, standings, best: 0 },
            candidates: ArrayVec::new(),
            way: None,
            breakout: why.breakout(),
            peers: 0,
            by_rule: true,
            kept: false,
            uncovered: false,
            moved: None,
        }
    }

    /// The connector of a packet from the site: the source must be the site's, and the longest of
    /// the ranges that contain the destination decides.
    pub fn connector_for(&self, key: &FlowKey) -> Result<&ConnectorFace, DropReason> {
        let site = &self.site;
        // The private addresses are for probes, which do not come by this way.
        if site.is_own(key.source) || !site.native.is_empty() && !site.is_native(key.source) {
            return Err(DropReason::NotNative);
        }
        let connector = self.routes.connector(key.destination).filter(|_| !site.is_own(key.destination));
        connector.and_then(|id| self.connector(id)).ok_or(DropReason::NoRoute)
    }

    /// Is a flow elsewhere than it would be if every path of the connector were well?
    pub fn is_off_preferred(&self, report: &FlowReport) -> bool {
        let Some(path) = report.path.and_then(|id| self.path(id)) else { return false };
        let Some(connector) = self.connector(path.connector) else { return false };
        let first = Role::ALL.into_iter().find(|role| !connector.roles[role.index()].is_empty());
        if report.refused().is_none() && first != Some(path.role) {
            return true;
        }
        let ideal = |path: &PathFace| Candidate {
            verdict: Verdict::Healthy,
            settled: true,
            sla: SlaStanding::ALL_MET,
            score: None,
            doubt: 0,
            condition: Condition::GOOD,
            drained: false,
            ..path.candidate()
        };
        let paths = connector.roles[path.role.index()].iter().filter_map(|id| self.path(*id));
        let candidates: ArrayVec<Candidate, ROLE_PATHS> = paths.map(ideal).collect();
        let (key, dscp) = (report.key, report.dscp);
        let flow = NewFlow {
            key,
            dscp,
            connector: connector.id,
            minute: self.minute,
            ends: self.ends_with(&key, report.names),
        };
        let choice = choose_by(self.rules.first_match(&flow), &flow.key, &candidates, None);
        if report.refused().is_some() {
            // It is nowhere.
            return choice.path.is_some() && self.connector_for(&key).is_ok();
        }
        let index = candidates.iter().position(|candidate| candidate.path == path.id);
        // Where a peer wants to be answered is where the flow belongs.
        report.why != Why::Arrival && index.is_some_and(|index| choice.best & 1 << index == 0)
    }

    /// The first Child SA of the path that covers the flow and is there.
    pub fn covering<'a>(&self, path: &'a PathFace, key: &FlowKey) -> Option<Way<'a>> {
        covering(path, key, &|way| self.has_sa(way))
    }

    pub fn has_sa(&self, way: Way) -> bool {
        self.sas.outbound(way.child.1.slot).is_some_and(|place| place.load().is_some())
    }

    /// May the flow leave its path because that is drained?
    fn lets_go(&self, held: &Held, now: Moment) -> bool {
        held.path.and_then(|id| self.path(id)).is_none_or(|path| path.duty.lets_go(held.paused, now))
    }

    /// Traffic has gone back to the primary role, and the flow's rule lets it stay where it is.
    fn kept_on_secondary(
        &self,
        connector: &ConnectorFace,
        flow: &NewFlow,
        held: &Held,
        matched: Option<(RuleId, &Rule)>,
        there: &impl Fn(Way) -> bool,
    ) -> Option<Way<'_>> {
        let path = self.path(held.path?)?;
        let keeps = path.connector == connector.id
            && connector.active == Role::Primary
            && path.role == Role::Secondary
            && path.usable
            && path.verdict < Verdict::Degraded
            && matched.map(|(id, _)| id) == held.rule
            && matched.is_some_and(|(_, rule)| keeps_place(rule));
        keeps.then(|| covering(path, &flow.key, there))?
    }

    fn keep<'a>(&'a self, way: Way<'a>, flow: &NewFlow, held: &Held, matched: Option<(RuleId, &Rule)>) -> Decision<'a> {
        let candidates: ArrayVec<Candidate, ROLE_PATHS> = [way.path.candidate()].into_iter().collect();
        let present = Present { path: way.path.id, rule: held.rule, dwelt: true, let_go: false };
        let choice = choose_by(matched, &flow.key, &candidates, Some(present));
        let choice = Choice { path: Some(way.path.id), stay: Some(Stay::Kept), ..choice };
        Decision {
            choice,
            candidates,
            way: Some(way),
            breakout: None,
            peers: 0,
            by_rule: true,
            kept: true,
            uncovered: false,
            moved: None,
        }
    }

    /// A gateway answers where it was asked, unless a rule says otherwise, a path in better health
    /// is there, or the flow was moved on purpose.
    fn answers_on(&self, held: &Held, by_rule: bool, choice: &Choice, candidates: &[Candidate]) -> Option<PathId> {
        let asked_on = held.arrived_on.filter(|_| self.site.answer_on_arrival && !by_rule && choice.stay.is_none())?;
        let chosen = candidates.iter().find(|candidate| Some(candidate.path) == choice.path)?;
        let asked = candidates.iter().find(|candidate| candidate.path == asked_on)?;
        let is_as_good = asked.verdict <= chosen.verdict && (!asked.drained || chosen.drained);
        (is_as_good && held.ordered != choice.path).then_some(asked_on)
    }

    fn cause(
        &self,
        connector: &ConnectorFace,
        held: &Held,
        choice: &Choice,
        candidates: &[Candidate],
    ) -> Option<MoveCause> {
        let (from, to) = (held.path?, choice.path?);
        if from == to {
            return None;
        }
        if held.ordered == Some(to) {
            return Some(MoveCause::Shares);
        }
        if choice.why == Why::Arrival {
            return Some(MoveCause::Arrival);
        }
        if self.path(from).is_some_and(|path| path.role != connector.active) {
            return Some(MoveCause::Role);
        }
        let Some(index) = candidates.iter().position(|candidate| candidate.path == from) else {
            return Some(MoveCause::PathLost);
        };
        let verdict = |path| candidates.iter().find(|candidate| candidate.path == path).map(|found| found.verdict);
        if verdict(from) > verdict(to) {
            return Some(MoveCause::Health);
        }
        Some(match choice.standings.get(index) {
            Some(Standing::Down) | None => MoveCause::PathLost,
            Some(Standing::Drained) => MoveCause::Drained,
            Some(Standing::Health | Standing::Sla | Standing::Unsteady) => MoveCause::Health,
            _ if held.rule != choice.rule => MoveCause::Rule,
            Some(Standing::NotAllowed) => MoveCause::Rule,
            Some(
                Standing::Best
                | Standing::LastResort
                | Standing::NotNamed
                | Standing::LaterLink
                | Standing::Metered
                | Standing::Preference
                | Standing::Score
                | Standing::Doubt
                | Standing::Full,
            ) => MoveCause::Preferred,
        })
    }
}

fn covering<'a>(path: &'a PathFace, key: &FlowKey, there: &impl Fn(Way) -> bool) -> Option<Way<'a>> {
    // A flow entry has one byte for the index.
    let mut ways = path.children.iter().enumerate().take(256).map(|child| Way { path, child });
    ways.find(|way| way.child.1.selectors.cover_outbound(key) && there(*way))
}

/// Does the rule ask for more than a share by bandwidth?
fn has_say(matched: Option<(RuleId, &Rule)>) -> bool {
    matched.is_some_and(|(_, rule)| match &rule.action {
        Action::BreakOut(_) | Action::Drop => true,
        Action::Steer(steering) => {
            steering.links != Links::Any || steering.sla.is_some() || steering.strategy != PathStrategy::Balance
        }
    })
}

fn is_sticky(matched: Option<(RuleId, &Rule)>) -> bool {
    matched.is_some_and(|(_, rule)| match &rule.action {
        Action::BreakOut(_) | Action::Drop => false,
        Action::Steer(steering) => steering.strategy == PathStrategy::Sticky,
    })
}

fn keeps_place(rule: &Rule) -> bool {
    match &rule.action {
        Action::BreakOut(_) | Action::Drop => false,
        Action::Steer(steering) => {
            steering.on_failback == OnFailback::Keep || steering.strategy == PathStrategy::Sticky
        }
    }
}
