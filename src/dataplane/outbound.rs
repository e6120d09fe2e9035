use super::noting::NotePad;
use super::pilot::{Course, Departure, NoWay, Pilot};
use super::road::Road;
use super::shaping::Cargo;
use crate::forward::{InnerOrder, PathFace, ProbeOrder, ToControl};
use crate::model::{DropReason, Dscp, LinkId, PathId, protocol};
use crate::packet::{
    CutSoFar, Fragment, Offload, Parsed, Probe, Refusal, SegmentKind, Segments, SitePacket, parse, refuse, set_dscp,
};

const UDP_HEADER: usize = 8;

pub(super) const DNS: u16 = 53;

/// The largest answer that resolvers ask for over UDP, 4,096 bytes, and headers (RFC 6891 6.2.5).
const DNS_MOST: usize = 4_096 + 48;

/// A packet that goes no further, and the path whose fault it is, if it had one.
pub(super) struct Dropped {
    reason: DropReason,
    path: Option<PathId>,
    /// Told to the sender, if anything.
    refusal: Option<Refusal>,
}

impl<'a> Road<'a> {
    /// The way of one packet from the site to the WAN.
    pub fn outbound(&mut self, packet: &mut SitePacket) {
        let Some(parsed) = parse(packet.packet.bytes()) else {
            return self.count_drop(self.drops, DropReason::Malformed);
        };
        packet.packet.truncate(parsed.total_len);
        if let Err(dropped) = self.leave(packet, &parsed) {
            self.drop_out(dropped, packet.packet.bytes(), &parsed);
        }
    }

    fn leave(&mut self, packet: &mut SitePacket, parsed: &Parsed) -> Result<(), Dropped> {
        let leaving = Departure { key: parsed.key, dscp: parsed.dscp, bytes: parsed.total_len as u64 };
        let (course, mark) = self.pilot().course_of(&leaving)?;
        self.depart(course, mark, packet, parsed, CutSoFar::START)
    }

    pub(super) fn pilot(&mut self) -> Pilot<'a, '_> {
        let notes = self.notes.map(|notebook| NotePad::new(notebook, &mut self.exits.note_limits));
        Pilot { forwarding: self.forwarding, flows: self.flows, now: self.now, notes }
    }

    /// Sends what has not left yet of a packet on its course.
    pub(super) fn depart(
        &mut self,
        course: Course<'a>,
        mark: Option<Dscp>,
        packet: &mut SitePacket,
        parsed: &Parsed,
        so_far: CutSoFar,
    ) -> Result<(), Dropped> {
        if let Course::Tunnel(way) = course {
            fits(way.path, packet.offload, parsed)?;
        }
        let parsed = match mark {
            // Before it is cut and sealed, so that every piece and the outer header have it.
            Some(dscp) if dscp != parsed.dscp => {
                set_dscp(packet.packet.bytes_mut(), dscp);
                &Parsed { dscp, ..*parsed }
            }
            _ => parsed,
        };
        match course {
            Course::Tunnel(way) => {
                let lone = packet.offload.segments.is_none();
                if self.forwarding.names.is_some() && parsed.key.destination_port == DNS && lone {
                    self.tell_dns(packet.packet.bytes(), parsed);
                }
                self.leave_by(way, packet, parsed, Cargo::Site(so_far)).map_err(|reason| on_path(way.path, reason))
            }
            // What the kernel sends there it cuts itself, from the beginning.
            Course::Breakout(_) if so_far != CutSoFar::START => {
                Err(Dropped { reason: DropReason::NoPath, path: None, refusal: None })
            }
            Course::Breakout(link) => self.break_out(link, packet, parsed),
        }
    }

    /// Control learns names from what is asked and answered. What it cannot take is lost, and counted.
    pub(super) fn tell_dns(&mut self, packet: &[u8], parsed: &Parsed) {
        let whole = parsed.key.protocol == protocol::UDP && parsed.fragment == Fragment::Whole;
        if whole && packet.len() <= DNS_MOST && self.exits.dns_messages.allows(self.now) {
            self.tell(ToControl::Dns { at: self.now, packet: packet.into() });
        }
    }

    /// Outside of the tunnels: the kernel translates its source and sends it by the link.
    fn break_out(&mut self, link: LinkId, packet: &mut SitePacket, parsed: &Parsed) -> Result<(), Dropped> {
        packet.queue = self.worker;
        if !self.io.send_breakout(link, packet) {
            return Err(Dropped { reason: DropReason::SendFailed, path: None, refusal: None });
        }
        if let Some(face) = self.forwarding.breakout(link) {
            face.live.sent(parsed.total_len as u64);
        }
        Ok(())
    }

