use std::net::IpAddr;

use super::segment::{TCP_CHECKSUM, TCP_HEADER, UDP_CHECKSUM, UDP_HEADER, flag, get, put};
use super::{
    Batch, Checksum, ChecksumState, Fragment, IPV4_HEADER, IPV6_HEADER, Offload, Parsed, SegmentKind, Segments,
    SitePacket,
};
use crate::model::{FlowKey, protocol};

/// Longest super-packet, headers included: what an IPv4 header can say.
const MAX_LEN: usize = 65_535;
/// Most datagrams in one: Linux takes no more (`UDP_MAX_SEGMENTS`, 64 before 6.9).
const MAX_DATAGRAMS: u16 = 64;

/// Places for open super-packets, by flow: four for each slot of a batch of 64, so that flows
/// seldom meet in one, and still few enough to be wiped for every batch.
const PLACES: usize = 256;
/// No slot.
const NONE: u16 = u16::MAX;

/// IPv4: DF (RFC 791 3.1).
const DONT_FRAGMENT: u8 = 0x40;
/// Ends a super-packet, and may only stand on its last segment.
const ENDS: u8 = flag::FIN | flag::PSH;
/// A segment with one of these is never merged: it opens or breaks a connection, points into the
/// data, or means something for itself alone (CWR).
const SOLITARY: u8 = flag::SYN | flag::RST | flag::URG | flag::CWR;

/// Joins packets of one flow that arrive one after the other into super-packets, so that the
/// host handles many at once. What it joins can be split again into the same packets, but for the
/// identification of IPv4 packets that must not be fragmented, which means nothing (RFC 6864 4.1).
/// The rules are those of Linux (`tcp_gro_receive`, `udp_gro_receive`), for which such
/// super-packets are made.
///
/// The packets of a flow stay in order. Those of different flows may change places.
pub struct Coalescer {
    allow_tcp: bool,
    allow_udp: bool,
    /// For each slot of the batch, the super-packet that grows in it.
    growing: Box<[Growing]>,
    /// The slot that was written last, which most often is the right one.
    last: u16,
    /// The open slot of a flow, at the place that its hash says. A flow that loses its place to
    /// another continues in a new slot.
    places: [u16; PLACES],
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Offered {
    /// It is in the batch.
    Taken,
    /// It needs a slot, and none is free: send the batch and offer it again.
    Full,
    /// It is longer than a slot.
    TooLong,
}

#[derive(Clone, Copy)]
struct Growing {
    open: bool,
    /// Is its first packet known to have the right checksums?
    verified: bool,
    flow: u64,
    shape: Shape,
    /// Data bytes of the first segment, and so of all but the last.
    size: u16,
    segments: u16,
    /// Sequence number that comes next, of TCP.
    sequence: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: Kind,
    is_ipv4: bool,
    transport: usize,
    /// Length of all headers.
    headers: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
}

/// A packet that could be in a super-packet.
struct Candidate<'a> {
    packet: &'a [u8],
    shape: Shape,
    /// Flags and sequence number of TCP; 0 in UDP.
    flags: u8,
    sequence: u32,
}

impl Coalescer {
    /// For batches of `slots` slots. TCP or UDP is left alone when the host does not take
    /// super-packets of it.
    pub fn new(slots: usize, allow_tcp: bool, allow_udp: bool) -> Coalescer {
        let slots = slots.min(usize::from(NONE));
        Coalescer {
            allow_tcp,
            allow_udp,
            growing: vec![Growing::CLOSED; slots].into_boxed_slice(),
            last: NONE,
            places: [NONE; PLACES],
        }
    }

    /// Changes what may be joined, for a host that turns out to refuse it.
    pub fn allow(&mut self, tcp: bool, udp: bool) {
        self.allow_tcp = tcp;
        self.allow_udp = udp;
    }

