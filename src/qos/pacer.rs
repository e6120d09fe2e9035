use std::time::Duration;

use crate::model::{Mbps, Moment};

/// After a pause so much of the rate's time may be made up for at once: a burst that no modem's queue notices.
const AFTER_PAUSE: Duration = Duration::from_millis(1);

/// While packets wait, so much may be made up for when the worker comes late: it wakes by whole milliseconds, and on a
/// busy machine some later. Without it the rate would be missed by all that lateness.
const WHEN_LATE: Duration = Duration::from_millis(20);

/// What does not wait is charged no further ahead: whoever makes us answer could keep the link closed for long.
const MOST_DEBT: Duration = Duration::from_millis(100);

/// Says when the next byte may leave so that a rate holds. It goes into debt for a packet, so that any packet may leave
/// when anything may.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: Mbps,
    /// What was sent so far has left by then, at this rate.
    free_at: Moment,
    /// Of a nanosecond, in parts of the rate's number: what divisions have left.
    rest: u64,
}

impl Pacer {
    pub fn new(rate: Mbps) -> Pacer {
        Pacer { rate, free_at: Moment::ZERO, rest: 0 }
    }

    pub fn rate(&self) -> Mbps {
        self.rate
    }

    /// Something is to be sent, after nothing was.
    pub fn begin(&mut self, now: Moment) {
        self.free_at = self.free_at.max(now - AFTER_PAUSE);
    }

    /// When something may leave.
    pub fn free_at(&self) -> Moment {
        self.free_at
    }

    /// Bytes that may leave now; 0 when none may.
    pub fn room(&self, now: Moment) -> u64 {
        let nanos = now.since(self.free_at.max(now - WHEN_LATE)).as_nanos() as u64;
        // The last one may leave at the very moment.
        let moment = u64::from(self.free_at <= now);
        (nanos.saturating_mul(u64::from(self.rate.value())) / 8_000).saturating_add(moment)
    }

    /// So many bytes leave.
    pub fn charge(&mut self, bytes: u64, now: Moment) {
        // A bit takes 1,000 ns at 1 Mbps.
        let parts = bytes.saturating_mul(8_000).saturating_add(self.rest);
        let rate = u64::from(self.rate.value());
        self.rest = parts % rate;
        let free_at = self.free_at.max(now - WHEN_LATE) + Duration::from_nanos(parts / rate);
        self.free_at = free_at.min(now + MOST_DEBT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(mbps: u32) -> Pacer {
        Pacer::new(Mbps::new(mbps).unwrap())
    }

    #[test]
    fn the_rate_holds_exactly_over_any_number_of_packets() {
        for mbps in [1, 3, 20, 997, 400_000] {
            let mut pacer = pacer(mbps);
            let start = Moment::from_millis(1_000);
            pacer.begin(start);
            let begun = pacer.free_at();
            let mut now = start;
            for number in 0..100_000u64 {
                now = now.max(pacer.free_at());
                assert!(pacer.room(now) > 0);
                pacer.charge(600 + number % 800, now);
            }
            let bytes: u64 = (0..100_000u64).map(|number| 600 + number % 800).sum();
            let expected = bytes * 8_000 / u64::from(mbps);
            assert_eq!(pacer.free_at().since(begun).as_nanos() as u64, expected, "{mbps} Mbps");
        }
    }

    #[test]
    fn little_is_made_up_for_after_a_pause_and_more_when_the_worker_is_late() {
        let mut pacer = pacer(8);
        pacer.begin(Moment::from_millis(5_000));
        assert_eq!(pacer.room(Moment::from_millis(5_000)), 1_001, "1 ms at 1,000 bytes a millisecond");
        assert_eq!(pacer.room(Moment::from_millis(5_010)), 11_001);
        assert_eq!(pacer.room(Moment::from_millis(9_000)), 20_001);
        pacer.charge(30_000, Moment::from_millis(9_000));
        assert_eq!((pacer.room(Moment::from_millis(9_000)), pacer.free_at()), (0, Moment::from_millis(9_010)));
    }

    #[test]
    fn what_does_not_wait_keeps_the_rest_waiting_for_a_tenth_of_a_second_at_most() {
        let (mut pacer, now) = (pacer(1), Moment::from_millis(5_000));
        pacer.begin(now);
        (0..1_000).for_each(|_| pacer.charge(1_400, now));
        assert_eq!(pacer.free_at(), now + MOST_DEBT);
    }
}
