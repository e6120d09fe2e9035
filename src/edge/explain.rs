use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::flow_status::{FlowList, FlowStatus, end, flow_status, link_name, protocol_name, tunnel_name};
use super::machine::Edge;
use super::names::KeptName;
use super::report::{StatusFacts, unix_ms};
use super::{ConnectorPlan, Plan, Steering};
use crate::forward::{Decision, Duty, FlowReport, Forwarding, Held, Way};
use crate::model::{DropReason, Dscp, FlowKey, LinkId, Moment, PathId, Role};
use crate::steer::{
    Action, Breakout, Ends, Links, Listed, Matcher, NewFlow, OnFailback, Quality, Rule, RuleSet, Standing, Why,
};

/// How the tunnel of a flow stands that its rule keeps there.
const KEPT: &str = "of the other role: the rule keeps the flow on it";

/// How a tunnel stands that is among the best, although it is drained.
const STILL_USED: &str = "drained by the operator, and no other will do";

/// Rules before the one that matched that are shown.
const RULES_SHOWN: usize = 8;

/// The answer to `trefoil explain --json`: where a flow goes, and why. Fields are only ever added.
/// What was not measured is `null`, never zero.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    pub at_ms: u64,
    pub protocol: String,
    pub source: String,
    pub destination: String,
    pub dscp: Dscp,
    /// By which the host reaches the source, with its segments, if rules ask for it.
    #[serde(default)]
    pub interface: Option<String>,
    /// Names of the destination that rules ask for, learned from DNS answers.
    #[serde(default)]
    pub names: Vec<LearnedName>,
    /// By the longest of the network ranges that contain the destination.
    pub connector: Option<String>,
    /// `primary` or `secondary`: the role that carries the connector's traffic.
    pub active_role: Option<String>,
    /// The rules just before the one that matched, in order, and why they did not.
    pub passed_over: Vec<PassedOver>,
    /// How many more rules before those did not match.
    pub more_passed_over: u64,
    pub rule: Option<RuleMatch>,
    /// Every tunnel of the active role; and the flow's own, if it is kept on the other one.
    pub candidates: Vec<CandidateStatus>,
    /// The tunnel that the next packet goes to; `null` when it is refused, or leaves outside of the tunnels.
    pub tunnel: Option<String>,
    /// The WAN link that it leaves by outside of the tunnels, if it does.
    #[serde(default)]
    pub breakout: Option<String>,
    /// It does not come to Trefoil: the host's own routes lead it.
    #[serde(default)]
    pub by_host: bool,
    /// In plain words.
    pub why: String,
    /// Why it stays on the tunnel that it has.
    pub stays: Option<String>,
    /// Its rule keeps it on the secondary role, although traffic has gone back to the primary one: all else but `tunnel` and
    /// `stays` is what a new flow would find.
    #[serde(default)]
    pub kept: bool,
    /// The flow as the data plane knows it, if it does.
    pub live: Option<FlowStatus>,
    /// Of a past moment: what was recorded of the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<PastFlow>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LearnedName {
    pub name: String,
    /// When it will be forgotten, unless it is answered again.
    pub until_ms: u64,
    /// It was learned when the flow was there already, which keeps to what was known before.
    #[serde(default)]
    pub too_late: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PassedOver {
    pub rule: String,
    /// `FILE:LINE`.
    pub place: String,
    pub because: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RuleMatch {
    pub rule: String,
    /// `FILE:LINE`.
    pub place: String,
    /// What it asks for, in plain words.
    pub asks: String,
}

/// A tunnel as the choice saw it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// As `connector/role/tunnel`.
    pub tunnel: String,
    pub link: String,
    pub verdict: String,
    /// What took it out of the choice, in plain words.
    pub standing: String,
    /// It is one of those that the flow may go to.
    pub best: bool,
    pub preference: u8,
    /// Configured bandwidth in our sending direction, in Mbps.
    pub weight: u32,
    pub metered: bool,
    pub last_resort: bool,
    pub loss_percent: Option<f64>,
    pub rtt_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    /// Milliseconds of delay that it is as bad as; see docs/steering.md.
    pub score_ms: Option<f64>,
    /// Whether it meets the rule's SLA class; `null` without one, or when not measured.
    pub meets_sla: Option<bool>,
    /// Sent lately, in Mbps.
    pub load_mbps: f64,
    /// What is known of each direction by itself, and what health suspects, neither of which is known of a past moment,
    /// or what steering holds against it, in plain words.
    #[serde(default)]
    pub note: Option<String>,
}

