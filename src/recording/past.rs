use std::collections::VecDeque;
use std::time::Duration;

use super::clock::{When, wall};
use super::line::{Entry, Line};
use super::lookup::{self, Found};
use super::reader::{Part, Place, ReadError, Reader};
use super::replay::{Replay, tunnel_name};
use crate::edge::{Explanation, Grounds, PastDecision, PastFlow, Plan, named_link};
use crate::forward::{FlowNote, Held};
use crate::model::{Dscp, FlowKey, Moment, PathId};
use crate::steer::Rule;

/// What the flow did so long after the moment is told too.
const AFTER: Duration = Duration::from_secs(300);

/// A flow that was last noted so long ago may have ended: what is idle is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// Decisions about the flow that are looked at, the latest: workers note twenty a second at most of one that stays, and one
/// that moves so often is a fault to be seen by fewer.
const NOTES_MAX: usize = 100_000;

/// Decisions about the flow that are told: those around the moment.
const DECISIONS_TOLD: usize = 32;

/// Why a past moment cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Outside(String),
    #[error("the recording has a gap at {0}: what was in force then is not known")]
    Gap(super::clock::WallTime),
}

/// Where a flow went, or would have gone, at a moment of a recording, decided by the function that the
/// packet road used. `now_unix_ms` is the present time of day.
pub fn explain_at(
    reader: &Reader,
    when: When,
    now_unix_ms: u64,
    key: FlowKey,
    dscp: Option<Dscp>,
) -> Result<Explanation, PastError> {
    let places = reader.index()?;
    let found = lookup::find(&places, when, now_unix_ms).map_err(PastError::Outside)?;
    let replay = state_at(reader, &found)?;
    let gap = || PastError::Gap(wall(found.at, found.unix_ms_at_zero));
    let (plan, (forwarding, steering, measured)) = replay.plan().zip(replay.present()).ok_or_else(gap)?;
    let notes = notes_of(reader, &places, &found, &key);
    let last = notes.iter().rfind(|note| note.at <= found.at);
    let held = last.map_or_else(Held::default, held_after);
    let grounds = Grounds {
        plan,
        forwarding,
        steering,
        measured: &|path: PathId| measured.get(usize::from(path.0)).copied().unwrap_or_default(),
        there: |_| true,
        unix_ms_at_zero: found.unix_ms_at_zero,
    };
    let dscp = dscp.or(last.map(|note| note.dscp)).unwrap_or(Dscp::DEFAULT);
    let told = grounds.explain(key, dscp, last.map(|note| note.ends), &held, found.at);
    let of_run = places.iter().find(|place| place.header.run == found.run).map(|place| place.header);
    let begins = of_run.filter(|header| header.number > 0).map(|header| header.first);
    let mut past = past(&notes, &found, begins, plan);
    let asks = |rule: &Rule| !rule.matcher.interfaces.is_empty() || !rule.matcher.names.is_empty();
    if last.is_none() && plan.rules.rules().iter().any(asks) {
        past.notes.push(
            "by which interface its source was reached, and which names its destination had, is not recorded of this flow \
             then: rules that ask for it were passed over"
                .to_owned(),
        );
    }
    if let Some(age) = last.map(|last| found.at.since(last.at)).filter(|age| *age >= IDLE) {
        let age = age.as_secs();
        past.notes.push(format!(
            "the flow was last noted {age} s before: if it has ended since, its next packet begins anew"
        ));
    }
    Ok(Explanation { past: Some(past), ..told })
}

/// What the flow had when this was decided: what is refused keeps what it had.
fn held_after(note: &FlowNote) -> Held {
    let left = Held { ordered: None, paused: Duration::ZERO, refused: is_refused(note), ..note.held };
    if left.refused {
        return left;
    }
    Held {
        path: note.outcome.path,
        breakout: note.outcome.why.breakout(),
        rule: note.outcome.rule,
        moved_at: note.outcome.moved.map(|_| note.at).or(note.held.moved_at),
        ..left
    }
}

fn is_refused(note: &FlowNote) -> bool {
    note.outcome.path.is_none() && note.outcome.why.breakout().is_none()
}

/// Was it decided when the flow had no way?
fn is_first(note: &FlowNote) -> bool {
    note.held.path.is_none() && note.held.breakout.is_none()
}

/// Those that stayed, or were refused once more, are a sample, and say nothing new.
fn tells(note: &FlowNote, before: Option<&FlowNote>) -> bool {
    let before_refused = before.filter(|before| is_refused(before));
    if is_refused(note) {
        return before_refused.is_none_or(|before| before.outcome != note.outcome);
    }
    let returns = note.held.refused || before_refused.is_some();
    let breaks_out = note.outcome.why.breakout() != note.held.breakout;
    note.outcome.moved.is_some() || is_first(note) || returns || breaks_out
}

