//! Policy files: ordered rules, of which the first that matches a flow decides, and the names that
//! they use.

mod action;
mod case;
mod definitions;
mod fields;
mod flow;
mod hours;
mod reach;
mod trial;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};

pub use case::{Expected, LinkState, PolicyTest};
use definitions::Definitions;
pub use flow::{FlowLine, FlowWords, flow, flow_line};
pub use hours::utc_offset;
pub use reach::Ranges;
pub use trial::{Failure, Outcome, PolicyFiles};
pub use vocabulary::{Names, PolicyLink, Vocabulary};

use super::diagnostic::Report;
use super::source::Spot;
use super::table::Table;
use super::wording;
use super::words;
use crate::model::ConnectorId;
use crate::steer::{Coverage, Elsewhere, Finding, Matcher, Rule, RuleSet, Service, SiteId};

/// Ten thousand, and some room: a new flow finds its rule among them in about a microsecond.
pub const RULES_MAX: usize = 16_384;
/// Values of all rules together, a group's or application's counted for each rule that names it:
/// some 30 MiB when compiled.
const VALUES_OF_ALL_MAX: usize = 500_000;

/// Earlier rules that are named where they leave nothing to a later one.
const TAKERS_SHOWN: usize = 4;

/// Tests in all policy files.
const TESTS_MAX: usize = 16_384;

/// What policy files say.
pub struct Policy {
    /// Of all files, in order.
    pub rules: RuleSet,
    pub tests: Vec<PolicyTest>,
    /// Tests that are for other sites than the one that is meant.
    pub tests_elsewhere: usize,
}

pub fn read(mut files: Vec<Table<'_>>, vocabulary: &Vocabulary, report: &Report) -> Policy {
    let mut definitions = Definitions::new();
    for file in &mut files {
        definitions.read_groups(file, report);
    }
    for file in &mut files {
        definitions.read(file, report);
    }
    let mut reader = Reader {
        vocabulary,
        definitions: &definitions,
        report,
        rules: Vec::new(),
        spots: Vec::new(),
        elsewhere: Vec::new(),
        values: 0,
        names: BTreeMap::new(),
        matches_all: None,
    };
    let mut tests: Vec<Table<'_>> = Vec::new();
    let mut full = false;
    for mut file in files {
        if file.earlier("site").is_some() {
            // Each of its keys would be unknown here.
            let instead = "policy files, or --site SITE.toml for those that it names";
            report.error(file.spot(), "this is a site file, not one of rules", instead);
            continue;
        }
        let rules = file.tables("rule").unwrap_or_default();
        tests.extend(file.tables("test").unwrap_or_default());
        file.finish();
        full = full || !reader.read_rules(rules);
    }
    if let Some(site) = vocabulary.site().filter(|site| !site.is_empty()) {
        definitions.check_site(site, report);
    }
    let names_of_rules: BTreeSet<String> = reader.names.keys().cloned().collect();
    let (rules, elsewhere) = reader.finish();
    if let Some(table) = tests.get(TESTS_MAX) {
        report.error(table.spot(), "one test too many", format!("at most {TESTS_MAX} in all policy files"));
    }
    let (mut ours, mut tests_elsewhere) = (Vec::new(), 0);
    let mut names: BTreeMap<(SiteId, String), String> = BTreeMap::new();
    for table in tests.into_iter().take(TESTS_MAX) {
        let spot = table.spot().clone();
        match case::read(table, vocabulary, &definitions, &names_of_rules, report) {
            Some(Some(test)) => {
                // Two sites may well be asked the same.
                let named = (test.flow.ends.site, test.name.clone());
                if let Some(earlier) = names.insert(named, test.place.clone()) {
                    let what = format!("test {} is already at {earlier}", wording::quoted(&test.name));
                    report.warn(&spot, what, "a name of its own for each test");
                }
                ours.push(test);
            }
            Some(None) => tests_elsewhere += 1,
            None => {}
        }
    }
    vocabulary.warn_of_stated(report);
    let rules = RuleSet::new(rules, definitions.into_sla_classes());
    let rules = rules.with_names(vocabulary.patterns()).with_elsewhere(elsewhere);
    Policy { rules, tests: ours, tests_elsewhere }
}