    /// Puts a packet into `batch`, behind those of its flow. `parsed` is what `parse` made of
    /// `packet`. Call `finish` before the batch is sent.
    pub fn offer(&mut self, packet: &[u8], parsed: &Parsed, batch: &mut Batch<SitePacket>) -> Offered {
        let packet = packet.get(..parsed.total_len).unwrap_or(packet);
        let kind = match parsed.key.protocol {
            protocol::TCP if self.allow_tcp => Kind::Tcp,
            protocol::UDP if self.allow_udp => Kind::Udp,
            _ => return self.add(batch, packet).0,
        };
        if parsed.fragment != Fragment::Whole {
            // Later fragments do not say their flow, so that none may be overtaken.
            self.close_all();
            return self.add(batch, packet).0;
        }
        let flow = hash(&parsed.key);
        let slot = self.find(flow, packet, parsed, batch);
        let Some(candidate) = Candidate::read(packet, parsed, kind) else {
            self.close(slot);
            return self.add(batch, packet).0;
        };
        if let Some(slot) = slot {
            match self.join(slot, &candidate, batch) {
                Joined::Yes => {
                    self.last = slot;
                    return Offered::Taken;
                }
                Joined::No => self.close(Some(slot)),
                Joined::Corrupt => {
                    self.close(Some(slot));
                    return self.add(batch, packet).0;
                }
            }
        }
        self.open(flow, &candidate, batch)
    }

    /// Ends all super-packets and writes their headers. The batch can be sent then.
    pub fn finish(&mut self, batch: &mut Batch<SitePacket>) {
        let filled = batch.filled_mut();
        for (growing, slot) in self.growing.iter_mut().zip(filled) {
            if growing.segments > 1 {
                growing.complete(slot);
            }
            *growing = Growing::CLOSED;
        }
        self.close_all();
    }

    /// The open super-packet of the flow.
    fn find(&self, flow: u64, packet: &[u8], parsed: &Parsed, batch: &Batch<SitePacket>) -> Option<u16> {
        let in_place = *self.places.get(place(flow))?;
        [self.last, in_place].into_iter().find(|slot| {
            let index = usize::from(*slot);
            let Some(growing) = self.growing.get(index).filter(|growing| growing.open && growing.flow == flow) else {
                return false;
            };
            let Some(head) = batch.filled().get(index) else { return false };
            growing.shape.is_ipv4 == parsed.is_ipv4()
                && is_same_flow(head.packet.bytes(), packet, growing.shape.transport, parsed)
        })
    }

    fn join(&mut self, slot: u16, candidate: &Candidate, batch: &mut Batch<SitePacket>) -> Joined {
        let index = usize::from(slot);
        let (Some(growing), Some(place)) = (self.growing.get_mut(index), batch.filled_mut().get_mut(index)) else {
            return Joined::No;
        };
        growing.join(candidate, place)
    }

    fn open(&mut self, flow: u64, candidate: &Candidate, batch: &mut Batch<SitePacket>) -> Offered {
        let (offered, index) = self.add(batch, candidate.packet);
        let Some(growing) = self.growing.get_mut(index).filter(|_| offered == Offered::Taken) else {
            return offered;
        };
        let data = candidate.data_len();
        *growing = Growing {
            open: candidate.flags & ENDS == 0,
            verified: false,
            flow,
            shape: candidate.shape,
            // Below 65,536: the data of one packet.
            size: data as u16,
            segments: 1,
            sequence: candidate.sequence.wrapping_add(data as u32),
        };
        // Below NONE: there are no more slots in `growing`.
        self.last = index as u16;
        if let Some(place) = self.places.get_mut(place(flow)) {
            *place = index as u16;
        }
        offered
    }

    /// Fills the next slot, and returns its index.
    fn add(&mut self, batch: &mut Batch<SitePacket>, packet: &[u8]) -> (Offered, usize) {
        let index = batch.filled().len();
        let Some(slot) = batch.next_free() else { return (Offered::Full, index) };
        if !slot.packet.fill(packet) {
            return (Offered::TooLong, index);
        }
        slot.offload = Offload::default();
        batch.claim(1);
        if let Some(growing) = self.growing.get_mut(index) {
            *growing = Growing::CLOSED;
        }
        (Offered::Taken, index)
    }

    fn close(&mut self, slot: Option<u16>) {
        if let Some(growing) = slot.and_then(|slot| self.growing.get_mut(usize::from(slot))) {
            growing.open = false;
        }
    }

    fn close_all(&mut self) {
        self.last = NONE;
        self.places = [NONE; PLACES];
    }
}

enum Joined {
    Yes,
    /// It does not continue this super-packet. It may begin another.
    No,
    /// Its checksum is wrong. It passes as it is, so that the host finds the same.
    Corrupt,
}

