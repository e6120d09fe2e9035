//! What rules refer to by name: groups of networks, applications and SLA classes.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

use super::VALUES_OF_ALL_MAX;
use super::fields;
use super::vocabulary::SITES_MAX;
use crate::config::diagnostic::Report;
use crate::config::source::{At, Spot};
use crate::config::table::Table;
use crate::config::wording;
use crate::config::words;
use crate::model::Permille;
use crate::steer::{SLA_CLASSES_MAX, Service, SlaClass, SlaId};

/// Definitions of one kind in all policy files: more than anybody can tell apart.
const DEFINITIONS_MAX: usize = 1024;
/// Networks in one group: a large cloud publishes some thousands.
const NETWORKS_MAX: usize = 8192;
/// Services of one application.
const SERVICES_MAX: usize = 64;

/// All definitions of all policy files; they may stand before or after the rules that use them.
pub struct Definitions {
    /// All that rules may be for, where a file lists them.
    sites: Option<BTreeMap<String, Spot>>,
    groups: BTreeMap<String, (Vec<IpNet>, Spot)>,
    applications: BTreeMap<String, (Vec<Service>, Spot)>,
    /// Values of all applications.
    values: usize,
    sla_classes: Vec<SlaClass>,
    sla_spots: BTreeMap<String, Spot>,
}

impl Definitions {
    pub fn new() -> Definitions {
        Definitions {
            sites: None,
            groups: BTreeMap::new(),
            applications: BTreeMap::new(),
            values: 0,
            sla_classes: SlaClass::shipped(),
            sla_spots: BTreeMap::new(),
        }
    }

    /// The list of sites and the `[[group]]` tables of one file, which others may refer to.
    pub fn read_groups(&mut self, table: &mut Table<'_>, report: &Report) {
        if let Some(value) = fields::some_values(table, "sites") {
            let listed = value.parse_items(SITES_MAX, words::name).into_iter().map(|at| (at.value, at.spot));
            self.sites.get_or_insert_default().extend(listed);
        }
        for mut table in table.tables("group").unwrap_or_default() {
            let name = defined_name(&mut table, "name = \"servers\"", report);
            let networks = table.required("prefixes", "prefixes = [\"10.1.0.0/16\"]");
            let networks = networks.map_or_else(Vec::new, |value| {
                if value.is_empty_list() {
                    value.error("prefixes is empty", "at least one network");
                }
                fields::values(value.parse_items(NETWORKS_MAX, words::network))
            });
            table.finish();
            insert(&mut self.groups, name, networks, "group", report);
        }
    }

