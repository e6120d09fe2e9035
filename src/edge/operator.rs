use super::Fact;
use super::machine::Edge;
use crate::ha::Failback;
use crate::model::{ConnectorId, Moment, Role};

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
            return Err(format!("no tunnel of the {to} role of connector {name} is usable: {stays}"));
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