/// What was recorded of a flow around a past moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PastFlow {
    /// In order; decisions that changed nothing are not among them.
    pub decisions: Vec<PastDecision>,
    /// What else must be known to read this answer, in plain words.
    pub notes: Vec<String>,
}

/// A path was chosen for a flow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PastDecision {
    pub at_ms: u64,
    /// `null` of its first decision, and when it was refused or had broken out before.
    pub from: Option<String>,
    /// The WAN link that it left by outside of the tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakout: Option<String>,
    /// `null` when it was refused, or broke out.
    pub tunnel: Option<String>,
    pub rule: Option<String>,
    pub why: String,
    /// Of a move: see `MoveStatus`.
    pub cause: Option<String>,
    pub reason: Option<String>,
}

/// What an explanation is made from: the present, or a moment of a recording.
pub struct Grounds<'a, There: Fn(Way) -> bool> {
    pub plan: &'a Plan,
    pub forwarding: &'a Forwarding,
    pub steering: &'a Steering,
    pub measured: &'a dyn Fn(PathId) -> Quality,
    /// Which Child SAs are there.
    pub there: There,
    pub unix_ms_at_zero: u64,
}

impl Edge {
    /// Where a flow goes by the published value, decided by the function that the packet road
    /// uses. `live` is the flow as a worker knows it; without a code point of its own in the
    /// question, the live flow's counts.
    pub fn explain(
        &self,
        forwarding: &Forwarding,
        key: FlowKey,
        dscp: Option<Dscp>,
        live: Option<&FlowReport>,
        facts: &StatusFacts,
        now: Moment,
    ) -> Explanation {
        let dscp = dscp.or(live.map(|live| live.dscp)).unwrap_or(Dscp::DEFAULT);
        let held = live.map_or_else(Held::default, |live| Held {
            path: live.path,
            rule: live.rule,
            breakout: live.breakout,
            arrived_on: live.arrived_on,
            moved_at: live.history.last().map(|moved| moved.at),
            ordered: None,
            paused: now.since(live.last),
            refused: live.refused().is_some(),
        });
        let grounds = Grounds {
            plan: self.plan(),
            forwarding,
            steering: &self.steering,
            measured: &|path| self.metrics(path, now),
            there: |way: Way| forwarding.has_sa(way),
            unix_ms_at_zero: facts.unix_ms_at_zero,
        };
        let decided = live.filter(|live| live.path.is_some() || live.breakout.is_some());
        let ends = decided.map_or_else(|| forwarding.ends_of(&key), |live| forwarding.ends_with(&key, live.names));
        let mut told = grounds.explain(key, dscp, Some(ends), &held, now);
        let name = |name: &KeptName| LearnedName {
            name: name.name.clone(),
            until_ms: unix_ms(facts, name.end),
            too_late: decided.is_some_and(|live| name.since > live.first),
        };
        told.names = self.names.of(key.destination).iter().map(name).collect();
        for candidate in &mut told.candidates {
            candidate.note = joined(self.remarks(&candidate.tunnel, now), candidate.note.take());
        }
        Explanation { live: live.map(|live| flow_status(live, self.plan(), facts)), ..told }
    }

    /// What is known of each direction of the tunnel of this name, and what health suspects.
    fn remarks(&self, name: &str, now: Moment) -> Option<String> {
        let plan = self.plan();
        let index = plan.tunnels.iter().position(|tunnel| tunnel.full_name(&plan.connectors) == name)?;
        let tunnel = self.tunnels.get(index)?;
        let one_way = self.one_way(tunnel, now).map(|one_way| one_way.to_string());
        let remarks: Vec<String> = one_way.into_iter().chain(tunnel.health().note()).collect();
        (tunnel.leg().is_some() && !remarks.is_empty()).then(|| remarks.join("; "))
    }

    /// The flows of a worker's answer.
    pub fn flow_list(&self, flows: &[FlowReport], matching: u64, facts: &StatusFacts, now: Moment) -> FlowList {
        let flows = flows.iter().map(|flow| flow_status(flow, self.plan(), facts)).collect();
        FlowList { at_ms: unix_ms(facts, now), matching, flows }
    }
}

