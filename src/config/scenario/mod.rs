//! Scenario files: links, what happens to them, and what traffic there is, to be played in
//! simulated time.

mod event;
mod traffic;

use std::time::Duration;

pub use event::{Change, Direction, ScenarioEvent, Trace, Where};
pub use traffic::{ScenarioTraffic, TrafficKind};

use super::diagnostic::Report;
use super::source::At;
use super::table::Table;
use super::wording;
use super::words;
use crate::model::{Mbps, Permille};

/// More than any site of a scoreboard has; a table of more columns is not read.
const LINKS_MAX: usize = 16;
/// From a moment that shows something to the longest that anybody waits for.
const DURATIONS: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
const DELAY_MS_MAX: i64 = 5_000;
const QUEUE_MS_MAX: i64 = 10_000;
const QUEUE_MS_DEFAULT: u64 = 100;

/// What is to be played.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    pub name: String,
    pub description: Option<String>,
    pub duration: Duration,
    /// Of all that is left to chance.
    pub seed: u64,
    pub links: Vec<ScenarioLink>,
    /// Where two of them speak of the same, the later one is right.
    pub events: Vec<ScenarioEvent>,
    pub traffic: Vec<ScenarioTraffic>,
}

/// A WAN link as it is while nothing happens to it.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioLink {
    pub name: String,
    pub up: LineShape,
    pub down: LineShape,
}

/// One direction of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineShape {
    pub rate: Mbps,
    /// One way.
    pub delay: Duration,
    /// On top of the delay, evenly between zero and this.
    pub jitter: Duration,
    pub loss: Permille,
    /// How much waiting traffic it holds, as time at its rate.
    pub queue: Duration,
}

/// The scenario of a file; `None` when something of it is wrong, which was reported.
pub fn read(mut table: Table<'_>, report: &Report) -> Option<Scenario> {
    let errors_before = report.error_count();
    let name = table.required("name", "name = \"brownout\"").and_then(|value| value.parse(words::name));
    let description = table.value("description").and_then(|value| value.parse(words::free_text));
    let duration = table.required("duration", "duration = \"3m\"").and_then(|value| value.duration(DURATIONS));
    let seed = table.value("seed").and_then(|value| value.number(0..=i64::from(u32::MAX), ""));
    let mut links: Vec<ScenarioLink> = Vec::new();
    match table.table("link") {
        Some(mut tables) => {
            for (name, table) in tables.named_tables() {
                read_link(&mut links, name, table, report);
            }
        }
        None => report.missing(table.spot(), "no link", "a table [link.fibre] for each WAN link"),
    }
    let whole = duration.unwrap_or(*DURATIONS.end());
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let events = table.tables("event").unwrap_or_default();
    let events = events.into_iter().filter_map(|table| event::read(table, &names, whole, report)).collect();
    let traffic = table.tables("traffic").unwrap_or_default();
    let traffic = traffic.into_iter().filter_map(|table| traffic::read(table, whole, report)).collect();
    table.finish();
    if report.error_count() > errors_before {
        return None;
    }
    Some(Scenario { name: name?, description, duration: duration?, seed: seed.unwrap_or(1), links, events, traffic })
}

fn read_link(links: &mut Vec<ScenarioLink>, name: At<&str>, mut table: Table<'_>, report: &Report) {
    if links.len() >= LINKS_MAX {
        let what = format!("link {} is one too many", wording::quoted(name.value));
        return report.error(&name.spot, what, format!("at most {LINKS_MAX}"));
    }
    let link_name = match words::name(name.value) {
        Ok(text) => Some(text),
        Err(complaint) => {
            report.error(&name.spot, complaint.what, complaint.instead);
            None
        }
    };
    let up = table.required("up_mbps", "up_mbps = 20").and_then(|value| value.mbps());
    let down = table.required("down_mbps", "down_mbps = 50").and_then(|value| value.mbps());
    let delay = table.required("delay_ms", "delay_ms = 10").and_then(|value| value.number(0..=DELAY_MS_MAX, "ms"));
    let jitter = table.value("jitter_ms").and_then(|value| value.number(0..=DELAY_MS_MAX, "ms"));
    let loss = table.value("loss_percent").and_then(|value| loss(&value));
    let queue = table.value("queue_ms").and_then(|value| value.number(1..=QUEUE_MS_MAX, "ms"));
    table.finish();
    let (Some(name), Some(up), Some(down), Some(delay)) = (link_name, up, down, delay) else { return };
    let line = |rate| LineShape {
        rate,
        delay: Duration::from_millis(delay),
        jitter: Duration::from_millis(jitter.unwrap_or(0)),
        loss: loss.unwrap_or(Permille::ZERO),
        queue: Duration::from_millis(queue.unwrap_or(QUEUE_MS_DEFAULT)),
    };
    links.push(ScenarioLink { name, up: line(up), down: line(down) });
}

fn loss(value: &super::table::Value<'_>) -> Option<Permille> {
    let percent = value.decimal(0.0..=100.0, "per cent")?;
    Permille::new((percent * 10.0).round() as u16)
}
