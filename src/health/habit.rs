use std::time::Duration;

use super::sensitivity::Nerves;
use crate::model::Moment;

/// Packets must have come in for so long without a pause before their absence says anything.
const LEARNING: Duration = Duration::from_millis(500);
/// A path that is silent for longer than this now and then has no habit.
const IRREGULAR: Duration = Duration::from_millis(150);
/// After so long nothing is unusual about silence that steady probes would not find.
const LONGEST: Duration = Duration::from_secs(1);
/// So many times the mean time between packets is a silence.
const GAPS: u32 = 3;
/// While packets pass, the counters are read so often at least.
const BUSY_LOOK: Duration = Duration::from_millis(25);
/// Whoever has sent within so long is sending.
const SENDING: Duration = Duration::from_millis(50);
/// Packets that come in more rarely than this prove nothing in time.
const SPARSE: Duration = Duration::from_millis(350);
/// How often an idle path is looked at. All paths at the same moments: one awakening serves all.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// A path without packets for so long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// How fast a learned pause is forgotten: by an eighth each time.
const FORGETTING: Duration = Duration::from_secs(10);

/// What a path's counters say at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets of the site's flows.
    pub sent: u64,
    pub received: u64,
    /// The last authentic packet, the answers to probes among them.
    pub last_in: Option<Moment>,
}

/// What is usual for the packets that a path brings, learned from its counters.
#[derive(Clone, Debug)]
pub(super) struct Habit {
    nerves: Nerves,
    counted: Traffic,
    looked: Moment,
    /// The last looks that found that packets had left, and had come in.
    sent: Option<Moment>,
    received: Option<Moment>,
    /// Packets have come in since, without an irregular pause.
    since: Option<Moment>,
    /// Mean time between inbound packets.
    gap: Duration,
    /// The longest pause of late that was none to worry about.
    pause: Duration,
    forgotten: Moment,
}

/// What a look at the counters found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Look {
    /// An authentic packet has come in since the last look.
    pub heard: bool,
    /// Silence for so long, which is unusual.
    pub silence: Option<Duration>,
}

impl Habit {
    pub fn new(nerves: Nerves, now: Moment) -> Habit {
        Habit {
            nerves,
            counted: Traffic::default(),
            looked: now,
            sent: None,
            received: None,
            since: None,
            gap: Duration::ZERO,
            pause: Duration::ZERO,
            forgotten: now,
        }
    }

    pub fn look(&mut self, traffic: Traffic, now: Moment) -> Look {
        let before = std::mem::replace(&mut self.counted, traffic);
        let received = traffic.received.saturating_sub(before.received);
        let found = Look { heard: traffic.last_in > before.last_in, silence: None };
        if traffic.sent > before.sent {
            self.sent = Some(now);
        }
        self.looked = now;
        while now.since(self.forgotten) >= FORGETTING {
            self.pause = self.pause * 7 / 8;
            self.forgotten = if self.pause.is_zero() { now } else { self.forgotten + FORGETTING };
        }
        if received > 0 {
            let span = now.since(self.received.replace(now).unwrap_or(now));
            let gap = u32::try_from(received).ok().and_then(|received| span.checked_div(received)).unwrap_or_default();
            self.gap = if self.since.is_some() { (self.gap * 3 + gap) / 4 } else { gap };
            self.since.get_or_insert(now);
        }
        let silence = traffic.last_in.map(|last| now.since(last)).unwrap_or_default();
        if !self.is_known() {
            if silence > IRREGULAR {
                self.since = None;
            }
            return found;
        }
        Look { silence: (silence >= self.limit()).then_some(silence), ..found }
    }

    /// The packets came again after such a silence: it was a pause.
    pub fn resumed(&mut self, silence: Duration) {
        self.pause = self.pause.max(silence.min(LONGEST));
    }

    /// The path lives although they did not come again.
    pub fn ended(&mut self) {
        if self.is_known() {
            self.pause = self.pause.max(self.limit());
        }
        self.since = None;
    }

    /// The counters are of a new tunnel from now on.
    pub fn restart(&mut self) {
        self.since = None;
    }

    /// The site sends at present.
    pub fn is_sending(&self) -> bool {
        self.sent.is_some_and(|sent| self.looked.since(sent) <= SENDING)
    }

    /// Packets have passed of late.
    pub fn is_busy(&self) -> bool {
        self.sent.max(self.received).is_some_and(|busy| self.looked.since(busy) < IDLE_AFTER)
    }

    /// When the next packet should have come in by, as they used to; a path is not dead before.
    pub fn expected_by(&self) -> Option<Moment> {
        let used_to = self.received.is_some_and(|received| self.looked.since(received) < IDLE_AFTER);
        let last = self.counted.last_in.filter(|_| used_to)?;
        Some(last + (self.gap * 5 / 4 + BUSY_LOOK).min(SPARSE))
    }

    /// When the counters were last read.
    pub fn looked_at(&self) -> Moment {
        self.looked
    }

    /// When the counters are to be read again.
    pub fn next_look(&self) -> Moment {
        if !self.is_busy() {
            let idle = IDLE_LOOK.as_nanos() as u64;
            return Moment::from_nanos((self.looked.as_nanos() / idle + 1).saturating_mul(idle));
        }
        let regular = self.looked + BUSY_LOOK;
        match self.counted.last_in.filter(|_| self.is_known()).map(|last| last + self.limit()) {
            Some(silent) if silent > self.looked => silent.min(regular),
            Some(_) | None => regular,
        }
    }

    fn is_known(&self) -> bool {
        self.since.is_some_and(|since| self.looked.since(since) >= LEARNING)
    }

    /// Silence for longer than this is unusual.
    fn limit(&self) -> Duration {
        (self.gap * GAPS).max(self.pause * 5 / 4).clamp(self.nerves.quiet, LONGEST)
    }
}
