//! Floor 1: bytes to values and back: IP, TCP, UDP and ICMP headers, checksums, buffers.

mod buffer;

pub use buffer::{Batch, Datagram, HEADROOM, PacketBuf, TAILROOM};
