use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use crate::model::Leg;

/// Datagrams that one call may send at most: what Linux takes before 6.9 (`UDP_MAX_SEGMENTS`).
pub const MAX_RUN: usize = 64;

/// Remotes that are remembered for taking fewer: more than a site has tunnels on one worker.
/// Beyond it the oldest is forgotten, which costs one refused call.
const MAX_ENTRIES: usize = 64;

/// After so long the full run is tried again: routes change, and drivers are replaced.
const RECOVERY: Duration = Duration::from_secs(60);

/// How long the runs of datagrams may be that one segmented send gives to the kernel, where it
/// has refused longer ones. A worker has one.
#[derive(Debug, Default)]
pub struct RunLimits(ArrayVec<Entry, MAX_ENTRIES>);

#[derive(Debug)]
struct Entry {
    leg: Leg,
    limit: usize,
    until: Instant,
}

impl RunLimits {
    /// Most datagrams of a run on this leg, at least one.
    pub fn of(&self, leg: &Leg) -> usize {
        self.0.iter().find(|entry| entry.leg == *leg).map_or(MAX_RUN, |entry| entry.limit)
    }

    /// A run of so many was refused, each of them alone was not.
    pub fn shrink(&mut self, leg: Leg, refused: usize, now: Instant) {
        let limit = (refused / 2).max(1);
        let until = now + RECOVERY;
        let known = self.0.iter_mut().find(|entry| entry.leg == leg);
        match known {
            Some(entry) => (entry.limit, entry.until) = (entry.limit.min(limit), until),
            None => {
                if self.0.is_full() {
                    self.0.remove(0);
                }
                self.0.push(Entry { leg, limit, until });
                tracing::warn!(remote = %leg.remote, local = %leg.local, limit, "long runs are refused; sending shorter");
            }
        }
    }

    /// Forgets what is long ago. The clock is only asked where something is remembered.
    pub fn recover(&mut self, now: impl FnOnce() -> Instant) {
        if !self.0.is_empty() {
            let now = now();
            self.0.retain(|entry| entry.until > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnderlayId;

    fn leg(port: u16) -> Leg {
        let address = |port| ([127, 0, 0, 1], port).into();
        Leg { underlay: UnderlayId(0), natt: true, local: address(4_500), remote: address(port) }
    }

    #[test]
    fn runs_shrink_for_one_leg_and_recover() {
        let (mut limits, start) = (RunLimits::default(), Instant::now());
        limits.shrink(leg(1), 44, start);
        assert_eq!((limits.of(&leg(1)), limits.of(&leg(2))), (22, MAX_RUN));
        limits.shrink(leg(1), 22, start);
        limits.shrink(leg(1), 1, start);
        limits.shrink(leg(1), 1, start);
        assert_eq!(limits.of(&leg(1)), 1);
        limits.recover(|| start + RECOVERY / 2);
        assert_eq!(limits.of(&leg(1)), 1);
        limits.recover(|| start + RECOVERY);
        assert_eq!(limits.of(&leg(1)), MAX_RUN);
        limits.recover(|| panic!("nothing is remembered, and yet the clock was asked"));
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let (mut limits, start) = (RunLimits::default(), Instant::now());
        for port in 0..=MAX_ENTRIES as u16 {
            limits.shrink(leg(port), 10, start);
        }
        assert_eq!((limits.of(&leg(0)), limits.of(&leg(1))), (MAX_RUN, 5));
        assert_eq!(limits.of(&leg(MAX_ENTRIES as u16)), 5);
    }
}
