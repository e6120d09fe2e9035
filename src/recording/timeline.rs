use serde::{Deserialize, Serialize};

use super::clock::{CLOCK_STEP_MS, WallTime, When, wall};
use super::line::{Entry, Line, Told};
use super::lookup;
use super::reader::{Part, ReadError, Reader};
use super::replay::{Checked, Difference, Replay, tunnel_name};
use crate::edge::{Fact, Plan};
use crate::model::{Moment, PathId};

/// Differences that are told one by one; of the others only the number.
const DIFFERENCES_TOLD: usize = 16;

/// What a difference says of each side, in bytes at most: all that is remembered of a large site is no reading.
const SIDE_MAX: usize = 16 << 10;

/// Troubles that are told one by one; of the others only the number.
const TROUBLES_TOLD: usize = 64;

/// The steps of a timeline, and the bytes of their texts, at most: what is more is counted.
const STEPS_MAX: usize = 100_000;
const STEPS_BYTES: usize = 32 << 20;

/// What a replay comes to. Fields are only ever added. Times are milliseconds since the Unix epoch, by
/// the clock as it stood.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub site: String,
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
    /// Decisions that were made again, and how many of them came out as recorded.
    pub decisions: u64,
    pub equal: u64,
    /// Decisions that could not be made again, since what they rest on is not in the recording.
    pub not_compared: u64,
    /// The first ones.
    pub differences: Vec<DifferenceStatus>,
    /// What changed, when and why.
    pub steps: Vec<Step>,
    pub more_steps: u64,
    /// Decisions about flows that the recorder left out.
    pub left_out: u64,
    /// What of the recording is damaged or missing, in plain words: the first ones.
    pub troubles: Vec<String>,
    #[serde(default)]
    pub more_troubles: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DifferenceStatus {
    pub at_ms: u64,
    pub of: String,
    pub recorded: String,
    pub now: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    pub at_ms: u64,
    /// As `Told::what`, or `flow`, `shares`, `clock`, `lost`.
    pub what: String,
    pub of: String,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// Replays a recording up to a moment of it.
pub fn replay(reader: &Reader, until: Option<When>, now_unix_ms: u64) -> Result<Report, ReplayError> {
    let places = reader.index()?;
    let until = match until {
        None => None,
        Some(when) => Some(lookup::find(&places, when, now_unix_ms).map_err(ReplayError::Outside)?),
    };
    let mut is_its_run = false;
    let mut teller = Teller::default();
    for part in reader.parts(0) {
        match part? {
            // That of the moment has ended before its next line.
            Part::Run(_) if is_its_run => break,
            Part::Run(run) => {
                is_its_run = until.as_ref().is_some_and(|found| found.run == run);
                teller.handle_run();
            }
            Part::Gap => {
                teller.replay.handle_gap();
                teller.gap = true;
            }
            Part::Trouble(trouble) => teller.tell_trouble(trouble.to_string()),
            Part::Line(line) => {
                if let Some(found) = until.as_ref().filter(|_| is_its_run)
                    && line.at > found.at
                {
                    match line.entry {
                        // A note that is late.
                        Entry::Flow(_) => continue,
                        _ => break,
                    }
                }
                teller.handle_line(&line);
            }
        }
    }
    Ok(teller.finish())
}

/// As much of one side of a difference as is told.
fn brief(mut text: String) -> String {
    if text.len() > SIDE_MAX {
        let end = (0..=SIDE_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Outside(String),
}

#[derive(Default)]
struct Teller {
    replay: Replay,
    report: Report,
    /// Of the steps' texts.
    step_bytes: usize,
    /// Something is missing before the next line.
    gap: bool,
}

impl Teller {
    fn tell_trouble(&mut self, trouble: String) {
        if self.report.troubles.len() < TROUBLES_TOLD {
            self.report.troubles.push(trouble);
        } else {
            self.report.more_troubles += 1;
        }
    }

    fn handle_run(&mut self) {
        self.replay.handle_run();
    }

    fn handle_line(&mut self, line: &Line) {
        let clock_before = self.replay.unix_ms_at_zero();
        let Checked { decisions, differences, blind } = self.replay.follow(line);
        let at_ms = self.wall(line.at);
        if std::mem::take(&mut self.gap) {
            let since = self.report.to_ms.map_or("the beginning".to_owned(), |to_ms| WallTime(to_ms).to_string());
            self.tell_trouble(format!("a gap from {since} to {}", WallTime(at_ms)));
        }
        if self.replay.unix_ms_at_zero() > 0 {
            self.report.from_ms = Some(self.report.from_ms.unwrap_or(at_ms));
            self.report.to_ms = Some(at_ms);
        }
        self.report.decisions += decisions;
        self.report.equal += decisions.saturating_sub(differences.len() as u64);
        self.report.not_compared += blind;
        for difference in differences {
            if self.report.differences.len() < DIFFERENCES_TOLD {
                let at_ms = self.wall(difference.at);
                let Difference { of, recorded, now, .. } = difference;
                let (recorded, now) = (brief(recorded), brief(now));
                self.report.differences.push(DifferenceStatus { at_ms, of, recorded, now });
            }
        }
        let steps = match line.entry {
            // It is written again and again; only a step of it is worth telling.
            Entry::Clock { unix_ms_at_zero } if unix_ms_at_zero.abs_diff(clock_before) <= CLOCK_STEP_MS => Vec::new(),
            _ => self.steps(line, at_ms),
        };
        for step in steps {
            let Step { what, of, from, to, reason, .. } = &step;
            let bytes = [what, of, from, to, reason].into_iter().map(String::len).sum::<usize>();
            if self.report.steps.len() < STEPS_MAX && self.step_bytes.saturating_add(bytes) <= STEPS_BYTES {
                self.step_bytes = self.step_bytes.saturating_add(bytes);
                self.report.steps.push(step);
            } else {
                self.report.more_steps += 1;
            }
        }
    }

    fn steps(&mut self, line: &Line, at_ms: u64) -> Vec<Step> {
        let step = |what: &str, of: String, from: String, to: String, reason: String| Step {
            at_ms,
            what: what.to_owned(),
            of,
            from,
            to,
            reason,
        };
        let nothing = String::new;
        match &line.entry {
            Entry::Opened { .. } | Entry::Published(_) => Vec::new(),
            Entry::Clock { .. } => vec![step("clock", nothing(), nothing(), nothing(), "the time of day".to_owned())],
            Entry::Plan(plan) => {
                self.report.site.clone_from(&plan.site);
                Vec::new()
            }
            Entry::Told(Told { what, of, from, to, reason }) => {
                vec![step(what, of.clone(), from.clone(), to.clone(), reason.clone())]
            }
            Entry::Flow(note) => {
                let Some((cause, plan)) = note.outcome.moved.zip(self.replay.plan()) else { return Vec::new() };
                let name = |path: Option<PathId>| path.map_or_else(String::new, |path| tunnel_name(plan, path));
                let (from, to) = (name(note.held.path), name(note.outcome.path));
                vec![step("flow", format!("{:?}", note.key), from, to, cause.to_string())]
            }
            Entry::Fact(Fact::Surveyed { shifts, .. }) => {
                let Some(plan): Option<&Plan> = self.replay.plan().map(|plan| &**plan) else { return Vec::new() };
                let told = shifts.iter().map(|shift| {
                    let (from, to) = (tunnel_name(plan, shift.from), tunnel_name(plan, shift.to));
                    step("shares", format!("{:?}", shift.key), from, to, "ordered, to bring shares in line".to_owned())
                });
                told.collect()
            }
            Entry::Fact(
                Fact::Whole(_)
                | Fact::RoleTimeout { .. }
                | Fact::FailedOver { .. }
                | Fact::Usable { .. }
                | Fact::Followed { .. }
                | Fact::Counted { .. }
                | Fact::Relieved { .. },
            ) => Vec::new(),
            Entry::LeftOut { flows } => {
                self.report.left_out = self.report.left_out.saturating_add(*flows);
                Vec::new()
            }
            Entry::Lost { entries } => {
                let reason = format!("{entries} entries were lost: the disk was slow");
                self.tell_trouble(format!("{reason}, at {}", WallTime(at_ms)));
                vec![step("lost", nothing(), nothing(), nothing(), reason)]
            }
        }
    }

    fn wall(&self, at: Moment) -> u64 {
        wall(at, self.replay.unix_ms_at_zero()).0
    }

    fn finish(self) -> Report {
        self.report
    }
}
