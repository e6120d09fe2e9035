//! Floor 5: the operating system: TUN, UDP, DNS, routes, clock.