    /// The smallest MTU of all paths that a flow of this one may ever move to without a new
    /// connection.
    pub(super) fn smallest_mtu(&self, path: &PathFace) -> u16 {
        let connector = self.forwarding.connector(path.connector);
        let all = connector.iter().flat_map(|connector| connector.roles.iter().flatten());
        let all = all.filter_map(|id| self.forwarding.path(*id));
        all.filter(|other| !other.children.is_empty()).map(|other| other.mtu).fold(path.mtu, u16::min)
    }

    pub(super) fn drop_out(&mut self, dropped: Dropped, packet: &[u8], parsed: &Parsed) {
        self.count_drop(dropped.path.map_or(self.drops, |path| self.drops_out(path)), dropped.reason);
        let Some(refusal) = dropped.refusal else { return };
        if self.exits.icmp_errors.allows(self.now) {
            self.with_scratch(|road, answer| {
                if refuse(refusal, packet, parsed, &mut answer.packet) {
                    road.deliver_own(answer.packet.bytes());
                }
            });
        }
    }

    /// Sends a probe on exactly the path that control ordered, usable or not.
    pub fn probe(&mut self, order: &ProbeOrder) {
        if let Err(reason) = self.send_probe(order) {
            self.count_drop(self.drops_out(order.path), reason);
        }
    }

    fn send_probe(&mut self, order: &ProbeOrder) -> Result<(), DropReason> {
        let path = self.forwarding.path(order.path).ok_or(DropReason::NoPath)?;
        let ProbeOrder { id, source, target, length, .. } = *order;
        let probe = Probe { id, path: path.id, sent: self.now, source, target };
        self.with_scratch(|road, packet| {
            let written = road.probe_key.write_request(&probe, usize::from(length), &mut packet.packet);
            if written { road.send_own(path, packet) } else { Err(DropReason::Malformed) }
        })
    }

    /// Sends a packet that control made on exactly its path, usable or not.
    pub fn inner(&mut self, order: &InnerOrder) {
        if let Err(reason) = self.send_inner(order) {
            self.count_drop(self.drops_out(order.path), reason);
        }
    }

    fn send_inner(&mut self, order: &InnerOrder) -> Result<(), DropReason> {
        let path = self.forwarding.path(order.path).ok_or(DropReason::NoPath)?;
        self.with_scratch(|road, packet| {
            if !packet.packet.fill(&order.packet) {
                return Err(DropReason::TooBig);
            }
            road.send_own(path, packet)
        })?;
        if let Some(sent) = &order.sent {
            sent.set(self.now);
        }
        Ok(())
    }

    /// Sends a packet made here on exactly this path.
    pub(super) fn send_own(&mut self, path: &'a PathFace, packet: &mut SitePacket) -> Result<(), DropReason> {
        let parsed = parse(packet.packet.bytes()).ok_or(DropReason::Malformed)?;
        let way = self.forwarding.covering(path, &parsed.key).ok_or(DropReason::NoSelector)?;
        self.leave_by(way, packet, &parsed, Cargo::Own)
    }
}

/// Does the packet fit the path, or can it be cut to fit? Of a super-packet the pieces do.
fn fits(path: &PathFace, offload: Offload, parsed: &Parsed) -> Result<(), Dropped> {
    let mtu = path.mtu_for(parsed.is_ipv4());
    let fits = match offload.segments {
        None => parsed.total_len <= usize::from(mtu) || !parsed.dont_fragment,
        Some(Segments { kind: SegmentKind::Udp, size }) => {
            parsed.transport + UDP_HEADER + usize::from(size) <= usize::from(mtu)
        }
        Some(_) => true,
    };
    if fits {
        return Ok(());
    }
    let refusal = Some(Refusal::TooBig { mtu });
    Err(Dropped { refusal, ..on_path(path, DropReason::TooBig) })
}

impl From<NoWay> for Dropped {
    fn from(NoWay { refused, refusal }: NoWay) -> Dropped {
        Dropped { reason: refused.reason, path: None, refusal }
    }
}

fn on_path(path: &PathFace, reason: DropReason) -> Dropped {
    Dropped { reason, path: Some(path.id), refusal: None }
}
