use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Moment;

/// Less than this part of what a link can carry, and nothing comes of the site's own traffic: one tenth.
const LITTLE: u32 = 10;
/// After so many judgements in a row with little traffic, the round trip is what the path has by itself.
const IDLE_JUDGEMENTS: u32 = 5;
/// What nothing was below for so long, and half as long again at most, is the path's own even while it is busy: no
/// queue stands so long without once running empty. As Linux has it (`tcp_min_rtt_wlen`).
const FLOOR_HALF: Duration = Duration::from_secs(150);
/// A queue holds at least this, and a quarter of the path's own round trip: less is jitter.
const QUEUE_LEAST: Duration = Duration::from_millis(20);
const QUEUE_PART: u32 = 4;
/// So many judgements in a row must show it: a single burst is over before anything comes of it.
const QUEUE_JUDGEMENTS: u32 = 2;
/// A queue that rises and falls as senders probe for more does not come and go in less.
const STRAIN_HOLD: Duration = Duration::from_secs(5);
/// The greatest load is forgotten by this part at each judgement: halved in 45 s.
const FORGETTING: u32 = 64;

/// What a link carries of the site's own traffic, and what that does to a path over it. A delay that is
/// there only while the site itself sends much is the queue of a link that the site fills.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Burden {
    /// The least round trip since then, and in as much time before: without such a queue.
    floors: [Option<Duration>; 2],
    floor_since: Moment,
    /// Whose round trip it is.
    source: Option<u8>,
    idle: u32,
    /// The greatest load of late, up and down.
    peak: [u32; 2],
    /// Of the link, at the last judgement.
    load: [u32; 2],
    /// Judgements in a row that showed a queue.
    queued: u32,
    strained_until: Moment,
    /// What the link has carried at most while its queue for sending was full.
    measured: Option<u32>,
    full: bool,
}

/// Of a link in kilobits a second, in our sending direction and in the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Line {
    pub load: [u32; 2],
    pub capacity: [u32; 2],
}

/// What the path's round trip is now, and whose probes say so: those of another target take another way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundTrip {
    pub rtt: Duration,
    pub source: Option<u8>,
}

impl Burden {
    pub fn judge(&mut self, round_trip: Option<RoundTrip>, line: Line, now: Moment) {
        self.load = line.load;
        let mut busy = [false; 2];
        for (direction, busy) in busy.iter_mut().enumerate() {
            let (load, capacity) = (line.load[direction], line.capacity[direction]);
            let peak = self.peak[direction] - self.peak[direction] / FORGETTING;
            self.peak[direction] = peak.max(load);
            *busy = load >= capacity / LITTLE && load >= self.peak[direction] / 2;
        }
        let is_idle = (0..2).all(|direction| line.load[direction] < line.capacity[direction] / LITTLE);
        if let Some(RoundTrip { rtt, source }) = round_trip {
            if source != self.source {
                (self.source, self.floors) = (source, [None; 2]);
            }
            self.idle = if is_idle { self.idle.saturating_add(1).min(IDLE_JUDGEMENTS) } else { 0 };
            let base = self.base(rtt, now);
            let has_queue = rtt >= base.saturating_add(QUEUE_LEAST.max(base / QUEUE_PART));
            let is_ours = has_queue && busy.contains(&true);
            self.queued = if is_ours { self.queued.saturating_add(1).min(QUEUE_JUDGEMENTS) } else { 0 };
            if self.queued >= QUEUE_JUDGEMENTS {
                self.strained_until = now + STRAIN_HOLD;
            }
            if has_queue && busy[0] {
                let before = self.measured.map_or(0, |measured| measured - measured / FORGETTING);
                self.measured = Some(before.max(line.load[0]));
            }
        }
        if !self.is_strained(now) && self.queued == 0 {
            self.measured = None;
        }
        // It is full at nine tenths, and has room again below three quarters.
        let parts = if self.full { 15 } else { 18 };
        let much = u64::from(line.load[0]) * 20 >= u64::from(line.capacity[0]) * parts;
        self.full = much || self.is_strained(now);
    }

    /// The path was down, or its tunnel is another one: what it measures from now on is its own.
    pub fn restart(&mut self) {
        let Burden { peak, load, full, source, .. } = *self;
        *self = Burden { peak, load, full, source, ..Burden::default() };
    }

