use std::fmt;

use serde::{Deserialize, Serialize};

/// Index of a WAN link in the plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkId(pub u16);

/// Index of a connector in the plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectorId(pub u16);

/// Index of a configured tunnel in the plan, over all connectors. A path is that tunnel as
/// steering sees it, so both share the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathId(pub u16);

/// Index of a rule in the compiled rule set, in file order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u32);

/// Number of a LAN interface that the site file or a rule names, from 1 on; 0 is any other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterfaceId(pub u8);

impl InterfaceId {
    pub const OTHER: InterfaceId = InterfaceId(0);

    /// The interface at this place of the plan's list.
    pub fn of_index(index: usize) -> Option<InterfaceId> {
        u8::try_from(index).ok()?.checked_add(1).map(InterfaceId)
    }

    /// Its place in the plan's list.
    pub fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// Number of a name, or names below one, that rules ask for, from 1 on; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameId(pub u16);

/// Index of a data-plane worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u16);

/// Index of the place in the SA table that holds the outbound SA of one Child SA of one path.
/// It stays the same over rekeys: a rekey puts a new SA into the old place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OutboundSlot(pub u16);

/// A Child SA's Security Parameter Index (RFC 4303 2.1). Ours carry the index of their place in
/// the inbound SA table in the upper 16 bits, so that finding an SA is an array access; the
/// lower 16 bits are random, so that a late packet of an earlier SA in that place is not taken
/// for one of the present SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// Slot 0 is never used: it keeps our SPIs clear of the reserved values 0 to 255.
    pub const fn of_slot(slot: u16, random: u16) -> Spi {
        Spi((slot as u32) << 16 | random as u32)
    }

    pub const fn slot(self) -> usize {
        (self.0 >> 16) as usize
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

/// The HA role of a group of tunnels: all tunnels of one role lead to one PoP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Primary,
    Secondary,
}

impl Role {
    pub const ALL: [Role; 2] = [Role::Primary, Role::Secondary];

    pub const fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Secondary => "secondary",
        }
    }

    pub const fn index(self) -> usize {
        match self {
            Role::Primary => 0,
            Role::Secondary => 1,
        }
    }

    pub const fn other(self) -> Role {
        match self {
            Role::Primary => Role::Secondary,
            Role::Secondary => Role::Primary,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
