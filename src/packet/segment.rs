use super::{Checksum, ChecksumState, Fragment, Offload, Parsed, SegmentKind, Segments};
use crate::model::protocol;

/// Lengths of the fixed TCP header and of the UDP header.
pub(super) const TCP_HEADER: usize = 20;
pub(super) const UDP_HEADER: usize = 8;
/// Where the checksum stands in either.
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const UDP_CHECKSUM: usize = 6;

/// Bits of the flags byte of a TCP header (RFC 9293 3.1), which is its 14th.
pub(super) mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const URG: u8 = 0x20;
    pub const CWR: u8 = 0x80;
}

/// Cuts a super-packet into packets that fit a path and gives each its own lengths, sequence
/// number and checksums, as Linux does for a device that cannot (`tcp_gso_segment`,
/// `__udp_gso_segment`). A packet that is none is its own only segment, whose checksum is
/// completed where that was left to do.
pub struct Splitter<'a> {
    /// In front of every segment; empty when the packet stays whole.
    headers: &'a [u8],
    /// What no segment has taken yet.
    data: &'a [u8],
    /// Data bytes of every segment but the last, above 0.
    size: usize,
    /// Segments that are left.
    left: usize,
    /// Segments that are written, for the IPv4 identification.
    written: u16,
    /// Data bytes in them, for the sequence number.
    passed: u32,
    transport: usize,
    cut: Cut,
}

/// How far a super-packet has been cut: the rest may be cut later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CutSoFar {
    written: u16,
    passed: u32,
}

impl CutSoFar {
    /// Not yet.
    pub const START: CutSoFar = CutSoFar { written: 0, passed: 0 };
}

/// Why a packet cannot be cut, or its checksum not be completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsplittable {
    /// A datagram, or a packet that is no super-packet, exceeds the path's MTU. Answer with
    /// `Refusal::TooBig`, or, when it may be fragmented, do that with what a splitter for an
    /// unlimited MTU gives.
    TooBig,
    /// A fragment cannot have a checksum completed or be cut as TCP or UDP.
    Fragment,
    /// The packet is of another protocol than the segmentation that it asks for.
    WrongKind,
    /// A segment size of 0.
    NoSize,
    /// The transport header is cut off, or says a length that cannot be.
    Header,
    /// The place of the checksum is not in the packet, or not the protocol's own.
    ChecksumPlace,
    /// A super-packet whose unchecked checksum is wrong: cutting it would make it right.
    WrongChecksum,
    /// SYN and RST cannot be in several segments.
    Flags,
}

#[derive(Clone, Copy)]
enum Cut {
    Whole(Option<ChecksumPlace>),
    Tcp {
        pseudo: Checksum,
        sequence: u32,
        urgent: u16,
    },
    Udp {
        /// `None`: the datagrams have no checksum.
        pseudo: Option<Checksum>,
    },
}

/// A checksum to complete: all from `start` on, to be put at `field`.
#[derive(Clone, Copy)]
struct ChecksumPlace {
    start: usize,
    field: usize,
}

/// An MTU that every packet from the site device fits.
pub const UNLIMITED: u16 = u16::MAX;

