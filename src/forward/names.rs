use std::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::steer::KnownNames;

/// What is known of names of addresses: the patterns of rules that they match.
pub type NameTable = HashMap<IpAddr, KnownNames, RandomState>;
