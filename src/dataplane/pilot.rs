use std::time::Duration;

use super::FlowTable;
use super::flow::{FlowEntry, Leaving};
use super::noting::NotePad;
use crate::forward::{ConnectorFace, Forwarding, Held, Refused, Way};
use crate::model::{DropReason, Dscp, FlowKey, LinkId, Moment};
use crate::packet::Refusal;
use crate::steer::{KnownNames, NewFlow, Stay, Why};

/// A flow whose first packet was quicker than control, which had just heard a name of its destination, follows within
/// this time: names are published every 50 ms, and a SYN is sent again after one second, and after two more (RFC 6298).
const CATCHES_UP: Duration = Duration::from_millis(3_500);

/// Finds the way of each packet that leaves the site: the flow table, and the one decision. A
/// worker asks it for every packet, a simulation without packets for as many bytes as it likes.
pub struct Pilot<'a, 'n> {
    pub forwarding: &'a Forwarding,
    pub flows: &'a FlowTable,
    pub now: Moment,
    /// Where decisions are noted, while a flight recorder follows.
    pub notes: Option<NotePad<'n>>,
}

/// What is about to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Departure {
    pub key: FlowKey,
    pub dscp: Dscp,
    pub bytes: u64,
}

/// By what it leaves.
#[derive(Clone, Copy, Debug)]
pub enum Course<'a> {
    Tunnel(Way<'a>),
    /// By this link outside of the tunnels.
    Breakout(LinkId),
}

/// It goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoWay {
    pub refused: Refused,
    /// Told to the sender, if anything.
    pub refusal: Option<Refusal>,
}

