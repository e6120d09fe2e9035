use std::collections::VecDeque;
use std::sync::Arc;

use super::face::Published;
use super::line::{Entry, Line};
use crate::edge::{self, Fact, PathStanding, Plan, Steering, Whole};
use crate::forward::{FlowNote, Forwarding, Outcome, SaTable};
use crate::ha::RoleSelector;
use crate::model::{ConnectorId, Moment, PathId, Role, Verdict};
use crate::steer::{NewFlow, Quality};

/// Published values that decisions are still noted by: workers lag behind by a few, and their notes
/// by a quarter of a second.
const KEPT: usize = 256;

/// Paths of all of them together: as many values of three thousand tunnels as that are kept, and fewer of more.
const KEPT_PATHS: usize = KEPT * 3_000;

/// Follows a recording with the very code that decided then, and compares.
///
/// Hand it the lines in order. A `Gap` makes it blind until everything is told again.
#[derive(Default)]
pub struct Replay {
    plan: Option<Arc<Plan>>,
    /// The latest last.
    forwardings: VecDeque<Arc<Forwarding>>,
    control: Option<Control>,
    unix_ms_at_zero: u64,
}

/// What control decides by, and has decided.
struct Control {
    steering: Steering,
    /// By `ConnectorId`.
    roles: Vec<RoleSelector>,
    /// By `PathId`, as all that follows.
    sent: Vec<u64>,
    measured: Vec<Quality>,
    verdicts: Vec<Verdict>,
    standings: Vec<PathStanding>,
}

/// What came of one line.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Checked {
    /// Decisions that were made again.
    pub decisions: u64,
    pub differences: Vec<Difference>,
    /// Decisions that could not be made again: what they rest on is not in the recording.
    pub blind: u64,
}

/// A decision that comes out otherwise now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    pub at: Moment,
    pub of: String,
    pub recorded: String,
    pub now: String,
}

impl Replay {
    pub fn new() -> Replay {
        Replay::default()
    }

    /// What follows is of another run of the daemon.
    pub fn handle_run(&mut self) {
        *self = Replay::default();
    }

    /// Something is missing.
    pub fn handle_gap(&mut self) {
        self.control = None;
        // Published values say only what has changed.
        self.forwardings.clear();
    }

