//! Floor 4: the packet road. `outbound` goes from site to WAN, `inbound` from WAN to site.
