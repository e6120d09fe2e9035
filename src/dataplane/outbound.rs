use arrayvec::ArrayVec;

use super::FlowEntry;
use super::road::{Road, Way};
use crate::forward::{ConnectorFace, PathFace, ProbeOrder};
use crate::model::{DropReason, FlowKey, PathId};
use crate::packet::{PacketBuf, Parsed, Probe, Refusal, clamp_mss, fragment, parse, refuse};
use crate::steer::{Candidate, Why, choose};

/// Tunnels of one role.
const MAX_PATHS: usize = 3;

/// RFC 8200 5: every link carries IPv6 packets of this size, if need be by cutting them outside.
const IPV6_MIN_MTU: u16 = 1280;

/// A packet that goes no further, and the path whose fault it is, if it had one.
struct Dropped {
    reason: DropReason,
    path: Option<PathId>,
    /// Told to the sender, if anything.
    refusal: Option<Refusal>,
}

impl<'a> Road<'a> {
    /// The way of one packet from the site to the WAN.
    pub fn outbound(&mut self, packet: &mut PacketBuf) {
        let Some(parsed) = parse(packet.bytes()) else { return self.drops.count(DropReason::Malformed) };
        packet.truncate(parsed.total_len);
        if let Err(dropped) = self.leave(packet, &parsed) {
            self.drop_out(dropped, packet, &parsed);
        }
    }

    fn leave(&mut self, packet: &mut PacketBuf, parsed: &Parsed) -> Result<(), Dropped> {
        let connector = self.connector_of(parsed)?;
        let way = self.way_of(connector, parsed)?;
        let mtu = fits(way.path, parsed)?;
        if parsed.syn {
            clamp_mss(packet.bytes_mut(), parsed, self.smallest_mtu(connector, way.path));
        }
        // RFC 4301 5.1.2.1 copies the DSCP, RFC 6040 4.1 the ECN field, to the outer header.
        let tos = parsed.traffic_class();
        match mtu {
            None => self.seal(way, packet, tos, true).map_err(|reason| on_path(way.path, reason)),
            Some(mtu) => self.leave_in_fragments(way, packet, tos, mtu),
        }
    }

