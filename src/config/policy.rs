//! Policy files: ordered rules, of which the first that matches a flow decides.

use std::collections::BTreeMap;

use super::diagnostic::Report;
use super::source::{At, Spot, Written};
use super::table::{Table, Value};
use super::wan::Wan;
use super::wording::{self, Complaint};
use super::words;
use crate::model::{Dscp, LinkId, protocol};
use crate::steer::{Action, Matcher, Rule, RuleSet};

/// Rules are tried one after another for each new flow: a thousand cost some microseconds.
const RULES_MAX: usize = 1024;
/// Values in one field of a rule, for the same reason.
const VALUES_MAX: usize = 256;

/// Protocols whose ports a flow's key holds.
const WITH_PORTS: [u8; 2] = [protocol::TCP, protocol::UDP];

/// The rules of all policy files, in order.
#[derive(Default)]
pub struct Policy {
    rules: Vec<Rule>,
    names: BTreeMap<String, Spot>,
    /// The first rule that matches every flow.
    matches_all: Option<Spot>,
}

impl Policy {
    /// Adds the rules of one file after those of the files before.
    pub fn read(&mut self, mut table: Table<'_>, wan: &Wan, report: &Report) {
        let rules = table.tables("rule").unwrap_or_default();
        table.finish();
        for table in rules {
            if self.rules.len() == RULES_MAX {
                report.error(table.spot(), "one rule too many", format!("at most {RULES_MAX} in all policy files"));
                return;
            }
            self.read_rule(table, wan, report);
        }
    }

    pub fn into_rules(self) -> RuleSet {
        RuleSet { rules: self.rules }
    }

    fn read_rule(&mut self, mut table: Table<'_>, wan: &Wan, report: &Report) {
        let spot = table.spot().clone();
        let name = table.required("name", "name = \"voice\"").and_then(|value| value.parse_at(words::name));
        let errors_before = report.error_count();
        let matcher = read_matcher(&mut table);
        let matches_all = matcher == Matcher::default() && report.error_count() == errors_before;
        let mode = table.written("mode", mode);
        let links = table.value("links").map(|value| (value.spot.clone(), read_links(&value, wan)));
        table.finish();
        if let Some(name) = &name {
            match self.names.get(&name.value) {
                Some(earlier) => report.error(
                    &name.spot,
                    format!("rule {} is already at {earlier}", wording::quoted(&name.value)),
                    "a name of its own for each rule",
                ),
                None => {
                    self.names.insert(name.value.clone(), name.spot.clone());
                }
            }
        }
        if let Some(earlier) = &self.matches_all {
            report.warn(
                &spot,
                format!("this rule is never reached: the one at {earlier} matches every flow"),
                "the rule that matches every flow comes last",
            );
        } else if matches_all {
            self.matches_all = Some(spot.clone());
        }
        let action = action(mode, links, &spot, report);
        if let (Some(name), Some(action)) = (name, action) {
            self.rules.push(Rule { name: name.value, matcher, action });
        }
    }
}

fn read_matcher(table: &mut Table<'_>) -> Matcher {
    let mut networks = |key| {
        let value = some_values(table, key);
        values(value.map_or_else(Vec::new, |value| value.parse_items(VALUES_MAX, words::network)))
    };
    let (sources, destinations) = (networks("source"), networks("destination"));
    let protocol_value = some_values(table, "protocol");
    let protocols: Vec<u8> = protocol_value.as_ref().map_or_else(Vec::new, |value| {
        let read = |item: &Value<'_>| match item.is_integer() {
            true => item.number(0..=255, ""),
            false => item.parse(words::ip_protocol),
        };
        value.items(VALUES_MAX).iter().filter_map(read).collect()
    });
    let mut ports = |key| {
        let value = some_values(table, key);
        let ports = value.as_ref().map_or_else(Vec::new, read_ports);
        if let Some(value) = value.filter(|_| protocols.iter().any(|number| !WITH_PORTS.contains(number))) {
            value.error(format!("{key} for a protocol without ports"), "protocol tcp or udp");
        }
        ports
    };
    let (source_ports, destination_ports) = (ports("source_port"), ports("destination_port"));
    let dscp = some_values(table, "dscp").map_or_else(Vec::new, |value| {
        let read = |item: &Value<'_>| match item.is_integer() {
            true => item.number(0..=63, "").and_then(Dscp::new),
            false => item.parse(words::dscp),
        };
        value.items(VALUES_MAX).iter().filter_map(read).collect()
    });
    Matcher { sources, destinations, protocols, source_ports, destination_ports, dscp }
}