    /// The `[[application]]` and `[[sla]]` tables of one file.
    pub fn read(&mut self, table: &mut Table<'_>, report: &Report) {
        'applications: for mut table in table.tables("application").unwrap_or_default() {
            let name = defined_name(&mut table, "name = \"meetings\"", report);
            let spot = table.spot().clone();
            let tables = table.tables("service").unwrap_or_default();
            if tables.is_empty() {
                report.missing(&spot, "the application has no service", "such as [[application.service]]");
            }
            if let Some(service) = tables.get(SERVICES_MAX) {
                report.error(service.spot(), "one service too many", format!("at most {SERVICES_MAX}"));
            }
            let mut services = Vec::new();
            for service in tables.into_iter().take(SERVICES_MAX) {
                let spot = service.spot().clone();
                let service = self.read_service(service, report);
                self.values = self.values.saturating_add(service.values());
                if self.values > VALUES_OF_ALL_MAX {
                    let instead = format!("at most {VALUES_OF_ALL_MAX}, those of groups counted each time");
                    report.error(&spot, "the applications so far have too many values", instead);
                    break 'applications;
                }
                services.push(service);
            }
            table.finish();
            insert(&mut self.applications, name, services, "application", report);
        }
        for table in table.tables("sla").unwrap_or_default() {
            self.read_sla(table, report);
        }
    }

    /// Is there such a site, as far as the files say?
    pub fn has_site(&self, name: &str) -> bool {
        self.sites.as_ref().is_none_or(|sites| sites.contains_key(name))
    }

    pub fn known_sites(&self) -> String {
        wording::known(self.sites.iter().flat_map(BTreeMap::keys))
    }

    /// Warns when the site itself is not among those that the files list.
    pub fn check_site(&self, name: &str, report: &Report) {
        if let Some(spot) = self.sites.as_ref().filter(|_| !self.has_site(name)).and_then(|sites| sites.values().next())
        {
            let what = format!("this site, {}, is not among the sites that the policy lists", wording::quoted(name));
            report.warn(spot, what, "its name, as in [site], so that rules can be for it");
        }
    }

    /// The networks of a group.
    pub fn group(&self, name: &str) -> Option<&[IpNet]> {
        self.groups.get(name).map(|(networks, _)| networks.as_slice())
    }

    pub fn known_groups(&self) -> String {
        wording::known(self.groups.keys())
    }

    pub fn application(&self, name: &str) -> Option<&[Service]> {
        self.applications.get(name).map(|(services, _)| services.as_slice())
    }

    pub fn known_applications(&self) -> String {
        wording::known(self.applications.keys())
    }

    pub fn sla(&self, name: &str) -> Option<SlaId> {
        let index = self.sla_classes.iter().position(|class| class.name == name)?;
        u8::try_from(index).ok().map(SlaId)
    }

    pub fn known_sla(&self) -> String {
        wording::known(self.sla_classes.iter().map(|class| &class.name))
    }

    pub fn into_sla_classes(self) -> Vec<SlaClass> {
        self.sla_classes
    }

    fn read_service(&self, mut table: Table<'_>, report: &Report) -> Service {
        let errors_before = report.error_count();
        let destinations = fields::networks(&mut table, "destination", self);
        let protocols = fields::protocols(&mut table);
        let destination_ports = fields::ports(&mut table, "destination_port", &protocols);
        let service = Service { destinations, protocols, destination_ports };
        if service == Service::default() && report.error_count() == errors_before {
            report.missing(table.spot(), "the service matches every flow", "destination, protocol or destination_port");
        }
        table.finish();
        service
    }

    fn read_sla(&mut self, mut table: Table<'_>, report: &Report) {
        let spot = table.spot().clone();
        let name = defined_name(&mut table, "name = \"trading\"", report);
        let errors_before = report.error_count();
        let loss = table.value("loss_percent").and_then(|value| value.decimal(0.0..=100.0, "per cent"));
        let mut limit = |key| {
            let number = table.value(key).and_then(|value| value.number::<u64>(1..=10_000, "ms"));
            number.map(Duration::from_millis)
        };
        let (rtt_max, jitter_max) = (limit("rtt_ms"), limit("jitter_ms"));
        table.finish();
        let loss_max = loss.and_then(|loss| Permille::new((loss * 10.0).round() as u16));
        if loss_max.is_none() && rtt_max.is_none() && jitter_max.is_none() && report.error_count() == errors_before {
            report.missing(&spot, "the SLA class has no limit", "loss_percent, rtt_ms or jitter_ms");
        }
        let Some(name) = name else { return };
        if let Some(earlier) = self.sla_spots.get(&name.value) {
            return report.error(
                &name.spot,
                format!("SLA class {} is already at {earlier}", wording::quoted(&name.value)),
                "a name of its own for each",
            );
        }
        self.sla_spots.insert(name.value.clone(), name.spot.clone());
        let class = SlaClass { name: name.value, loss_max, rtt_max, jitter_max };
        let is_full = self.sla_classes.len() == SLA_CLASSES_MAX;
        match self.sla_classes.iter_mut().find(|known| known.name == class.name) {
            // One that is shipped is defined anew.
            Some(shipped) => *shipped = class,
            None if is_full => report.error(
                &name.spot,
                "one SLA class too many",
                format!("at most {SLA_CLASSES_MAX}, with those that are shipped"),
            ),
            None => self.sla_classes.push(class),
        }
    }
}

/// Names begin with a letter, so that none of them is an address.
fn defined_name(table: &mut Table<'_>, example: &str, report: &Report) -> Option<At<String>> {
    let name = table.required("name", example)?.parse_at(words::name)?;
    if name.value.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Some(name);
    }
    report.error(&name.spot, format!("{} begins with a digit", wording::quoted(&name.value)), "a letter first");
    None
}

fn insert<T>(known: &mut BTreeMap<String, (T, Spot)>, name: Option<At<String>>, value: T, noun: &str, report: &Report) {
    let Some(name) = name else { return };
    if let Some((_, earlier)) = known.get(&name.value) {
        let what = format!("{noun} {} is already at {earlier}", wording::quoted(&name.value));
        return report.error(&name.spot, what, "a name of its own for each");
    }
    if known.len() == DEFINITIONS_MAX {
        return report.error(&name.spot, format!("one {noun} too many"), format!("at most {DEFINITIONS_MAX}"));
    }
    known.insert(name.value, (value, name.spot));
}