    pub fn follow(&mut self, line: &Line) -> Checked {
        match &line.entry {
            Entry::Clock { unix_ms_at_zero } => self.unix_ms_at_zero = *unix_ms_at_zero,
            Entry::Plan(plan) => {
                let plan = plan.as_ref().clone().into_plan().map(Arc::new);
                if plan.is_none() {
                    self.handle_gap();
                }
                self.plan = plan;
            }
            Entry::Fact(fact) => return self.follow_fact(line.at, fact),
            Entry::Published(published) => self.publish(published),
            Entry::Flow(note) => return self.decide(note),
            Entry::Lost { .. } => self.handle_gap(),
            Entry::Opened { .. } | Entry::Told(_) | Entry::LeftOut { .. } => {}
        }
        Checked::default()
    }

    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plan.as_ref()
    }

    pub fn unix_ms_at_zero(&self) -> u64 {
        self.unix_ms_at_zero
    }

    /// What was published last, and what control knows; `None` while something is missing.
    pub fn present(&self) -> Option<(&Arc<Forwarding>, &Steering, &[Quality])> {
        let control = self.control.as_ref()?;
        Some((self.forwardings.back()?, &control.steering, &control.measured))
    }

    fn follow_fact(&mut self, at: Moment, fact: &Fact) -> Checked {
        let Some(plan) = &self.plan else { return Checked { blind: 1, ..Checked::default() } };
        if let Fact::Whole(whole) = fact {
            let checked = match &self.control {
                Some(control) => control.compare(whole, at),
                None => Checked::default(),
            };
            self.control = Control::of(whole, plan);
            return checked;
        }
        match &mut self.control {
            Some(control) => control.follow(plan, at, fact),
            None => Checked { blind: 1, ..Checked::default() },
        }
    }

    fn publish(&mut self, published: &Published) {
        let Some(plan) = &self.plan else { return };
        // The first after a gap is worth something only when it tells every path.
        let complete = published.paths.len() >= plan.tunnels.len();
        let next = match self.forwardings.back() {
            Some(before) => published.after(before),
            None if complete => published.after(&edge::blank(plan, &Arc::new(SaTable::new(1, 1)))),
            None => return,
        };
        let most = KEPT.min(KEPT_PATHS / next.paths.len().max(1)).max(1);
        while self.forwardings.len() >= most {
            self.forwardings.pop_front();
        }
        self.forwardings.push_back(Arc::new(next));
    }

    fn decide(&self, note: &FlowNote) -> Checked {
        let published = self.forwardings.iter().rev().find(|known| known.generation == note.generation);
        let Some(forwarding) = published else { return Checked { blind: 1, ..Checked::default() } };
        let again = match forwarding.connector_for(&note.key) {
            Err(reason) => format!("refused: {}", reason.name()),
            Ok(connector) => {
                let (key, dscp, minute, ends) = (note.key, note.dscp, forwarding.minute, note.ends);
                let flow = NewFlow { key, dscp, connector: connector.id, minute, ends };
                let there = |way: crate::forward::Way| note.covered(connector, way);
                let decision = forwarding.decide_where(connector, &flow, &note.held, note.at, &there);
                let outcome = Outcome::of(&decision);
                if outcome == note.outcome {
                    return Checked { decisions: 1, ..Checked::default() };
                }
                self.in_words(&outcome)
            }
        };
        let of = format!("flow {:?}", note.key);
        Checked::one(Difference { at: note.at, of, recorded: self.in_words(&note.outcome), now: again })
    }

    fn in_words(&self, outcome: &Outcome) -> String {
        let plan = self.plan.as_deref();
        let tunnel = |path: PathId| plan.map_or_else(|| "?".to_owned(), |plan| tunnel_name(plan, path));
        let on = outcome.path.map_or_else(|| "nowhere".to_owned(), tunnel);
        let rule = outcome.rule.and_then(|id| plan?.rules.rule(id).map(|rule| format!(" by rule \"{}\"", rule.name)));
        let stay = outcome.stay.map_or_else(String::new, |stay| format!("; {stay}"));
        let moved = outcome.moved.map_or_else(String::new, |cause| format!("; moved: {cause}"));
        format!("{on}{}: {}{stay}{moved}", rule.unwrap_or_default(), outcome.why)
    }
}

pub(super) fn tunnel_name(plan: &Plan, path: PathId) -> String {
    let tunnel = plan.tunnels.get(usize::from(path.0));
    tunnel.map_or_else(|| "?".to_owned(), |tunnel| tunnel.full_name(&plan.connectors))
}

impl Control {
    /// `None` when it is not of this plan.
    fn of(whole: &Whole, plan: &Plan) -> Option<Control> {
        let paths = plan.tunnels.len();
        let standings: Vec<PathStanding> = whole.steering.standings().collect();
        let fits = standings.len() == paths && whole.roles.len() == plan.connectors.len();
        let filled = |mut sent: Vec<u64>| {
            sent.resize(paths, 0);
            sent
        };
        fits.then(|| {
            let (mut measured, mut verdicts) = (whole.measured.clone(), whole.verdicts.clone());
            measured.resize(paths, Quality::default());
            verdicts.resize(paths, Verdict::Down);
            Control {
                steering: whole.steering.clone(),
                roles: whole.roles.clone(),
                sent: filled(whole.sent.clone()),
                measured,
                verdicts,
                standings,
            }
        })
    }

    /// Is what control remembers what it came to remember here?
    fn compare(&self, whole: &Whole, at: Moment) -> Checked {
        let mut checked = Checked { decisions: 1, ..Checked::default() };
        if self.steering != whole.steering {
            let (recorded, now) = (format!("{:?}", whole.steering), format!("{:?}", self.steering));
            checked.differences.push(Difference { at, of: "what steering remembers".to_owned(), recorded, now });
        }
        if self.roles != whole.roles {
            let (recorded, now) = (format!("{:?}", whole.roles), format!("{:?}", self.roles));
            checked.differences.push(Difference { at, of: "what is known of the roles".to_owned(), recorded, now });
        }
        checked
    }