impl<'a> Splitter<'a> {
    /// `parsed` is what `parse` made of `packet`; what follows the packet in `packet` is left
    /// out. No segment will be longer than `mtu` bytes.
    pub fn new(packet: &'a [u8], parsed: &Parsed, offload: &Offload, mtu: u16) -> Result<Splitter<'a>, Unsplittable> {
        let mtu = usize::from(mtu);
        let packet = packet.get(..parsed.total_len).ok_or(Unsplittable::Header)?;
        match offload.segments {
            None => Splitter::whole(packet, parsed, offload.checksum, mtu),
            Some(Segments { size: 0, .. }) => Err(Unsplittable::NoSize),
            Some(_) if parsed.fragment != Fragment::Whole => Err(Unsplittable::Fragment),
            Some(Segments { kind: SegmentKind::Tcp | SegmentKind::TcpEcn, size }) => {
                Splitter::tcp(packet, parsed, offload.checksum, usize::from(size), mtu)
            }
            Some(Segments { kind: SegmentKind::Udp, size }) => {
                Splitter::udp(packet, parsed, offload.checksum, usize::from(size), mtu)
            }
        }
    }

    /// Segments that are still to be written.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Length of the next segment; `None` after the last.
    pub fn next_len(&self) -> Option<usize> {
        (self.left > 0).then(|| self.headers.len() + self.data.len().min(self.size))
    }

    /// Writes the next segment to the front of `out` and returns its length. `None` after the
    /// last, and when it does not fit.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let length = self.next_len()?;
        let out = out.get_mut(..length)?;
        let (data, later) = self.data.split_at_checked(length - self.headers.len())?;
        let (head, body) = out.split_at_mut_checked(self.headers.len())?;
        head.copy_from_slice(self.headers);
        body.copy_from_slice(data);
        self.finish(out)?;
        self.data = later;
        self.left -= 1;
        self.written = self.written.wrapping_add(1);
        // Below 65,536: the data of one packet.
        self.passed += data.len() as u32;
        Some(length)
    }

    /// Leaves the next segment out, as if it had been written; its length.
    pub fn skip(&mut self) -> Option<usize> {
        let length = self.next_len()?;
        let data = length.checked_sub(self.headers.len())?;
        self.data = self.data.get(data..)?;
        self.left -= 1;
        self.written = self.written.wrapping_add(1);
        self.passed += data as u32;
        Some(length)
    }

    pub fn so_far(&self) -> CutSoFar {
        CutSoFar { written: self.written, passed: self.passed }
    }

    /// Bytes of data that are in no segment yet.
    pub fn data_left(&self) -> usize {
        if self.left > 0 { self.data.len() } else { 0 }
    }

