use std::fmt;

use serde::{Deserialize, Serialize};

/// A bandwidth in megabits per second, at least 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mbps(u32);

impl Mbps {
    pub const fn new(value: u32) -> Option<Mbps> {
        if value > 0 { Some(Mbps(value)) } else { None }
    }

    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mbps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Mbps", self.0)
    }
}

/// A share in thousandths, 0 to 1,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Permille(u16);

impl Permille {
    pub const ZERO: Permille = Permille(0);
    pub const FULL: Permille = Permille(1000);

    pub const fn new(value: u16) -> Option<Permille> {
        if value <= 1000 { Some(Permille(value)) } else { None }
    }

    /// `part` of `whole`, rounded to the nearest thousandth; zero of nothing is zero.
    pub fn of(part: u64, whole: u64) -> Permille {
        if whole == 0 {
            return Permille::ZERO;
        }
        let rounded = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
        Permille(rounded.min(1000) as u16)
    }

    pub const fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Permille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} %", self.0 / 10, self.0 % 10)
    }
}

impl TryFrom<u32> for Mbps {
    type Error = &'static str;

    fn try_from(value: u32) -> Result<Mbps, &'static str> {
        Mbps::new(value).ok_or("a bandwidth is at least 1 Mbps")
    }
}

impl From<Mbps> for u32 {
    fn from(value: Mbps) -> u32 {
        value.value()
    }
}

impl TryFrom<u16> for Permille {
    type Error = &'static str;

    fn try_from(value: u16) -> Result<Permille, &'static str> {
        Permille::new(value).ok_or("a share is 0 to 1,000")
    }
}

impl From<Permille> for u16 {
    fn from(value: Permille) -> u16 {
        value.value()
    }
}
