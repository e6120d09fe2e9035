use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::model::{Mbps, Moment};

/// Time of the rate that may come at once: less would punish senders for the bursts that every network makes.
const BURST: Duration = Duration::from_millis(50);
/// At the least, in bytes: a super-packet of the sender's arrives as one burst.
const BURST_LEAST: u64 = 65_536;

/// A rate that what arrives must not exceed; what does is dropped. Workers share it.
pub struct Policer {
    rate: Mbps,
    /// Of cells: governor counts whole nanoseconds, in which a byte of a fast link is not seen.
    limiter: RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, StateInformationMiddleware>,
    /// Moved forward by whoever asks.
    clock: FakeRelativeClock,
    moved_to: AtomicU64,
    /// Bytes of a cell, and of all packets that passed: what one leaves of a cell the next begins with.
    cell: u64,
    bytes: AtomicU64,
    /// Cells that may come at once.
    burst: u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passing {
    Freely,
    /// The limit is near: a sender that understands the mark shall be told before it loses anything (RFC 3168).
    Marked,
    Refused,
}

impl Policer {
    pub fn new(rate: Mbps) -> Policer {
        let mbps = u64::from(rate.value());
        // So that a cell takes some 800 ns, and rounding that to whole ones costs less than a thousandth.
        let cell = mbps.div_ceil(10);
        let period = Duration::from_nanos((cell * 8_000 / mbps).max(1));
        let at_once = (mbps * BURST.as_nanos() as u64 / 8_000).max(BURST_LEAST) / cell;
        let burst = NonZeroU32::new(u32::try_from(at_once).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(burst);
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone()).with_middleware();
        let (moved_to, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Policer { rate, limiter, clock, moved_to, cell, bytes, burst: burst.get() }
    }

    pub fn rate(&self) -> Mbps {
        self.rate
    }

    /// A packet of so many bytes on the wire has arrived.
    pub fn judge(&self, bytes: u64, now: Moment) -> Passing {
        let now = now.as_nanos();
        let before = self.moved_to.fetch_max(now, Ordering::Relaxed);
        if now > before {
            self.clock.advance(Duration::from_nanos(now - before));
        }
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let cells = before.wrapping_add(bytes) / self.cell - before / self.cell;
        let Some(cells) = u32::try_from(cells).ok().and_then(NonZeroU32::new) else { return Passing::Freely };
        match self.limiter.check_n(cells) {
            Ok(Ok(state)) if state.remaining_burst_capacity() >= self.burst / 2 => Passing::Freely,
            Ok(Ok(_)) => Passing::Marked,
            Ok(Err(_)) | Err(_) => {
                // Or packets that need a cell less would pass more often than others.
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Passing::Refused
            }
        }
    }
}

impl fmt::Debug for Policer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policer({})", self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers packets at a rate for ten seconds; Mbps that passed, and whether one was marked before the first was
    /// refused.
    fn passed(limit: u32, offered: u64, size: u64) -> (f64, bool) {
        let policer = Policer::new(Mbps::new(limit).unwrap());
        let (mut now, mut bytes, mut marked, mut refused, mut in_order) =
            (Moment::from_millis(77), 0, false, false, false);
        let gap = Duration::from_nanos(size * 8_000 / offered);
        let end = now + Duration::from_secs(10);
        while now < end {
            match policer.judge(size, now) {
                Passing::Freely => bytes += size,
                Passing::Marked => {
                    bytes += size;
                    marked = true;
                }
                Passing::Refused => {
                    in_order |= marked && !refused;
                    refused = true;
                }
            }
            now = now + gap;
        }
        (bytes as f64 * 8.0 / 10.0 / 1e6, in_order)
    }

    #[test]
    fn what_exceeds_the_rate_is_refused_and_what_does_not_passes() {
        for (limit, size) in [(1, 1_400), (20, 100), (20, 1_400), (997, 1_400), (10_000, 1_400)] {
            let (mbps, in_order) = passed(limit, u64::from(limit) * 3 / 2 + 1, size);
            let most = f64::from(limit) * 1.01 + 65_536.0 * 8.0 / 10.0 / 1e6;
            assert!(mbps < most && mbps > f64::from(limit) * 0.99, "{limit} Mbps: {mbps}");
            assert!(in_order, "marks come before drops");
        }
        assert!(!passed(20, 10, 1_400).1);
        assert!((passed(20, 19, 1_400).0 - 19.0).abs() < 0.1);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing_away() {
        let policer = Policer::new(Mbps::new(8).unwrap());
        let passes = |now| (0..1_000).filter(|_| policer.judge(1_000, now) != Passing::Refused).count();
        assert_eq!(passes(Moment::from_millis(10_000)), 65);
        assert_eq!(passes(Moment::from_millis(10_000)), 0);
        assert_eq!(passes(Moment::from_millis(5_000)), 0);
        assert_eq!(passes(Moment::from_millis(10_010)), 10);
    }
}