    /// Goes on where another splitter of the same packet was, whose segments may have been of another size.
    pub fn resume(mut self, so_far: CutSoFar) -> Splitter<'a> {
        if so_far.passed > 0 {
            self.data = self.data.get(so_far.passed as usize..).unwrap_or_default();
            self.left = self.data.len().div_ceil(self.size.max(1));
            (self.written, self.passed) = (so_far.written, so_far.passed);
        }
        self
    }

    fn whole(
        packet: &'a [u8],
        parsed: &Parsed,
        state: ChecksumState,
        mtu: usize,
    ) -> Result<Splitter<'a>, Unsplittable> {
        if packet.len() > mtu {
            return Err(Unsplittable::TooBig);
        }
        let place = ChecksumPlace::find(packet, parsed, state)?;
        let transport = parsed.transport;
        Ok(Splitter {
            headers: &[],
            data: packet,
            size: packet.len(),
            left: 1,
            written: 0,
            passed: 0,
            transport,
            cut: Cut::Whole(place),
        })
    }

    fn tcp(
        packet: &'a [u8],
        parsed: &Parsed,
        state: ChecksumState,
        size: usize,
        mtu: usize,
    ) -> Result<Splitter<'a>, Unsplittable> {
        if parsed.key.protocol != protocol::TCP {
            return Err(Unsplittable::WrongKind);
        }
        let segment = packet.get(parsed.transport..).ok_or(Unsplittable::Header)?;
        let header = segment.first_chunk::<TCP_HEADER>().ok_or(Unsplittable::Header)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < TCP_HEADER || header_len > segment.len() {
            return Err(Unsplittable::Header);
        }
        let room = mtu.saturating_sub(parsed.transport + header_len);
        let field = u16::from_be_bytes([header[16], header[17]]);
        let pseudo = pseudo_header(segment, parsed, state, TCP_CHECKSUM, field)?;
        let cut = Cut::Tcp {
            pseudo,
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            urgent: u16::from_be_bytes([header[18], header[19]]),
        };
        let splitter = Splitter::of_segments(packet, parsed, header_len, size.min(room), cut)?;
        if splitter.left > 1 && header[13] & (flag::SYN | flag::RST) != 0 {
            return Err(Unsplittable::Flags);
        }
        Ok(splitter)
    }

    /// A datagram is what one `send` of the application gave: its size is never changed.
    fn udp(
        packet: &'a [u8],
        parsed: &Parsed,
        state: ChecksumState,
        size: usize,
        mtu: usize,
    ) -> Result<Splitter<'a>, Unsplittable> {
        if parsed.key.protocol != protocol::UDP {
            return Err(Unsplittable::WrongKind);
        }
        let datagrams = packet.get(parsed.transport..).ok_or(Unsplittable::Header)?;
        let header = datagrams.first_chunk::<UDP_HEADER>().ok_or(Unsplittable::Header)?;
        let field = u16::from_be_bytes([header[6], header[7]]);
        // RFC 768: a checksum of 0 is none.
        let absent = field == 0 && !matches!(state, ChecksumState::Partial { .. });
        let pseudo = if absent { None } else { Some(pseudo_header(datagrams, parsed, state, UDP_CHECKSUM, field)?) };
        let splitter = Splitter::of_segments(packet, parsed, UDP_HEADER, size, Cut::Udp { pseudo })?;
        if splitter.next_len().is_some_and(|length| length > mtu) {
            return Err(Unsplittable::TooBig);
        }
        Ok(splitter)
    }

    fn of_segments(
        packet: &'a [u8],
        parsed: &Parsed,
        header_len: usize,
        size: usize,
        cut: Cut,
    ) -> Result<Splitter<'a>, Unsplittable> {
        if size == 0 {
            return Err(Unsplittable::TooBig);
        }
        let transport = parsed.transport;
        let (headers, data) = packet.split_at_checked(transport + header_len).ok_or(Unsplittable::Header)?;
        let left = data.len().div_ceil(size).max(1);
        Ok(Splitter { headers, data, size, left, written: 0, passed: 0, transport, cut })
    }

    /// Corrects the headers of a copied segment. `None` cannot happen after `new` has looked at
    /// them.
    fn finish(&self, segment: &mut [u8]) -> Option<()> {
        match self.cut {
            Cut::Whole(None) => Some(()),
            Cut::Whole(Some(place)) => place.complete(segment),
            Cut::Tcp { pseudo, sequence, urgent } => {
                self.finish_ip(segment)?;
                let is_last = self.left == 1;
                let tcp = segment.get_mut(self.transport..)?;
                self.finish_tcp_header(tcp, sequence, urgent, is_last)?;
                let checksum = pseudo.with_word(tcp.len() as u16).with(tcp).finish();
                put(tcp, TCP_CHECKSUM, checksum)
            }
            Cut::Udp { pseudo } => {
                self.finish_ip(segment)?;
                let udp = segment.get_mut(self.transport..)?;
                let length = udp.len() as u16;
                put(udp, 4, length)?;
                put(udp, UDP_CHECKSUM, 0)?;
                let Some(pseudo) = pseudo else { return Some(()) };
                let checksum = pseudo.with_word(length).with(udp).finish();
                put(udp, UDP_CHECKSUM, not_absent(checksum))
            }
        }
    }

    fn finish_ip(&self, segment: &mut [u8]) -> Option<()> {
        let length = segment.len();
        let header = segment.get_mut(..self.transport)?;
        if *header.first()? >> 4 == 6 {
            return put(header, 4, length.checked_sub(super::IPV6_HEADER)? as u16);
        }
        put(header, 2, length as u16)?;
        let id = get(header, 4)?.wrapping_add(self.written);
        put(header, 4, id)?;
        put(header, 10, 0)?;
        let checksum = Checksum::new().with(header).finish();
        put(header, 10, checksum)
    }

    fn finish_tcp_header(&self, tcp: &mut [u8], sequence: u32, urgent: u16, is_last: bool) -> Option<()> {
        tcp.get_mut(4..8)?.copy_from_slice(&sequence.wrapping_add(self.passed).to_be_bytes());
        put(tcp, TCP_CHECKSUM, 0)?;
        let flags = tcp.get_mut(13)?;
        if !is_last {
            // What ends the data, or asks to hand it over, is true of its last segment.
            *flags &= !(flag::FIN | flag::PSH);
        }
        if self.passed == 0 {
            return Some(());
        }
        // RFC 3168 6.1.2: CWR tells of one reduction, with the first new data.
        *flags &= !flag::CWR;
        if *flags & flag::URG != 0 {
            // The urgent pointer counts from the segment's own sequence number (RFC 9293 3.1).
            let pointer = u32::from(urgent).saturating_sub(self.passed);
            if pointer == 0 {
                *flags &= !flag::URG;
            }
            put(tcp, 18, pointer as u16)?;
        }
        Some(())
    }
}

