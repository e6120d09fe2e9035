use std::fmt;

use serde::{Deserialize, Serialize};

/// A minute of the week, 0 to 10,079, from Monday 00:00 in the site's time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct WeekMinute(u16);

impl WeekMinute {
    pub const PER_DAY: u16 = 24 * 60;
    pub const PER_WEEK: u16 = 7 * WeekMinute::PER_DAY;
    pub const LAST: WeekMinute = WeekMinute(WeekMinute::PER_WEEK - 1);
    pub const DAYS: [&'static str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

    pub const fn new(value: u16) -> Option<WeekMinute> {
        if value < WeekMinute::PER_WEEK { Some(WeekMinute(value)) } else { None }
    }

    pub const fn value(self) -> u16 {
        self.0
    }

    /// At this time of the Unix epoch, where the local time is so many minutes ahead of UTC.
    pub const fn at(unix_ms: u64, utc_offset_minutes: i16) -> WeekMinute {
        let minutes = (unix_ms / 60_000) as i64 + utc_offset_minutes as i64;
        // The epoch began on a Thursday.
        let since_monday = minutes + 3 * WeekMinute::PER_DAY as i64;
        WeekMinute(since_monday.rem_euclid(WeekMinute::PER_WEEK as i64) as u16)
    }
}

/// `Mon 08:00`
impl fmt::Display for WeekMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = WeekMinute::DAYS.get(usize::from(self.0 / WeekMinute::PER_DAY)).copied().unwrap_or("?");
        let minute = self.0 % WeekMinute::PER_DAY;
        write!(f, "{day} {:02}:{:02}", minute / 60, minute % 60)
    }
}

impl TryFrom<u16> for WeekMinute {
    type Error = &'static str;

    fn try_from(value: u16) -> Result<WeekMinute, &'static str> {
        WeekMinute::new(value).ok_or("a minute of the week is 0 to 10,079")
    }
}

impl From<WeekMinute> for u16 {
    fn from(value: WeekMinute) -> u16 {
        value.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_week_begins_on_monday_in_the_site_s_time() {
        assert_eq!(WeekMinute::at(0, 0).to_string(), "Thu 00:00");
        // 2026-11-23 05:59:00 UTC was a Monday.
        let monday = 1_795_413_540_000;
        assert_eq!(WeekMinute::at(monday, 0).to_string(), "Mon 05:59");
        assert_eq!(WeekMinute::at(monday, -6 * 60).to_string(), "Sun 23:59");
        assert_eq!(WeekMinute::at(monday, 5 * 60 + 30).to_string(), "Mon 11:29");
        assert_eq!(WeekMinute::at(0, -12 * 60).to_string(), "Wed 12:00");
    }
}
