use std::time::Duration;

use arrayvec::ArrayVec;

use crate::forward::{FlowMove, FlowReport, HeavyFlow, MOVES_KEPT, MoveCause, MoveOrder, Refusal, Refused};
use crate::model::{Dscp, FlowKey, LinkId, Moment, PathId, RuleId};
use crate::steer::{KnownNames, Why};

/// What is remembered of a flow, under its key as it leaves the site: where it goes, what it has sent, and how it came to
/// move.
pub(super) struct Flow {
    pub key: FlowKey,
    /// There is an order in `story`.
    ordered: bool,
    entry: FlowEntry,
    /// `Moment::ZERO` before the first.
    last_left: Moment,
    last_arrived: Moment,
    /// Inner bytes and packets that left.
    bytes: u64,
    packets: u64,
    /// `bytes` at the survey before, and when that was.
    surveyed: (u64, Moment),
    first: Moment,
    /// Of flows that have moved, or shall, or were refused.
    story: Option<Box<Story>>,
}

/// What a packet of a known flow needs to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEntry {
    /// `None`: the flow has only arrived so far, and nothing has left.
    pub path: Option<PathId>,
    /// It leaves by this link outside of the tunnels.
    pub breakout: Option<LinkId>,
    /// What was known of the destination's names.
    pub names: KnownNames,
    /// See `NameTable::epoch`.
    pub names_epoch: u32,
    /// The choice holds while the path's epoch and the policy's are these.
    pub path_epoch: u32,
    pub policy_epoch: u32,
    /// The rule that matched.
    pub rule: Option<RuleId>,
    /// The rule named the path: where the flow arrives has no say.
    pub by_rule: bool,
    /// It stays on the other role's path although traffic went back.
    pub kept: bool,
    /// It is about to leave its path, which is drained.
    pub draining: bool,
    /// What the rule marks the flow's packets with.
    pub mark: Option<Dscp>,
    /// Index of the Child SA in the path's `children`.
    pub child: u8,
    /// See `HeavyFlow::peers`.
    pub peers: u8,
    pub arrived_on: Option<PathId>,
    pub dscp: Dscp,
    pub why: Why,
}

/// A flow as it was when a packet of it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaving {
    pub entry: FlowEntry,
    /// It is to go over to this path, and now is the time.
    pub ordered: Option<PathId>,
    /// Since the packet before.
    pub paused: Duration,
    pub began: Moment,
    /// Something of it has arrived: there may be a connection.
    pub answered: bool,
}

#[derive(Default)]
struct Story {
    order: Option<MoveOrder>,
    /// The latest.
    refusal: Option<Refusal>,
    moves: u32,
    history: ArrayVec<FlowMove, MOVES_KEPT>,
}

impl Flow {
    /// One that leaves by a path that was chosen for its first packet, of so many bytes.
    pub fn leaving(key: FlowKey, chosen: FlowEntry, bytes: u64, now: Moment) -> Flow {
        Flow { last_left: now, bytes, packets: 1, ..Flow::new(key, chosen, now) }
    }

    /// One that has only arrived, so that what answers it can leave by the path that it arrived on.
    pub fn arriving(key: FlowKey, path: PathId, now: Moment) -> Flow {
        let arrived = FlowEntry {
            path: None,
            breakout: None,
            names: Default::default(),
            names_epoch: 0,
            path_epoch: 0,
            policy_epoch: 0,
            rule: None,
            by_rule: false,
            kept: false,
            draining: false,
            mark: None,
            child: 0,
            peers: 0,
            arrived_on: Some(path),
            dscp: Dscp::DEFAULT,
            why: Why::NoCandidate,
        };
        Flow { last_arrived: now, ..Flow::new(key, arrived, now) }
    }

    fn new(key: FlowKey, entry: FlowEntry, now: Moment) -> Flow {
        Flow {
            key,
            ordered: false,
            entry,
            last_left: Moment::ZERO,
            last_arrived: Moment::ZERO,
            bytes: 0,
            packets: 0,
            surveyed: (0, now),
            first: now,
            story: None,
        }
    }

    /// A packet leaves; with 0 bytes one that was counted before, and takes another path.
    #[inline]
    pub fn leave(&mut self, bytes: u64, now: Moment) -> Leaving {
        let ordered = if self.ordered { self.due(now) } else { None };
        let paused = now.since(self.last_left);
        self.bytes = self.bytes.saturating_add(bytes);
        // One that is sent once more, by another path, has been counted.
        self.packets = self.packets.saturating_add(u64::from(bytes > 0));
        self.last_left = now;
        let answered = self.last_arrived != Moment::ZERO;
        Leaving { entry: self.entry, ordered, paused, began: self.first, answered }
    }

