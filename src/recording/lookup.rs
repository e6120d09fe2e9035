use std::time::Duration;

use super::clock::{WallTime, When, wall};
use super::reader::Place;
use crate::model::Moment;

/// The end of a recording is known only as closely as its last block: a moment that is behind it by no
/// more than this is its end.
const GRACE: Duration = Duration::from_secs(10);

/// Two times of day that are the same belong to two moments when these are apart by more than this:
/// the clock was set back.
const APART: Duration = Duration::from_secs(2);

/// A moment of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub run: u64,
    pub at: Moment,
    /// By the clock as it stood then.
    pub unix_ms_at_zero: u64,
    /// In which file.
    pub file: usize,
    /// What must be known of it, in plain words.
    pub note: Option<String>,
}

/// A time that is recorded without a break, by the clock as it stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub from: WallTime,
    pub to: WallTime,
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// What a block is the record of: from where the one before ended.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    place: Place,
    /// The file of the block before it, where what was in force before its first line is.
    before: usize,
    from: Moment,
    to: Moment,
}

fn stretches(places: &[Place]) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::with_capacity(places.len());
    for place in places {
        let before = all.last().filter(|before| before.place.header.run == place.header.run);
        let from = before.map_or(place.header.first, |before| before.to);
        let file = before.map_or(place.file, |before| before.place.file);
        all.push(Stretch { place: *place, before: file, from, to: place.header.last.max(from) });
    }
    all
}

/// The spans of time that are recorded, in the order in which they were.
pub fn spans(places: &[Place]) -> Vec<Span> {
    let mut spans: Vec<(Span, u64, u64)> = Vec::new();
    for Stretch { place, from, to, .. } in stretches(places) {
        let (run, zero) = (place.header.run, place.header.unix_ms_at_zero);
        let span = Span { from: wall(from, zero), to: wall(to, zero) };
        match spans.last_mut() {
            Some((last, of, clock)) if *of == run && clock.abs_diff(zero) <= APART.as_millis() as u64 => {
                last.to = span.to;
                *clock = zero;
            }
            _ => spans.push((span, run, zero)),
        }
    }
    spans.into_iter().map(|(span, ..)| span).collect()
}

/// Where a moment lies that somebody asks for; `now_unix_ms` is the present time of day.
pub fn find(places: &[Place], when: When, now_unix_ms: u64) -> Result<Found, String> {
    let all = stretches(places);
    let Some(last) = all.last() else { return Err("nothing is recorded".to_owned()) };
    let asked = match when {
        When::Wall(ms) => ms,
        When::Ago(span) => {
            let ms = now_unix_ms.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            // By the daemon's clock, whatever was done to the time of day since.
            let since_zero = ms.checked_sub(last.place.header.unix_ms_at_zero);
            let of_run = |one: &&Stretch| one.place.header.run == last.place.header.run;
            if let Some(at) = since_zero.map(Moment::from_millis)
                && let Some(found) = all.iter().filter(of_run).find(|one| at >= one.from && at <= one.to)
            {
                return Ok(found.at(at, None));
            }
            ms
        }
    };
    let of = |one: &Stretch| -> Option<Moment> {
        let at = Moment::from_millis(asked.checked_sub(one.place.header.unix_ms_at_zero)?);
        // A time is told to the millisecond.
        let rounded = one.from.as_nanos() / 1_000_000;
        (at.as_nanos() / 1_000_000 >= rounded && at <= one.to).then(|| at.max(one.from))
    };
    let found: Vec<(&Stretch, Moment)> = all.iter().filter_map(|one| Some((one, of(one)?))).collect();
    if let Some((one, at)) = found.last() {
        let twice = found
            .iter()
            .any(|(other, earlier)| other.place.header.run != one.place.header.run || at.since(*earlier) > APART);
        let note = "the clock was set back: this time came more than once; this is the last of them";
        return Ok(one.at(*at, twice.then(|| note.to_owned())));
    }
    let end = wall(last.to, last.place.header.unix_ms_at_zero).0;
    if asked > end && asked - end <= GRACE.as_millis() as u64 {
        return Ok(last.at(last.to, None));
    }
    Err(outside(&spans(places), asked))
}

impl Stretch {
    fn at(&self, at: Moment, note: Option<String>) -> Found {
        let header = &self.place.header;
        let file = if at < header.first { self.before } else { self.place.file };
        Found { run: header.run, at, unix_ms_at_zero: header.unix_ms_at_zero, file, note }
    }
}

/// Why a time is not in a recording.
fn outside(spans: &[Span], asked: u64) -> String {
    let asked_at = WallTime(asked);
    let (first, last) = (spans.iter().map(|span| span.from.0).min(), spans.iter().map(|span| span.to.0).max());
    let (Some(first), Some(last)) = (first, last) else { return "nothing is recorded".to_owned() };
    let reach = format!("the recording reaches from {} to {}", WallTime(first), WallTime(last));
    let before = spans.iter().map(|span| span.to.0).filter(|to| *to < asked).max();
    let after = spans.iter().map(|span| span.from.0).filter(|from| *from > asked).min();
    match (before, after) {
        (Some(before), Some(after)) => format!(
            "{asked_at} is not recorded: {reach}, with nothing between {} and {} (the daemon did not run, or the \
             clock was set)",
            WallTime(before),
            WallTime(after)
        ),
        _ => format!("{asked_at} is not recorded: {reach}"),
    }
}
