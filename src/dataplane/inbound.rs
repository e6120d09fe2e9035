use std::sync::atomic::Ordering;

use super::early::Kept;
use super::outbound::DNS;
use super::road::Road;
use crate::esp::{InboundSa, OUTER_HEADERS};
use crate::forward::{PathFace, ToControl};
use crate::model::{DropReason, FlowKey, Leg, Moment, PathId, Spi, WorkerId, protocol};
use crate::packet::{Echo, Ecn, Fragment, Parsed, Train, clamp_mss, parse, set_ecn};
use crate::probe;

/// An IKE header (RFC 7296 3.1); anything shorter is none.
const IKE_HEADER: usize = 28;

/// The longest answer to what control asks: a DNS answer over UDP without extensions has 512 bytes (RFC 1035
/// 4.2.1), a segment as small as we ask for 536.
const INNER_ANSWER_MOST: usize = 1_280;

/// In front of IKE messages on the NAT-traversal socket, where ESP has its SPI (RFC 3948 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// RFC 3948 2.3.
const NAT_KEEPALIVE: [u8; 1] = [0xff];

/// How a datagram came.
#[derive(Clone, Copy)]
struct Outer {
    leg: Leg,
    tos: u8,
}

/// What was found out about the flow that arrived last: packets of one flow come in trains.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    key: FlowKey,
    /// Packets of the flow that the same SA opens pass the same checks.
    spi: Spi,
    asymmetric: bool,
    queue: WorkerId,
}

/// Packets of one path that have arrived, until they are counted.
#[derive(Clone, Copy)]
pub(super) struct Tally {
    path: PathId,
    packets: u64,
    bytes: u64,
    asymmetric: u64,
}

impl<'a> Road<'a> {
    /// The way of datagrams from the WAN to the site, or to control. Each is looked at by itself:
    /// receive offload may have put an IKE message behind ESP.
    pub fn inbound(&mut self, train: &mut Train) {
        let outer = Outer { leg: train.leg, tos: train.tos };
        for datagram in train.datagrams_mut() {
            self.datagram(outer, datagram);
        }
    }

    fn datagram(&mut self, outer: Outer, datagram: &mut [u8]) {
        if !outer.leg.natt {
            return self.ike(outer.leg, datagram);
        }
        match datagram.split_first_chunk::<4>() {
            Some((&NON_ESP_MARKER, message)) => self.ike(outer.leg, message),
            Some((&spi, _)) => self.esp(Spi(u32::from_be_bytes(spi)), outer, datagram),
            None if *datagram == NAT_KEEPALIVE => {}
            None => self.count_drop(self.drops, DropReason::NotIpsec),
        }
    }

    /// Opens what came before its SA was there.
    pub fn inbound_early(&mut self) {
        if self.exits.early.is_empty() {
            return;
        }
        let mut early = std::mem::take(&mut self.exits.early);
        let sas = &self.forwarding.sas;
        let is_there = |spi| {
            let place = sas.inbound(spi).map(|place| place.load());
            place.as_ref().and_then(|place| place.as_ref()).is_some_and(|sa| sa.spi() == spi)
        };
        let given_up = early.take(self.now, is_there, |kept| {
            let Kept { spi, leg, tos, datagram } = kept;
            self.esp(spi, Outer { leg, tos }, datagram);
        });
        self.exits.early = early;
        (0..given_up).for_each(|_| self.count_drop(self.drops, DropReason::UnknownSpi));
    }

    fn ike(&mut self, leg: Leg, message: &[u8]) {
        if message.len() < IKE_HEADER {
            return self.count_drop(self.drops, DropReason::NotIpsec);
        }
        self.tell(ToControl::Ike { leg, bytes: message.into(), at: self.now });
    }

    fn esp(&mut self, spi: Spi, outer: Outer, datagram: &mut [u8]) {
        let sas = &self.forwarding.sas;
        let place = sas.inbound(spi).map(|place| place.load());
        // The place may hold a later SA than the one that the packet was sent on.
        let Some(sa) = place.as_ref().and_then(|place| place.as_ref()).filter(|sa| sa.spi() == spi) else {
            let Outer { leg, tos } = outer;
            if !sas.is_calling() || !self.exits.early.keep(spi, leg, tos, datagram, self.now) {
                self.count_drop(self.drops, DropReason::UnknownSpi);
            }
            return;
        };
        if let Err(reason) = self.open(sa, outer, datagram) {
            self.count_drop(self.drops_in(sa.path()), reason);
        }
    }

