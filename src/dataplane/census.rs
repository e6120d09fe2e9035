use std::cmp::Reverse;
use std::collections::VecDeque;

use super::flow_table::SHARDS;
use super::road::Road;
use crate::forward::{FlowQuestion, FlowReport, HEAVY_PER_PATH, HeavyFlow, ToControl};

/// Paths that heavy flows are told of: 4,096 times 64 flows are some 20 MiB for a moment.
const PATHS_SURVEYED: usize = 4_096;

/// A flow that sends less, in bytes a second, is not worth moving.
const LEAST_RATE: u64 = 500;

/// Questions that wait; an operator asks one at a time.
const QUESTIONS: usize = 8;

/// Flows tested in one turn: each costs a walk through the rules.
const TESTED_AT_ONCE: usize = 64;

/// Flows in one answer, at most: some 4 MiB.
const LISTED: usize = 10_000;

/// A worker's part in answering what control asks about all flows: it goes through the flow table
/// one shard a turn, so that no packet waits for more.
#[derive(Default)]
pub(super) struct Census {
    survey: Option<Survey>,
    lists: VecDeque<List>,
}

struct Survey {
    number: u64,
    next: usize,
    /// By `PathId`.
    heavy: Vec<Vec<HeavyFlow>>,
}

struct List {
    question: FlowQuestion,
    next: usize,
    matching: u64,
    /// Of one shard, not yet tested.
    seen: Vec<FlowReport>,
    flows: Vec<FlowReport>,
}

impl Census {
    pub fn begin_survey(&mut self, number: u64) {
        // One that is not done yet is late: its rates would be those of another interval.
        self.survey = Some(Survey { number, next: 0, heavy: Vec::new() });
    }

    pub fn begin_list(&mut self, question: FlowQuestion) {
        if self.lists.len() < QUESTIONS {
            self.lists.push_back(List { question, next: 0, matching: 0, seen: Vec::new(), flows: Vec::new() });
        }
    }

    /// One step of what is under way; `false` when nothing is.
    pub fn turn(&mut self, road: &mut Road) -> bool {
        if let Some(survey) = &mut self.survey {
            let news = survey.step(road);
            if let Some(news) = news {
                self.survey = None;
                road.tell(news);
            }
            return true;
        }
        let Some(list) = self.lists.front_mut() else { return false };
        let news = list.step(road);
        if let Some(news) = news {
            self.lists.pop_front();
            road.tell(news);
        }
        true
    }
}

impl Survey {
    fn step(&mut self, road: &Road) -> Option<ToControl> {
        if self.next < SHARDS {
            let paths = road.forwarding.paths.len().min(PATHS_SURVEYED);
            self.heavy.resize_with(paths, Vec::new);
            let heavy = &mut self.heavy;
            road.flows.survey(self.next, LEAST_RATE, road.now, |flow| {
                if let Some(of_path) = heavy.get_mut(usize::from(flow.path.0)) {
                    of_path.push(flow);
                    if of_path.len() >= 2 * HEAVY_PER_PATH {
                        keep_heaviest(of_path);
                    }
                }
            });
            self.next += 1;
            return None;
        }
        self.heavy.iter_mut().for_each(keep_heaviest);
        Some(ToControl::Survey { number: self.number, flows: self.heavy.iter().flatten().copied().collect() })
    }
}

impl List {
    fn step(&mut self, road: &Road) -> Option<ToControl> {
        let question = self.question;
        if let Some(key) = &question.key {
            self.flows.extend(road.flows.get(key));
            self.matching = self.flows.len() as u64;
            self.next = SHARDS;
        }
        let limit = usize::try_from(question.limit).unwrap_or(LISTED).min(LISTED);
        if !self.seen.is_empty() {
            let rest = self.seen.len().saturating_sub(TESTED_AT_ONCE);
            for flow in self.seen.drain(rest..) {
                if !question.off_preferred || road.forwarding.is_off_preferred(&flow) {
                    self.matching += 1;
                    self.flows.push(flow);
                }
            }
            if self.flows.len() > 2 * limit {
                keep_busiest(&mut self.flows, limit);
            }
            return None;
        }
        if self.next < SHARDS {
            road.flows.look_at(self.next, |flow| self.seen.push(flow));
            self.next += 1;
            return None;
        }
        keep_busiest(&mut self.flows, limit);
        let flows = std::mem::take(&mut self.flows).into_boxed_slice();
        Some(ToControl::Flows { id: question.id, flows, matching: self.matching })
    }
}

fn keep_heaviest(flows: &mut Vec<HeavyFlow>) {
    // Equal ones in the order of their keys, so that a simulation is the same each time.
    flows.sort_unstable_by_key(|flow| (Reverse(flow.rate), flow.key));
    flows.truncate(HEAVY_PER_PATH);
}

fn keep_busiest(flows: &mut Vec<FlowReport>, limit: usize) {
    flows.sort_unstable_by_key(|flow| (Reverse(flow.bytes), flow.key));
    flows.truncate(limit);
}
