use std::collections::VecDeque;
use std::time::Duration;

use super::field::{Field, Way};
use crate::lab::relay::Direction;
use crate::model::Moment;

/// Bytes of a probe on the line, tunnel included.
const PROBE: usize = 150;

/// How a way is probed, and when it is taken for dead and alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Habits {
    pub every: Duration,
    /// A probe without an answer for so long is lost.
    pub timeout: Duration,
    /// Lost in a row.
    pub dies_after: u32,
    /// Answered in a row.
    pub lives_after: u32,
    /// Results that are remembered.
    pub window: usize,
}

/// Probes one way as the products do that are modelled here: at a fixed pace, each probe answered or
/// not.
pub struct Tracker {
    pub way: Way,
    habits: Habits,
    next: Moment,
    under_way: Vec<Probe>,
    /// In a row: positive answered, negative lost.
    row: i64,
    alive: bool,
    /// Round-trip times, the newest last; `None`: lost.
    results: VecDeque<Option<Duration>>,
}

struct Probe {
    sent: Moment,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Out(Moment),
    Back(Moment),
    Lost,
}

impl Tracker {
    /// `offset` spreads the probes of the ways.
    pub fn new(way: Way, habits: Habits, offset: Duration) -> Tracker {
        Tracker {
            way,
            habits,
            next: Moment::ZERO + offset,
            under_way: Vec::new(),
            row: 0,
            alive: true,
            results: VecDeque::new(),
        }
    }

    pub fn advance(&mut self, field: &mut Field, now: Moment) {
        while self.next <= now {
            let out = field.send(self.way, Direction::Up, PROBE, now);
            self.under_way.push(Probe { sent: now, stage: out.map_or(Stage::Lost, Stage::Out) });
            self.next = self.next + self.habits.every;
        }
        let mut over = Vec::new();
        for probe in &mut self.under_way {
            if let Stage::Out(arrives) = probe.stage
                && arrives <= now
            {
                probe.stage = field.send(self.way, Direction::Down, PROBE, now).map_or(Stage::Lost, Stage::Back);
            }
            match probe.stage {
                Stage::Back(arrives) if arrives <= now && arrives.since(probe.sent) <= self.habits.timeout => {
                    over.push((probe.sent, Some(arrives.since(probe.sent))));
                }
                _ if now.since(probe.sent) >= self.habits.timeout => over.push((probe.sent, None)),
                Stage::Out(_) | Stage::Back(_) | Stage::Lost => {}
            }
        }
        for (sent, result) in over {
            self.under_way.retain(|probe| probe.sent != sent);
            self.handle_result(result);
        }
    }

    pub fn poll_timeout(&self) -> Moment {
        let stages = self.under_way.iter().map(|probe| match probe.stage {
            Stage::Out(at) | Stage::Back(at) => at.min(probe.sent + self.habits.timeout),
            Stage::Lost => probe.sent + self.habits.timeout,
        });
        stages.fold(self.next, Moment::min)
    }

    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// The mean of what was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        let answered: Vec<Duration> = self.results.iter().flatten().copied().collect();
        let count = u32::try_from(answered.len()).ok().filter(|count| *count > 0)?;
        Some(answered.iter().sum::<Duration>() / count)
    }

    /// The mean difference of successive round-trip times.
    pub fn jitter(&self) -> Option<Duration> {
        let answered: Vec<Duration> = self.results.iter().flatten().copied().collect();
        let differences = answered.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        let count = u32::try_from(answered.len().saturating_sub(1)).ok().filter(|count| *count > 0)?;
        Some(differences.sum::<Duration>() / count)
    }

    /// The part that was lost.
    pub fn loss(&self) -> f64 {
        let lost = self.results.iter().filter(|result| result.is_none()).count();
        lost as f64 / self.results.len().max(1) as f64
    }

    fn handle_result(&mut self, result: Option<Duration>) {
        self.row = match result {
            Some(_) => self.row.max(0) + 1,
            None => self.row.min(0) - 1,
        };
        if self.row <= -i64::from(self.habits.dies_after) {
            self.alive = false;
        } else if self.row >= i64::from(self.habits.lives_after) {
            self.alive = true;
        }
        self.results.push_back(result);
        if self.results.len() > self.habits.window {
            self.results.pop_front();
        }
    }
}
