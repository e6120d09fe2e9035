//! Floor 4: the packet road. `outbound` goes from site to WAN, `inbound` from WAN to site.

mod road_io;

pub use road_io::RoadIo;
