use std::time::Duration;

use super::Direction;
use crate::config::diagnostic::Report;
use crate::config::table::Table;
use crate::config::wording::{self, Complaint};

/// Calls or transfers of one entry; each costs a simulation its time.
const FLOWS_MAX: i64 = 1_000;
const PER_SECOND_MAX: f64 = 1_000.0;
const KILOBYTES_MAX: i64 = 1_000_000;
const KILOBYTES_DEFAULT: u64 = 50;

/// Flows of one kind.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioTraffic {
    pub kind: TrafficKind,
    pub from: Duration,
    pub until: Duration,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum TrafficKind {
    /// Calls of 50 packets a second each way, marked EF.
    Voice { calls: u32 },
    /// Transfers that take what they get, as TCP does, for as long as it lasts; one of them is an
    /// elephant.
    Bulk { flows: u32, upload: bool },
    /// Short transfers, of which so many begin in a second, with this many bytes on average and a
    /// long tail.
    Mice { per_second: f64, bytes: u64, upload: bool },
}

/// An entry; `None` when something of it is wrong, which was reported.
pub fn read(mut table: Table<'_>, whole: Duration, report: &Report) -> Option<ScenarioTraffic> {
    let spot = table.spot().clone();
    let errors_before = report.error_count();
    let kind = table.required("kind", "kind = \"voice\"").and_then(|value| value.parse(kind));
    let flows = table.value("flows").and_then(|value| value.number(1..=FLOWS_MAX, ""));
    let per_second = table.value("per_second").and_then(|value| value.decimal(0.01..=PER_SECOND_MAX, "a second"));
    let kilobytes = table.value("kilobytes").and_then(|value| value.number::<u64>(1..=KILOBYTES_MAX, "kB"));
    let direction = table.value("direction").and_then(|value| value.parse_at(super::event::direction));
    let mut time = |key| table.value(key).and_then(|value| value.duration(Duration::ZERO..=whole));
    let (from, until) = (time("from"), time("until"));
    table.finish();
    let upload = match &direction {
        Some(at) if at.value == Direction::Both => {
            report.error(&at.spot, "traffic has one direction", "\"up\" or \"down\"");
            true
        }
        Some(at) => at.value == Direction::Up,
        None => true,
    };
    if report.error_count() > errors_before {
        return None;
    }
    let is_mice = kind == Some(Kind::Mice);
    if is_mice != per_second.is_some() || is_mice && flows.is_some() || !is_mice && kilobytes.is_some() {
        report.error(
            &spot,
            "these keys do not go together",
            "flows for voice and bulk; per_second and kilobytes for mice",
        );
        return None;
    }
    let kind = match kind? {
        Kind::Voice => TrafficKind::Voice { calls: flows.unwrap_or(1) },
        Kind::Bulk => TrafficKind::Bulk { flows: flows.unwrap_or(1), upload },
        Kind::Mice => TrafficKind::Mice {
            per_second: per_second?,
            bytes: kilobytes.unwrap_or(KILOBYTES_DEFAULT).saturating_mul(1_000),
            upload,
        },
    };
    Some(ScenarioTraffic { kind, from: from.unwrap_or_default(), until: until.unwrap_or(whole) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Voice,
    Bulk,
    Mice,
}

fn kind(text: &str) -> Result<Kind, Complaint> {
    match text {
        "voice" => Ok(Kind::Voice),
        "bulk" => Ok(Kind::Bulk),
        "mice" => Ok(Kind::Mice),
        _ => wording::complain(
            format!("unknown kind {}", wording::quoted(text)),
            wording::known(["voice", "bulk", "mice"]),
        ),
    }
}