    fn follow(&mut self, plan: &Plan, at: Moment, fact: &Fact) -> Checked {
        match fact {
            Fact::Whole(_) => Checked::default(),
            Fact::RoleTimeout { connector, active } => {
                self.role(plan, *connector, *active, at, |roles| roles.handle_timeout(at))
            }
            // That it was possible is part of what was decided.
            Fact::FailedOver { connector, to } => self.role(plan, *connector, *to, at, |roles| {
                let _possible = roles.fail_over(*to, at);
            }),
            Fact::Usable { connector, usable, active } => self.role(plan, *connector, *active, at, |roles| {
                for role in Role::ALL {
                    roles.handle_usable(role, usable.get(role.index()).copied().unwrap_or_default(), at);
                }
            }),
            Fact::Followed { verdicts, judged, standings } => {
                write(&mut self.verdicts, verdicts);
                self.steering.follow(plan, self.verdicts.iter().copied(), at);
                if let Some(measured) = judged {
                    write(&mut self.measured, measured);
                    self.steering.judge(plan, self.measured.iter().copied(), at);
                }
                self.compare_standings(plan, at, standings)
            }
            Fact::Counted { number, sent } => {
                write(&mut self.sent, sent);
                let again = self.steering.count(plan, self.sent.iter().copied(), at);
                equal("the number of a survey", at, number, &again)
            }
            Fact::Relieved { number } => {
                let again = self.steering.relieve(plan, at);
                equal("the number of a survey", at, number, &again)
            }
            Fact::Surveyed { flows, shifts, .. } if flows.is_empty() && shifts.is_empty() => Checked::default(),
            Fact::Surveyed { number, flows, shifts } => {
                let active: Vec<Role> = self.roles.iter().map(RoleSelector::active).collect();
                let again = self.steering.shifts(*number, flows, &active, plan, at);
                equal("the flows that are moved for their shares", at, shifts, &again)
            }
        }
    }

    fn role(
        &mut self,
        plan: &Plan,
        id: ConnectorId,
        recorded: Role,
        at: Moment,
        tell: impl FnOnce(&mut RoleSelector),
    ) -> Checked {
        let Some(roles) = self.roles.get_mut(usize::from(id.0)) else { return Checked::default() };
        tell(roles);
        while roles.poll_switch().is_some() {}
        let name = plan.connectors.get(usize::from(id.0)).map_or("?", |connector| &connector.name);
        equal(&format!("the active role of {name}"), at, &recorded, &roles.active())
    }

    fn compare_standings(&mut self, plan: &Plan, at: Moment, recorded: &[(PathId, PathStanding)]) -> Checked {
        let mut checked = Checked::default();
        for (index, now) in self.steering.standings().enumerate() {
            let Some(known) = self.standings.get_mut(index) else { continue };
            let path = PathId(index as u16);
            let told = recorded.iter().find(|(id, _)| *id == path).map(|(_, standing)| *standing);
            let changed = *known != now;
            *known = now;
            if told.is_none() && !changed {
                continue;
            }
            checked.decisions += 1;
            if told != Some(now) {
                let recorded = told.map_or_else(|| "as before".to_owned(), |told| format!("{told:?}"));
                let of = format!("the standing of {}", tunnel_name(plan, path));
                checked.differences.push(Difference { at, of, recorded, now: format!("{now:?}") });
            }
        }
        checked
    }
}

impl Checked {
    fn one(difference: Difference) -> Checked {
        Checked { decisions: 1, differences: vec![difference], blind: 0 }
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(of: &str, at: Moment, recorded: &T, now: &T) -> Checked {
    if recorded == now {
        return Checked { decisions: 1, ..Checked::default() };
    }
    let (recorded, now) = (format!("{recorded:?}"), format!("{now:?}"));
    Checked::one(Difference { at, of: of.to_owned(), recorded, now })
}

fn write<T: Copy>(known: &mut [T], changed: &[(PathId, T)]) {
    for (path, value) in changed {
        if let Some(known) = known.get_mut(usize::from(path.0)) {
            *known = *value;
        }
    }
}