    fn open(&mut self, sa: &InboundSa, outer: Outer, datagram: &mut [u8]) -> Result<(), DropReason> {
        let opened = sa.open(datagram)?;
        if opened.first_use {
            self.tell_surely(ToControl::FirstUse { spi: sa.spi() });
        }
        let path = self.forwarding.path(sa.path()).ok_or(DropReason::NoPath)?;
        if opened.is_nothing {
            return self.measured(path, datagram.get(opened.inner).unwrap_or_default(), self.now);
        }
        self.tally(path);
        // One that others have overtaken says where the peer was, not where it is.
        if opened.newest {
            self.note_leg(sa, path, outer.leg);
        }

        let wire = datagram.len() + OUTER_HEADERS;
        let packet = datagram.get_mut(opened.inner).ok_or(DropReason::BadInner)?;
        let parsed = parse(packet).ok_or(DropReason::BadInner)?;
        // RFC 4303 2.7: what follows the packet is padding against traffic analysis.
        let packet = packet.get_mut(..parsed.total_len).ok_or(DropReason::BadInner)?;
        let ecn = parsed.ecn.after_tunnel(Ecn::of_traffic_class(outer.tos)).ok_or(DropReason::Congested)?;
        let known = self.exits.arrival.filter(|arrival| arrival.key == parsed.key && arrival.spi == sa.spi());
        let arrival = match known {
            Some(arrival) => arrival,
            None => {
                self.check(sa, &parsed)?;
                if self.forwarding.site.is_own(parsed.key.destination) {
                    return self.for_us(path, &parsed, packet);
                }
                self.check_route(path, &parsed)?;
                self.learn(sa.spi(), path, &parsed)
            }
        };
        if self.forwarding.names.is_some() && parsed.key.source_port == DNS {
            self.tell_dns(packet, &parsed);
        }
        let ecn = if path.policed { self.police(path, wire as u64, ecn)? } else { ecn };
        let tally = self.tally(path);
        tally.packets += 1;
        tally.bytes += parsed.total_len as u64;
        tally.asymmetric += u64::from(arrival.asymmetric);
        if ecn != parsed.ecn {
            set_ecn(packet, ecn);
        }
        if parsed.syn {
            clamp_mss(packet, &parsed, self.smallest_mtu(path));
        }
        self.deliver(packet, &parsed, arrival.queue);
        Ok(())
    }

    /// RFC 7296 2.23: the newest authenticated packet shows where the peer's NAT now is.
    fn note_leg(&mut self, sa: &InboundSa, path: &PathFace, leg: Leg) {
        let known = path.leg;
        let moved = (leg.underlay, leg.natt, leg.remote) != (known.underlay, known.natt, known.remote);
        if self.is_new_leg(path.id, moved.then_some(leg)) {
            self.tell_surely(ToControl::Rebind { spi: sa.spi(), path: path.id, leg });
        }
    }

    /// What RFC 4301 5.2 asks of every packet: the negotiated selectors.
    fn check(&self, sa: &InboundSa, parsed: &Parsed) -> Result<(), DropReason> {
        if !sa.selectors().cover_inbound(&parsed.key) {
            return Err(DropReason::SelectorMismatch);
        }
        let site = &self.forwarding.site;
        if site.is_own(parsed.key.source) || site.is_native(parsed.key.source) {
            return Err(DropReason::SourceMismatch);
        }
        Ok(())
    }

