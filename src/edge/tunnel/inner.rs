use std::collections::VecDeque;
use std::time::Duration;

use super::{Context, Tunnel};
use crate::edge::Effect;
use crate::forward::{InnerOrder, SentAt, ToWorker};
use crate::model::{Moment, PathId};
use crate::packet::{Parsed, parse};
use crate::probe::{After, Ended, Exchange, Heard, Target, tidy};

/// Questions of a tunnel that are not answered: eight targets ten times a second, for as long as they are kept,
/// would be more; then the oldest goes.
const MAX_OPEN: usize = 512;

/// An answer that comes later than this is to nothing that anybody remembers.
const KEPT: Duration = Duration::from_secs(12);

/// Ports that are drawn for a question: all in use are those of one that is asked too fast to tell its answers
/// apart anyway.
const PORT_DRAWS: usize = 8;

/// What a tunnel has asked inside, other than by ICMP.
#[derive(Default)]
pub(super) struct Questions {
    /// In the order in which they were asked.
    open: VecDeque<Question>,
    ended: Ended,
    /// Packets to our ports from whom nothing was asked.
    strays: u64,
}

struct Question {
    id: u64,
    target: usize,
    exchange: Exchange,
    ordered: Moment,
    sent: SentAt,
    /// Of the handshake, where there is one: a server's time to think is not the path's.
    rtt: Option<Duration>,
}

/// A packet that came to a port from which a tunnel asks.
#[derive(Clone, Copy)]
pub struct InnerPacket<'a> {
    pub arrived_on: PathId,
    pub at: Moment,
    pub packet: &'a [u8],
    pub parsed: &'a Parsed,
}

impl Questions {
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Of an earlier tunnel.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    pub fn poll_timeout(&self) -> Option<Moment> {
        let oldest = self.open.front().map(|question| question.ordered + KEPT);
        self.open.iter().filter_map(|question| question.exchange.poll_timeout()).chain(oldest).min()
    }
}

impl Tunnel {
    /// Asks a target whose kind is not ICMP.
    pub(super) fn ask_inside(&mut self, id: u64, target: usize, context: &mut Context) {
        let configured = self.plan(context.plan);
        let Some(source) = configured.private_local.map(|private| private.addr()) else { return };
        let asked = configured.probes.targets.get(target);
        let mut begin = || Exchange::begin(asked?, source, context.chance);
        let is_free = |new: &Exchange| !self.questions.open.iter().any(|open| open.exchange.is_alike(new));
        // Of 4,536 ports few are in use; who answers on one of them would answer an older question.
        let Some(mut exchange) = std::iter::from_fn(&mut begin).take(PORT_DRAWS).find(is_free).or_else(begin) else {
            return;
        };
        let sent = SentAt::default();
        if let Some(packet) = exchange.poll_transmit() {
            self.send_inside(packet, Some(sent.clone()), context);
        }
        if self.questions.open.len() >= MAX_OPEN {
            let oldest = self.questions.open.pop_front();
            oldest.iter().for_each(|one| self.questions.ended.remember(&one.exchange, one.target, context.now));
        }
        self.questions.open.push_back(Question { id, target, exchange, ordered: context.now, sent, rtt: None });
    }

    /// A packet from inside, to this tunnel's private address, by whichever tunnel it came.
    pub fn handle_inner_packet(&mut self, inner: InnerPacket, context: &mut Context) {
        let InnerPacket { arrived_on, at, packet, parsed } = inner;
        let expected = |question: &Question| question.exchange.expects(&parsed.key);
        let Some(index) = self.questions.open.iter().position(expected) else {
            return self.handle_stray(inner, context);
        };
        let Some(question) = self.questions.open.get_mut(index) else { return };
        let since = at.since(question.sent.get().unwrap_or(question.ordered));
        let heard = question.exchange.handle_packet(packet, parsed, since, context.now);
        let (id, target, rtt) = (question.id, question.target, question.rtt.unwrap_or(since));
        if matches!(heard, Heard::Greeted { .. }) {
            question.rtt = Some(since);
        }
        let (reply, over) = (question.exchange.poll_transmit(), question.exchange.is_over());
        if over && let Some(question) = self.questions.open.remove(index) {
            self.questions.ended.remember(&question.exchange, target, context.now);
        }
        if let Some(reply) = reply {
            self.send_inside(reply, None, context);
        }
        let same_path = arrived_on == self.path;
        match heard {
            Heard::Answered => self.health.handle_inner(id, target, same_path, rtt, context.now),
            Heard::Refused(refusal) => {
                self.health.handle_refusal(id, target, same_path, rtt, refusal.to_string(), context.now);
            }
            Heard::Greeted { until } => self.health.handle_greeting(id, target, until),
            Heard::Malformed => self.health.handle_malformed(target),
            Heard::Part => {}
        }
        self.report_verdict(context);
    }

    /// Repeats and gives up what is due.
    pub(super) fn look_after_questions(&mut self, context: &mut Context) {
        let now = context.now;
        let mut said = Vec::new();
        let ended = &mut self.questions.ended;
        self.questions.open.retain_mut(|question| {
            question.exchange.handle_timeout(now);
            said.extend(question.exchange.poll_transmit());
            let stays = !question.exchange.is_over() && question.ordered + KEPT > now;
            if !stays {
                ended.remember(&question.exchange, question.target, now);
            }
            stays
        });
        for packet in said {
            self.send_inside(packet, None, context);
        }
    }

    /// Answers from somewhere that was not asked, or a second time.
    pub fn stray_answers(&self) -> u64 {
        self.questions.strays()
    }

    fn handle_stray(&mut self, inner: InnerPacket, context: &mut Context) {
        let InnerPacket { packet, parsed, .. } = inner;
        let known = match self.questions.ended.handle_packet(packet, parsed, context.now) {
            Some(After::Tail { reset }) => {
                reset.into_iter().for_each(|reset| self.send_inside(reset, None, context));
                return;
            }
            Some(After::Again { target }) => Some(target),
            None => None,
        };
        let key = &parsed.key;
        let from = |target: &Target| {
            (target.address, target.port(), target.protocol()) == (key.source, key.source_port, key.protocol)
        };
        match known.or_else(|| self.plan(context.plan).probes.targets.iter().position(from)) {
            Some(target) => {
                self.health.handle_unexpected(target);
                if let Some(reset) = tidy(packet, parsed) {
                    self.send_inside(reset, None, context);
                }
            }
            None => self.questions.strays += 1,
        }
    }

    fn send_inside(&mut self, packet: Box<[u8]>, sent: Option<SentAt>, context: &mut Context) {
        let order = InnerOrder { path: self.path, packet, sent };
        context.effects.push_back(Effect::Order(context.plan.home(self.path), ToWorker::Inner(order)));
    }
}

impl crate::edge::Edge {
    /// A packet of TCP or UDP to one of the tunnels' private addresses.
    pub(in crate::edge) fn handle_inner(&mut self, arrived_on: PathId, at: Moment, packet: &[u8], now: Moment) {
        let Some(parsed) = parse(packet) else { return };
        let inner = InnerPacket { arrived_on, at, packet, parsed: &parsed };
        if let Some(path) = self.asker(parsed.key.destination) {
            self.with_tunnel(usize::from(path.0), now, |tunnel, context| tunnel.handle_inner_packet(inner, context));
        }
    }
}