impl<There: Fn(Way) -> bool> Grounds<'_, There> {
    /// Where a flow goes that was so held, decided by the function that the packet road uses. Where nothing is known of its
    /// ends, rules that ask for it are passed over.
    pub fn explain(&self, key: FlowKey, dscp: Dscp, known: Option<Ends>, held: &Held, now: Moment) -> Explanation {
        let (plan, forwarding, ends) = (self.plan, self.forwarding, known.unwrap_or_default());
        let mut told = Explanation {
            at_ms: self.unix_ms_at_zero.saturating_add(now.as_nanos() / 1_000_000),
            protocol: protocol_name(key.protocol),
            source: end(&key, true),
            destination: end(&key, false),
            dscp,
            interface: plan.lan.in_words(ends.interface),
            names: Vec::new(),
            connector: None,
            active_role: None,
            passed_over: Vec::new(),
            more_passed_over: 0,
            rule: None,
            candidates: Vec::new(),
            tunnel: None,
            breakout: None,
            by_host: false,
            why: String::new(),
            stays: None,
            kept: false,
            live: None,
            past: None,
        };
        let is_here = held.path.is_some() || held.breakout.is_some() || held.arrived_on.is_some();
        if let Some(why) = led_by_host(plan, key.destination).filter(|_| !is_here) {
            (told.by_host, told.why) = (true, why.to_owned());
            return told;
        }
        let connector = match forwarding.connector_for(&key) {
            Ok(connector) => connector,
            Err(reason) => {
                told.why = refusal(reason, Why::NoCandidate);
                return told;
            }
        };
        let flow = NewFlow { key, dscp, connector: connector.id, minute: forwarding.minute, ends };
        let decide = |held: &Held| forwarding.decide_where(connector, &flow, held, now, &self.there);
        let for_flow = decide(held);
        // One that is kept was compared with nothing: what is left for others is told.
        let for_others = for_flow.kept.then(|| decide(&Held::default()));
        let decision = for_others.as_ref().unwrap_or(&for_flow);
        let choice = &decision.choice;
        told.connector = plan.connectors.get(usize::from(connector.id.0)).map(|connector| connector.name.clone());
        told.active_role = Some(connector.active.to_string());
        let matched = choice.rule.and_then(|id| plan.rules.rule(id).map(|rule| (id, rule)));
        let before = matched.map_or(plan.rules.rules().len(), |(id, _)| id.0 as usize);
        (told.passed_over, told.more_passed_over) =
            passed_over(&plan.rules, before, &self.at_the_minute(flow, told.at_ms), known.is_some());
        told.rule = matched.map(|(_, rule)| RuleMatch {
            rule: rule.name.clone(),
            place: rule.place.clone(),
            asks: asks(rule, plan),
        });
        let role = plan.connectors.get(usize::from(connector.id.0));
        let paths = role.map_or_else(Vec::new, |connector_plan| of_role(connector_plan, connector.active));
        let candidate = |path: PathId| self.candidate(path, decision, matched.map(|(_, rule)| rule));
        told.candidates = paths.into_iter().map(candidate).collect();
        told.breakout = decision.breakout.map(|link| named_link(plan, link));
        told.tunnel = for_flow.way.map(|way| tunnel_name(plan, way.path.id));
        told.why = match (decision.way, decision.uncovered) {
            (None, true) if choice.why.drop_reason() == Some(DropReason::NoPath) => {
                refusal(DropReason::NoSelector, choice.why)
            }
            _ => choice.why.to_string(),
        };
        told.stays = for_flow.choice.stay.map(|stay| stay.to_string());
        if let Some(way) = for_flow.way.filter(|_| for_flow.kept) {
            told.kept = true;
            let role = way.path.role;
            told.stays = Some(format!("its rule keeps it on the {role} role as long as its path there will do"));
            told.candidates.push(CandidateStatus { standing: KEPT.to_owned(), ..candidate(way.path.id) });
        }
        told
    }

    /// The flow at this very minute, where that is one of the stretch between rules' hours that decides.
    fn at_the_minute(&self, flow: NewFlow, unix_ms: u64) -> NewFlow {
        let rules = &self.plan.rules;
        let minute = Some(rules.minute_at(unix_ms)).filter(|_| rules.hours_at(unix_ms) == flow.minute);
        NewFlow { minute: minute.unwrap_or(flow.minute), ..flow }
    }

    fn candidate(&self, path: PathId, decision: &Decision, rule: Option<&Rule>) -> CandidateStatus {
        let (standing, set_aside) = (standing_of(decision, path), rule.and_then(set_aside));
        let sla = rule.and_then(|rule| rule.action.steering()?.sla);
        let face = self.forwarding.path(path);
        let metrics = (self.measured)(path);
        let ms = |span: std::time::Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        let class = sla.and_then(|id| Some((id, self.plan.rules.sla_classes().get(usize::from(id.0))?)));
        let remark = class.zip(face).and_then(|((id, class), face)| face.sla.remark(id, class, &metrics));
        CandidateStatus {
            tunnel: tunnel_name(self.plan, path),
            link: link_name(self.plan, path),
            verdict: face.map_or("down", |face| face.verdict.name()).to_owned(),
            standing: match (set_aside, standing) {
                (Some(why), _) => why.to_owned(),
                (None, Some(Standing::Best)) if face.is_some_and(|face| face.duty.is_drained()) => {
                    STILL_USED.to_owned()
                }
                (None, Some(standing)) => standing.to_string(),
                (None, None) if face.is_some_and(|face| face.usable) => "its traffic selectors do not cover it".into(),
                (None, None) if face.is_some_and(|face| face.duty == Duty::Down) => "taken down by the operator".into(),
                (None, None) => Standing::Down.to_string(),
            },
            best: standing == Some(Standing::Best) && set_aside.is_none(),
            preference: face.map_or(0, |face| face.preference),
            weight: face.map_or(0, |face| face.weight),
            metered: face.is_some_and(|face| face.metered),
            last_resort: face.is_some_and(|face| face.last_resort),
            loss_percent: metrics.loss.map(|loss| f64::from(loss.value()) / 10.0),
            rtt_ms: metrics.rtt.map(ms),
            jitter_ms: metrics.jitter.map(ms),
            score_ms: face.and_then(|face| face.score).or(metrics.score()).map(|score| f64::from(score) / 1e3),
            meets_sla: sla.and_then(|class| face?.sla.of(class)),
            load_mbps: self.steering.load_mbps(path),
            note: joined(face.and_then(|face| face.condition.note()).map(str::to_owned), remark),
        }
    }
}

