//! Floor 1: bytes to values and back: IP, TCP, UDP and ICMP headers, checksums, buffers.

mod buffer;
mod checksum;
mod coalesce;
mod ecn;
mod fragment;
mod icmp;
mod ip;
mod mss;
mod offload;
mod probe;
mod segment;
mod transport;

pub use buffer::{Batch, HEADROOM, PacketBuf, TAILROOM, TRAIN_CAPACITY, Train};
pub use checksum::Checksum;
pub use coalesce::{Coalescer, Offered};
pub use ecn::Ecn;
pub use fragment::fragment;
pub use icmp::{Echo, Refusal, refuse};
pub use ip::{Fragment, IPV4_HEADER, IPV6_HEADER, Parsed, parse, set_dscp, set_ecn, write_header};
pub use mss::clamp_mss;
pub use offload::{ChecksumState, Offload, SegmentKind, Segments, SiteOffloads, SitePacket};
pub use probe::{Probe, ProbeKey};
pub use segment::{CutSoFar, Splitter, UNLIMITED, Unsplittable, complete_checksum};
pub use transport::{TcpSegment, udp_data, udp_packet};

#[cfg(test)]
mod tests;
