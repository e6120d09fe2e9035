use std::time::Instant;

use crate::model::Moment;

/// The time of one run, from zero at its start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(&self) -> Moment {
        Moment::ZERO + self.0.elapsed()
    }
}