/// Two remarks as one.
fn joined(one: Option<String>, other: Option<String>) -> Option<String> {
    let both: Vec<String> = one.into_iter().chain(other).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// What took a path out of the choice; `None`: it was none of the candidates.
fn standing_of(decision: &Decision, path: PathId) -> Option<Standing> {
    let index = decision.candidates.iter().position(|candidate| candidate.path == path)?;
    decision.choice.standings.get(index).copied()
}

/// Why no tunnel has the flows of a rule, whatever its health.
fn set_aside(rule: &Rule) -> Option<&'static str> {
    match rule.action {
        Action::Drop => Some("the rule drops its flows"),
        Action::BreakOut(_) => Some("the rule leads its flows out of the tunnels"),
        Action::Steer(_) => None,
    }
}

fn of_role(connector: &ConnectorPlan, role: Role) -> Vec<PathId> {
    connector.roles[role.index()].iter().flat_map(|role| &role.tunnels).copied().collect()
}

/// Why the host's routes do not lead what goes to this address to Trefoil, if they do not: see docs/routing.md. Where the
/// host itself knows a network that a route-based connector would have, only it can tell.
fn led_by_host(plan: &Plan, destination: IpAddr) -> Option<&'static str> {
    let length = |range: &IpNet| range.contains(&destination).then(|| range.prefix_len());
    let native = plan.site.native.iter().filter_map(length).max();
    let ranges = plan.connectors.iter().flat_map(|connector| &connector.ranges);
    let range = ranges.filter_map(|range| length(&range.range)).max().or(plan.is_route_based().then_some(0));
    match (native, range) {
        (Some(native), range) if range <= Some(native) => Some(
            "not through Trefoil: the destination is in the site's native ranges, so the host's own routes lead it",
        ),
        (_, None) => Some(
            "not through Trefoil: no connector's network ranges contain the destination, so the host's own routes lead it",
        ),
        (_, Some(_)) => None,
    }
}

/// Why none of the rules before this one has the flow, the last of them; and how many more there are.
fn passed_over(rules: &RuleSet, before: usize, flow: &NewFlow, ends_known: bool) -> (Vec<PassedOver>, u64) {
    let all: Vec<Listed> = rules.listed(before).collect();
    let skipped = all.len().saturating_sub(RULES_SHOWN);
    let mismatch = |matcher: &Matcher| match ends_known {
        true => matcher.mismatch(flow),
        false => mismatch_without_ends(matcher, flow),
    };
    let shown = all.iter().skip(skipped).map(|listed| match listed {
        Listed::Ours(_, rule) => PassedOver {
            rule: rule.name.clone(),
            place: rule.place.clone(),
            because: mismatch(&rule.matcher).unwrap_or_else(|| "it matches".to_owned()),
        },
        Listed::Elsewhere(rule) => {
            PassedOver { rule: rule.name.clone(), place: rule.place.clone(), because: rule.in_words() }
        }
    });
    (shown.collect(), skipped as u64)
}

