use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::outbound::Dropped;
use super::pilot::Departure;
use super::road::{PACKET_CAPACITY, Road, unsplittable};
use crate::forward::{LinkFace, PathFace, Way};
use crate::model::{DropReason, LinkId, Mbps, PathId};
use crate::packet::{CutSoFar, Ecn, Parsed, SitePacket, Splitter};
use crate::qos::{Arriving, Due, Fate, Passing, Search, Sent};

/// Whose a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cargo {
    /// Made here.
    Own,
    /// The site's, of which so much has left before.
    Site(CutSoFar),
}

/// What is known of a packet that waits in the queue of its link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    parsed: Parsed,
    path: PathId,
    /// Index of the Child SA in the path's `children`.
    child: u8,
    so_far: CutSoFar,
}

/// The part of a packet that is to leave, and what has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub so_far: CutSoFar,
    /// Bytes on the wire after which no further piece leaves.
    room: u64,
    /// Its first piece is to say that it met congestion.
    mark: bool,
    /// Bytes on the wire that have left.
    pub wire: u64,
    /// Inner bytes that are still to leave.
    pub left: u64,
}

impl Part {
    /// All that has not left yet.
    pub fn of(cargo: Cargo) -> Part {
        let so_far = match cargo {
            Cargo::Own => CutSoFar::START,
            Cargo::Site(so_far) => so_far,
        };
        Part { so_far, room: u64::MAX, mark: false, wire: 0, left: 0 }
    }

    pub fn has_room(&self) -> bool {
        self.wire < self.room
    }

    /// What the next piece says of congestion.
    pub fn ecn(&mut self, parsed: &Parsed) -> Ecn {
        if std::mem::take(&mut self.mark) { Ecn::Congested } else { parsed.ecn }
    }
}

impl<'a> Road<'a> {
    /// Sets the shaper up for the links whose home this worker is. Caps change with the whole list of links.
    pub fn set_shaper(&mut self) {
        let links = &self.forwarding.links;
        if self.exits.shaped.as_ref().is_some_and(|known| Arc::ptr_eq(known, links)) {
            return;
        }
        let site = self.forwarding.site.cap.send;
        let ours = |face: &LinkFace| {
            let is_shaped = face.home == self.worker && (site.is_some() || face.cap.send.is_some());
            is_shaped.then_some(face.cap.send)
        };
        let ours: Vec<Option<Option<Mbps>>> = links.iter().map(ours).collect();
        self.exits.shaper.set(site, &ours, PACKET_CAPACITY);
        self.exits.shaped = Some(Arc::clone(links));
    }

    /// What waits for a path that does not carry any more goes where its flow goes now: before anything that comes
    /// later, or nowhere. Nothing stays until the path is back.
    pub fn move_waiting(&mut self) {
        if self.exits.moved_for == self.forwarding.generation {
            return;
        }
        self.exits.moved_for = self.forwarding.generation;
        if self.exits.shaper.is_empty() {
            return;
        }
        let kept = self.exits.moving.take();
        let mut packet = kept.unwrap_or_else(|| SitePacket::with_capacity(PACKET_CAPACITY));
        let (mut search, forwarding) = (Search::default(), self.forwarding);
        let is_stranded = |link, waiting: &Waiting| {
            forwarding.path(waiting.path).is_none_or(|path| !path.usable || path.link != link)
        };
        while let Some(waiting) = self.exits.shaper.withdraw(&mut search, &is_stranded, &mut packet) {
            self.steer_again(&mut packet, &waiting.parsed, waiting.so_far);
        }
        self.exits.moving = Some(packet);
        self.tell_queues();
    }

    /// Sends a packet whose path is gone, or the rest of it, by the one that its flow has now; or drops it, and says so.
    pub fn steer_again(&mut self, packet: &mut SitePacket, parsed: &Parsed, so_far: CutSoFar) {
        if let Err(dropped) = self.leave_again(packet, parsed, so_far) {
            self.drop_out(dropped, packet.packet.bytes(), parsed);
        }
    }

    fn leave_again(&mut self, packet: &mut SitePacket, parsed: &Parsed, so_far: CutSoFar) -> Result<(), Dropped> {
        // A rule may have marked it: rules are asked about what it came with. And it has been counted.
        let dscp = self.flows.dscp(&parsed.key).unwrap_or(parsed.dscp);
        let (course, mark) = self.pilot().course_of(&Departure { key: parsed.key, dscp, bytes: 0 })?;
        self.depart(course, mark, packet, parsed, so_far)
    }

