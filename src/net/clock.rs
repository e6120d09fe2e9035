use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::Moment;

/// The one clock of a process. Clones agree, so both planes stamp with the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: quanta::Clock,
    start: quanta::Instant,
}

impl Clock {
    /// Starts at `START`, not at zero: 0 stands for "never" in shared counters, and what lies
    /// a little before the start can still be written down.
    pub fn new() -> Clock {
        let source = quanta::Clock::new();
        let start = source.now();
        Clock { source, start }
    }

    pub fn now(&self) -> Moment {
        START + self.source.now().duration_since(self.start)
    }

    /// Milliseconds since the Unix epoch at `Moment::ZERO`, by the system's time of day. Ask
    /// again each time: the time of day may be set, and the two drift apart by seconds a day.
    pub fn unix_ms_of_zero(&self) -> u64 {
        // Before 1970 there is nothing better to say than 0.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let since_zero = Duration::from_nanos(self.now().as_nanos());
        u64::try_from(wall.saturating_sub(since_zero).as_millis()).unwrap_or(u64::MAX)
    }
}

const START: Moment = Moment::from_millis(1_000);

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_agree_and_time_goes_forward() {
        let clock = Clock::new();
        let earlier = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        let later = clock.clone().now();
        assert!(earlier > Moment::ZERO);
        assert!(later.since(earlier) >= Duration::from_millis(2), "{earlier:?} {later:?}");
    }

    #[test]
    fn a_moment_can_be_told_as_time_of_day() {
        let clock = Clock::new();
        let told = Duration::from_millis(clock.unix_ms_of_zero()) + Duration::from_nanos(clock.now().as_nanos());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(told.abs_diff(wall) < Duration::from_millis(500), "{told:?} {wall:?}");
    }
}