impl<'a> Pilot<'a, '_> {
    /// The course that the flow is pinned to, or a new choice; and what to mark its packets with.
    pub fn course_of(&mut self, leaving: &Departure) -> Result<(Course<'a>, Option<Dscp>), NoWay> {
        let known = self.flows.leave(&leaving.key, leaving.bytes, self.now);
        if let Some(present @ Leaving { entry, ordered: None, .. }) = &known
            && let Some(course) = self.pinned(&leaving.key, present)
        {
            return Ok((course, entry.mark));
        }
        let connector = self.connector_of(&leaving.key);
        let course = connector.and_then(|connector| self.choose(connector, leaving, known));
        if let (Some(_), Err(no_way)) = (known, &course) {
            self.flows.refuse(&leaving.key, no_way.refused, leaving.bytes, self.now);
        }
        course
    }

    /// The course of an entry, while all that it was chosen by is still so.
    fn pinned(&self, key: &FlowKey, leaving: &Leaving) -> Option<Course<'a>> {
        let Leaving { entry, paused, .. } = leaving;
        if let Some(link) = entry.breakout {
            let holds = entry.policy_epoch == self.forwarding.policy_epoch
                && self.forwarding.breakout(link).is_some_and(|face| face.usable);
            return holds.then_some(Course::Breakout(link));
        }
        let path = self.forwarding.path(entry.path?)?;
        let holds = entry.path_epoch == path.epoch
            && entry.policy_epoch == self.forwarding.policy_epoch
            && path.usable
            && self.news_of(key, leaving).is_none()
            && !(entry.draining && path.duty.lets_go(*paused, self.now))
            && (entry.kept || self.forwarding.connector(path.connector)?.active == path.role);
        let child = path.children.get(usize::from(entry.child)).filter(|_| holds)?;
        let way = Way { path, child: (usize::from(entry.child), child) };
        self.forwarding.has_sa(way).then_some(Course::Tunnel(way))
    }

    /// The names of the destination, where they were answered before the flow began and not yet known when it was
    /// decided: perhaps it is what the host had asked for. One that broke out stays there, since
    /// its connection would not survive another address.
    fn news_of(&self, key: &FlowKey, leaving: &Leaving) -> Option<KnownNames> {
        let young = self.now.since(leaving.began) < CATCHES_UP;
        let behind =
            young && leaving.entry.breakout.is_none() && leaving.entry.names_epoch != self.forwarding.names_epoch();
        let names = behind.then(|| self.forwarding.names_at(key, leaving.began)).flatten();
        names.filter(|names| *names != leaving.entry.names)
    }

    fn connector_of(&self, key: &FlowKey) -> Result<&'a ConnectorFace, NoWay> {
        self.forwarding.connector_for(key).map_err(|reason| NoWay {
            refused: Refused { reason, rule: None, why: Why::NoCandidate },
            // Who sends what is not the site's is never answered: it may be somebody else.
            refusal: (reason == DropReason::NoRoute).then_some(Refusal::NetworkUnreachable),
        })
    }

    /// Decides, and pins the flow to what comes out.
    fn choose(
        &mut self,
        connector: &ConnectorFace,
        leaving: &Departure,
        known: Option<Leaving>,
    ) -> Result<(Course<'a>, Option<Dscp>), NoWay> {
        let Departure { key, dscp, bytes } = *leaving;
        let minute = self.forwarding.minute;
        let decided = known.filter(|known| known.entry.path.is_some() || known.entry.breakout.is_some());
        let news = decided.as_ref().and_then(|known| self.news_of(&key, known));
        let ends = match &decided {
            Some(known) => self.forwarding.ends_with(&key, news.unwrap_or(known.entry.names)),
            None => self.forwarding.ends_of(&key),
        };
        let mut flow = NewFlow { key, dscp, connector: connector.id, minute, ends };
        let held = known.map_or_else(Held::default, |known| Held {
            path: known.entry.path,
            breakout: known.entry.breakout,
            rule: known.entry.rule,
            arrived_on: known.entry.arrived_on,
            moved_at: self.flows.moved_at(&key),
            ordered: known.ordered,
            paused: known.paused,
            refused: self.flows.is_refused(&key),
        });
        let mut decision = self.forwarding.decide(connector, &flow, &held, self.now);
        if let Some(known) = decided.filter(|known| news.is_some() && known.answered && decision.breakout.is_some()) {
            // Nor does one that is there survive to be let out.
            flow.ends = self.forwarding.ends_with(&key, known.entry.names);
            decision = self.forwarding.decide(connector, &flow, &held, self.now);
        }
        if let Some(notes) = &mut self.notes {
            notes.note(self.forwarding, connector, &flow, &held, &decision, self.now);
        }
        let choice = decision.choice;
        let leaves = decision.way.is_some() || decision.breakout.is_some();
        if let Some(rule) = choice.rule.filter(|_| held.rule != choice.rule || !leaves) {
            self.forwarding.rules.count_hit(rule, self.now);
        }
        let course = match (decision.way, decision.breakout) {
            (Some(way), _) => Course::Tunnel(way),
            (None, Some(link)) => Course::Breakout(link),
            (None, None) => {
                let (reason, refusal) = match choice.why.drop_reason() {
                    Some(DropReason::Rule) => (DropReason::Rule, Refusal::Prohibited),
                    Some(DropReason::NoBreakout) => (DropReason::NoBreakout, Refusal::NetworkUnreachable),
                    _ if decision.uncovered => (DropReason::NoSelector, Refusal::NetworkUnreachable),
                    _ => (DropReason::NoPath, Refusal::NetworkUnreachable),
                };
                let refused = Refused { reason, rule: choice.rule, why: choice.why };
                return Err(NoWay { refused, refusal: Some(refusal) });
            }
        };
        // What makes another path the better one is no reason to be on this one.
        let why = match (choice.stay, known) {
            (None | Some(Stay::AmongBest), _) | (Some(_), None) => choice.why,
            (
                Some(Stay::Kept | Stay::Margin | Stay::Doubt | Stay::HoldDown | Stay::Dwell | Stay::Draining),
                Some(known),
            ) => known.entry.why,
        };
        let mark = choice.rule.and_then(|rule| self.forwarding.rules.rule(rule)?.action.set_dscp());
        let entry = FlowEntry {
            path: decision.way.map(|way| way.path.id),
            breakout: decision.breakout,
            names: flow.ends.names,
            names_epoch: self.forwarding.names_epoch(),
            path_epoch: decision.way.map_or(0, |way| way.path.epoch),
            policy_epoch: self.forwarding.policy_epoch,
            rule: choice.rule,
            by_rule: decision.by_rule,
            kept: decision.kept,
            draining: choice.stay == Some(Stay::Draining)
                || decision.kept && decision.way.is_some_and(|way| way.path.duty.is_drained()),
            mark,
            child: decision.way.map_or(0, |way| way.child.0 as u8),
            peers: decision.peers,
            arrived_on: held.arrived_on,
            dscp,
            why,
        };
        self.flows.pin(key, entry, decision.moved, bytes, self.now);
        Ok((course, entry.mark))
    }
}
