use std::sync::Arc;

use super::clock::CLOCK_STEP_MS;
use super::face::{FaceRecord, Published};
use super::line::{Entry, FORMAT, Line, Told};
use super::plan_record::PlanRecord;
use crate::edge::{Fact, Plan, SiteEvent};
use crate::forward::{FlowNote, Forwarding};
use crate::model::Moment;

/// Of a plan with no more rules than these all is written each minute, so that a damaged beginning of a
/// file costs a minute; of a larger one at the beginning of a file alone.
const RULES_OFTEN: usize = 256;

/// What the flight recorder is told.
#[derive(Debug)]
pub enum News {
    Fact(Box<Fact>),
    Published(Arc<Forwarding>),
    Event(Box<SiteEvent>),
    /// So much found no room on the way here, between what was told before and what comes next.
    Lost(u64),
}

/// What steering and the roles remember of one path, in bytes, about.
const REMEMBERED: usize = 1_024;

/// Of an event and its texts, about.
const EVENT: usize = 512;

impl News {
    /// Of memory that it holds until it is written, about; a loss is told whatever waits. A published value shares with the next all but its paths.
    pub fn bytes(&self) -> usize {
        fn of<T>(items: &[T]) -> usize {
            size_of_val(items)
        }
        let held = match self {
            News::Fact(fact) => match &**fact {
                Fact::Whole(whole) => whole.steering.standings().count().saturating_mul(REMEMBERED),
                Fact::RoleTimeout { .. } | Fact::FailedOver { .. } | Fact::Usable { .. } | Fact::Relieved { .. } => 0,
                Fact::Followed { verdicts, judged, standings } => {
                    of(verdicts) + judged.as_ref().map_or(0, |judged| of(judged)) + of(standings)
                }
                Fact::Counted { sent, .. } => of(sent),
                Fact::Surveyed { flows, shifts, .. } => of(flows) + of(shifts),
            },
            News::Published(forwarding) => {
                let children: usize = forwarding.paths.iter().map(|path| of(&path.children)).sum();
                of(&forwarding.paths) + children + of(&forwarding.connectors) + size_of::<Forwarding>()
            }
            News::Event(_) => EVENT,
            News::Lost(_) => return 0,
        };
        held + size_of::<Fact>()
    }
}

/// Turns what is told into lines, each of which says only what has changed.
#[derive(Debug)]
pub struct Journal {
    plan: Arc<Plan>,
    forwarding: Arc<Forwarding>,
    /// Written so far of the published value; `None`: nothing in this file.
    known: Option<Vec<FaceRecord>>,
    unix_ms_at_zero: u64,
    /// The clock that lines were last written by.
    clock: Option<u64>,
    left_out: u64,
}

impl Journal {
    /// `first` is the value that workers start with.
    pub fn new(plan: Arc<Plan>, first: Arc<Forwarding>, unix_ms_at_zero: u64) -> Journal {
        Journal { plan, forwarding: first, known: None, unix_ms_at_zero, clock: None, left_out: 0 }
    }

    /// The next lines stand at the beginning of a file.
    pub fn open_file(&mut self) {
        self.known = None;
        self.clock = None;
    }

    pub fn generation(&self) -> u64 {
        self.forwarding.generation
    }

    pub fn handle_news(&mut self, at: Moment, news: News, lines: &mut Vec<Line>) {
        let mut write = |entry| lines.push(Line { at, entry });
        match news {
            News::Fact(fact) => {
                let is_whole = match *fact {
                    Fact::Whole(_) => true,
                    Fact::RoleTimeout { .. }
                    | Fact::FailedOver { .. }
                    | Fact::Usable { .. }
                    | Fact::Followed { .. }
                    | Fact::Counted { .. }
                    | Fact::Relieved { .. }
                    | Fact::Surveyed { .. } => false,
                };
                let begins = self.known.is_none();
                if is_whole && begins {
                    write(Entry::Opened { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned() });
                }
                if is_whole && (begins || self.plan.rules.rules().len() <= RULES_OFTEN) {
                    write(Entry::Clock { unix_ms_at_zero: self.unix_ms_at_zero });
                    self.clock = Some(self.unix_ms_at_zero);
                    write(Entry::Plan(Box::new(PlanRecord::of(&self.plan))));
                }
                write(Entry::Fact(*fact));
                if is_whole {
                    // Whoever begins to read here needs all of it.
                    let mut known = Vec::new();
                    write(Entry::Published(Published::since(&mut known, &self.forwarding)));
                    self.known = Some(known);
                }
            }
            News::Published(forwarding) => {
                self.forwarding = forwarding;
                if let Some(known) = &mut self.known {
                    write(Entry::Published(Published::since(known, &self.forwarding)));
                }
            }
            News::Event(event) => write(Entry::Told(Told::of(&event, &self.plan))),
            News::Lost(entries) => write(Entry::Lost { entries }),
        }
    }

    pub fn handle_note(&mut self, note: FlowNote, lines: &mut Vec<Line>) {
        lines.push(Line { at: note.at, entry: Entry::Flow(Box::new(note)) });
    }

    /// The time of day; `true` when it was set.
    pub fn handle_clock(&mut self, at: Moment, unix_ms_at_zero: u64, lines: &mut Vec<Line>) -> bool {
        self.unix_ms_at_zero = unix_ms_at_zero;
        let was_set = self.clock.is_some_and(|known| known.abs_diff(unix_ms_at_zero) > CLOCK_STEP_MS);
        if was_set {
            self.clock = Some(unix_ms_at_zero);
            lines.push(Line { at, entry: Entry::Clock { unix_ms_at_zero } });
        }
        was_set
    }

    /// How many decisions about flows were not noted, since the start.
    pub fn handle_left_out(&mut self, at: Moment, all: u64, lines: &mut Vec<Line>) {
        let flows = all.saturating_sub(self.left_out);
        if flows > 0 {
            self.left_out = all;
            lines.push(Line { at, entry: Entry::LeftOut { flows } });
        }
    }
}
