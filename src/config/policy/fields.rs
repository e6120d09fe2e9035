//! Fields that rules and applications have in common.

use ipnet::IpNet;

use super::definitions::Definitions;
use super::vocabulary::Vocabulary;
use crate::config::source::At;
use crate::config::table::{Table, Value};
use crate::config::wording;
use crate::config::words;
use crate::model::{Dscp, InterfaceId, protocol};

/// Values in one field: beyond, a group or application says it better.
pub const VALUES_MAX: usize = 256;

/// Networks of one field, those of groups counted: eight groups that are as large as any may be.
const NETWORKS_MAX: usize = 65_536;

/// Protocols whose ports a flow's key holds.
const WITH_PORTS: [u8; 2] = [protocol::TCP, protocol::UDP];

/// Networks, and names of groups of them.
pub fn networks(table: &mut Table<'_>, key: &'static str, definitions: &Definitions) -> Vec<IpNet> {
    let Some(value) = some_values(table, key) else { return Vec::new() };
    let mut networks = Vec::new();
    for item in value.items(VALUES_MAX) {
        let Some(text) = item.text() else { continue };
        match definitions.group(text) {
            Some(group) if networks.len() + group.len() > NETWORKS_MAX => {
                item.error(
                    "too many networks in one field",
                    format!("at most {NETWORKS_MAX}, those of groups counted each time that they are named"),
                );
                break;
            }
            Some(group) => networks.extend_from_slice(group),
            None if text.starts_with(|first: char| first.is_ascii_alphabetic()) && !text.contains([':', '/']) => {
                item.error(format!("unknown group {}", wording::quoted(text)), definitions.known_groups());
            }
            None => networks.extend(item.parse(words::network)),
        }
    }
    networks
}

pub fn protocols(table: &mut Table<'_>) -> Vec<u8> {
    let value = some_values(table, "protocol");
    value.as_ref().map_or_else(Vec::new, |value| {
        let read = |item: &Value<'_>| match item.is_integer() {
            true => item.number(0..=255, ""),
            false => item.parse(words::ip_protocol),
        };
        value.items(VALUES_MAX).iter().filter_map(read).collect()
    })
}

pub fn ports(table: &mut Table<'_>, key: &'static str, protocols: &[u8]) -> Vec<(u16, u16)> {
    let value = some_values(table, key);
    let read = |item: &Value<'_>| match item.is_integer() {
        true => item.number(0..=i64::from(u16::MAX), "").map(|port: u16| (port, port)),
        false => item.parse(words::ports),
    };
    let ports = value.as_ref().map_or_else(Vec::new, |value| value.items(VALUES_MAX).iter().filter_map(read).collect());
    if let Some(value) = value.filter(|_| protocols.iter().any(|number| !WITH_PORTS.contains(number))) {
        value.error(format!("{key} for a protocol without ports"), "protocol tcp or udp");
    }
    ports
}

pub fn dscp(item: &Value<'_>) -> Option<Dscp> {
    match item.is_integer() {
        true => item.number(0..=63, "").and_then(Dscp::new),
        false => item.parse(words::dscp),
    }
}

/// The sites that a rule or a test is for; none: all.
pub fn sites(table: &mut Table<'_>, definitions: &Definitions) -> Vec<At<String>> {
    let Some(value) = some_values(table, "site") else { return Vec::new() };
    let named = value.parse_items(VALUES_MAX, words::name);
    let is_known = |name: &At<String>| {
        let known = definitions.has_site(&name.value);
        if !known {
            let what = format!("unknown site {}", wording::quoted(&name.value));
            value.error_at(&name.spot, what, definitions.known_sites());
        }
        known
    };
    named.into_iter().filter(is_known).collect()
}

/// `interface`, `segment`, or what both have in common.
pub fn interfaces(table: &mut Table<'_>, vocabulary: &Vocabulary) -> Vec<InterfaceId> {
    let named = some_values(table, "interface");
    let named =
        named.map(|value| value.items(VALUES_MAX).iter().filter_map(|item| vocabulary.interface(item)).collect());
    let segments = some_values(table, "segment");
    let spot = segments.clone();
    let segments = segments.map(|value| {
        let items = value.items(VALUES_MAX);
        items.iter().filter_map(|item| vocabulary.segment(item)).flatten().collect::<Vec<InterfaceId>>()
    });
    match (named, segments) {
        (None, None) => Vec::new(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(interfaces), Some(of_segments)) => {
            let interfaces: Vec<InterfaceId> = interfaces;
            let common: Vec<InterfaceId> = interfaces.iter().filter(|id| of_segments.contains(id)).copied().collect();
            if let Some(value) = spot.filter(|_| common.is_empty() && !interfaces.is_empty() && !of_segments.is_empty())
            {
                value.error("the rule's interface and segment have nothing in common", "one of them alone");
            }
            common
        }
    }
}

/// A field left out matches everything; an empty list could mean everything or nothing.
pub fn some_values<'a>(table: &mut Table<'a>, key: &'static str) -> Option<Value<'a>> {
    let value = table.value(key)?;
    if value.is_empty_list() {
        value.error(format!("{key} is empty"), format!("at least one value, or no {key} for any"));
    }
    Some(value)
}

pub fn values<T>(items: Vec<At<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}