    /// The answer to a probe goes to control; an echo request is answered by the path that it
    /// came by. Our private addresses have no other use.
    fn for_us(&mut self, path: &'a PathFace, parsed: &Parsed, packet: &[u8]) -> Result<(), DropReason> {
        let key = &parsed.key;
        if matches!(key.protocol, protocol::TCP | protocol::UDP) && probe::PORTS.contains(&key.destination_port) {
            // Or anybody in the tunnel could use up what control takes of answers.
            if !self.forwarding.site.is_asked(key.source) {
                return Err(DropReason::NotNative);
            }
            return self.for_control(path, parsed, packet);
        }
        let echo = Echo::read(packet, parsed).ok_or(DropReason::NotNative)?;
        if echo.request {
            if !self.exits.echo_replies.allows(self.now) {
                return Err(DropReason::QueueFull);
            }
            return self.with_scratch(|road, reply| {
                let written = echo.write_reply(parsed, &mut reply.packet);
                if written { road.send_own(path, reply) } else { Err(DropReason::NotNative) }
            });
        }
        let probe = self.probe_key.read_answer(&echo, parsed).ok_or(DropReason::NotNative)?;
        self.tell(ToControl::Probe {
            id: probe.id,
            target: probe.target,
            sent_on: probe.path,
            arrived_on: path.id,
            sent: probe.sent,
            at: self.now,
            length: u16::try_from(parsed.total_len).unwrap_or(u16::MAX),
        });
        Ok(())
    }

    fn for_control(&mut self, path: &PathFace, parsed: &Parsed, packet: &[u8]) -> Result<(), DropReason> {
        if parsed.fragment != Fragment::Whole || packet.len() > INNER_ANSWER_MOST {
            return Err(DropReason::NotNative);
        }
        if !self.exits.inner_answers.allows(self.now) {
            return Err(DropReason::QueueFull);
        }
        self.tell(ToControl::Inner { arrived_on: path.id, at: self.now, packet: packet.into() });
        Ok(())
    }

    /// The source must route back to the connector that it came from, by whichever tunnel, and
    /// the destination be one of the site's.
    fn check_route(&self, path: &PathFace, parsed: &Parsed) -> Result<(), DropReason> {
        if self.forwarding.routes.connector(parsed.key.source) != Some(path.connector) {
            return Err(DropReason::SourceMismatch);
        }
        let site = &self.forwarding.site;
        if !site.native.is_empty() && !site.is_native(parsed.key.destination) {
            return Err(DropReason::NotNative);
        }
        Ok(())
    }

    /// Remembers where the flow arrives, and finds the device queue on which what answers it will
    /// come to the worker that sends it: the kernel follows the queue that it was written to.
    fn learn(&mut self, spi: Spi, path: &PathFace, parsed: &Parsed) -> Arrival {
        let key = parsed.key.reversed();
        let leaves_by = if self.forwarding.site.answer_on_arrival {
            self.flows.arrive_to_answer(&key, path.id, self.now)
        } else {
            self.flows.arrive(&key, path.id, self.now)
        };
        let leaves_by = leaves_by.and_then(|leaves_by| self.forwarding.path(leaves_by));
        let asymmetric = leaves_by.is_some_and(|leaves_by| leaves_by.id != path.id);
        let queue = leaves_by.unwrap_or(path).home;
        let arrival = Arrival { key: parsed.key, spi, asymmetric, queue };
        self.exits.arrival = Some(arrival);
        arrival
    }

    /// The tally of a path on which an authentic packet has arrived.
    fn tally(&mut self, path: &PathFace) -> &mut Tally {
        if self.exits.tally.is_some_and(|tally| tally.path != path.id) {
            self.flush_tally();
        }
        self.exits.tally.get_or_insert(Tally { path: path.id, packets: 0, bytes: 0, asymmetric: 0 })
    }

    /// Adds what has arrived to the path's counters.
    pub(super) fn flush_tally(&mut self) {
        let Some(tally) = self.exits.tally.take() else { return };
        let Some(path) = self.forwarding.path(tally.path) else { return };
        // `Moment::ZERO` stands for "never".
        let now = self.now.max(Moment::from_nanos(1));
        path.live.last_in.store(now.as_nanos(), Ordering::Relaxed);
        path.live.received(tally.packets, tally.bytes);
        self.counters.received(tally.packets, tally.bytes);
        if tally.asymmetric > 0 {
            path.live.asymmetric_in.fetch_add(tally.asymmetric, Ordering::Relaxed);
        }
    }
}