impl Growing {
    const CLOSED: Growing = Growing {
        open: false,
        verified: false,
        flow: 0,
        shape: Shape { kind: Kind::Udp, is_ipv4: false, transport: 0, headers: 0 },
        size: 0,
        segments: 0,
        sequence: 0,
    };

    fn join(&mut self, candidate: &Candidate, slot: &mut SitePacket) -> Joined {
        let data_len = candidate.data_len();
        let head = slot.packet.bytes();
        let fits = data_len <= usize::from(self.size)
            && head.len() + data_len <= MAX_LEN
            && (self.shape.kind == Kind::Tcp || self.segments < MAX_DATAGRAMS);
        if !fits || candidate.shape != self.shape || !self.continues(head, candidate).unwrap_or(false) {
            return Joined::No;
        }
        if !self.verified && !self.shape.is_intact(head) {
            return Joined::No;
        }
        self.verified = true;
        if !self.shape.is_intact(candidate.packet) {
            return Joined::Corrupt;
        }
        let Some(data) = candidate.packet.get(self.shape.headers..) else { return Joined::No };
        let Some(room) = slot.packet.append(data_len) else { return Joined::No };
        room.copy_from_slice(data);
        self.segments += 1;
        self.sequence = self.sequence.wrapping_add(data_len as u32);
        self.open = data_len == usize::from(self.size) && candidate.flags & ENDS == 0;
        if self.shape.kind == Kind::Tcp
            && let Some(flags) = slot.packet.bytes_mut().get_mut(self.shape.transport + 13)
        {
            *flags |= candidate.flags & ENDS;
        }
        Joined::Yes
    }

    /// Do the headers differ only as those of consecutive segments do?
    fn continues(&self, head: &[u8], candidate: &Candidate) -> Option<bool> {
        let next = candidate.packet;
        let same_ip = if self.shape.is_ipv4 {
            let (head, next) = (head.first_chunk::<IPV4_HEADER>()?, next.first_chunk::<IPV4_HEADER>()?);
            // RFC 6864 4.1: the identification of a packet that is never cut is to be ignored.
            let id = || u16::from_be_bytes([next[4], next[5]]).wrapping_sub(u16::from_be_bytes([head[4], head[5]]));
            head[..2] == next[..2]
                && head[6..10] == next[6..10]
                && head[12..] == next[12..]
                && (head[6] & DONT_FRAGMENT != 0 || id() == self.segments)
        } else {
            let (head, next) = (head.first_chunk::<IPV6_HEADER>()?, next.first_chunk::<IPV6_HEADER>()?);
            head[..4] == next[..4] && head[6..] == next[6..]
        };
        let range = self.shape.transport..self.shape.headers;
        let (head, next) = (head.get(range.clone())?, next.get(range)?);
        let same_transport = match self.shape.kind {
            // Ports; the length has been compared as that of the data.
            Kind::Udp => head.first_chunk::<4>()? == next.first_chunk::<4>()?,
            Kind::Tcp => {
                let (head, head_options) = head.split_first_chunk::<TCP_HEADER>()?;
                let (next, next_options) = next.split_first_chunk::<TCP_HEADER>()?;
                // Ports, acknowledgement, header length, window, urgent pointer.
                candidate.sequence == self.sequence
                    && head[..4] == next[..4]
                    && head[8..13] == next[8..13]
                    && (head[13] ^ next[13]) & !ENDS == 0
                    && head[14..16] == next[14..16]
                    && head[18..] == next[18..]
                    && head_options == next_options
            }
        };
        Some(same_ip && same_transport)
    }

    /// Makes one packet of what has been appended.
    fn complete(&self, slot: &mut SitePacket) {
        let Shape { kind, is_ipv4, transport, .. } = self.shape;
        let packet = slot.packet.bytes_mut();
        // At most MAX_LEN.
        let total = packet.len() as u16;
        let Some(length) = total.checked_sub(transport as u16) else { return };
        let (kind, offset) = match kind {
            Kind::Tcp => (SegmentKind::Tcp, TCP_CHECKSUM),
            Kind::Udp => (SegmentKind::Udp, UDP_CHECKSUM),
        };
        let pseudo = pseudo_header(packet, self.shape).with_word(length).sum();
        put(packet, transport + offset, pseudo);
        if kind == SegmentKind::Udp {
            put(packet, transport + 4, length);
        }
        if is_ipv4 {
            put(packet, 2, total);
            put(packet, 10, 0);
            let checksum = Checksum::new().with(packet.get(..transport).unwrap_or_default()).finish();
            put(packet, 10, checksum);
        } else {
            // No extension headers: what follows the IPv6 header is the transport.
            put(packet, 4, length);
        }
        slot.offload = Offload {
            checksum: ChecksumState::Partial { start: transport as u16, offset: offset as u16 },
            segments: Some(Segments { kind, size: self.size }),
        };
    }
}

