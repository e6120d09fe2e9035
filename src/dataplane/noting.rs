use super::limit::Limit;
use crate::forward::{ConnectorFace, Decision, FlowNote, Forwarding, Held, Notebook, Outcome, covers};
use crate::model::Moment;
use crate::steer::NewFlow;

/// Notes of each worker, a second and at once. Moves are rare but come together when a path goes;
/// of new flows a busy branch has some tens a second; flows that stay, or are refused once more, say little
/// each, and would drown the rest.
const MOVES: (u32, u32) = (200, 2_000);
const FIRST: (u32, u32) = (50, 500);
const REFUSED: (u32, u32) = (5, 50);
const STAYING: (u32, u32) = (2, 20);

/// How many decisions a worker may note for the flight recorder.
#[derive(Debug)]
pub(super) struct NoteLimits {
    moves: Limit,
    first: Limit,
    refused: Limit,
    staying: Limit,
}

impl Default for NoteLimits {
    fn default() -> NoteLimits {
        let limit = |(a_second, at_once)| Limit::per_second(a_second, at_once);
        NoteLimits { moves: limit(MOVES), first: limit(FIRST), refused: limit(REFUSED), staying: limit(STAYING) }
    }
}

/// The notebook of all workers, and what one of them may write into it.
pub struct NotePad<'n> {
    notebook: &'n Notebook,
    limits: &'n mut NoteLimits,
}

impl<'n> NotePad<'n> {
    pub(super) fn new(notebook: &'n Notebook, limits: &'n mut NoteLimits) -> NotePad<'n> {
        NotePad { notebook, limits }
    }

    /// Notes a decision, unless it is one too many.
    pub(super) fn note(
        &mut self,
        forwarding: &Forwarding,
        connector: &ConnectorFace,
        flow: &NewFlow,
        held: &Held,
        decision: &Decision,
        now: Moment,
    ) {
        let leaves = decision.way.is_some() || decision.breakout.is_some();
        let had = held.path.is_some() || held.breakout.is_some();
        let limit = match (leaves, had) {
            _ if decision.moved.is_some() => &mut self.limits.moves,
            // Nowhere, for the first time, or back.
            (_, true) if leaves == held.refused => &mut self.limits.moves,
            (false, _) => &mut self.limits.refused,
            (true, false) => &mut self.limits.first,
            (true, true) => &mut self.limits.staying,
        };
        if !limit.allows(now) {
            return self.notebook.leave_out();
        }
        self.notebook.write(FlowNote {
            at: now,
            generation: forwarding.generation,
            key: flow.key,
            dscp: flow.dscp,
            ends: flow.ends,
            held: *held,
            covers: covers(forwarding, connector, &flow.key, decision),
            outcome: Outcome::of(decision),
        });
    }
}
