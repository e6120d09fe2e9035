use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::Edge;
use super::tunnel::Tunnel;
use super::{Fact, TunnelPlan, steering};
use crate::forward::Duty;
use crate::ha::Failback;
use crate::model::{ConnectorId, LinkId, Moment, Role};
use crate::steer::{Links, Rule};

/// What an operator wants of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelOrder {
    /// No flows, but up and probed.
    Drain,
    /// Drained, then closed, and it stays so.
    Down,
    /// Both undone.
    Up,
}

/// What an operator tells a running site to do. Each answers in plain words: what has happened and what will, or
/// why nothing was done.
impl Edge {
    /// Sends the traffic of a connector to a role; to its other one, where none is named.
    pub fn fail_over(&mut self, connector: Option<&str>, to: Option<Role>, now: Moment) -> Result<String, String> {
        let index = self.connector_called(connector)?;
        let (Some(plan), Some(connector)) = (self.plan.connectors.get(index), self.connectors.get_mut(index)) else {
            return Err("no such connector".to_owned());
        };
        let name = plan.name.clone();
        let failback = plan.failback;
        let from = connector.roles.active();
        let to = to.unwrap_or(from.other());
        if plan.roles[to.index()].is_none() {
            return Err(format!("connector {name} has no {to} role"));
        }
        if !connector.roles.fail_over(to, now) {
            let stays = format!("traffic stays on the {from} role");
            return Err(format!("no tunnel of the {to} role of connector {name} is usable and in service: {stays}"));
        }
        self.note(Fact::FailedOver { connector: ConnectorId(index as u16), to }, now);
        self.settle(now);
        let moved = match (from, to) {
            (Role::Primary, Role::Secondary) => "traffic has gone over to the secondary role",
            (Role::Secondary, Role::Primary) => "traffic has gone back to the primary role",
            (Role::Primary, Role::Primary) => "traffic was on the primary role already",
            (Role::Secondary, Role::Secondary) => "traffic was on the secondary role already",
        };
        Ok(format!("connector {name}: {moved}. {}", outlook(&name, to, failback)))
    }

    /// Drains a tunnel, takes it down or takes it up. `name` is `connector/role/tunnel`, or the end of it where that
    /// is enough. What would leave a role that carries traffic without a tunnel needs `force`.
    pub fn order_tunnel(&mut self, name: &str, order: TunnelOrder, force: bool, now: Moment) -> Result<String, String> {
        let index = self.tunnel_called(name)?;
        let (Some(plan), Some(tunnel)) = (self.plan.tunnels.get(index), self.tunnels.get(index)) else {
            return Err("no such tunnel".to_owned());
        };
        let name = plan.full_name(&self.plan.connectors);
        let (duty, closing) = (tunnel.duty(), tunnel.is_closing());
        let again = format!("`trefoil tunnel up {name}`, or a restart of the daemon, takes it into service again");
        match (order, duty) {
            (TunnelOrder::Up, Duty::InService) => return Ok(format!("{name} is in service already")),
            (TunnelOrder::Drain, Duty::Down) => return Err(format!("{name} is down; {again}")),
            (TunnelOrder::Down, Duty::Down) => return Ok(format!("{name} is down already; {again}")),
            (TunnelOrder::Drain, Duty::Drained { .. }) if !closing => {
                return Ok(format!("{name} is drained already; {again}"));
            }
            (TunnelOrder::Down, Duty::Drained { .. }) if closing => {
                return Ok(format!("{name} is going down already; {again}"));
            }
            (TunnelOrder::Up, Duty::Drained { .. } | Duty::Down)
            | (TunnelOrder::Drain | TunnelOrder::Down, Duty::InService | Duty::Drained { .. }) => {}
        }
        let follows = match order {
            TunnelOrder::Up => String::new(),
            TunnelOrder::Drain | TunnelOrder::Down => self.what_follows(index, order, force)?,
        };
        let gap = self.gap_to_leave(index);
        self.with_tunnel(index, now, |tunnel, context| match order {
            TunnelOrder::Drain => tunnel.drain(gap, context),
            TunnelOrder::Down => tunnel.take_down(gap, context),
            TunnelOrder::Up => tunnel.take_up(context),
        });
        self.choose_again();
        self.settle(now);
        Ok(match order {
            TunnelOrder::Drain => {
                format!("{name} is drained: {follows}. It stays up and is probed; {again}")
            }
            TunnelOrder::Down => format!("{name} goes down: {follows}. The peer is told then; {again}"),
            TunnelOrder::Up if duty == Duty::Down => format!("{name} is being set up again"),
            TunnelOrder::Up => format!("{name} is in service again"),
        })
    }

