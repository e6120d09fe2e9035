use super::{PacketBuf, complete_checksum, parse};
use crate::model::WorkerId;

/// One slot towards or from the site device.
pub struct SitePacket {
    pub packet: PacketBuf,
    pub offload: Offload,
    /// The device's queue that it goes to: that of the worker which seals what answers it.
    pub queue: WorkerId,
}

impl SitePacket {
    /// An empty slot whose packet can grow to `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> SitePacket {
        SitePacket { packet: PacketBuf::with_capacity(capacity), offload: Offload::default(), queue: WorkerId(0) }
    }

    /// Puts the transport checksum into the packet where that was left to do. A place that is not
    /// in the packet stays as it is, for the receiver to refuse.
    pub fn complete_checksum(&mut self) {
        let ChecksumState::Partial { .. } = self.offload.checksum else { return };
        if let Some(parsed) = parse(self.packet.bytes())
            && complete_checksum(self.packet.bytes_mut(), &parsed, self.offload.checksum).is_ok()
        {
            self.offload.checksum = ChecksumState::Valid;
        }
    }
}

/// What is left to do on a packet that crosses the site device: the content of its virtio-net
/// header (virtio 1.3, 5.1.6), in our words. The default is a packet with nothing left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    pub checksum: ChecksumState,
    /// A super-packet: its data is to be cut into several packets.
    pub segments: Option<Segments>,
}

/// State of the transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumState {
    /// As it stands in the packet; nobody has checked it.
    #[default]
    Unknown,
    /// The field, `offset` bytes behind `start`, holds the pseudo-header's sum. The checksum of
    /// everything from `start` on is to be put there. Both count bytes, `start` from the packet's
    /// first.
    Partial { start: u16, offset: u16 },
    /// In the packet, and checked.
    Valid,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segments {
    pub kind: SegmentKind,
    /// Data bytes of each packet but the last, which may have fewer; above 0.
    pub size: u16,
}

/// How a super-packet is cut. Whether it is IPv4 or IPv6, its first byte says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    Tcp,
    /// As `Tcp`, with the CWR flag set. It belongs to the first segment alone (RFC 3168 6.1.2),
    /// which hardware must be told; splitting in software looks at the flag itself.
    TcpEcn,
    /// Datagrams of one size, each complete with its own header.
    Udp,
}

/// Super-packets that the site device takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteOffloads {
    pub tcp: bool,
    pub udp: bool,
}
