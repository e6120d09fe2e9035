use std::sync::atomic::Ordering;

use super::road::Road;
use crate::esp::InboundSa;
use crate::forward::{PathFace, ToControl};
use crate::model::{DropReason, Leg, Spi};
use crate::packet::{Datagram, Echo, Ecn, PacketBuf, Parsed, clamp_mss, parse, set_ecn};

/// An IKE header (RFC 7296 3.1); anything shorter is none.
const IKE_HEADER: usize = 28;

/// In front of IKE messages on the NAT-traversal socket, where ESP has its SPI (RFC 3948 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// RFC 3948 2.3.
const NAT_KEEPALIVE: [u8; 1] = [0xff];

impl<'a> Road<'a> {
    /// The way of one datagram from the WAN to the site, or to control.
    pub fn inbound(&mut self, datagram: &mut Datagram) {
        if !datagram.leg.natt {
            return self.ike(datagram.leg, datagram.packet.bytes());
        }
        let bytes = datagram.packet.bytes();
        match bytes.split_first_chunk::<4>() {
            Some((&NON_ESP_MARKER, message)) => self.ike(datagram.leg, message),
            Some((&spi, _)) => self.esp(Spi(u32::from_be_bytes(spi)), datagram),
            None if bytes == NAT_KEEPALIVE => {}
            None => self.drops.count(DropReason::NotIpsec),
        }
    }

    fn ike(&mut self, leg: Leg, message: &[u8]) {
        if message.len() < IKE_HEADER {
            return self.drops.count(DropReason::NotIpsec);
        }
        self.tell(ToControl::Ike { leg, bytes: message.into(), at: self.now });
    }

    fn esp(&mut self, spi: Spi, datagram: &mut Datagram) {
        let Some(place) = self.forwarding.sas.inbound(spi) else { return self.drops.count(DropReason::UnknownSpi) };
        let place = place.load();
        // The place may hold a later SA than the one that the packet was sent on.
        let Some(sa) = place.as_ref().filter(|sa| sa.spi() == spi) else {
            return self.drops.count(DropReason::UnknownSpi);
        };
        if let Err(reason) = self.open(sa, datagram) {
            self.drops_in(sa.path()).count(reason);
        }
    }

    fn open(&mut self, sa: &InboundSa, datagram: &mut Datagram) -> Result<(), DropReason> {
        let opened = sa.open(&mut datagram.packet)?;
        if opened.first_use {
            self.tell_surely(ToControl::FirstUse { spi: sa.spi() });
        }
        let path = self.forwarding.path(sa.path()).ok_or(DropReason::NoPath)?;
        path.live.last_in.store(self.now.as_nanos(), Ordering::Relaxed);
        // One that others have overtaken says where the peer was, not where it is.
        if opened.newest {
            self.note_leg(sa, path, datagram.leg);
        }

        let parsed = self.check(sa, &mut datagram.packet)?;
        if self.forwarding.site.is_own(parsed.key.destination) {
            return self.for_us(path, &parsed, &datagram.packet);
        }
        self.check_route(path, &parsed)?;
        self.arrive(path, &parsed, datagram)
    }

    /// RFC 7296 2.23: the newest authenticated packet shows where the peer's NAT now is.
    fn note_leg(&mut self, sa: &InboundSa, path: &PathFace, leg: Leg) {
        let known = path.leg;
        let moved = (leg.underlay, leg.natt, leg.remote) != (known.underlay, known.natt, known.remote);
        if self.is_new_leg(path.id, moved.then_some(leg)) {
            self.tell_surely(ToControl::Rebind { spi: sa.spi(), path: path.id, leg });
        }
    }

    /// Exact length, and what RFC 4301 5.2 asks of every packet: the negotiated selectors.
    fn check(&self, sa: &InboundSa, packet: &mut PacketBuf) -> Result<Parsed, DropReason> {
        let parsed = parse(packet.bytes()).ok_or(DropReason::BadInner)?;
        // RFC 4303 2.7: what follows the packet is padding against traffic analysis.
        packet.truncate(parsed.total_len);
        if !sa.selectors().cover_inbound(&parsed.key) {
            return Err(DropReason::SelectorMismatch);
        }
        let site = &self.forwarding.site;
        if site.is_own(parsed.key.source) || site.is_native(parsed.key.source) {
            return Err(DropReason::SourceMismatch);
        }
        Ok(parsed)
    }

    /// The answer to a probe goes to control; an echo request is answered by the path that it
    /// came by. Our private addresses have no other use.
    fn for_us(&mut self, path: &'a PathFace, parsed: &Parsed, packet: &PacketBuf) -> Result<(), DropReason> {
        let echo = Echo::read(packet.bytes(), parsed).ok_or(DropReason::NotNative)?;
        if echo.request {
            if !self.exits.echo_replies.allows(self.now) {
                return Err(DropReason::QueueFull);
            }
            return self.with_scratch(|road, reply| {
                let written = echo.write_reply(parsed, reply);
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
        });
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

    fn arrive(&mut self, path: &PathFace, parsed: &Parsed, datagram: &mut Datagram) -> Result<(), DropReason> {
        let packet = &mut datagram.packet;
        let outer = Ecn::of_traffic_class(datagram.tos);
        let ecn = parsed.ecn.after_tunnel(outer).ok_or(DropReason::Congested)?;
        if ecn != parsed.ecn {
            set_ecn(packet.bytes_mut(), ecn);
        }
        self.learn(path, parsed);
        if parsed.syn {
            let connector = self.forwarding.connector(path.connector);
            let mtu = connector.map_or(path.mtu, |connector| self.smallest_mtu(connector, path));
            clamp_mss(packet.bytes_mut(), parsed, mtu);
        }
        path.live.received(1, parsed.total_len as u64);
        self.deliver(packet);
        Ok(())
    }

    /// Remembers where the flow arrives, and counts it when it leaves elsewhere.
    fn learn(&self, path: &PathFace, parsed: &Parsed) {
        let key = parsed.key.reversed();
        let leaves_by = if self.forwarding.site.answer_on_arrival {
            self.flows.arrive_to_answer(&key, path.id, self.now)
        } else {
            self.flows.arrive(&key, path.id, self.now)
        };
        if leaves_by.is_some_and(|leaves_by| leaves_by != path.id) {
            path.live.asymmetric_in.fetch_add(1, Ordering::Relaxed);
        }
    }
}