    /// What becomes of the traffic when a tunnel leaves service; a refusal where that takes `force`.
    fn what_follows(&self, index: usize, order: TunnelOrder, force: bool) -> Result<String, String> {
        let (Some(plan), Some(tunnel)) = (self.plan.tunnels.get(index), self.tunnels.get(index)) else {
            return Err("no such tunnel".to_owned());
        };
        let connector = usize::from(plan.connector.0);
        let (Some(of_plan), Some(of_edge)) = (self.plan.connectors.get(connector), self.connectors.get(connector))
        else {
            return Err("no such connector".to_owned());
        };
        let mut left = self.count(connector, Tunnel::serves);
        let role = plan.role;
        if let Some(of_role) = left.get_mut(role.index()).filter(|_| tunnel.serves()) {
            *of_role -= 1;
        }
        let (name, other) = (&of_plan.name, role.other());
        let of = |role: Role| left.get(role.index()).copied().unwrap_or_default();
        if !tunnel.usable() {
            return Ok("it carried nothing".to_owned());
        }
        if of(role) > 0 {
            let then = "new flows go to its siblings now, and its own follow within a second";
            let strict =
                if of_edge.roles.active() == role { self.strict_to(index, plan, order) } else { String::new() };
            return Ok(format!("{then}{strict}"));
        }
        if of_edge.roles.active() != role {
            let alone =
                "its role does not carry traffic now, and could not take any over: none else of it is in service";
            return Ok(alone.to_owned());
        }
        let drained = self.count(connector, |one| one.usable() && one.duty().is_drained()).iter().sum::<usize>();
        let others_drained = drained > usize::from(tunnel.duty().is_drained());
        let then = match (of(other) > 0, order) {
            (true, _) => format!("all traffic of connector {name} goes over to the {other} role"),
            (false, _) if others_drained => format!("the traffic of connector {name} goes to drained tunnels"),
            (false, TunnelOrder::Down) => format!("packets for connector {name} are refused until a tunnel is usable"),
            (false, TunnelOrder::Drain | TunnelOrder::Up) => {
                format!("the traffic of connector {name} stays on it until another tunnel is usable")
            }
        };
        if force {
            return Ok(then);
        }
        let last = if tunnel.duty().is_drained() { "usable" } else { "in service" };
        Err(format!(
            "{} is the last tunnel {last} of the {role} role, which carries the traffic: {then}. Say --force to do it",
            plan.full_name(&self.plan.connectors)
        ))
    }

    /// What becomes of flows whose rule lets them go to no sibling, if there is such a rule.
    fn strict_to(&self, index: usize, plan: &TunnelPlan, order: TunnelOrder) -> String {
        // On a tunnel that is drained such flows can stay, on one that is down they cannot.
        let (can_carry, outcome): (fn(&Tunnel) -> bool, _) = match order {
            TunnelOrder::Down => (Tunnel::usable, "are refused"),
            TunnelOrder::Drain | TunnelOrder::Up => (Tunnel::serves, "stay on it"),
        };
        let others = self.siblings(index).filter(|other| self.tunnels.get(*other).is_some_and(can_carry));
        let others: Vec<LinkId> = others.filter_map(|other| Some(self.plan.tunnels.get(other)?.link)).collect();
        let needs_it = |rule: &&Rule| match rule.action.steering().map(|steering| &steering.links) {
            Some(Links::Strict(links)) => links.contains(&plan.link) && !others.iter().any(|link| links.contains(link)),
            Some(Links::Any | Links::Prefer(_)) | None => false,
        };
        let is_of =
            |rule: &&Rule| rule.matcher.connectors.is_empty() || rule.matcher.connectors.contains(&plan.connector);
        let rules = self.plan.rules.rules().iter().filter(needs_it).filter(is_of);
        match listed(rules.map(|rule| rule.name.clone())) {
            none if none.is_empty() => none,
            rules => format!("; but flows of rules that allow none of those {outcome}: {rules}"),
        }
    }

    /// So long must a flow pause that leaves the tunnel, wherever it goes.
    fn gap_to_leave(&self, index: usize) -> Duration {
        let measured = |tunnel: &Tunnel| tunnel.health().metrics();
        let Some(from) = self.tunnels.get(index).map(measured) else { return Duration::ZERO };
        let others = self.siblings(index).filter_map(|sibling| self.tunnels.get(sibling));
        let others = others.filter(|other| other.serves());
        others.map(|other| steering::gap(from, measured(other))).max().unwrap_or_default()
    }

    fn tunnel_called(&self, name: &str) -> Result<usize, String> {
        let full = |plan: &TunnelPlan| plan.full_name(&self.plan.connectors);
        let names = || self.plan.tunnels.iter().map(full);
        let is_meant = |full: &String| full == name || full.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'));
        let mut meant = names().enumerate().filter(|(_, full)| is_meant(full));
        match (meant.next(), meant.next()) {
            (Some((index, _)), None) => Ok(index),
            (None, _) => Err(format!("no tunnel is called {name:?} (known: {})", listed(names()))),
            (Some(_), Some(_)) => Err(format!("{name:?} may be any of {}", listed(names().filter(is_meant)))),
        }
    }

    fn connector_called(&self, name: Option<&str>) -> Result<usize, String> {
        let connectors = || self.plan.connectors.iter();
        let known = || listed(connectors().map(|connector| connector.name.clone()));
        if let Some(name) = name {
            let found = connectors().position(|connector| connector.name == name);
            return found.ok_or_else(|| format!("no connector is called {name:?} (known: {})", known()));
        }
        let mut with_two = connectors().enumerate().filter(|(_, one)| one.roles.iter().all(Option::is_some));
        match (with_two.next(), with_two.next()) {
            (Some((index, _)), None) => Ok(index),
            (None, _) => Err("no connector has two roles".to_owned()),
            (Some(_), Some(_)) => Err(format!("several connectors have two roles: name one of {}", known())),
        }
    }
}

/// Names in an answer: a few are enough to see how they are written.
const NAMES_TOLD: usize = 8;

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let told = names.iter().take(NAMES_TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// What will happen to the traffic of a role that it was sent to.
fn outlook(connector: &str, to: Role, failback: Failback) -> String {
    match to {
        Role::Secondary => format!(
            "It stays there until `trefoil failover {connector} --to primary`, until no tunnel of the secondary role is \
             usable and one of the primary is, or until the daemon ends"
        ),
        Role::Primary => format!(
            "When no tunnel of the primary role is usable, it goes over to the secondary by itself, and back {failback}"
        ),
    }
}
