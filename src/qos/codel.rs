use std::time::Duration;

use crate::model::{Mbps, Moment};

/// RFC 8289 4.2: the worst round-trip time that shall not cost goodput, and the waiting that good queues have.
const INTERVAL: Duration = Duration::from_millis(100);
const TARGET: Duration = Duration::from_millis(5);

/// On the wire: a full packet with all that is around it.
const FULL_PACKET: u64 = 1_514;

/// What waiting a queue may have, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    target: Duration,
    interval: Duration,
}

impl Patience {
    /// Where one packet alone takes longer than the usual target, the target is a packet and a half.
    pub fn at(rate: Mbps) -> Patience {
        let packet = Duration::from_nanos(FULL_PACKET * 8_000 / u64::from(rate.value()));
        let target = TARGET.max(packet + packet / 2);
        Patience { target, interval: INTERVAL.max(target * 2) }
    }
}

/// Controlled delay (RFC 8289): a queue whose packets have waited longer than the target for an interval loses one, and
/// then more and more often, until they do not.
#[derive(Clone, Debug, Default)]
pub struct Codel {
    /// When it will have been so for an interval.
    above_until: Option<Moment>,
    /// In the dropping state: when the next is to go.
    next: Option<Moment>,
    count: u32,
    /// `count` when the state was last entered, and the end of that.
    entered_with: u32,
    last: Moment,
}

impl Codel {
    /// Is the packet that is about to leave to be dropped, or marked? `more` says whether another full packet waits
    /// behind it: the only one is never dropped.
    pub fn strikes(&mut self, patience: Patience, waited: Duration, more: bool, now: Moment) -> bool {
        let may = self.is_too_long(patience, waited, more, now);
        match self.next {
            Some(_) if !may => {
                self.next = None;
                false
            }
            Some(next) if now >= next => {
                self.count = self.count.saturating_add(1);
                self.schedule(next, patience);
                true
            }
            Some(_) => false,
            None if may => {
                // RFC 8289 5.4 with the refinement of its reference code: if it was dropping a short time ago, it goes
                // on near the rate that controlled the queue then.
                let gained = self.count.saturating_sub(self.entered_with);
                let recent = now.since(self.last) < patience.interval * 16;
                self.count = if recent && gained > 1 { gained } else { 1 };
                self.entered_with = self.count;
                self.schedule(now, patience);
                true
            }
            None => false,
        }
    }

    fn is_too_long(&mut self, patience: Patience, waited: Duration, more: bool, now: Moment) -> bool {
        if waited < patience.target || !more {
            self.above_until = None;
            return false;
        }
        now >= *self.above_until.get_or_insert(now + patience.interval)
    }

    /// RFC 8289 5.5: the interval between drops shrinks with the square root of their number.
    fn schedule(&mut self, from: Moment, patience: Patience) {
        let next = from + patience.interval.div_f64(f64::from(self.count.max(1)).sqrt());
        self.next = Some(next);
        self.last = next;
    }
}

/// Is there another full packet in a queue of so many bytes?
pub fn is_more(bytes: u64) -> bool {
    bytes > FULL_PACKET
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Patience = Patience { target: TARGET, interval: INTERVAL };

    fn strikes(codel: &mut Codel, waited_ms: u64, from_ms: u64, to_ms: u64) -> Vec<u64> {
        let at = |ms: &u64| codel.strikes(USUAL, Duration::from_millis(waited_ms), true, Moment::from_millis(*ms));
        (from_ms..to_ms).filter(at).collect()
    }

    #[test]
    fn a_standing_queue_is_struck_after_an_interval_and_ever_more_often() {
        let mut codel = Codel::default();
        assert_eq!(strikes(&mut codel, 20, 1_000, 1_350), [1_100, 1_200, 1_271, 1_329]);
        assert!(strikes(&mut codel, 4, 1_350, 1_400).is_empty(), "it waits no longer");
        // It begins again near where it was.
        assert_eq!(strikes(&mut codel, 20, 1_400, 1_600), [1_500, 1_558]);
    }

    #[test]
    fn a_burst_shorter_than_an_interval_and_the_only_packet_are_spared() {
        let mut codel = Codel::default();
        assert!(strikes(&mut codel, 50, 1_000, 1_099).is_empty());
        assert!(strikes(&mut codel, 1, 1_099, 1_100).is_empty());
        assert!(strikes(&mut codel, 50, 1_100, 1_199).is_empty());
        let alone = |ms: u64| Codel::default().strikes(USUAL, Duration::from_secs(1), false, Moment::from_millis(ms));
        assert!(!(1_000..3_000).any(alone));
    }

    #[test]
    fn a_slow_link_waits_longer_for_its_packets() {
        let at = |mbps| Patience::at(Mbps::new(mbps).unwrap());
        assert_eq!((at(1).target, at(100).target), (Duration::from_micros(18_168), TARGET));
    }
}