/// A field left out matches everything; an empty list could mean everything or nothing.
fn some_values<'a>(table: &mut Table<'a>, key: &'static str) -> Option<Value<'a>> {
    let value = table.value(key)?;
    if value.is_empty_list() {
        value.error(format!("{key} is empty"), format!("at least one value, or no {key} for any"));
    }
    Some(value)
}

fn read_ports(value: &Value<'_>) -> Vec<(u16, u16)> {
    let read = |item: &Value<'_>| match item.is_integer() {
        true => item.number(0..=i64::from(u16::MAX), "").map(|port: u16| (port, port)),
        false => item.parse(words::ports),
    };
    value.items(VALUES_MAX).iter().filter_map(read).collect()
}

fn read_links(value: &Value<'_>, wan: &Wan) -> Vec<LinkId> {
    let mut links = Vec::new();
    for item in value.items(VALUES_MAX) {
        let Some(text) = item.text() else { continue };
        match wan.link(text) {
            Some(link) if links.contains(&link) => item.error(format!("{} is listed twice", wording::quoted(text)), ""),
            Some(link) => links.push(link),
            None => item.error(format!("unknown WAN link {}", wording::quoted(text)), wan.known()),
        }
    }
    if value.items(VALUES_MAX).is_empty() {
        value.error("links is empty", "at least one WAN link");
    }
    links
}

#[derive(Clone, Copy)]
enum RuleMode {
    Prefer,
    Strict,
    Balance,
    Drop,
}

fn mode(text: &str) -> Result<RuleMode, Complaint> {
    match text {
        "prefer" => Ok(RuleMode::Prefer),
        "strict" => Ok(RuleMode::Strict),
        "balance" => Ok(RuleMode::Balance),
        "drop" => Ok(RuleMode::Drop),
        _ => Err(Complaint {
            what: format!("unknown mode {}", wording::quoted(text)),
            instead: wording::known(["prefer", "strict", "balance", "drop"]),
        }),
    }
}

/// Where the rule sends its flows. Links without a mode are preferred.
fn action(mode: Written<RuleMode>, links: Option<(Spot, Vec<LinkId>)>, spot: &Spot, report: &Report) -> Option<Action> {
    let mode = match mode {
        Written::Wrong => return None,
        Written::No => None,
        Written::Yes(at) => Some(at.value),
    };
    match (mode, links) {
        (Some(RuleMode::Prefer) | None, Some((_, links))) => Some(Action::Prefer(links)),
        (Some(RuleMode::Strict), Some((_, links))) => Some(Action::Strict(links)),
        (Some(RuleMode::Balance), None) => Some(Action::Balance),
        (Some(RuleMode::Drop), None) => Some(Action::Drop),
        (Some(RuleMode::Balance | RuleMode::Drop), Some((links_spot, _))) => {
            report.error(
                &links_spot,
                "links in a rule that chooses none",
                "mode = \"prefer\" or \"strict\", or no links",
            );
            None
        }
        (Some(RuleMode::Prefer | RuleMode::Strict) | None, None) => {
            report.missing(
                spot,
                "the rule says nothing about where its flows go",
                "links = [...], or mode = \"balance\" or \"drop\"",
            );
            None
        }
    }
}

fn values<T>(items: Vec<At<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}
