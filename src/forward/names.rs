use std::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::model::Moment;
use crate::steer::KnownNames;

/// What is known of names of addresses: the patterns of rules that they match.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    by_address: HashMap<IpAddr, Learned, RandomState>,
    /// Another one after something was learned: flows that have just begun look again.
    pub epoch: u32,
}

/// Of one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Learned {
    pub names: KnownNames,
    /// When the latest of them came.
    pub since: Moment,
}

impl NameTable {
    pub fn new(learned: impl Iterator<Item = (IpAddr, Learned)>, epoch: u32) -> NameTable {
        NameTable { by_address: learned.collect(), epoch }
    }

    pub fn get(&self, address: IpAddr) -> Option<&Learned> {
        self.by_address.get(&address)
    }

    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}