    /// The site's own traffic stands in the queue of the link.
    pub fn is_strained(&self, now: Moment) -> bool {
        now < self.strained_until
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    /// What the link has been seen to carry at most, in kilobits a second, when that is known.
    pub fn measured(&self) -> Option<u32> {
        self.measured
    }

    /// It carries less than three quarters of so much.
    pub fn has_room(&self, capacity: u32) -> bool {
        !self.full && u64::from(self.load[0]) * 4 < u64::from(capacity) * 3
    }

    /// The path's own round trip, now that it is this.
    fn base(&mut self, rtt: Duration, now: Moment) -> Duration {
        if self.idle >= IDLE_JUDGEMENTS {
            (self.floors, self.floor_since) = ([None; 2], now);
        } else if now.since(self.floor_since) >= FLOOR_HALF {
            (self.floors, self.floor_since) = ([None, self.floors[0]], now);
        }
        let least = self.floors[0].map_or(rtt, |least| least.min(rtt));
        self.floors[0] = Some(least);
        self.floors[1].map_or(least, |before| before.min(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: [u32; 2] = [20_000, 50_000];

    fn ms(rtt: u64) -> Option<RoundTrip> {
        Some(RoundTrip { rtt: Duration::from_millis(rtt), source: Some(0) })
    }

    fn at(second: u64) -> Moment {
        Moment::from_millis(second * 1_000)
    }

    /// Judges once for each of the seconds.
    fn play(burden: &mut Burden, seconds: std::ops::Range<u64>, rtt: u64, sent: u32) {
        for second in seconds {
            burden.judge(ms(rtt), Line { load: [sent, 300], capacity: CAPACITY }, at(second));
        }
    }

    #[test]
    fn a_delay_that_comes_with_the_site_s_own_traffic_is_a_queue_even_of_a_link_slower_than_configured() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        assert!(!burden.is_strained(at(10)));
        play(&mut burden, 10..13, 450, 4_000);
        assert!(burden.is_strained(at(13)) && burden.is_full());
        assert_eq!(burden.measured(), Some(4_000));
        // The traffic has gone, and the queue with it.
        play(&mut burden, 13..20, 18, 200);
        assert!(!burden.is_strained(at(20)) && !burden.is_full());
        assert_eq!(burden.measured(), None);
    }

    #[test]
    fn a_delay_without_traffic_is_not_the_site_s_doing_and_becomes_what_the_path_has() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        play(&mut burden, 10..20, 450, 200);
        assert!(!burden.is_strained(at(20)));
        play(&mut burden, 20..30, 455, 6_000);
        assert!(!burden.is_strained(at(30)), "nor is it when traffic comes that adds none");
    }

    #[test]
    fn a_delay_that_stays_when_the_traffic_has_gone_is_no_queue() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        play(&mut burden, 10..20, 450, 15_000);
        assert!(burden.is_strained(at(20)));
        play(&mut burden, 20..27, 450, 200);
        assert!(!burden.is_strained(at(27)));
    }

    #[test]
    fn a_link_is_full_at_nine_tenths_and_has_room_below_three_quarters() {
        let mut burden = Burden::default();
        let mut found = Vec::new();
        for (second, sent) in [(0, 17_900), (1, 18_000), (2, 15_100), (3, 14_900), (4, 17_000)] {
            burden.judge(ms(18), Line { load: [sent, 0], capacity: CAPACITY }, at(second));
            found.push((burden.is_full(), burden.has_room(CAPACITY[0])));
        }
        assert_eq!(found, [(false, false), (true, false), (true, false), (false, true), (false, false)]);
    }

    #[test]
    fn a_longer_way_that_a_busy_path_has_taken_is_its_own_after_five_minutes() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        play(&mut burden, 10..100, 18, 8_000);
        // Another route, while the traffic goes on as before.
        play(&mut burden, 100..120, 60, 8_000);
        assert!(burden.is_strained(at(120)), "it might be a queue");
        play(&mut burden, 120..410, 60, 8_000);
        assert!(!burden.is_strained(at(410)));
        // From there on queues are told as before.
        play(&mut burden, 410..415, 90, 12_000);
        assert!(burden.is_strained(at(415)));
    }

    #[test]
    fn a_queue_that_runs_empty_now_and_then_is_one_for_ever() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        for minute in 0..30 {
            play(&mut burden, 10 + minute * 60..68 + minute * 60, 450, 18_000);
            assert!(burden.is_strained(at(68 + minute * 60)), "minute {minute}");
            play(&mut burden, 68 + minute * 60..70 + minute * 60, 20, 18_000);
        }
    }

    #[test]
    fn a_path_that_was_set_up_anew_is_measured_anew() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        play(&mut burden, 10..20, 60, 8_000);
        assert!(burden.is_strained(at(20)));
        burden.restart();
        play(&mut burden, 20..30, 60, 8_000);
        assert!(!burden.is_strained(at(30)));
    }

    #[test]
    fn another_target_further_away_is_no_queue() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        for second in 10..20 {
            let far = RoundTrip { rtt: Duration::from_millis(80), source: Some(1) };
            burden.judge(Some(far), Line { load: [8_000, 300], capacity: CAPACITY }, at(second));
        }
        assert!(!burden.is_strained(at(20)));
    }

    #[test]
    fn a_burst_is_no_strain() {
        let mut burden = Burden::default();
        play(&mut burden, 0..10, 18, 200);
        play(&mut burden, 10..11, 100, 15_000);
        assert!(!burden.is_strained(at(11)));
        play(&mut burden, 11..12, 100, 15_000);
        assert!(burden.is_strained(at(12)));
    }
}