    /// A path was chosen, and if that moves it, why; `bytes` is the packet that the choice was made for.
    pub fn pin(&mut self, chosen: FlowEntry, moved: Option<MoveCause>, bytes: u64, now: Moment) {
        if let (Some(cause), Some(from), Some(to)) = (moved, self.entry.path, chosen.path) {
            self.remember(FlowMove { at: now, from, to, cause });
            self.drop_order();
        }
        if let Some(refusal) = self.story.as_mut().and_then(|story| story.refusal.as_mut()) {
            refusal.until.get_or_insert(now);
        }
        self.entry = FlowEntry { arrived_on: self.entry.arrived_on, ..chosen };
        self.bytes = self.bytes.max(bytes);
        self.packets = self.packets.max(1);
        self.last_left = now;
    }

    /// The packet of so many bytes that `leave` has counted goes nowhere.
    pub fn refuse(&mut self, refused: Refused, bytes: u64, now: Moment) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.packets = self.packets.saturating_sub(u64::from(bytes > 0));
        let is_first = !self.is_refused();
        let refusal = &mut self.story.get_or_insert_default().refusal;
        let since = refusal.filter(|_| !is_first).map_or(now, |refusal| refusal.since);
        *refusal = Some(Refusal { refused, since, until: None });
        if is_first {
            // As far as can be from what is published: whatever comes back, the next packet is decided anew.
            self.entry.policy_epoch ^= 1 << 31;
        }
    }

    /// A packet of it arrived on `path`; gives the path that it leaves by, if it does.
    #[inline]
    pub fn arrive(&mut self, path: PathId, now: Moment) -> Option<PathId> {
        self.entry.arrived_on = Some(path);
        self.last_arrived = now;
        self.entry.path
    }

    /// Like `arrive`; when it comes to arrive on another path, what leaves is decided anew, unless a rule decided it.
    pub fn arrive_to_answer(&mut self, path: PathId, now: Moment) -> Option<PathId> {
        let entry = &mut self.entry;
        let leaves_by = entry.path;
        if entry.arrived_on != Some(path)
            && let Some(from) = entry.path.filter(|from| *from != path && !entry.by_rule)
        {
            entry.path = None;
            self.remember(FlowMove { at: now, from, to: path, cause: MoveCause::Arrival });
        }
        self.arrive(path, now);
        leaves_by
    }

    /// It shall move, when the time comes. `false`: it is elsewhere already, or its rule holds it.
    pub fn order(&mut self, order: &MoveOrder) -> bool {
        let stays_so = self.entry.path == Some(order.from) && self.entry.peers != 0;
        if stays_so {
            self.story.get_or_insert_default().order = Some(*order);
            self.ordered = true;
        }
        stays_so
    }

    /// Measures it since the survey before, and shows it if it may move and has sent at least `least` bytes a second.
    pub fn survey(&mut self, least: u64, now: Moment) -> Option<HeavyFlow> {
        let (bytes, at) = std::mem::replace(&mut self.surveyed, (self.bytes, now));
        // A flow that is younger than this says nothing about a second.
        let span = now.since(at).max(Duration::from_secs(1)).as_nanos();
        let sent = u128::from(self.bytes.saturating_sub(bytes)) * 1_000_000_000;
        let rate = u64::try_from(sent / span).unwrap_or(u64::MAX);
        // One bit is its own path.
        let movable = self.entry.peers.count_ones() > 1 && !self.ordered && rate >= least;
        let path = self.entry.path.filter(|_| movable)?;
        let moved_at = self.story.as_ref().and_then(|story| story.chosen());
        Some(HeavyFlow { key: self.key, path, peers: self.entry.peers, rate, moved_at })
    }

    /// How the packet was marked that its way was chosen for.
    pub fn dscp(&self) -> Dscp {
        self.entry.dscp
    }

    pub fn moved_at(&self) -> Option<Moment> {
        self.story.as_ref()?.history.last().map(|moved| moved.at)
    }

    pub fn is_refused(&self) -> bool {
        self.story.as_ref().and_then(|story| story.refusal).is_some_and(|refusal| refusal.until.is_none())
    }

    pub fn last_seen(&self) -> Moment {
        self.last_left.max(self.last_arrived)
    }

    pub fn report(&self) -> FlowReport {
        let story = self.story.as_deref();
        FlowReport {
            key: self.key,
            dscp: self.entry.dscp,
            path: self.entry.path,
            refusal: story.and_then(|story| story.refusal),
            breakout: self.entry.breakout,
            names: self.entry.names,
            arrived_on: self.entry.arrived_on,
            rule: self.entry.rule,
            why: self.entry.why,
            first: self.first,
            last: self.last_seen(),
            bytes: self.bytes,
            packets: self.packets,
            moves: story.map_or(0, |story| story.moves),
            history: story.map(|story| story.history.clone()).unwrap_or_default(),
        }
    }

    /// The path of an order that is due: the flow has paused for long enough, or it never does.
    fn due(&mut self, now: Moment) -> Option<PathId> {
        let order = self.story.as_ref()?.order?;
        let is_due = now.since(self.last_left) >= order.gap || now >= order.by;
        is_due.then(|| {
            self.drop_order();
            order.to
        })
    }

    fn drop_order(&mut self) {
        self.ordered = false;
        if let Some(story) = &mut self.story {
            story.order = None;
        }
    }

    fn remember(&mut self, moved: FlowMove) {
        let story = self.story.get_or_insert_default();
        story.moves = story.moves.saturating_add(1);
        if story.history.is_full() {
            story.history.remove(0);
        }
        story.history.push(moved);
    }
}