/// What was in force at a moment: its file begins with everything.
fn state_at(reader: &Reader, found: &Found) -> Result<Replay, ReadError> {
    let (mut replay, mut is_its_run) = (Replay::new(), false);
    for part in reader.parts(found.file) {
        match part? {
            // That of the moment has ended before its next line.
            Part::Run(_) if is_its_run => break,
            Part::Run(run) => {
                is_its_run = run == found.run;
                replay.handle_run();
            }
            Part::Line(_) if !is_its_run => {}
            Part::Gap => replay.handle_gap(),
            Part::Trouble(_) => {}
            Part::Line(line) => match &line.entry {
                // Workers' notes come a little late, and change nothing.
                Entry::Flow(_) | Entry::LeftOut { .. } => {}
                _ if line.at > found.at => break,
                _ => {
                    replay.follow(&line);
                }
            },
        }
    }
    Ok(replay)
}

/// What was noted of a flow from the start of the run until a while after the moment, in order.
fn notes_of(reader: &Reader, places: &[Place], found: &Found, key: &FlowKey) -> Vec<FlowNote> {
    let until = found.at + AFTER;
    let concerned = |place: &&Place| place.header.run == found.run && place.header.first <= until;
    // Only blocks that name both ends are taken apart.
    let ends = [format!("\"{}\"", key.source), format!("\"{}\"", key.destination)];
    let mut notes: VecDeque<FlowNote> = VecDeque::new();
    for text in reader.texts(places.iter().filter(concerned)) {
        let Ok(text) = std::str::from_utf8(&text) else { continue };
        if !ends.iter().all(|end| text.contains(end.as_str())) {
            continue;
        }
        for line in text.lines().filter(|line| ends.iter().all(|end| line.contains(end.as_str()))) {
            let Ok(Line { entry: Entry::Flow(note), .. }) = serde_json::from_str(line) else { continue };
            if note.key == *key && note.at <= until {
                if notes.len() >= NOTES_MAX {
                    notes.pop_front();
                }
                notes.push_back(*note);
            }
        }
    }
    let mut notes = Vec::from(notes);
    notes.sort_by_key(|note| note.at);
    notes
}

/// `begins`: where the recording of this run does, if not with the run.
fn past(notes: &[FlowNote], found: &Found, begins: Option<Moment>, plan: &Plan) -> PastFlow {
    let before = std::iter::once(None).chain(notes.iter().map(Some));
    let told: Vec<(&FlowNote, Option<&FlowNote>)> =
        notes.iter().zip(before).filter(|(note, before)| tells(note, *before)).collect();
    let behind = told.partition_point(|(note, _)| note.at <= found.at);
    let earlier = behind.saturating_sub(DECISIONS_TOLD / 2);
    let shown: Vec<_> = told.iter().skip(earlier).take(DECISIONS_TOLD).collect();
    let later = told.len() - earlier - shown.len();
    let ms = |at: Moment| wall(at, found.unix_ms_at_zero).0;
    let decision = |(note, before): &(&FlowNote, Option<&FlowNote>)| {
        let was_refused = note.held.refused || before.is_some_and(is_refused);
        PastDecision {
            at_ms: ms(note.at),
            from: note.held.path.filter(|_| !was_refused).map(|path| tunnel_name(plan, path)),
            breakout: note.outcome.why.breakout().map(|link| named_link(plan, link)),
            tunnel: note.outcome.path.map(|path| tunnel_name(plan, path)),
            rule: note.outcome.rule.and_then(|id| plan.rules.rule(id)).map(|rule| rule.name.clone()),
            why: note.outcome.why.to_string(),
            cause: note.outcome.moved.map(|cause| cause.name().to_owned()),
            reason: note.outcome.moved.map(|cause| cause.to_string()),
        }
    };
    let mut remarks: Vec<String> = found.note.iter().cloned().collect();
    if earlier + later > 0 {
        remarks.push(format!(
            "{earlier} earlier and {later} later decisions about the flow are recorded, and not shown here"
        ));
    }
    match notes.first() {
        Some(first) if !is_first(first) => {
            remarks.push("the flow was there before the first decision about it that is recorded".to_owned());
        }
        Some(first) if is_refused(first) => remarks.extend(begins.map(|begins| {
            let begins = wall(begins, found.unix_ms_at_zero);
            format!("the recording begins at {begins}: what became of the flow before is not known")
        })),
        Some(_) | None => {}
    }
    PastFlow { decisions: shown.into_iter().map(decision).collect(), notes: remarks }
}
