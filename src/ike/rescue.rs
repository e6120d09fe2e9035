//! Telling the peer over another way that an IKE SA is over whose own way is dead, so that it sends
//! no more into it.

use std::time::Duration;

use super::CloseReason;
use super::context::Context;
use super::established::{Closing, Established};
use super::pending::QUICK;
use super::task::Purpose;
use super::wire::{Exchange, Payload, protocol_id};
use crate::model::{Leg, Moment};

/// The DELETE is sent so often; the way that lives may lose packets too.
const TIMES: u32 = 3;

/// A DELETE on its way around.
pub struct Rescue {
    /// The way that lives.
    leg: Leg,
    /// How long an answer may take.
    pause: Duration,
    /// The request that had no answer yet. The peer, whose window is 1, takes the DELETE only
    /// after it (RFC 7296 2.3), and it may never have come there.
    before: Option<Vec<u8>>,
    next: Step,
    sent: u32,
    due: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Before,
    Delete,
    End,
}

impl Rescue {
    /// The request before the DELETE was answered: there is nothing to wait for.
    pub fn answered(&mut self, now: Moment) {
        self.before = None;
        if self.next != Step::End {
            (self.next, self.due) = (Step::Delete, now);
        }
    }

    pub fn poll_timeout(&self) -> Moment {
        self.due
    }
}

impl Established {
    /// See `Endpoint::rescue`.
    pub fn rescue(&mut self, leg: Leg, pause: Duration, reason: CloseReason, context: &mut Context<'_>) {
        if self.closing.is_some() {
            return;
        }
        self.tasks.clear();
        let before = self.current.outstanding.as_ref().map(|outstanding| outstanding.pending.bytes.clone());
        let until = context.now + pause.saturating_mul(2 * TIMES + 1);
        self.closing = Some(Closing { reason, until });
        self.rescue = Some(Rescue { leg, pause, before, next: Step::Before, sent: 0, due: context.now });
        self.time_out_rescue(context);
    }

    pub fn time_out_rescue(&mut self, context: &mut Context<'_>) {
        let Some(rescue) = self.rescue.as_mut().filter(|rescue| rescue.due <= context.now) else { return };
        rescue.due = context.now + rescue.pause;
        let leg = rescue.leg;
        match (rescue.next, &rescue.before) {
            (Step::Before, Some(before)) => {
                context.send(leg, before.clone());
                rescue.next = Step::Delete;
            }
            (Step::Before, None) | (Step::Delete, _) => {
                rescue.sent += 1;
                rescue.next = if rescue.sent < TIMES { Step::Before } else { Step::End };
                let delete = self.delete_bytes(context);
                context.send(leg, delete);
            }
            (Step::End, _) => {
                if let Some(closing) = &mut self.closing {
                    closing.until = context.now;
                }
            }
        }
    }

    /// The DELETE, with the next message ID; the same bytes each time.
    fn delete_bytes(&mut self, context: &mut Context<'_>) -> Vec<u8> {
        if let Some(outstanding) = self.current.outstanding.take() {
            match outstanding.purpose {
                Purpose::DeleteIke => {
                    let bytes = outstanding.pending.bytes.clone();
                    self.current.outstanding = Some(outstanding);
                    return bytes;
                }
                other => other.release(context),
            }
        }
        let payloads = [Payload::Delete { protocol: protocol_id::IKE, spis: Vec::new() }];
        self.current.request(Exchange::Informational, &payloads, Purpose::DeleteIke, QUICK, context.now)
    }
}
