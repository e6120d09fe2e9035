use std::time::Duration;

use jiff::Timestamp;

/// The time of day is said to have been set when it is off by more than this, in milliseconds: the
/// two clocks drift apart by seconds a day.
pub const CLOCK_STEP_MS: u64 = 1_000;

/// A moment that somebody asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// In milliseconds since the Unix epoch.
    Wall(u64),
    /// So long ago.
    Ago(Duration),
}

/// Units of spans, and their milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl When {
    /// `2026-11-22T14:03:05Z`, with any offset, or `-10m`.
    pub fn parse(text: &str) -> Result<When, String> {
        let wrong = || {
            "a time such as 2026-11-22T14:03:05Z or 2026-11-22T15:03:05+01:00, or a span back from now such as -90s, \
             -10m or -2h"
                .to_owned()
        };
        if let Some(span) = text.strip_prefix('-') {
            let digits = span.len() - span.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
            let (number, unit) = span.split_at_checked(digits).ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let (_, ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            return number.checked_mul(ms).map(|ms| When::Ago(Duration::from_millis(ms))).ok_or_else(wrong);
        }
        let stamp: Timestamp = text.parse().map_err(|_| wrong())?;
        u64::try_from(stamp.as_millisecond()).map(When::Wall).map_err(|_| wrong())
    }
}

/// Milliseconds since the Unix epoch, as `2026-11-22T14:03:05.123Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallTime(pub u64);

impl std::fmt::Display for WallTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stamp = i64::try_from(self.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        match stamp {
            Some(stamp) => write!(f, "{stamp:.3}"),
            // Beyond the year 9999: a damaged clock.
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// The time of day of a moment, by what the clock said then.
pub fn wall(at: crate::model::Moment, unix_ms_at_zero: u64) -> WallTime {
    WallTime(unix_ms_at_zero.saturating_add(at.as_nanos() / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_offset_and_a_span_with_its_unit() {
        assert_eq!(When::parse("1970-01-01T00:00:01.5Z"), Ok(When::Wall(1_500)));
        assert_eq!(When::parse("2026-11-22T15:03:05+01:00"), When::parse("2026-11-22T14:03:05Z"));
        assert_eq!(When::parse("-10m"), Ok(When::Ago(Duration::from_secs(600))));
        assert_eq!(When::parse("-250ms"), Ok(When::Ago(Duration::from_millis(250))));
        for wrong in ["", "-", "-m", "-10", "10m", "-10 m", "-99999999999999999999d", "yesterday", "2026-11-22", "-1é"]
        {
            assert!(When::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_told_to_the_millisecond() {
        assert_eq!(WallTime(1_795_413_540_007).to_string(), "2026-11-23T05:59:00.007Z");
        assert_eq!(WallTime(u64::MAX).to_string(), "18446744073709551615 ms");
    }
}
