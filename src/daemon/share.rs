use std::time::Duration;

use crate::model::Moment;

/// What a thread takes of a core, told over windows of one length.
#[derive(Clone, Debug)]
pub struct Share {
    window: Duration,
    since: Moment,
    used: Duration,
}

impl Share {
    /// The thread has used so much of the processor by now.
    pub fn new(window: Duration, now: Moment, used: Duration) -> Share {
        Share { window, since: now, used }
    }

    /// Whether the window has passed: only then is it worth asking what the thread has used.
    pub fn is_due(&self, now: Moment) -> bool {
        now.since(self.since) >= self.window
    }

    /// Ends the window: thousandths of a core over it.
    pub fn end_window(&mut self, now: Moment, used: Duration) -> u32 {
        let (time, taken) = (now.since(self.since), used.saturating_sub(self.used));
        (self.since, self.used) = (now, used);
        let permille = taken.as_nanos().saturating_mul(1_000) / time.as_nanos().max(1);
        u32::try_from(permille).unwrap_or(u32::MAX)
    }
}
