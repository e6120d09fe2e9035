use std::time::Duration;

use super::Retransmission;
use super::wire::Exchange;
use crate::model::Moment;

/// How often a request is repeated whose answer matters little: a DELETE.
pub const QUICK: Retransmission = Retransmission {
    first: Duration::from_millis(300),
    factor_percent: 150,
    longest: Duration::from_secs(1),
    tries: 3,
};

/// A request of ours that has no answer yet. It is sent again byte for byte (RFC 7296 2.1).
pub struct Pending {
    pub exchange: Exchange,
    pub message_id: u32,
    pub bytes: Vec<u8>,
    pub first_sent: Moment,
    pub last_sent: Moment,
    /// All of them, those on demand included.
    pub transmissions: u32,
    /// Retransmissions by the schedule.
    tries: u32,
    schedule: Retransmission,
    due: Moment,
}

/// What a due request needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    NotYet,
    SendAgain,
    GiveUp,
}

impl Pending {
    /// The caller sends `bytes` now.
    pub fn new(exchange: Exchange, message_id: u32, bytes: Vec<u8>, schedule: Retransmission, now: Moment) -> Pending {
        let due = now + interval(&schedule, 0);
        Pending {
            exchange,
            message_id,
            bytes,
            first_sent: now,
            last_sent: now,
            transmissions: 1,
            tries: 0,
            schedule,
            due,
        }
    }

    pub fn handle_timeout(&mut self, now: Moment) -> Due {
        if now < self.due {
            return Due::NotYet;
        }
        if self.tries >= self.schedule.tries {
            return Due::GiveUp;
        }
        self.tries = self.tries.saturating_add(1);
        self.due = now + interval(&self.schedule, self.tries);
        self.sent_again(now);
        Due::SendAgain
    }

    /// Counts a transmission outside the schedule.
    pub fn sent_again(&mut self, now: Moment) {
        self.transmissions = self.transmissions.saturating_add(1);
        self.last_sent = now;
    }

    pub fn poll_timeout(&self) -> Moment {
        self.due
    }
}

/// The wait after the `n`-th retransmission, at least a millisecond.
fn interval(schedule: &Retransmission, n: u32) -> Duration {
    let mut wait = schedule.first;
    for _ in 0..n {
        if wait >= schedule.longest {
            break;
        }
        wait = wait.saturating_mul(u32::from(schedule.factor_percent)) / 100;
    }
    wait.min(schedule.longest).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_up_to_the_longest_and_the_tries_end() {
        let schedule = Retransmission {
            first: Duration::from_secs(1),
            factor_percent: 200,
            longest: Duration::from_secs(3),
            tries: 3,
        };
        let mut pending = Pending::new(Exchange::IkeAuth, 1, Vec::new(), schedule, Moment::ZERO);
        let mut waits = Vec::new();
        let mut now = Moment::ZERO;
        loop {
            let due = pending.poll_timeout();
            waits.push(due.since(now).as_secs());
            now = due;
            assert_eq!(pending.handle_timeout(now - Duration::from_nanos(1)), Due::NotYet);
            if pending.handle_timeout(now) == Due::GiveUp {
                break;
            }
        }
        assert_eq!(waits, [1, 2, 3, 3]);
        assert_eq!(pending.transmissions, 4);
    }

    #[test]
    fn a_zero_schedule_still_lets_time_pass() {
        let schedule = Retransmission { first: Duration::ZERO, factor_percent: 0, longest: Duration::ZERO, tries: 1 };
        let pending = Pending::new(Exchange::IkeAuth, 1, Vec::new(), schedule, Moment::ZERO);
        assert!(pending.poll_timeout() > Moment::ZERO);
    }
}
