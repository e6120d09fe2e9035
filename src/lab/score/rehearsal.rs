use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::board::Unplayable;
use super::contender::{Contender, Parcel};
use super::field::{Field, Way};
use super::race::{BEGINS, FlowFigures, Race};
use super::site;
use super::traffic::Program;
use super::trefoil::Trefoil;
use crate::config::{FlowLine, Scenario, ScenarioLink, Where};
use crate::edge::Plan;
use crate::model::{Dscp, FlowKey, InterfaceId, Moment};
use crate::recording::Told;

/// Flows of one rehearsal: each of them is simulated, hundred times a second.
pub const FLOWS_MAX: usize = 1_000;

/// Steps of a flow that are told: beyond, nobody reads on, and the number says enough.
const STEPS_MAX: usize = 1_000;

/// What came of flows under a scenario. Its shape as JSON: `docs/policy.md`. Times are milliseconds since the
/// scenario began.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rehearsal {
    pub scenario: String,
    pub description: Option<String>,
    pub lasts_ms: u64,
    /// In the order of the file.
    pub flows: Vec<FlowStory>,
    /// In the order of the site.
    pub links: Vec<LinkBytes>,
    pub happenings: Vec<Happening>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FlowStory {
    /// As in the file.
    pub flow: String,
    pub dscp: Dscp,
    /// Where it began, and each move.
    pub steps: Vec<Step>,
    pub more_steps: u64,
    /// In the order of the site; of the inner packets that left.
    pub bytes: Vec<LinkBytes>,
    /// It heard nothing, in the worse direction: a transfer for more than 500 ms, any other flow for more than 100 ms.
    pub outage_ms: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Step {
    pub at_ms: u64,
    /// The tunnel that it leaves, or the link by which it had broken out.
    pub from: Option<String>,
    /// As `connector/role/tunnel`; `null`: refused, or it breaks out.
    pub tunnel: Option<String>,
    pub link: Option<String>,
    /// It leaves by that link outside of the tunnels.
    pub breakout: bool,
    pub rule: Option<String>,
    /// Why it goes there.
    pub why: String,
    /// Why it left where it was: see `MoveStatus`.
    pub cause: Option<String>,
    pub reason: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LinkBytes {
    pub link: String,
    pub out: u64,
    #[serde(rename = "in")]
    pub received: u64,
}

/// What the daemon would have logged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Happening {
    pub at_ms: u64,
    pub what: String,
    pub of: String,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// Plays the flows, and nothing else, under what happens to the links in the scenario, steered by the plan.
pub fn rehearse(plan: Plan, scenario: &Scenario, flows: &[FlowLine]) -> Result<Rehearsal, Unplayable> {
    let scenario = &fitted(scenario, &plan)?;
    if flows.len() > FLOWS_MAX {
        return Err(Unplayable(format!("more than {FLOWS_MAX} flows")));
    }
    let mut places: BTreeMap<FlowKey, usize> = BTreeMap::new();
    for (index, line) in flows.iter().enumerate() {
        if places.insert(line.flow.key, index).is_some() {
            return Err(Unplayable(format!("{:?} stands there twice; ports tell flows apart", line.flow.key)));
        }
    }
    let links = plan.links.len();
    let mut watched = Watched {
        plan: plan.clone(),
        ours: Trefoil::new(site::in_simulation(plan), scenario.seed),
        places,
        tales: flows
            .iter()
            .map(|_| Tale { steps: Vec::new(), more: 0, on: On::Nothing, out: vec![0; links] })
            .collect(),
        received: vec![0; links],
    };
    // What the host's routes would say, and what its DNS answers would.
    let edge = &mut watched.ours.branch.edge;
    edge.handle_lan(interfaces_of(flows)?.into_iter().collect());
    edge.handle_breakouts(&watched.plan.breakouts());
    for line in flows {
        if let Some(name) = &line.fqdn {
            edge.handle_name(line.flow.key.destination, name, Moment::ZERO);
        }
    }
    let program = Program::of_flows(flows, scenario.duration);
    let (_, figures) = Race::with(program, scenario, &mut watched).run_each();
    Ok(watched.told(scenario, flows, &figures))
}

/// By which interface each source is reached: a host has one route back to it.
fn interfaces_of(flows: &[FlowLine]) -> Result<BTreeMap<IpNet, InterfaceId>, Unplayable> {
    let mut interfaces = BTreeMap::new();
    for line in flows {
        let (source, interface) = (line.flow.key.source, line.flow.ends.interface);
        if *interfaces.entry(IpNet::from(source)).or_insert(interface) != interface {
            return Err(Unplayable(format!(
                "not all flows of {source} come by the same interface; a source is reached by one, which each of its \
                 flows must say"
            )));
        }
    }
    Ok(interfaces)
}

/// The scenario with the links of the site, in its order.
fn fitted(scenario: &Scenario, plan: &Plan) -> Result<Scenario, Unplayable> {
    let unknown = scenario.links.iter().find(|link| plan.links.iter().all(|known| known.name != link.name));
    if let Some(link) = unknown {
        return Err(Unplayable(format!("the site has no link \"{}\" of the scenario", link.name)));
    }
    let of_site = |name: &str| {
        let found = scenario.links.iter().find(|link| link.name == name);
        found
            .cloned()
            .ok_or_else(|| Unplayable(format!("the scenario says nothing of the link \"{name}\" ([link.{name}])")))
    };
    let links = plan.links.iter().map(|link| of_site(&link.name)).collect::<Result<Vec<ScenarioLink>, Unplayable>>()?;
    let events = scenario.events.iter().cloned().filter_map(|mut event| {
        if let Where::Link(number) = event.place {
            let name = &scenario.links.get(number)?.name;
            event.place = Where::Link(links.iter().position(|link| link.name == *name)?);
        }
        Some(event)
    });
    Ok(Scenario { events: events.collect(), links: links.clone(), ..scenario.clone() })
}

/// Our steering, and where it puts each flow.
struct Watched {
    plan: Plan,
    ours: Trefoil,
    /// Of a flow in the file.
    places: BTreeMap<FlowKey, usize>,
    tales: Vec<Tale>,
    /// By link: bytes that came in.
    received: Vec<u64>,
}

struct Tale {
    steps: Vec<Step>,
    more: u64,
    on: On,
    /// By link: bytes that left.
    out: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// No packet of it has left so far.
    Nothing,
    Refused,
    Way(Way),
}

impl Contender for Watched {
    fn advance(&mut self, field: &mut Field, now: Moment) {
        self.ours.advance(field, now);
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.ours.poll_timeout()
    }

    fn route(&mut self, parcel: &Parcel, field: &Field, now: Moment) -> Option<Way> {
        let way = self.ours.route(parcel, field, now);
        let Some(tale) = self.places.get(&parcel.key).and_then(|place| self.tales.get_mut(*place)) else { return way };
        if let Some(out) = way.and_then(|way| tale.out.get_mut(way.link)) {
            *out += parcel.bytes;
        }
        let on = way.map_or(On::Refused, On::Way);
        if tale.on != on {
            if tale.steps.len() < STEPS_MAX {
                let from = tale.steps.last().and_then(|step| step.tunnel.as_ref().or(step.link.as_ref()).cloned());
                tale.steps.push(step(&self.ours, &self.plan, (parcel.key, parcel.dscp), from, now));
            } else {
                tale.more += 1;
            }
            tale.on = on;
        }
        way
    }

    fn handle_arrival(&mut self, way: Way, packets: u32, bytes: u64, now: Moment) {
        if let Some(received) = self.received.get_mut(way.link) {
            *received += bytes;
        }
        self.ours.handle_arrival(way, packets, bytes, now);
    }
}

impl Watched {
    fn told(self, scenario: &Scenario, flows: &[FlowLine], figures: &[FlowFigures]) -> Rehearsal {
        let silence: BTreeMap<FlowKey, Duration> = figures.iter().map(|one| (one.key, one.silence)).collect();
        let link_names = || self.plan.links.iter().map(|link| link.name.clone());
        let mut links: Vec<LinkBytes> = link_names()
            .zip(&self.received)
            .map(|(link, received)| LinkBytes { link, out: 0, received: *received })
            .collect();
        let mut stories = Vec::new();
        for (line, tale) in flows.iter().zip(self.tales) {
            for (link, out) in links.iter_mut().zip(&tale.out) {
                link.out += out;
            }
            let bytes = self.plan.links.iter().zip(&tale.out).filter(|(_, out)| **out > 0);
            stories.push(FlowStory {
                flow: format!("{:?}", line.flow.key),
                dscp: line.flow.dscp,
                steps: tale.steps,
                more_steps: tale.more,
                bytes: bytes.map(|(link, out)| LinkBytes { link: link.name.clone(), out: *out, received: 0 }).collect(),
                outage_ms: silence.get(&line.flow.key).map_or(0, |silence| silence.as_millis() as u64),
            });
        }
        let happening = |(at, event)| {
            let Told { what, of, from, to, reason } = Told::of(event, &self.plan);
            Happening { at_ms: ms(at), what, of, from, to, reason }
        };
        let since = self.ours.branch.events.iter().filter(|(at, _)| *at >= BEGINS);
        Rehearsal {
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            lasts_ms: scenario.duration.as_millis() as u64,
            flows: stories,
            links,
            happenings: since.map(|(at, event)| happening((*at, event))).collect(),
        }
    }
}

/// Where a flow has just come to.
fn step(ours: &Trefoil, plan: &Plan, (key, dscp): (FlowKey, Dscp), from: Option<String>, now: Moment) -> Step {
    let told = ours.branch.explain(key, dscp, now);
    let report = ours.branch.flow(&key).filter(|_| told.tunnel.is_some() || told.breakout.is_some());
    let moved = report.as_ref().and_then(|report| report.history.last()).filter(|moved| moved.at == now);
    let link = told.candidates.iter().find(|candidate| Some(&candidate.tunnel) == told.tunnel.as_ref());
    let rule =
        report.as_ref().map(|report| report.rule.and_then(|id| plan.rules.rule(id)).map(|rule| rule.name.clone()));
    Step {
        at_ms: ms(now),
        from,
        breakout: told.breakout.is_some(),
        link: told.breakout.or(link.map(|candidate| candidate.link.clone())),
        tunnel: told.tunnel,
        rule: rule.unwrap_or_else(|| told.rule.map(|rule| rule.rule)),
        why: report.as_ref().map_or(told.why, |report| report.why.to_string()),
        cause: moved.map(|moved| moved.cause.name().to_owned()),
        reason: moved.map(|moved| moved.cause.to_string()),
    }
}

/// Since the scenario began.
fn ms(at: Moment) -> u64 {
    at.since(BEGINS).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::config::{self, FlowWords};
    use crate::edge::LanPlan;
    use crate::lab::score::shipped;
    use crate::model::{LinkId, NameId};
    use crate::steer::{Action, Breakout, Matcher, NamePatterns, Rule, RuleSet};

    fn cut() -> Scenario {
        let found = shipped().into_iter().find(|scenario| scenario.name == "cut");
        Scenario { duration: Duration::from_secs(90), ..found.expect("it is shipped") }
    }

    fn flows(lines: &[&str]) -> Vec<FlowLine> {
        lines.iter().map(|line| config::flow_line(line, &FlowWords::default()).expect("a flow")).collect()
    }

    #[test]
    fn what_happens_to_a_link_happens_to_the_one_of_that_name() {
        let mut plan = site::open_plan(&cut()).expect("a site");
        plan.links.reverse();
        for tunnel in &mut plan.tunnels {
            tunnel.link.0 = 2 - tunnel.link.0;
        }
        let told = rehearse(plan, &cut(), &flows(&["udp 10.20.1.5:40000 203.0.113.9:16400"])).expect("played");
        assert_eq!(told.links.iter().map(|link| link.link.as_str()).collect::<Vec<_>>(), ["lte", "dsl", "fibre"]);
        let down: Vec<&str> =
            told.happenings.iter().filter(|one| one.to == "down").map(|one| one.of.as_str()).collect();
        assert!(down.contains(&"pop/primary/fibre") && down.iter().all(|of| of.ends_with("fibre")), "{down:?}");
    }

    #[test]
    fn a_flow_is_there_from_its_beginning_to_its_end_and_its_bytes_are_those_of_its_links() {
        let plan = site::open_plan(&cut()).expect("a site");
        let lines =
            ["udp 10.20.1.5:40000 203.0.113.9:16400 from=10s until=30s", "tcp 10.20.1.5:1 203.0.113.9:2 kilobytes=30"];
        let told = rehearse(plan, &cut(), &flows(&lines)).expect("played");
        let out = |index: usize| told.flows[index].bytes.iter().map(|link| link.out).sum::<u64>();
        // 50 packets of 200 bytes a second, and whole packets of 1,500 of which none had to be sent again.
        assert!((199_000..=200_000).contains(&out(0)), "{}", out(0));
        assert!((30_000..33_000).contains(&out(1)), "{}", out(1));
        assert_eq!(told.links.iter().map(|link| link.out).sum::<u64>(), out(0) + out(1));
        assert!(told.flows[0].steps[0].at_ms >= 10_000 && told.flows.iter().all(|flow| flow.outage_ms == 0));
    }

    #[test]
    fn flows_that_break_out_take_the_link_itself_and_leave_it_when_it_is_cut() {
        let mut plan = site::open_plan(&cut()).expect("a site");
        let out = Breakout { links: vec![LinkId(0), LinkId(2)], set_dscp: None };
        let patterns = NamePatterns::new(vec!["*.meet.example".to_owned()]);
        let matcher = Matcher { names: vec![NameId(1)], ..Matcher::default() };
        let rule = Rule { name: "out".into(), place: String::new(), matcher, action: Action::BreakOut(out) };
        plan.rules = Arc::new(RuleSet::new(vec![rule], Vec::new()).with_names(patterns));
        let words = FlowWords::of_plan(&plan);
        let lines = [
            "udp 10.20.1.5:40000 203.0.113.9:16400 fqdn=eu.meet.example",
            "udp 10.20.1.5:40000 203.0.113.10:16400 fqdn=elsewhere.example",
        ];
        let lines = lines.map(|line| config::flow_line(line, &words).expect("a flow"));
        let told = rehearse(plan, &cut(), &lines).expect("played");
        let way = |step: &Step| (step.breakout, step.from.clone(), step.link.clone(), step.tunnel.is_some());
        let [out, inside] = [0, 1].map(|flow| told.flows[flow].steps.iter().map(way).collect::<Vec<_>>());
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(out, [(true, None, name("fibre"), false), (true, name("fibre"), name("lte"), false)]);
        assert!(inside.iter().all(|step| !step.0 && step.3), "{inside:?}");
        // 50 packets of 200 bytes a second for a minute by the one, and half a minute by the other.
        let bytes: Vec<u64> = told.flows[0].bytes.iter().map(|link| link.out).collect();
        assert!((600_000..620_000).contains(&bytes[0]) && (280_000..300_000).contains(&bytes[1]), "{bytes:?}");
        assert!((100..2_000).contains(&told.flows[0].outage_ms), "{} ms", told.flows[0].outage_ms);
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_the_reason() {
        let why = |plan: Plan, lines: &[&str]| rehearse(plan, &cut(), &flows(lines)).expect_err("it cannot").0;
        let plan = || site::open_plan(&cut()).expect("a site");
        let twice = why(plan(), &["udp 10.0.0.1:1 10.0.0.2:2", "udp 10.0.0.1:1 10.0.0.2:2 dscp=ef"]);
        assert!(twice.contains("stands there twice"), "{twice}");
        let lan = LanPlan { interfaces: vec!["lan1".to_owned()], segments: Vec::new() };
        let words = FlowWords { lan, ..FlowWords::default() };
        let line = |text: &str| config::flow_line(text, &words).expect("a flow");
        let lines = [line("udp 10.0.0.1:1 10.0.0.2:2 interface=lan1"), line("udp 10.0.0.1:3 10.0.0.2:2")];
        let two = rehearse(plan(), &cut(), &lines).expect_err("it cannot").0;
        assert!(two.starts_with("not all flows of 10.0.0.1 come by the same interface"), "{two}");
        let mut other = plan();
        other.links[0].name = "cable".to_owned();
        assert_eq!(why(other, &[]), "the site has no link \"fibre\" of the scenario");
        let mut more = plan();
        let extra = crate::edge::LinkPlan { name: "cable".to_owned(), ..more.links[0].clone() };
        more.links.push(extra);
        assert_eq!(why(more, &[]), "the scenario says nothing of the link \"cable\" ([link.cable])");
    }
}
