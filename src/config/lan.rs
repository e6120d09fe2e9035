//! `[segments]`: the host's interfaces towards the site, under names for rules.

use super::diagnostic::Report;
use super::source::At;
use super::table::Table;
use super::wording;
use super::words;
use crate::edge::{LanPlan, SegmentPlan};
use crate::model::InterfaceId;

/// Segments and interfaces in one of them: as many as there are numbers for interfaces.
const SEGMENTS_MAX: usize = 255;

/// The segments of a site, with the interfaces that they name.
pub fn read(table: Option<Table<'_>>, report: &Report) -> LanPlan {
    let mut lan = LanPlan::default();
    let Some(mut table) = table else { return lan };
    for (name, value) in table.named_values() {
        if lan.segments.len() == SEGMENTS_MAX {
            report.error(&name.spot, "one segment too many", format!("at most {SEGMENTS_MAX}"));
            break;
        }
        if let Err(complaint) = words::name(name.value) {
            report.error(&name.spot, complaint.what, complaint.instead);
        }
        if value.is_empty_list() {
            value.error(format!("segment {} is empty", wording::quoted(name.value)), "at least one interface");
        }
        let mut interfaces: Vec<InterfaceId> = Vec::new();
        for item in value.items(SEGMENTS_MAX) {
            let Some(At { value: interface, .. }) = item.parse_at(words::interface) else { continue };
            match number_of(&mut lan, &interface) {
                Some(id) if interfaces.contains(&id) => {
                    item.error(format!("{} is listed twice", wording::quoted(&interface)), "");
                }
                Some(id) => interfaces.push(id),
                None => item.error(TOO_MANY, AT_MOST),
            }
        }
        lan.segments.push(SegmentPlan { name: name.value.to_string(), interfaces });
    }
    lan
}

pub const TOO_MANY: &str = "one interface too many";
pub const AT_MOST: &str = "at most 255 different ones in segments and rules";

/// The number of an interface; one that is new gets the next, while there are some.
pub fn number_of(lan: &mut LanPlan, interface: &str) -> Option<InterfaceId> {
    let known = lan.interfaces.iter().position(|name| name == interface);
    let index = known.unwrap_or(lan.interfaces.len());
    let id = InterfaceId::of_index(index)?;
    if known.is_none() {
        lan.interfaces.push(interface.to_string());
    }
    Some(id)
}