/// Completes the checksum of a packet that is no super-packet, in place.
pub fn complete_checksum(packet: &mut [u8], parsed: &Parsed, state: ChecksumState) -> Result<(), Unsplittable> {
    let packet = packet.get_mut(..parsed.total_len).ok_or(Unsplittable::Header)?;
    match ChecksumPlace::find(packet, parsed, state)? {
        Some(place) => place.complete(packet).ok_or(Unsplittable::ChecksumPlace),
        None => Ok(()),
    }
}

impl ChecksumPlace {
    /// `None`: nothing is left to do. The sum may begin behind the packet's own transport header
    /// when that carries another packet.
    fn find(packet: &[u8], parsed: &Parsed, state: ChecksumState) -> Result<Option<ChecksumPlace>, Unsplittable> {
        let (start, offset) = match state {
            ChecksumState::Unknown | ChecksumState::Valid => return Ok(None),
            ChecksumState::Partial { start, offset } => (usize::from(start), usize::from(offset)),
        };
        if parsed.fragment != Fragment::Whole {
            return Err(Unsplittable::Fragment);
        }
        let field = start + offset;
        if start < parsed.transport || field + 2 > packet.len() {
            return Err(Unsplittable::ChecksumPlace);
        }
        Ok(Some(ChecksumPlace { start, field }))
    }

    fn complete(self, packet: &mut [u8]) -> Option<()> {
        let checksum = Checksum::new().with(packet.get(self.start..)?).finish();
        // 0 would mean "none" in UDP and is the same number as 0xffff elsewhere.
        put(packet, self.field, not_absent(checksum))
    }
}

/// The sum of the pseudo-header of a super-packet's segments, without their length.
fn pseudo_header(
    transport: &[u8],
    parsed: &Parsed,
    state: ChecksumState,
    offset: usize,
    field: u16,
) -> Result<Checksum, Unsplittable> {
    let key = &parsed.key;
    let without_length = || Checksum::new().with_pseudo_header(key.source, key.destination, key.protocol, 0);
    // A packet has at most 65,535 bytes.
    let length = transport.len() as u16;
    match state {
        ChecksumState::Partial { start, offset: given } => {
            if usize::from(start) != parsed.transport || usize::from(given) != offset {
                return Err(Unsplittable::ChecksumPlace);
            }
            // The field rather than the addresses: with an IPv6 routing header, the destination
            // that counts is not the one in the header (RFC 8200 8.1).
            Ok(Checksum::new().with_word(field).without_word(length))
        }
        ChecksumState::Valid => Ok(without_length()),
        ChecksumState::Unknown => match without_length().with_word(length).with(transport).finish() {
            0 => Ok(without_length()),
            _ => Err(Unsplittable::WrongChecksum),
        },
    }
}

/// RFC 768: a UDP checksum that comes out as 0 is sent as all ones.
pub(super) const fn not_absent(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

pub(super) fn get(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|word| u16::from_be_bytes(*word))
}

pub(super) fn put(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut::<2>()? = word.to_be_bytes();
    Some(())
}