    /// LAN source check, then longest prefix.
    fn connector_of(&self, parsed: &Parsed) -> Result<&'a ConnectorFace, Dropped> {
        let forwarding = self.forwarding;
        let site = &forwarding.site;
        // The private addresses are for probes, which do not come by this way.
        if site.is_own(parsed.key.source) || !site.native.is_empty() && !site.is_native(parsed.key.source) {
            // Never answered: the sender may be somebody else.
            return Err(Dropped { reason: DropReason::NotNative, path: None, refusal: None });
        }
        let connector = forwarding.routes.connector(parsed.key.destination);
        connector
            .and_then(|id| forwarding.connector(id))
            .filter(|_| !site.is_own(parsed.key.destination))
            .ok_or_else(|| refused(DropReason::NoRoute, Refusal::NetworkUnreachable))
    }

    /// The way that the flow is pinned to, or a new choice.
    fn way_of(&mut self, connector: &ConnectorFace, parsed: &Parsed) -> Result<Way<'a>, Dropped> {
        let entry = self.flows.leave(&parsed.key, parsed.total_len as u64, self.now);
        match entry.as_ref().and_then(|entry| self.pinned(connector, entry)) {
            Some(way) => Ok(way),
            None => self.choose(connector, parsed, entry.and_then(|entry| entry.arrived_on)),
        }
    }

    /// The way of an entry, while all that it was chosen by is still so.
    fn pinned(&self, connector: &ConnectorFace, entry: &FlowEntry) -> Option<Way<'a>> {
        let path = self.forwarding.path(entry.path?)?;
        let holds = entry.path_epoch == path.epoch
            && entry.policy_epoch == self.forwarding.policy_epoch
            && path.usable
            && path.connector == connector.id
            && path.role == connector.active;
        let child = path.children.get(usize::from(entry.child)).filter(|_| holds)?;
        let way = Way { path, child };
        self.has_sa(way).then_some(way)
    }

    /// Rules, then the pick among the active role's usable paths whose selectors cover the flow;
    /// the flow is pinned to what comes out.
    fn choose(
        &self,
        connector: &ConnectorFace,
        parsed: &Parsed,
        arrived_on: Option<PathId>,
    ) -> Result<Way<'a>, Dropped> {
        let mut ways: ArrayVec<(usize, Way<'a>), MAX_PATHS> = ArrayVec::new();
        let mut uncovered = false;
        for path in connector.roles[connector.active.index()].iter().filter_map(|id| self.forwarding.path(*id)) {
            if !path.usable {
                continue;
            }
            match self.covering(path, &parsed.key) {
                Some(way) => ways.push(way),
                None => uncovered = true,
            }
        }
        let candidates: ArrayVec<Candidate, MAX_PATHS> = ways.iter().map(|(_, way)| way.path.candidate()).collect();
        let choice = choose(&self.forwarding.rules, &parsed.key, parsed.dscp, &candidates);
        let by_rule = by_rule(choice.why);
        let chosen = choice.path.and_then(|id| candidates.iter().find(|candidate| candidate.path == id));
        let Some(chosen) = chosen else {
            return Err(match choice.why.drop_reason() {
                Some(DropReason::Rule) => refused(DropReason::Rule, Refusal::Prohibited),
                _ if uncovered => refused(DropReason::NoSelector, Refusal::NetworkUnreachable),
                _ => refused(DropReason::NoPath, Refusal::NetworkUnreachable),
            });
        };
        // A gateway answers where it was asked, unless a rule says otherwise or a path in better
        // health is there.
        let asked_on = arrived_on.filter(|_| self.forwarding.site.answer_on_arrival && !by_rule);
        let asked_on =
            candidates.iter().find(|candidate| Some(candidate.path) == asked_on && candidate.verdict <= chosen.verdict);
        let path = asked_on.unwrap_or(chosen).path;
        let Some((child, way)) = ways.into_iter().find(|(_, way)| way.path.id == path) else {
            return Err(refused(DropReason::NoPath, Refusal::NetworkUnreachable));
        };
        self.flows.pin(
            parsed.key,
            FlowEntry {
                path: Some(path),
                path_epoch: way.path.epoch,
                policy_epoch: self.forwarding.policy_epoch,
                rule: choice.rule,
                by_rule,
                child: child as u8,
                arrived_on,
                last_seen: self.now,
                bytes: parsed.total_len as u64,
                packets: 1,
            },
        );
        Ok(way)
    }

    /// The first Child SA of the path that covers the flow and is there, with its index.
    pub(super) fn covering(&self, path: &'a PathFace, key: &FlowKey) -> Option<(usize, Way<'a>)> {
        let ways = path.children.iter().map(|child| Way { path, child }).enumerate();
        // A flow entry has one byte for the index.
        ways.take(256).find(|(_, way)| way.child.selectors.cover_outbound(key) && self.has_sa(*way))
    }

    fn has_sa(&self, way: Way) -> bool {
        self.forwarding.sas.outbound(way.child.slot).is_some_and(|place| place.load().is_some())
    }

    /// The smallest MTU of all paths that the flow may ever move to without a new connection.
    pub(super) fn smallest_mtu(&self, connector: &ConnectorFace, path: &PathFace) -> u16 {
        let all = connector.roles.iter().flatten().filter_map(|id| self.forwarding.path(*id));
        all.filter(|other| !other.children.is_empty()).map(|other| other.mtu).fold(path.mtu, u16::min)
    }

    /// RFC 4301 8.2.1: a packet without DF is cut before it is sealed.
    fn leave_in_fragments(&mut self, way: Way<'a>, packet: &PacketBuf, tos: u8, mtu: u16) -> Result<(), Dropped> {
        let mut failed = None;
        let complete = self.with_scratch(|road, piece| {
            fragment(packet.bytes(), usize::from(mtu), |header, data| {
                let sealed = if piece.fill_parts(header, data) {
                    road.seal(way, piece, tos, true)
                } else {
                    Err(DropReason::TooBig)
                };
                failed = sealed.err();
                failed.is_none()
            })
        });
        match failed {
            None if complete => Ok(()),
            reason => Err(on_path(way.path, reason.unwrap_or(DropReason::TooBig))),
        }
    }

    fn drop_out(&mut self, dropped: Dropped, packet: &PacketBuf, parsed: &Parsed) {
        dropped.path.map_or(self.drops, |path| self.drops_out(path)).count(dropped.reason);
        let Some(refusal) = dropped.refusal else { return };
        if self.exits.icmp_errors.allows(self.now) {
            self.with_scratch(|road, answer| {
                if refuse(refusal, packet.bytes(), parsed, answer) {
                    road.deliver(answer);
                }
            });
        }
    }

    /// Sends a probe on exactly the path that control ordered, usable or not.
    pub fn probe(&mut self, order: &ProbeOrder) {
        if let Err(reason) = self.send_probe(order) {
            self.drops_out(order.path).count(reason);
        }
    }

    fn send_probe(&mut self, order: &ProbeOrder) -> Result<(), DropReason> {
        let path = self.forwarding.path(order.path).ok_or(DropReason::NoPath)?;
        let ProbeOrder { id, source, target, .. } = *order;
        let probe = Probe { id, path: path.id, sent: self.now, source, target };
        self.with_scratch(|road, packet| {
            let written = road.probe_key.write_request(&probe, packet);
            if written { road.send_own(path, packet) } else { Err(DropReason::Malformed) }
        })
    }

    /// Sends a packet made here on exactly this path.
    pub(super) fn send_own(&mut self, path: &'a PathFace, packet: &mut PacketBuf) -> Result<(), DropReason> {
        let parsed = parse(packet.bytes()).ok_or(DropReason::Malformed)?;
        let (_, way) = self.covering(path, &parsed.key).ok_or(DropReason::NoSelector)?;
        self.seal(way, packet, parsed.traffic_class(), false)
    }
}

/// Does the packet fit the path? `Some` is the MTU to cut it to.
fn fits(path: &PathFace, parsed: &Parsed) -> Result<Option<u16>, Dropped> {
    let mtu = if parsed.is_ipv4() { path.mtu } else { path.mtu.max(IPV6_MIN_MTU) };
    if parsed.total_len <= usize::from(mtu) {
        Ok(None)
    } else if parsed.dont_fragment {
        let refusal = Some(Refusal::TooBig { mtu });
        Err(Dropped { refusal, ..on_path(path, DropReason::TooBig) })
    } else {
        Ok(Some(mtu))
    }
}

/// Has a rule named the path, rather than the spread over all?
fn by_rule(why: Why) -> bool {
    match why {
        Why::RuleLink { .. } | Why::FellBackNoLink { .. } | Why::FellBackHealth { .. } => true,
        Why::RuleDrop | Why::StrictNoLink => true,
        Why::OnlyCandidate | Why::Best { .. } | Why::Share { .. } | Why::NoCandidate => false,
    }
}

fn refused(reason: DropReason, refusal: Refusal) -> Dropped {
    Dropped { reason, path: None, refusal: Some(refusal) }
}

fn on_path(path: &PathFace, reason: DropReason) -> Dropped {
    Dropped { reason, path: Some(path.id), refusal: None }
}