/// Why a rule does not have a flow of whose ends nothing is known; `None`: it has, whatever they are.
fn mismatch_without_ends(matcher: &Matcher, flow: &NewFlow) -> Option<String> {
    let rest = Matcher { interfaces: Vec::new(), names: Vec::new(), ..matcher.clone() };
    rest.mismatch(flow).or_else(|| match (matcher.interfaces.is_empty(), matcher.names.is_empty()) {
        (true, true) => None,
        (false, _) => Some("by which interface the source was reached is not recorded: not judged".to_owned()),
        (true, false) => Some("which names the destination had is not recorded: not judged".to_owned()),
    })
}

/// What a rule asks for, in plain words.
fn asks(rule: &Rule, plan: &Plan) -> String {
    let name = |link: &LinkId| plan.links.get(usize::from(link.0)).map_or("?", |link| link.name.as_str());
    let names = |links: &[LinkId]| links.iter().map(name).collect::<Vec<_>>().join(", ");
    let marked = |dscp: Dscp| format!("marked with DSCP {dscp}");
    let steering = match &rule.action {
        Action::Drop => return "drop".to_owned(),
        Action::BreakOut(Breakout { links, set_dscp }) => {
            let parts = [Some(format!("break out by {}", names(links))), set_dscp.map(marked)];
            return parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        }
        Action::Steer(steering) => steering,
    };
    let mut parts = vec![steering.strategy.name().to_owned()];
    match &steering.links {
        Links::Any => {}
        Links::Prefer(links) => parts.push(format!("links {}", names(links))),
        Links::Strict(links) => parts.push(format!("only links {}", names(links))),
    }
    if let Some(class) = steering.sla.and_then(|class| plan.rules.sla_class(class)) {
        parts.push(format!("SLA class {}", class.name));
    }
    if steering.on_failback == OnFailback::Keep {
        parts.push("kept on failback".to_owned());
    }
    if let Some(dscp) = steering.set_dscp {
        parts.push(marked(dscp));
    }
    parts.join(", ")
}

pub fn named_link(plan: &Plan, link: LinkId) -> String {
    plan.links.get(usize::from(link.0)).map_or_else(|| "?".to_owned(), |link| link.name.clone())
}

pub(super) fn refusal(reason: DropReason, why: Why) -> String {
    match reason {
        DropReason::NotNative => "refused: the source is not in the site's native ranges".to_owned(),
        DropReason::NoRoute => "refused: no connector's network ranges contain the destination".to_owned(),
        DropReason::NoSelector => "refused: no usable tunnel has negotiated traffic selectors that cover it".to_owned(),
        _ => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every standing once; one that is added breaks this.
    fn after(standing: Option<Standing>) -> Option<Standing> {
        Some(match standing {
            None => Standing::Best,
            Some(Standing::Best) => Standing::Down,
            Some(Standing::Down) => Standing::NotAllowed,
            Some(Standing::NotAllowed) => Standing::Drained,
            Some(Standing::Drained) => Standing::LastResort,
            Some(Standing::LastResort) => Standing::NotNamed,
            Some(Standing::NotNamed) => Standing::Health,
            Some(Standing::Health) => Standing::Sla,
            Some(Standing::Sla) => Standing::Unsteady,
            Some(Standing::Unsteady) => Standing::Full,
            Some(Standing::Full) => Standing::LaterLink,
            Some(Standing::LaterLink) => Standing::Metered,
            Some(Standing::Metered) => Standing::Preference,
            Some(Standing::Preference) => Standing::Score,
            Some(Standing::Score) => Standing::Doubt,
            Some(Standing::Doubt) => return None,
        })
    }

    #[test]
    fn every_standing_that_a_tunnel_can_have_is_in_the_table_of_the_page() {
        let page = include_str!("../../docs/explain.md");
        let table = page.split("| standing | |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
        let first: Vec<&str> =
            table.lines().filter_map(|line| line.split('|').nth(1)).flat_map(|one| one.split(';')).collect();
        let listed = |standing: &str| first.iter().any(|one| one.trim() == standing);
        for standing in std::iter::successors(after(None), |standing| after(Some(*standing))) {
            assert!(listed(&standing.to_string()), "{standing}");
        }
        let rule =
            |action: Action| Rule { name: "a".to_owned(), place: String::new(), matcher: Matcher::default(), action };
        assert_eq!(set_aside(&rule(Action::Steer(crate::steer::Steering::default()))), None);
        for action in [Action::Drop, Action::BreakOut(Breakout::default())] {
            assert!(set_aside(&rule(action)).is_some_and(listed));
        }
        assert!(listed(KEPT) && listed(STILL_USED));
    }
}
