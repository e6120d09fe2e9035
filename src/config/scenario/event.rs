use std::time::Duration;

use super::{DELAY_MS_MAX, QUEUE_MS_MAX};
use crate::config::diagnostic::Report;
use crate::config::table::{Table, Value};
use crate::config::wording::{self, Complaint};
use crate::model::{Mbps, Permille, Role};

/// Values of a trace: an hour of them at four a second.
const TRACE_MAX: usize = 14_400;
const STEP_DEFAULT: Duration = Duration::from_secs(1);
const STEPS: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3600);
/// The shortest that an event lasts, so that a period of them ends.
const SHORTEST: Duration = Duration::from_millis(10);

/// Something that happens to a link or a PoP for a while, once or again and again.
#[derive(Clone, PartialEq, Debug)]
pub struct ScenarioEvent {
    pub at: Duration,
    /// `None`: until the end.
    pub lasts: Option<Duration>,
    /// It begins again after each such time.
    pub every: Option<Duration>,
    /// When it does so no more.
    pub until: Duration,
    pub place: Where,
    pub direction: Direction,
    pub change: Change,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// By its place in the file.
    Link(usize),
    /// Every way to the PoP of this role.
    Pop(Role),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    #[default]
    Both,
    /// From the site.
    Up,
    Down,
}

/// What is other than usual meanwhile; `None` is as usual.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Change {
    pub cut: bool,
    pub loss: Option<Permille>,
    pub delay: Option<Duration>,
    pub jitter: Option<Duration>,
    pub queue: Option<Duration>,
    pub rate: Option<Mbps>,
    pub trace: Option<Trace>,
}

/// A rate that changes all the time, over and over.
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// At least one.
    pub rates: Vec<Mbps>,
    pub step: Duration,
}

impl Direction {
    pub const ALL: [Direction; 3] = [Direction::Both, Direction::Up, Direction::Down];