impl Story {
    /// When it moved, if it need not have. What an outage has moved may go back when that is over.
    fn chosen(&self) -> Option<Moment> {
        self.history.last().filter(|moved| !moved.cause.is_forced()).map(|moved| moved.at)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn key(number: u32) -> FlowKey {
        FlowKey {
            segment: 0,
            protocol: 17,
            source: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            destination: [10, 9, 0, 1].into(),
            source_port: 1000,
            destination_port: 53,
        }
    }

    pub fn entry(path: u16) -> FlowEntry {
        FlowEntry {
            path: Some(PathId(path)),
            breakout: None,
            names: Default::default(),
            names_epoch: 0,
            path_epoch: 1,
            policy_epoch: 1,
            rule: None,
            by_rule: false,
            kept: false,
            draining: false,
            mark: None,
            child: 0,
            peers: 0b111,
            arrived_on: None,
            dscp: Dscp::DEFAULT,
            why: Why::OnlyCandidate,
        }
    }

    pub const START: Moment = Moment::from_millis(1_000);

    fn order(to: u16, gap_ms: u64, by_ms: u64) -> MoveOrder {
        MoveOrder {
            key: key(1),
            from: PathId(1),
            to: PathId(to),
            gap: Duration::from_millis(gap_ms),
            by: START + Duration::from_millis(by_ms),
        }
    }

    /// When a flow with a packet each `every_ms` is let go after an order at `START`.
    fn let_go_after(every_ms: u64, order: MoveOrder) -> u64 {
        let mut flow = Flow::leaving(key(1), entry(1), 100, START);
        assert!(flow.order(&order));
        let mut passed = 0;
        loop {
            passed += every_ms;
            let left = flow.leave(100, START + Duration::from_millis(passed));
            if left.ordered.is_some() {
                assert_eq!(left.ordered, Some(order.to));
                let next = flow.leave(100, START + Duration::from_millis(passed + 500));
                assert_eq!(next.ordered, None, "told once");
                return passed;
            }
        }
    }

    #[test]
    fn an_ordered_flow_goes_at_its_first_pause_or_when_patience_ends() {
        assert_eq!(let_go_after(50, order(2, 20, 900)), 50);
        assert_eq!(let_go_after(10, order(2, 20, 900)), 900);
        assert_eq!(let_go_after(10, order(2, 0, 900)), 10, "nothing can be overtaken");
    }

    #[test]
    fn an_order_that_the_flow_has_left_behind_is_not_taken() {
        let mut flow = Flow::leaving(key(1), entry(3), 100, START);
        assert!(!flow.order(&order(2, 0, 0)), "it is elsewhere already");
        flow.pin(FlowEntry { peers: 0, ..entry(1) }, None, 100, START);
        assert!(!flow.order(&order(2, 0, 0)), "its rule holds it");
    }

    #[test]
    fn moves_are_remembered_the_latest_ones_with_their_causes() {
        let mut flow = Flow::leaving(key(1), entry(0), 100, START);
        for number in 1..=20 {
            let at = START + Duration::from_secs(number);
            flow.pin(entry((number % 3) as u16), Some(MoveCause::Health), 100, at);
        }
        let told = flow.report();
        assert_eq!((told.moves, told.history.len()), (20, MOVES_KEPT));
        let last = told.history.last().unwrap();
        assert_eq!((last.from, last.to, last.cause), (PathId(1), PathId(2), MoveCause::Health));
        assert_eq!(flow.moved_at(), Some(START + Duration::from_secs(20)));
    }

    #[test]
    fn a_survey_tells_of_moves_that_need_not_have_been() {
        let mut flow = Flow::leaving(key(1), entry(7), 100, START);
        let mut told = Vec::new();
        for (seconds, cause) in [(10, MoveCause::Shares), (20, MoveCause::PathLost), (30, MoveCause::Shares)] {
            let at = START + Duration::from_secs(seconds);
            flow.pin(entry(seconds as u16 / 10), Some(cause), 0, at);
            flow.leave(10_000, at + Duration::from_secs(1));
            told.push(flow.survey(1, at + Duration::from_secs(2)).unwrap().moved_at);
        }
        let at = |seconds: u64| Some(START + Duration::from_secs(seconds));
        assert_eq!(told, [at(10), None, at(30)]);
    }
}
