use std::time::Duration;

use super::flow_table::{FlowEntry, Leaving};
use super::road::Road;
use crate::forward::{ConnectorFace, Held, PathFace, ProbeOrder, Way};
use crate::model::{DropReason, Dscp, PathId};
use crate::packet::{Offload, Parsed, Probe, Refusal, SegmentKind, Segments, SitePacket, parse, refuse, set_dscp};
use crate::steer::{NewFlow, Stay};

const UDP_HEADER: usize = 8;

/// A packet that goes no further, and the path whose fault it is, if it had one.
struct Dropped {
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
        let (way, mark) = self.way_of(parsed)?;
        fits(way.path, packet.offload, parsed)?;
        let parsed = match mark {
            // Before it is cut and sealed, so that every piece and the outer header have it.
            Some(dscp) if dscp != parsed.dscp => {
                set_dscp(packet.packet.bytes_mut(), dscp);
                &Parsed { dscp, ..*parsed }
            }
            _ => parsed,
        };
        self.leave_by(way, packet, parsed, true).map_err(|reason| on_path(way.path, reason))
    }

    /// The way that the flow is pinned to, or a new choice; and what to mark its packets with.
    fn way_of(&mut self, parsed: &Parsed) -> Result<(Way<'a>, Option<Dscp>), Dropped> {
        let known = self.flows.leave(&parsed.key, parsed.total_len as u64, self.now);
        if let Some(Leaving { entry, ordered: None, paused }) = &known
            && let Some(way) = self.pinned(entry, *paused)
        {
            return Ok((way, entry.mark));
        }
        let connector = self.connector_of(parsed)?;
        self.choose(connector, parsed, known)
    }

    /// The way of an entry, while all that it was chosen by is still so.
    fn pinned(&self, entry: &FlowEntry, paused: Duration) -> Option<Way<'a>> {
        let path = self.forwarding.path(entry.path?)?;
        let holds = entry.path_epoch == path.epoch
            && entry.policy_epoch == self.forwarding.policy_epoch
            && path.usable
            && !(entry.draining && path.duty.lets_go(paused, self.now))
            && (entry.kept || self.forwarding.connector(path.connector)?.active == path.role);
        let child = path.children.get(usize::from(entry.child)).filter(|_| holds)?;
        let way = Way { path, child: (usize::from(entry.child), child) };
        self.forwarding.has_sa(way).then_some(way)
    }

    fn connector_of(&self, parsed: &Parsed) -> Result<&'a ConnectorFace, Dropped> {
        self.forwarding.connector_for(&parsed.key).map_err(|reason| Dropped {
            reason,
            path: None,
            // Who sends what is not the site's is never answered: it may be somebody else.
            refusal: (reason == DropReason::NoRoute).then_some(Refusal::NetworkUnreachable),
        })
    }

    /// Decides, and pins the flow to what comes out.
    fn choose(
        &self,
        connector: &ConnectorFace,
        parsed: &Parsed,
        known: Option<Leaving>,
    ) -> Result<(Way<'a>, Option<Dscp>), Dropped> {
        let flow =
            NewFlow { key: parsed.key, dscp: parsed.dscp, connector: connector.id, minute: self.forwarding.minute };
        let held = known.map_or_else(Held::default, |known| Held {
            path: known.entry.path,
            rule: known.entry.rule,
            arrived_on: known.entry.arrived_on,
            moved_at: self.flows.moved_at(&parsed.key),
            ordered: known.ordered,
            paused: known.paused,
        });
        let decision = self.forwarding.decide(connector, &flow, &held, self.now);
        let choice = decision.choice;
        if let Some(rule) = choice.rule.filter(|_| held.rule != choice.rule) {
            self.forwarding.rules.count_hit(rule, self.now);
        }
        let Some(way) = decision.way else {
            return Err(match choice.why.drop_reason() {
                Some(DropReason::Rule) => refused(DropReason::Rule, Refusal::Prohibited),
                _ if decision.uncovered => refused(DropReason::NoSelector, Refusal::NetworkUnreachable),
                _ => refused(DropReason::NoPath, Refusal::NetworkUnreachable),
            });
        };
        let mark = choice.rule.and_then(|rule| self.forwarding.rules.rule(rule)?.action.set_dscp());
        let entry = FlowEntry {
            path: Some(way.path.id),
            path_epoch: way.path.epoch,
            policy_epoch: self.forwarding.policy_epoch,
            rule: choice.rule,
            by_rule: decision.by_rule,
            kept: decision.kept,
            draining: choice.stay == Some(Stay::Draining) || decision.kept && way.path.duty.is_drained(),
            mark,
            child: way.child.0 as u8,
            peers: decision.peers,
            arrived_on: held.arrived_on,
            dscp: parsed.dscp,
            why: choice.why,
        };
        self.flows.pin(parsed.key, entry, decision.moved, parsed.total_len as u64, self.now);
        Ok((way, entry.mark))
    }

    /// The smallest MTU of all paths that a flow of this one may ever move to without a new
    /// connection.
    pub(super) fn smallest_mtu(&self, path: &PathFace) -> u16 {
        let connector = self.forwarding.connector(path.connector);
        let all = connector.iter().flat_map(|connector| connector.roles.iter().flatten());
        let all = all.filter_map(|id| self.forwarding.path(*id));
        all.filter(|other| !other.children.is_empty()).map(|other| other.mtu).fold(path.mtu, u16::min)
    }

    fn drop_out(&mut self, dropped: Dropped, packet: &[u8], parsed: &Parsed) {
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

    /// Sends a packet made here on exactly this path.
    pub(super) fn send_own(&mut self, path: &'a PathFace, packet: &mut SitePacket) -> Result<(), DropReason> {
        let parsed = parse(packet.packet.bytes()).ok_or(DropReason::Malformed)?;
        let way = self.forwarding.covering(path, &parsed.key).ok_or(DropReason::NoSelector)?;
        self.leave_by(way, packet, &parsed, false)
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

fn refused(reason: DropReason, refusal: Refusal) -> Dropped {
    Dropped { reason, path: None, refusal: Some(refusal) }
}

fn on_path(path: &PathFace, reason: DropReason) -> Dropped {
    Dropped { reason, path: Some(path.id), refusal: None }
}
