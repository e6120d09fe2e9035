//! IKE SAs that follow each other over rekeys (RFC 7296 2.18): the old one stays until it is deleted.

use super::context::Context;
use super::established::{Established, Which};
use super::ike_sa::IkeSa;
use super::pending::{Due, QUICK};
use super::responder_auth::HALF_OPEN_LIFETIME;
use super::session::State;
use super::task::Purpose;
use super::wire::{Exchange, Payload, protocol_id};
use super::{CloseReason, Event};
use crate::model::Moment;

/// 8 replaced IKE SAs: with one rekey a second, each has 8 s to repeat its last answer.
const RETIRING_MAX: usize = 8;

/// A replaced IKE SA.
pub struct Retiring {
    pub sa: IkeSa,
    /// When it is dropped, deleted or not.
    pub until: Moment,
}

impl Established {
    /// The IKE SA with this number of its own becomes the current one; gives the one before.
    pub fn replace_current(&mut self, new: IkeSa, context: &mut Context<'_>) -> IkeSa {
        let old = std::mem::replace(&mut self.current, new);
        self.export_keys(context);
        self.report(Event::Rekeyed { suite: self.current.suite.to_string() }, context);
        old
    }

    /// The peer has deleted one of the IKE SAs.
    pub fn handle_deleted(mut self: Box<Self>, which: Which, context: &mut Context<'_>) -> Option<State> {
        match which {
            Which::Current => {
                // RFC 7296 2.25.2: forget our own rekey; the peer's has won.
                let Some(rival) = self.candidate.take() else {
                    let reason = self.closing.take().map_or(CloseReason::DeletedByPeer, |closing| closing.reason);
                    return Some(self.linger(reason, context));
                };
                let mut old = self.replace_current(rival.sa, context);
                if let Some(outstanding) = old.outstanding.take() {
                    outstanding.purpose.release(context);
                }
                self.retire(old, context);
            }
            // A redundant IKE SA of a collision, deleted by the one that made it.
            Which::Candidate => {
                if let Some(rival) = self.candidate.take() {
                    self.retire(rival.sa, context);
                }
            }
            // It stays a while to repeat this answer. The peer has ours to its rekey, if any.
            Which::Retiring(_) => self.hold_until = None,
        }
        self.start_next(context);
        Some(State::Established(self))
    }

    /// A replaced IKE SA: it waits for DELETE, and repeats its last answer.
    pub fn retire(&mut self, sa: IkeSa, context: &mut Context<'_>) {
        if self.retiring.len() >= RETIRING_MAX {
            self.retiring.remove(0);
        }
        self.retiring.push(Retiring { sa, until: context.now + HALF_OPEN_LIFETIME });
    }

    /// A replaced IKE SA that is ours to delete.
    pub fn retire_with_delete(&mut self, mut sa: IkeSa, context: &mut Context<'_>) {
        let delete = [Payload::Delete { protocol: protocol_id::IKE, spis: Vec::new() }];
        let bytes = sa.request(Exchange::Informational, &delete, Purpose::DeleteIke, QUICK, context.now);
        context.send(self.leg, bytes);
        self.retire(sa, context);
    }

    pub fn time_out_retiring(&mut self, context: &mut Context<'_>) {
        let leg = self.leg;
        self.retiring.retain_mut(|retiring| {
            if retiring.until <= context.now {
                return false;
            }
            let Some(outstanding) = &mut retiring.sa.outstanding else { return true };
            match outstanding.pending.handle_timeout(context.now) {
                Due::NotYet => true,
                Due::SendAgain => {
                    context.send(leg, outstanding.pending.bytes.clone());
                    true
                }
                Due::GiveUp => false,
            }
        });
    }
}
