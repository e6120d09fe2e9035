use super::diagnostic::Report;
use super::failback;
use super::keepalive::Keepalive;
use super::label;
use super::probes::Probes;
use super::profile::BUILT_IN;
use super::psk::PskFiles;
use super::source::{At, Spot};
use super::table::{Table, Value};
use super::tunnel::{RoleContext, RoleDraft};
use super::wan::Wan;
use super::wording::{self, Complaint};
use super::words;
use crate::edge::{LabelledRange, Mode};
use crate::ha::Failback;
use crate::model::{Dscp, Role, TrafficSelector};
use crate::probe::{Ask, Target};

/// 6 tunnels each stay within the 65,535 numbers of `PathId` and of the SA slots.
pub const CONNECTORS_MAX: usize = 1024;
/// Each range is a route; a site that has more wants BGP.
const RANGES_MAX: usize = 1024;
/// RFC 7296 3.13 counts selectors in one byte; one is kept for the tunnel's private address.
pub const SELECTORS_MAX: usize = 254;

/// A `[connector.*]` table as written, each field checked by itself.
pub struct ConnectorDraft {
    pub name: At<String>,
    pub spot: Spot,
    pub labels: Vec<(String, String)>,
    pub description: Option<String>,
    pub mode: Mode,
    pub ranges: Vec<At<LabelledRange>>,
    /// Where they are written, when they are.
    pub ranges_spot: Option<Spot>,
    /// Seed: without network ranges the connector is route-based and carries everything.
    pub is_route_based: bool,
    pub local_selectors: Vec<At<TrafficSelector>>,
    pub peer_selectors: Vec<At<TrafficSelector>>,
    /// All ranges and selectors that are written could be read.
    pub selectors_are_whole: bool,
    pub mtu: Option<u16>,
    pub pmtu_discovery: bool,
    pub outer_dscp: Option<Dscp>,
    pub phase1: Option<At<String>>,
    pub phase2: Option<At<String>>,
    pub keepalive: Keepalive,
    pub failback: Failback,
    /// By `Role::index`.
    pub roles: [Option<RoleDraft>; 2],
}

impl ConnectorDraft {
    pub fn read(
        name: At<&str>,
        mut table: Table<'_>,
        wan: &Wan,
        keys: &mut PskFiles<'_>,
        report: &Report,
    ) -> ConnectorDraft {
        if let Err(complaint) = words::name(name.value) {
            report.error(&name.spot, complaint.what, complaint.instead);
        }
        let spot = table.spot().clone();
        let labels = label::read_labels(&mut table);
        let description = label::read_description(&mut table);
        let mode = table.value("mode").and_then(|value| value.parse(mode)).unwrap_or(Mode::Initiator);
        let errors_before = report.error_count();
        let ranges = table.value("network_ranges");
        let ranges_spot = ranges.as_ref().map(|value| value.spot.clone());
        let is_route_based = ranges.as_ref().is_none_or(|value| value.is_empty_list());
        let ranges = ranges.map_or_else(Vec::new, |value| value.parse_items(RANGES_MAX, words::labelled_range));
        let mut selectors = |key| {
            let value = table.value(key);
            value.map_or_else(Vec::new, |value| value.parse_items(SELECTORS_MAX, words::selector))
        };
        let local_selectors = selectors("local_traffic_selectors");
        let peer_selectors = selectors("peer_traffic_selectors");
        let selectors_are_whole = report.error_count() == errors_before;
        let mtu = table.value("mtu").and_then(|value| value.number(576..=9000, "bytes"));
        let pmtu_discovery = table.value("pmtu_discovery");
        let pmtu_spot = pmtu_discovery.as_ref().map(|value| value.spot.clone());
        let pmtu_discovery = pmtu_discovery.and_then(|value| value.boolean()).unwrap_or(false);
        let outer_dscp = table.value("outer_dscp").and_then(|value| outer_dscp(&value));
        let mut profile = |key| {
            let value: Value<'_> = table.value(key)?;
            value.text().map(|text| value.at(text.to_string()))
        };
        let (phase1, phase2) = (profile("phase1"), profile("phase2"));
        let keepalive = table.table("keepalive").map(|table| Keepalive::read(table, report)).unwrap_or_default();
        let failback = failback::read(&mut table, report);
        let probes = Probes::read(&mut table);
        let mut context = RoleContext { connector: name.value, mode, wan, probes: &probes, keys, report };
        let roles = Role::ALL.map(|role| {
            let table = table.table(role.name())?;
            Some(RoleDraft::read(role, table, &mut context))
        });
        if let Some(spot) = pmtu_spot.filter(|_| pmtu_discovery) {
            let tunnels = roles.iter().flatten().flat_map(|role| role.tunnels.iter().flatten());
            let asks = |one: &At<Target>| one.value.ask == Ask::Icmp;
            for tunnel in tunnels.filter(|tunnel| !tunnel.probes.targets().iter().any(asks)) {
                let instead = "private_local and probes";
                report.warn(&tunnel.spot, format!("path-MTU discovery ({spot}) has nobody to ask"), instead);
            }
        }
        table.finish();
        ConnectorDraft {
            name: At { value: name.value.to_string(), spot: name.spot },
            spot,
            labels,
            description,
            mode,
            ranges,
            ranges_spot,
            is_route_based,
            local_selectors,
            peer_selectors,
            selectors_are_whole,
            mtu,
            pmtu_discovery,
            outer_dscp,
            phase1,
            phase2,
            keepalive,
            failback,
            roles,
        }
    }

    pub fn phase1_name(&self) -> &str {
        self.phase1.as_ref().map_or(BUILT_IN, |at| &at.value)
    }

    pub fn phase2_name(&self) -> &str {
        self.phase2.as_ref().map_or(BUILT_IN, |at| &at.value)
    }

    pub fn roles(&self) -> impl Iterator<Item = &RoleDraft> {
        self.roles.iter().flatten()
    }
}

fn outer_dscp(value: &Value<'_>) -> Option<Dscp> {
    match value.is_integer() {
        true => value.number(0..=63, "").and_then(Dscp::new),
        false => value.parse(words::outer_dscp).flatten(),
    }
}

fn mode(text: &str) -> Result<Mode, Complaint> {
    match text {
        "initiator" => Ok(Mode::Initiator),
        "responder" => Ok(Mode::Responder),
        "bidirectional" => Ok(Mode::Bidirectional),
        _ => Err(Complaint {
            what: format!("unknown mode {}", wording::quoted(text)),
            instead: wording::known(["initiator", "responder", "bidirectional"]),
        }),
    }
}
