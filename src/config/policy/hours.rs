//! `"Mon-Fri 08:00-18:00"`: hours of the week in the site's time.

use crate::config::wording::{Complaint, complain, quoted};
use crate::model::WeekMinute;

const EXAMPLE: &str = "such as \"Mon-Fri 08:00-18:00\", \"Sat,Sun\" or \"22:00-06:00\"";
const DAY: u16 = WeekMinute::PER_DAY;

/// Days, times, or both: the ranges of minutes, both ends included. Hours that end before they begin
/// end on the next day.
pub fn hours(text: &str) -> Result<Vec<(WeekMinute, WeekMinute)>, Complaint> {
    let wrong = || complain(format!("{} is not a time", quoted(text)), EXAMPLE);
    let mut parts = text.split_whitespace();
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return wrong();
    }
    let parsed = match second {
        Some(times_of_day) => days(first).zip(times(times_of_day)),
        None if first.contains(':') => Some(vec![true; 7]).zip(times(first)),
        None => days(first).zip(Some((0, DAY))),
    };
    let Some((days, (from, until))) = parsed else { return wrong() };
    let length = if until > from { until - from } else { until + DAY - from };
    let chosen = (0u16..7).zip(days).filter(|(_, chosen)| *chosen);
    let ranges = chosen.flat_map(|(day, _)| week_ranges(day * DAY + from, length));
    Ok(ranges.collect())
}

/// `+05:30` or `-08:00`, in minutes ahead of UTC.
pub fn utc_offset(text: &str) -> Result<i16, Complaint> {
    let sign = match text.chars().next() {
        Some('+') => Some(1),
        Some('-') => Some(-1),
        _ => None,
    };
    let minutes = text.get(1..).and_then(time_of_day).filter(|minutes| *minutes <= 14 * 60);
    let offset = sign.zip(minutes).and_then(|(sign, minutes)| Some(sign * i16::try_from(minutes).ok()?));
    offset.map_or_else(
        || {
            complain(
                format!("{} is not an offset from UTC", quoted(text)),
                "\"-14:00\" to \"+14:00\", such as \"+01:00\"",
            )
        },
        Ok,
    )
}

/// `Mon 08:30`.
pub fn moment(text: &str) -> Result<WeekMinute, Complaint> {
    let parsed = text.split_once(' ').and_then(|(name, time)| {
        let day_number = u16::try_from(day(name)?).ok()?;
        WeekMinute::new(day_number * DAY + time_of_day(time.trim()).filter(|time| *time < DAY)?)
    });
    parsed.map_or_else(|| complain(format!("{} is not a time of the week", quoted(text)), "such as \"Mon 08:30\""), Ok)
}

/// So many minutes from there on, as one range, or two around the end of the week.
fn week_ranges(from: u16, length: u16) -> Vec<(WeekMinute, WeekMinute)> {
    let last = from + length - 1;
    let beyond = last.checked_sub(WeekMinute::PER_WEEK);
    let first_part = WeekMinute::new(from).zip(WeekMinute::new(last.min(WeekMinute::LAST.value())));
    let second_part = beyond.and_then(WeekMinute::new).map(|last| (WeekMinute::default(), last));
    first_part.into_iter().chain(second_part).collect()
}

/// Which of the seven days are named.
fn days(text: &str) -> Option<Vec<bool>> {
    let mut chosen = vec![false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // `Sat-Mon` goes on into the next week.
        let count = (last + 7 - first) % 7 + 1;
        for step in 0..count {
            *chosen.get_mut((first + step) % 7)? = true;
        }
    }
    Some(chosen)
}

fn day(text: &str) -> Option<usize> {
    WeekMinute::DAYS.iter().position(|name| name.eq_ignore_ascii_case(text))
}

fn times(text: &str) -> Option<(u16, u16)> {
    let (from, until) = text.split_once('-')?;
    let from = time_of_day(from).filter(|from| *from < DAY)?;
    Some((from, time_of_day(until)?))
}

/// `08:00`, up to `24:00`, in minutes.
fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    let time = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && time <= DAY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let ranges = hours(text).unwrap_or_else(|complaint| panic!("{}", complaint.what));
        ranges.iter().map(|(first, last)| format!("{first} to {last}")).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn hours_are_of_days_and_times_and_may_go_beyond_midnight() {
        assert_eq!(shown("Mon-Tue 08:00-18:00"), "Mon 08:00 to Mon 17:59, Tue 08:00 to Tue 17:59");
        assert_eq!(shown("sat,SUN"), "Sat 00:00 to Sat 23:59, Sun 00:00 to Sun 23:59");
        assert_eq!(shown("Sun 22:00-06:00"), "Sun 22:00 to Sun 23:59, Mon 00:00 to Mon 05:59");
        assert_eq!(shown("Fri 22:00-06:00"), "Fri 22:00 to Sat 05:59");
        assert_eq!(shown("Wed 00:00-24:00"), "Wed 00:00 to Wed 23:59");
        assert_eq!(shown("Sat 08:00-08:00"), "Sat 08:00 to Sun 07:59", "a whole day");
        assert_eq!(hours("Sat-Mon").unwrap().len(), 3);
        assert_eq!(hours("22:00-06:00").unwrap().len(), 8);
        for wrong in ["", "Mon-Fri 8-18", "Mon 08:00", "Mon 08:60-09:00", "24:00-25:00", "Fry 08:00-09:00", "a b c"] {
            assert!(hours(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn offsets_from_utc_are_hours_and_minutes() {
        let offset = |text| utc_offset(text).ok();
        assert_eq!([offset("+05:30"), offset("-08:00"), offset("+00:00")], [Some(330), Some(-480), Some(0)]);
        assert_eq!([offset("+15:00"), offset("1:00"), offset("+1"), offset("é0:00")], [None; 4]);
    }
}