    /// Sends a packet by way of its link's queue. What was made here does not wait, and counts all the same.
    pub fn send_shaped(
        &mut self,
        way: Way<'a>,
        packet: &mut SitePacket,
        parsed: &Parsed,
        cargo: Cargo,
    ) -> Result<(), DropReason> {
        let (link, now) = (way.path.link, self.now);
        if let Cargo::Site(so_far) = cargo {
            let note = Waiting { parsed: *parsed, path: way.path.id, child: way.child.0 as u8, so_far };
            let markable = matches!(parsed.ecn, Ecn::Capable0 | Ecn::Capable1);
            let arriving = Arriving { packet, hash: self.flows.hash(&parsed.key), note, markable };
            let mut shaper = std::mem::take(&mut self.exits.shaper);
            let taken = shaper.push(link, arriving, now, &mut |lost: &Waiting| self.count_shaped(link, lost.path));
            self.exits.shaper = shaper;
            if taken {
                return Ok(());
            }
        }
        let mut part = Part::of(cargo);
        let sealed = self.seal(way, packet, parsed, cargo != Cargo::Own, &mut part);
        self.exits.shaper.charge(link, part.wire, now);
        sealed
    }

    /// Sends what may leave the queues now, and tells whether there was any.
    pub fn drain_shaper(&mut self) -> bool {
        if self.exits.shaper.is_empty() {
            return false;
        }
        let mut shaper = std::mem::take(&mut self.exits.shaper);
        let mut any = false;
        while let Some(due) = shaper.next(self.now) {
            let sent = shaper.packet(&due).map(|(packet, waiting)| self.let_out(&due, packet, waiting));
            shaper.finish(&due, sent.unwrap_or_default(), self.now);
            any = true;
        }
        self.exits.shaper = shaper;
        self.tell_queues();
        any
    }

    fn tell_queues(&self) {
        for (link, face) in (0..).map(LinkId).zip(self.forwarding.links.iter()) {
            if let Some((packets, bytes, waited)) = self.exits.shaper.state(link) {
                face.live.set_queue(packets, bytes, waited);
            }
        }
    }

    /// Seals the part of a packet that may leave, or leaves a piece out.
    fn let_out(&mut self, due: &Due, packet: &mut SitePacket, waiting: &mut Waiting) -> Sent {
        let Waiting { parsed, path, so_far, .. } = *waiting;
        let mut part = Part { so_far, room: due.room, mark: due.fate == Fate::Mark, wire: 0, left: 0 };
        // Since it came, another value may have been published.
        let way = self.forwarding.path(path).and_then(|path| self.way_by(path, waiting));
        let outcome = match (due.fate, way) {
            (_, None) => Err(DropReason::NoPath),
            (Fate::Drop, Some(way)) => {
                self.count_shaped(due.link, path);
                self.leave_out(way, packet, &parsed, &mut part)
            }
            (Fate::Pass | Fate::Mark, Some(way)) => self.seal(way, packet, &parsed, true, &mut part),
        };
        if let Err(reason) = outcome {
            self.count_drop(self.drops_out(path), reason);
            part.left = 0;
        }
        if due.fate == Fate::Mark
            && let Some(link) = self.forwarding.link(due.link)
        {
            link.live.marked_out.fetch_add(1, Ordering::Relaxed);
        }
        waiting.so_far = part.so_far;
        Sent { wire: part.wire, left: part.left }
    }

    fn way_by(&self, path: &'a PathFace, waiting: &Waiting) -> Option<Way<'a>> {
        let index = usize::from(waiting.child);
        let known = path.children.get(index).map(|child| Way { path, child: (index, child) });
        let known = known.filter(|way| way.child.1.selectors.cover_outbound(&waiting.parsed.key));
        known.or_else(|| self.forwarding.covering(path, &waiting.parsed.key))
    }

    fn leave_out(&self, way: Way, packet: &SitePacket, parsed: &Parsed, part: &mut Part) -> Result<(), DropReason> {
        if packet.offload.segments.is_none() {
            return Ok(());
        }
        let mtu = way.path.mtu_for(parsed.is_ipv4());
        let splitter = Splitter::new(packet.packet.bytes(), parsed, &packet.offload, mtu).map_err(unsplittable)?;
        let mut splitter = splitter.resume(part.so_far);
        splitter.skip();
        (part.so_far, part.left) = (splitter.so_far(), splitter.data_left() as u64);
        Ok(())
    }

    fn count_shaped(&self, link: LinkId, path: PathId) {
        self.count_drop(self.drops_out(path), DropReason::Shaped);
        if let Some(link) = self.forwarding.link(link) {
            link.live.dropped_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Holds what has arrived to the caps of its link and of the site; what its packet then says of congestion.
    pub fn police(&self, path: &PathFace, wire: u64, ecn: Ecn) -> Result<Ecn, DropReason> {
        let Some(link) = self.forwarding.link(path.link) else { return Ok(ecn) };
        let mut ecn = ecn;
        for policer in link.cap.receive.iter().chain(&self.forwarding.site.cap.receive) {
            match policer.judge(wire, self.now) {
                Passing::Freely => {}
                Passing::Marked if matches!(ecn, Ecn::Capable0 | Ecn::Capable1) => {
                    ecn = Ecn::Congested;
                    link.live.marked_in.fetch_add(1, Ordering::Relaxed);
                }
                Passing::Marked => {}
                Passing::Refused => {
                    link.live.dropped_in.fetch_add(1, Ordering::Relaxed);
                    return Err(DropReason::Policed);
                }
            }
        }
        Ok(ecn)
    }
}