struct Reader<'a> {
    vocabulary: &'a Vocabulary,
    definitions: &'a Definitions,
    report: &'a Report,
    rules: Vec<Rule>,
    /// Where each is.
    spots: Vec<Spot>,
    /// Those for other sites.
    elsewhere: Vec<Elsewhere>,
    /// Of the rules so far.
    values: usize,
    names: BTreeMap<String, Spot>,
    /// The first rule that matches every flow.
    matches_all: Option<Spot>,
}

impl Reader<'_> {
    /// `false` when they are too many.
    fn read_rules(&mut self, tables: Vec<Table<'_>>) -> bool {
        for table in tables {
            if self.rules.len() + self.elsewhere.len() == RULES_MAX {
                let instead = format!("at most {RULES_MAX} in all policy files");
                self.report.error(table.spot(), "one rule too many", instead);
                return false;
            }
            let spot = table.spot().clone();
            self.read_rule(table);
            if self.values > VALUES_OF_ALL_MAX {
                let instead =
                    format!("at most {VALUES_OF_ALL_MAX}, those of groups counted for each rule that names them");
                self.report.error(&spot, "the rules so far have too many values", instead);
                return false;
            }
        }
        true
    }

    fn read_rule(&mut self, mut table: Table<'_>) {
        let report = self.report;
        let spot = table.spot().clone();
        let name = table.required("name", "name = \"voice\"").and_then(|value| value.parse_at(words::rule));
        let errors_before = report.error_count();
        let named_sites = fields::sites(&mut table, self.definitions);
        let sites = self.vocabulary.for_sites(&named_sites, report);
        // Another site has links, connectors and segments of its own, which are known there.
        let open = Vocabulary::open();
        let vocabulary = if sites.is_some() { self.vocabulary } else { &open };
        let matcher = self.read_matcher(&mut table, sites.clone().unwrap_or_default(), vocabulary);
        self.values = self.values.saturating_add(count(&matcher));
        let matches_all = matcher.matches_everything() && sites.is_some() && report.error_count() == errors_before;
        let action = action::read(&mut table, vocabulary, self.definitions, report);
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
        if sites.is_none() {
            let names = named_sites.into_iter().map(|name| name.value).collect();
            self.elsewhere.extend(name.map(|name| Elsewhere {
                name: name.value,
                place: spot.to_string(),
                sites: names,
                after: u32::try_from(self.rules.len()).unwrap_or(u32::MAX),
            }));
            return;
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
        if let (Some(name), Some(action)) = (name, action) {
            self.rules.push(Rule { name: name.value, place: spot.to_string(), matcher, action });
            self.spots.push(spot);
        }
    }

    /// The rules, after a look at how they go together, and those for other sites.
    fn finish(self) -> (Vec<Rule>, Vec<Elsewhere>) {
        // A rule with an error may be the one that takes the flows, or leaves them.
        if self.report.error_count() > 0 {
            return (self.rules, self.elsewhere);
        }
        for finding in Coverage::new(&self.rules).findings() {
            match finding {
                Finding::Impossible { rule } => {
                    if let Some(spot) = self.spots.get(rule) {
                        let instead = "fields that some flow can have together";
                        self.report.warn(spot, "no flow can match this rule: its fields exclude each other", instead);
                    }
                }
                Finding::Unreachable { rule, taken_by } => self.tell_unreachable(rule, &taken_by),
            }
        }
        for (rule, spot) in self.rules.iter().zip(&self.spots) {
            Ranges::check_breakout(self.vocabulary.ranges(), rule, spot, self.report);
        }
        (self.rules, self.elsewhere)
    }

    fn tell_unreachable(&self, rule: usize, taken_by: &[usize]) {
        let earlier: Vec<&Rule> = taken_by.iter().filter_map(|index| self.rules.get(*index)).collect();
        // That one was told about when it was read.
        if earlier.iter().any(|rule| rule.matcher.matches_everything()) {
            return;
        }
        let Some((spot, rule)) = self.spots.get(rule).zip(self.rules.get(rule)) else { return };
        let shown = earlier.iter().take(TAKERS_SHOWN);
        let shown: Vec<String> =
            shown.map(|rule| format!("{} at {}", wording::quoted(&rule.name), rule.place)).collect();
        let more = match earlier.len().saturating_sub(TAKERS_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let contradicts = earlier.iter().any(|earlier| earlier.action != rule.action);
        let verb = if earlier.len() == 1 { "takes" } else { "together take" };
        self.report.warn(
            spot,
            format!("this rule is never reached: {}{more} {verb} all its flows", shown.join(", ")),
            if contradicts { "and does something else with them; put the narrower rule first" } else { "it can go" },
        );
    }

    fn read_matcher(&self, table: &mut Table<'_>, sites: Vec<SiteId>, vocabulary: &Vocabulary) -> Matcher {
        let sources = fields::networks(table, "source", self.definitions);
        let destinations = fields::networks(table, "destination", self.definitions);
        let services = self.read_services(table);
        let protocols = fields::protocols(table);
        let source_ports = fields::ports(table, "source_port", &protocols);
        let destination_ports = fields::ports(table, "destination_port", &protocols);
        let dscp = fields::some_values(table, "dscp")
            .map_or_else(Vec::new, |value| value.items(fields::VALUES_MAX).iter().filter_map(fields::dscp).collect());
        let connectors: Vec<ConnectorId> = fields::some_values(table, "connector").map_or_else(Vec::new, |value| {
            value.items(fields::VALUES_MAX).iter().filter_map(|item| vocabulary.connector(item)).collect()
        });
        let minutes = fields::some_values(table, "time").map_or_else(Vec::new, |value| {
            let hours = value.parse_items(fields::VALUES_MAX, hours::hours);
            hours.into_iter().flat_map(|at| at.value).collect()
        });
        let interfaces = fields::interfaces(table, vocabulary);
        let names = fields::some_values(table, "fqdn").map_or_else(Vec::new, |value| {
            value.items(fields::VALUES_MAX).iter().filter_map(|item| vocabulary.pattern(item)).collect()
        });
        Matcher {
            sites,
            sources,
            destinations,
            protocols,
            source_ports,
            destination_ports,
            dscp,
            connectors,
            minutes,
            interfaces,
            names,
            services,
        }
    }

    fn read_services(&self, table: &mut Table<'_>) -> Vec<Service> {
        let Some(value) = fields::some_values(table, "application") else { return Vec::new() };
        let (mut services, mut values) = (Vec::new(), 0);
        for item in value.items(fields::VALUES_MAX) {
            let Some(text) = item.text() else { continue };
            match self.definitions.application(text) {
                // The rule as a whole is refused for them.
                Some(_) if values > VALUES_OF_ALL_MAX => break,
                Some(application) => {
                    values += application.iter().map(Service::values).sum::<usize>();
                    services.extend_from_slice(application);
                }
                None => {
                    let what = format!("unknown application {}", wording::quoted(text));
                    item.error(what, self.definitions.known_applications());
                }
            }
        }
        services
    }
}

/// How many values a matcher lists.
fn count(matcher: &Matcher) -> usize {
    matcher.sites.len()
        + matcher.sources.len()
        + matcher.destinations.len()
        + matcher.protocols.len()
        + matcher.source_ports.len()
        + matcher.destination_ports.len()
        + matcher.dscp.len()
        + matcher.connectors.len()
        + matcher.minutes.len()
        + matcher.interfaces.len()
        + matcher.names.len()
        + matcher.services.iter().map(Service::values).sum::<usize>()
}