    pub const fn name(self) -> &'static str {
        match self {
            Direction::Both => "both",
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}

impl ScenarioEvent {
    /// How long it has been going on at this time; `None`: it is not.
    pub fn going_on(&self, time: Duration) -> Option<Duration> {
        let since = time.checked_sub(self.at)?;
        let since = match self.every {
            Some(every) if time < self.until => {
                Duration::from_nanos((since.as_nanos() % every.as_nanos().max(1)).try_into().unwrap_or(u64::MAX))
            }
            // The last one that began before the end.
            Some(every) => {
                let begun = self.until.saturating_sub(self.at).as_nanos().div_ceil(every.as_nanos().max(1));
                let before = every.saturating_mul(u32::try_from(begun.saturating_sub(1)).unwrap_or(u32::MAX));
                since.checked_sub(before)?
            }
            None => since,
        };
        self.lasts.is_none_or(|lasts| since < lasts).then_some(since)
    }
}

/// An event; `None` when something of it is wrong, which was reported.
pub fn read(mut table: Table<'_>, links: &[&str], whole: Duration, report: &Report) -> Option<ScenarioEvent> {
    let spot = table.spot().clone();
    let errors_before = report.error_count();
    let time = Duration::ZERO..=whole;
    let at = table.required("at", "at = \"60s\"").and_then(|value| value.duration(time.clone()));
    let lasts = table.value("for").and_then(|value| value.duration(SHORTEST..=whole));
    let every = table.value("every").and_then(|value| value.duration(SHORTEST..=whole));
    let until = table.value("until").and_then(|value| value.duration(time));
    let link = table.value("link");
    let pop = table.value("pop");
    let place = match (&link, &pop) {
        (Some(link), None) => read_link(link, links).map(Where::Link),
        (None, Some(pop)) => pop.parse(role).map(Where::Pop),
        (Some(_), Some(pop)) => {
            pop.error("link and pop in one event", "one of them");
            None
        }
        (None, None) => {
            report.missing(&spot, "the event has no place", "link = \"fibre\" or pop = \"primary\"");
            None
        }
    };
    let direction = table.value("direction").and_then(|value| value.parse(direction)).unwrap_or_default();
    let cut = table.value("cut").and_then(|value| value.boolean()).unwrap_or(false);
    let loss = table.value("loss_percent").and_then(|value| super::loss(&value));
    let mut time =
        |key, most| table.value(key).and_then(|value| value.number::<u64>(0..=most, "ms")).map(Duration::from_millis);
    let (delay, jitter) = (time("delay_ms", DELAY_MS_MAX), time("jitter_ms", DELAY_MS_MAX));
    let queue = time("queue_ms", QUEUE_MS_MAX).map(|queue| queue.max(Duration::from_millis(1)));
    let rate = table.value("mbps").and_then(|value| value.mbps());
    let step = table.value("step").and_then(|value| value.duration(STEPS));
    let trace = table.value("trace_mbps").and_then(|value| read_trace(&value, step));
    table.finish();
    let change = Change { cut, loss, delay, jitter, queue, rate, trace };
    if report.error_count() == errors_before {
        let alters_link = Change { cut: false, ..change.clone() } != Change::default();
        if change == Change::default() {
            report.missing(
                &spot,
                "nothing happens in the event",
                "such as cut = true, loss_percent = 5, delay_ms = 80",
            );
        } else if matches!(place, Some(Where::Pop(_))) && alters_link {
            report.error(&spot, "a PoP can only be cut", "cut = true, or a link");
        } else if let Some(every) = every
            && lasts.is_none_or(|lasts| lasts >= every)
        {
            report.error(&spot, "the event has no end before it begins again", "for = ... shorter than every = ...");
        }
    }
    if report.error_count() > errors_before {
        return None;
    }
    Some(ScenarioEvent { at: at?, lasts, every, until: until.unwrap_or(whole), place: place?, direction, change })
}

fn read_link(value: &Value<'_>, links: &[&str]) -> Option<usize> {
    let name = value.text()?;
    let found = links.iter().position(|link| *link == name);
    if found.is_none() {
        value.error(format!("unknown link {}", wording::quoted(name)), wording::known(links));
    }
    found
}

fn read_trace(value: &Value<'_>, step: Option<Duration>) -> Option<Trace> {
    let rates: Vec<Mbps> = value.items(TRACE_MAX).iter().filter_map(Value::mbps).collect();
    if value.is_empty_list() {
        value.error("trace_mbps is empty", "such as [12, 6, 2, 1, 3, 8]");
    }
    (!rates.is_empty()).then_some(Trace { rates, step: step.unwrap_or(STEP_DEFAULT) })
}

fn role(text: &str) -> Result<Role, Complaint> {
    let found = Role::ALL.into_iter().find(|role| role.name() == text);
    found.ok_or_else(|| Complaint {
        what: format!("unknown PoP {}", wording::quoted(text)),
        instead: wording::known(Role::ALL.map(Role::name)),
    })
}

pub fn direction(text: &str) -> Result<Direction, Complaint> {
    let found = Direction::ALL.into_iter().find(|direction| direction.name() == text);
    found.ok_or_else(|| Complaint {
        what: format!("unknown direction {}", wording::quoted(text)),
        instead: wording::known(Direction::ALL.map(Direction::name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(lasts: Option<u64>, every: Option<u64>) -> ScenarioEvent {
        ScenarioEvent {
            at: Duration::from_secs(10),
            lasts: lasts.map(Duration::from_secs),
            every: every.map(Duration::from_secs),
            until: Duration::from_secs(40),
            place: Where::Link(0),
            direction: Direction::Both,
            change: Change { cut: true, ..Change::default() },
        }
    }

    fn seconds(event: &ScenarioEvent) -> Vec<u64> {
        (0..100).filter(|second| event.going_on(Duration::from_secs(*second)).is_some()).collect()
    }

    #[test]
    fn an_event_is_once_or_again_and_again_until_its_end() {
        assert_eq!(seconds(&event(Some(3), None)), [10, 11, 12]);
        assert_eq!(seconds(&event(None, None)).len(), 90);
        assert_eq!(seconds(&event(Some(2), Some(12))), [10, 11, 22, 23, 34, 35]);
        // The last one that begins before the end lasts as long as the others.
        assert_eq!(
            seconds(&event(Some(8), Some(25))),
            [10, 11, 12, 13, 14, 15, 16, 17, 35, 36, 37, 38, 39, 40, 41, 42]
        );
        assert_eq!(event(Some(3), None).going_on(Duration::from_secs(12)), Some(Duration::from_secs(2)));
    }
}
