//! What an established IKE SA asks of its peer: one request at a time, the next one when the
//! window is free (RFC 7296 2.3).

use tracing::debug;

use super::child::Stage;
use super::context::Context;
use super::established::Established;
use super::pending::QUICK;
use super::task::{Purpose, Task};
use super::wire::{Exchange, NotifyType, Payload, protocol_id};
use super::{CloseReason, child_rekey, ike_rekey, informational};

/// 64 own requests wait for the window: each kind at most once for each Child SA.
const TASKS_MAX: usize = 64;

impl Established {
    pub fn queue(&mut self, task: Task) {
        if self.closing.is_none() && self.tasks.len() < TASKS_MAX && !self.tasks.contains(&task) {
            self.tasks.push_back(task);
        }
    }

    /// Queues what the lifetimes ask for.
    pub fn queue_due(&mut self, context: &mut Context<'_>) {
        if self.closing.is_some() {
            return;
        }
        let now = context.now;
        let mut due = Vec::new();
        for child in &mut self.children {
            let inbound = child.inbound;
            match child.stage {
                Stage::Live | Stage::ReplacedByPeer if child.lifetime.expires_at <= now => {
                    let reason = match child.stage {
                        Stage::Live => "its lifetime has ended without a rekey",
                        other => other.end_reason(),
                    };
                    child.stage = Stage::Closing { reason };
                    due.push(Task::DeleteChild { inbound });
                }
                Stage::Live => {
                    if child.lifetime.rekey_at.take_if(|at| *at <= now).is_some() {
                        due.push(Task::RekeyChild { inbound, group: None });
                    }
                }
                Stage::Replaced { delete_at } if delete_at <= now => {
                    child.stage = Stage::Closing { reason: child.stage.end_reason() };
                    due.push(Task::DeleteChild { inbound });
                }
                Stage::Replaced { .. } | Stage::ReplacedByPeer | Stage::Closing { .. } => {}
            }
        }
        if self.current.lifetime.rekey_at.take_if(|at| *at <= now).is_some() {
            due.push(Task::RekeyIke { group: None });
        }
        due.into_iter().for_each(|task| self.queue(task));
    }

    /// Sends the next own request, if the window is free.
    pub fn start_next(&mut self, context: &mut Context<'_>) {
        if self.current.outstanding.is_some() {
            return;
        }
        if let Some(rescue) = &mut self.rescue {
            return rescue.answered(context.now);
        }
        if let Some(closing) = &self.closing {
            let mut payloads = Vec::new();
            if matches!(closing.reason, CloseReason::AuthenticationFailed { .. } | CloseReason::IdentityMismatch { .. })
            {
                payloads.push(Payload::notify(NotifyType::AUTHENTICATION_FAILED));
            }
            payloads.push(Payload::Delete { protocol: protocol_id::IKE, spis: Vec::new() });
            self.send_request(Exchange::Informational, &payloads, Purpose::DeleteIke, context);
            return;
        }
        if self.hold_until.is_some_and(|until| context.now < until) {
            return;
        }
        self.hold_until = None;
        while self.current.outstanding.is_none() {
            let Some(task) = self.tasks.pop_front() else { return };
            debug!(tunnel = %self.peer.name, ?task, "next request");
            match task {
                Task::Liveness => self.send_request(Exchange::Informational, &[], Purpose::Liveness, context),
                Task::RekeyChild { inbound, group } => child_rekey::start(self, inbound, group, context),
                Task::CreateChild { selectors, group } => {
                    child_rekey::start_new(self, selectors, group, context);
                }
                Task::DeleteChild { inbound } => informational::delete_child(self, inbound, context),
                Task::RekeyIke { group } => ike_rekey::start(self, group, context),
            }
        }
    }

    pub fn send_request(
        &mut self,
        exchange: Exchange,
        payloads: &[Payload],
        purpose: Purpose,
        context: &mut Context<'_>,
    ) {
        let schedule = if self.closing.is_some() { QUICK } else { self.peer.retransmission };
        let bytes = self.current.request(exchange, payloads, purpose, schedule, context.now);
        context.send(self.leg, bytes);
    }
}
