use std::time::Duration;

use crate::model::Moment;

/// What became of packets that are answered one by one, kept by when they were sent, so that
/// the loss of any stretch of time can be told afterwards.
pub struct Ledger {
    buckets: Vec<Bucket>,
    /// By stream: when its last answer came.
    last_answer: Vec<Option<Moment>>,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    sent: u32,
    answered: u32,
    round_trips: Duration,
    /// The longest silence of any stream that ended in this stretch.
    longest_gap: Duration,
}

/// A stretch of time, summed up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    pub sent: u64,
    pub answered: u64,
    /// Mean round-trip time of the answered; `None` when none was.
    pub round_trip: Option<Duration>,
    /// The longest time that a stream went without an answer.
    pub longest_gap: Duration,
}

impl Tally {
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }
}

/// The resolution in time.
const BUCKET: Duration = Duration::from_millis(100);

/// Two hours: the longest run that a demo may be told to take, and 3 MiB.
const BUCKET_LIMIT: usize = 72_000;

/// A disturbance is over when nothing has been lost for this long.
const CALM: Duration = Duration::from_millis(1500);

impl Ledger {
    pub fn new(streams: usize) -> Ledger {
        Ledger { buckets: Vec::new(), last_answer: vec![None; streams] }
    }

    pub fn handle_sent(&mut self, now: Moment) {
        if let Some(bucket) = self.bucket(now) {
            bucket.sent += 1;
        }
    }

    /// The answer to a packet of `stream` that was sent at `sent` arrives at `now`.
    pub fn handle_answer(&mut self, stream: usize, sent: Moment, now: Moment) {
        let Some(last) = self.last_answer.get_mut(stream) else { return };
        let gap = last.replace(now).map_or(Duration::ZERO, |last| now.since(last));
        if let Some(bucket) = self.bucket(now) {
            bucket.longest_gap = bucket.longest_gap.max(gap);
        }
        if let Some(bucket) = self.bucket(sent).filter(|bucket| bucket.answered < bucket.sent) {
            bucket.answered += 1;
            bucket.round_trips += now.since(sent);
        }
    }

    /// What was sent from `from` until `until`. A stretch that ended only just now still has
    /// answers under way, which look like losses.
    pub fn tally(&self, from: Moment, until: Moment) -> Tally {
        let stretch = self.buckets.get(index(from)..index(until).min(self.buckets.len())).unwrap_or_default();
        let mut tally = Tally::default();
        let mut round_trips = Duration::ZERO;
        for bucket in stretch {
            tally.sent += u64::from(bucket.sent);
            tally.answered += u64::from(bucket.answered);
            round_trips += bucket.round_trips;
            tally.longest_gap = tally.longest_gap.max(bucket.longest_gap);
        }
        // A stream that is silent at the end has a gap that has not ended.
        let silent = self.last_answer.iter().flatten().filter(|last| **last < until).map(|last| until.since(*last));
        tally.longest_gap = tally.longest_gap.max(silent.max().unwrap_or_default());
        let answered = u32::try_from(tally.answered).unwrap_or(u32::MAX);
        tally.round_trip = round_trips.checked_div(answered);
        tally
    }

    /// How long after `from` packets were still being lost, more than `tolerated_percent` of
    /// those sent at a time; zero when none were, and `None` while that goes on until `until`.
    pub fn disturbance(&self, from: Moment, until: Moment, tolerated_percent: u32) -> Option<Duration> {
        let mut end = Duration::ZERO;
        let first = index(from);
        for (bucket, number) in self.buckets.get(first..index(until).min(self.buckets.len()))?.iter().zip(first..) {
            let begins = Moment::ZERO + BUCKET * u32::try_from(number).unwrap_or(u32::MAX);
            if begins.since(from) > end + CALM {
                return Some(end);
            }
            if bucket.sent.saturating_sub(bucket.answered) * 100 > bucket.sent * tolerated_percent {
                end = (begins + BUCKET).since(from);
            }
        }
        (until.since(from) > end + BUCKET).then_some(end)
    }

    fn bucket(&mut self, at: Moment) -> Option<&mut Bucket> {
        let index = index(at);
        if index >= BUCKET_LIMIT {
            return None;
        }
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, Bucket::default());
        }
        self.buckets.get_mut(index)
    }
}

fn index(at: Moment) -> usize {
    usize::try_from(at.since(Moment::ZERO).as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    /// One stream, a packet each 20 ms until `end`, answered after 30 ms unless `lost`.
    fn run(end: u64, lost: impl Fn(u64) -> bool) -> Ledger {
        let mut ledger = Ledger::new(1);
        for now in (0..end).step_by(20) {
            ledger.handle_sent(at(now));
            if !lost(now) {
                ledger.handle_answer(0, at(now), at(now + 30));
            }
        }
        ledger
    }

    #[test]
    fn losses_belong_to_the_time_they_were_sent_in() {
        let ledger = run(4000, |now| (1000..1400).contains(&now));
        assert_eq!(ledger.tally(at(0), at(1000)).lost(), 0);
        let tally = ledger.tally(at(1000), at(2000));
        assert_eq!((tally.sent, tally.lost()), (50, 20));
        assert_eq!(tally.round_trip, Some(Duration::from_millis(30)));
        assert_eq!(tally.longest_gap, Duration::from_millis(420));
        assert_eq!(ledger.tally(at(1500), at(3000)).longest_gap, Duration::from_millis(20));
    }

    #[test]
    fn a_disturbance_lasts_from_its_cause_to_its_last_loss() {
        let ledger = run(6000, |now| (1100..2250).contains(&now) || now > 5000);
        assert_eq!(ledger.disturbance(at(1000), at(4900), 0), Some(Duration::from_millis(1300)));
        assert_eq!(ledger.disturbance(at(2500), at(4900), 0), Some(Duration::ZERO));
        assert_eq!(ledger.disturbance(at(4900), at(6000), 0), None);
    }

    #[test]
    fn silence_that_has_not_ended_is_a_gap() {
        let ledger = run(3000, |now| now >= 1000);
        assert_eq!(ledger.tally(at(0), at(3000)).longest_gap, Duration::from_millis(1990));
        assert_eq!(ledger.tally(at(1000), at(3000)).round_trip, None);
    }

    #[test]
    fn a_tolerated_loss_is_no_disturbance() {
        let ledger = run(3000, |now| now % 100 == 0);
        assert_eq!(ledger.disturbance(at(0), at(3000), 25), Some(Duration::ZERO));
        assert_eq!(ledger.disturbance(at(0), at(3000), 15), None);
    }
}
