//! Floor 1: bytes to values and back: IP, TCP, UDP and ICMP headers, checksums, buffers.
