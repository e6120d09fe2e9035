use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::control::{Call, Request, Response};
use crate::forward::FlowQuestion;
use crate::model::Moment;

/// Questions to workers that wait for an answer; an operator asks one at a time.
const WAITING: usize = 64;

/// A worker goes through its whole table in less, unless it is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was asked of the workers for a client, until they answer.
#[derive(Debug, Default)]
pub struct Inquiries {
    last: u64,
    waiting: BTreeMap<u64, Inquiry>,
}

/// A client's request that a worker must answer first.
#[derive(Debug)]
pub struct Inquiry {
    pub request: Request,
    pub reply: oneshot::Sender<Response>,
    asked: Moment,
}

impl Inquiries {
    /// The question for a worker; `None`, and the client is told, when too many wait.
    pub fn ask(&mut self, call: Call, now: Moment) -> Option<FlowQuestion> {
        let Call { request, reply } = call;
        if self.waiting.len() >= WAITING {
            let _ = reply.send(Response::Refused { reason: "too many questions about flows at once".to_owned() });
            return None;
        }
        self.last += 1;
        let id = self.last;
        let (off_preferred, limit) = match &request {
            Request::Flows { off_preferred, limit } => (*off_preferred, *limit),
            Request::Status {}
            | Request::Rules {}
            | Request::Explain { .. }
            | Request::Failover { .. }
            | Request::Tunnel { .. } => (false, 1),
        };
        let key = request.flow().map(|(key, _)| key);
        self.waiting.insert(id, Inquiry { request, reply, asked: now });
        Some(FlowQuestion { id, key, off_preferred, limit })
    }

    /// Whoever asked the question that a worker has answered, or could not be asked.
    pub fn take(&mut self, id: u64) -> Option<Inquiry> {
        self.waiting.remove(&id)
    }

    /// Gives up on answers that do not come.
    pub fn give_up(&mut self, now: Moment) {
        while let Some(oldest) = self.waiting.first_entry() {
            if now.since(oldest.get().asked) < PATIENCE {
                return;
            }
            let reason = format!("no worker answered within {PATIENCE:?}");
            let _ = oldest.remove().reply.send(Response::Refused { reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> (Call, oneshot::Receiver<Response>) {
        let (reply, answer) = oneshot::channel();
        (Call { request: Request::Flows { off_preferred: true, limit: 3 }, reply }, answer)
    }

    #[test]
    fn a_question_waits_for_its_answer_and_not_for_ever() {
        let mut inquiries = Inquiries::default();
        let start = Moment::from_millis(1_000);
        let (one, mut first) = call();
        let (two, mut second) = call();
        let question = inquiries.ask(one, start).unwrap();
        assert_eq!((question.off_preferred, question.limit, question.key), (true, 3, None));
        inquiries.ask(two, start + Duration::from_secs(2)).unwrap();
        inquiries.give_up(start + PATIENCE);
        assert!(matches!(first.try_recv(), Ok(Response::Refused { .. })));
        assert!(second.try_recv().is_err(), "it still waits");
        assert!(inquiries.take(question.id).is_none());
        assert!(inquiries.take(2).is_some());
    }

    #[test]
    fn no_more_than_some_questions_wait() {
        let mut inquiries = Inquiries::default();
        let calls: Vec<_> = (0..=WAITING).map(|_| call()).collect();
        let asked = calls.into_iter().map(|(call, _)| inquiries.ask(call, Moment::ZERO));
        assert_eq!(asked.filter(Option::is_some).count(), WAITING);
    }
}
