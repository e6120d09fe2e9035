use std::time::Duration;

/// A worker that has just been busy looks again for so long before it sleeps: about what falling
/// asleep and being woken costs both sides, so that at worst it takes twice as long as needed.
pub const SPIN_LIMIT: Duration = Duration::from_micros(15);

/// Whether it is worth looking again and again for a short while before sleeping. That is so as
/// long as the sleeps turn out to be shorter than the while, and a core is free for it.
#[derive(Debug)]
pub struct Spin {
    limit: Duration,
    budget: Duration,
}

impl Spin {
    /// Of so many workers on so many cores. Where no core is left for the rest of the system,
    /// looking would keep from running what is waited for.
    pub fn new(workers: usize, cores: usize) -> Spin {
        let limit = if cores > workers { SPIN_LIMIT } else { Duration::ZERO };
        Spin { limit, budget: Duration::ZERO }
    }

    /// How long to look before sleeping; often zero.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// The worker has slept so long.
    pub fn slept(&mut self, time: Duration) {
        self.budget = if time <= self.limit { self.limit } else { self.budget / 2 };
        if self.budget < self.limit / 8 {
            self.budget = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(1);

    #[test]
    fn short_sleeps_are_replaced_by_looking_and_long_ones_end_it() {
        let mut spin = Spin::new(1, 2);
        spin.slept(LONG);
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.slept(SPIN_LIMIT / 2);
        assert_eq!(spin.budget(), SPIN_LIMIT);
        (0..4).for_each(|_| spin.slept(LONG));
        assert_eq!(spin.budget(), Duration::ZERO);
    }

    #[test]
    fn with_no_core_to_spare_there_is_no_looking() {
        let mut spin = Spin::new(2, 2);
        spin.slept(Duration::from_nanos(10));
        assert_eq!(spin.budget(), Duration::ZERO);
    }
}
