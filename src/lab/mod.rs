//! Floor 7: embedded PoPs, WAN emulation and hosts behind `trefoil demo`.