impl Shape {
    /// Are all checksums of the packet right?
    fn is_intact(self, packet: &[u8]) -> bool {
        let Some((header, transport)) = packet.split_at_checked(self.transport) else { return false };
        (!self.is_ipv4 || Checksum::new().with(header).finish() == 0)
            && pseudo_header(packet, self).with_word(transport.len() as u16).with(transport).finish() == 0
    }
}

impl<'a> Candidate<'a> {
    /// `None`: the packet always passes alone.
    fn read(packet: &'a [u8], parsed: &Parsed, kind: Kind) -> Option<Candidate<'a>> {
        let is_ipv4 = parsed.is_ipv4();
        // Neither IP options nor extension headers.
        if parsed.transport != if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER } {
            return None;
        }
        let segment = packet.get(parsed.transport..)?;
        let (header_len, flags, sequence) = match kind {
            Kind::Tcp => {
                let header = segment.first_chunk::<TCP_HEADER>()?;
                let header_len = usize::from(header[12] >> 4) * 4;
                if header_len < TCP_HEADER || header[13] & SOLITARY != 0 {
                    return None;
                }
                (header_len, header[13], u32::from_be_bytes([header[4], header[5], header[6], header[7]]))
            }
            Kind::Udp => {
                // A datagram without a checksum cannot be verified, and what a length says that
                // differs from the packet's own would be lost.
                let sound = usize::from(get(segment, 4)?) == segment.len() && get(segment, UDP_CHECKSUM)? != 0;
                sound.then_some((UDP_HEADER, 0, 0))?
            }
        };
        let headers = parsed.transport + header_len;
        // A segment without data is an acknowledgement, which counts for itself.
        let shape = Shape { kind, is_ipv4, transport: parsed.transport, headers };
        (packet.len() > headers).then_some(Candidate { packet, shape, flags, sequence })
    }

    fn data_len(&self) -> usize {
        self.packet.len().saturating_sub(self.shape.headers)
    }
}

/// The pseudo-header's sum, without the length.
fn pseudo_header(packet: &[u8], shape: Shape) -> Checksum {
    let addresses = packet.get(if shape.is_ipv4 { 12..IPV4_HEADER } else { 8..IPV6_HEADER });
    let protocol = match shape.kind {
        Kind::Tcp => protocol::TCP,
        Kind::Udp => protocol::UDP,
    };
    Checksum::new().with(addresses.unwrap_or_default()).with_word(u16::from(protocol))
}

/// Have both packets the same protocol, addresses and ports? They are of one IP version, and the
/// first has neither options nor extension headers.
fn is_same_flow(head: &[u8], packet: &[u8], transport: usize, parsed: &Parsed) -> bool {
    let (protocol, addresses) = if parsed.is_ipv4() { (9, 12..IPV4_HEADER) } else { (6, 8..IPV6_HEADER) };
    let ports = |bytes: &[u8], at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<4>().copied());
    head.get(protocol) == Some(&parsed.key.protocol)
        && head.get(addresses.clone()) == packet.get(addresses)
        && ports(head, transport) == ports(packet, parsed.transport)
}

fn place(flow: u64) -> usize {
    // The upper bits are the best mixed; the remainder is below PLACES.
    (flow >> 40) as usize % PLACES
}

/// Spreads flows over places. Who finds two that meet makes them slower and nothing else.
fn hash(key: &FlowKey) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(ODD).rotate_left(29);
    let address = |sum: u64, address: IpAddr| match address {
        IpAddr::V4(address) => mix(sum, u64::from(u32::from(address))),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            mix(mix(sum, bits as u64), (bits >> 64) as u64)
        }
    };
    let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
    let sum = mix(u64::from(key.protocol), ports);
    address(address(sum, key.source), key.destination).wrapping_mul(ODD)
}
