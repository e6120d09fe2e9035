use std::collections::VecDeque;
use std::time::Duration;

use super::one_way::{Measure, Report, micros};
use crate::model::{Moment, Permille};

/// Results that loss is told from: half a minute at five a second.
const WINDOW: usize = 150;
/// With fewer it says nothing.
const LEAST: usize = 20;

/// A message that others have overtaken may still come: one is lost when so many later ones have arrived.
const OVERTAKEN: u32 = 3;

/// What was sent so long ago and is in no report that has come since is lost: a round trip, and the pause between two.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told longer ago says nothing of now.
const FRESH: Duration = Duration::from_secs(5);

/// Messages that no report has told of, at most: those of a minute at five a second.
const UNTOLD: usize = 300;

/// Delays that the least is told from.
const DELAYS: usize = 64;

/// What the two ends of a tunnel tell each other of each direction by itself.
#[derive(Debug)]
pub struct TwoWay {
    session: u32,
    next: u32,
    /// Numbers, and when they were sent, that no report has decided about.
    untold: VecDeque<(u32, Moment)>,
    sent: Outcomes,
    /// The last report, and when it came.
    told: Option<(Report, Moment)>,
    arriving: Option<Arriving>,
}

/// One direction, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Direction {
    pub loss: Option<Permille>,
    pub jitter: Option<Duration>,
    /// By how much its delays of late exceed the least.
    pub rise: Option<Duration>,
}

/// What has arrived of a session of the peer's.
#[derive(Debug)]
struct Arriving {
    session: u32,
    highest: u32,
    /// As in `Report`.
    arrived: u64,
    outcomes: Outcomes,
    /// By how many the first of them has been overtaken.
    since_first: u64,
    last: Moment,
    /// Of the clocks' difference and the delay, in microseconds, the latest last.
    transits: VecDeque<i64>,
    /// Smoothed, in microseconds.
    jitter: f64,
    rise: f64,
}

#[derive(Debug, Default)]
struct Outcomes {
    arrived: VecDeque<bool>,
    lost: usize,
}

impl TwoWay {
    pub fn new(now: Moment) -> TwoWay {
        // Another one than that of any earlier IKE SA of the tunnel, and never 0.
        let session = (now.as_nanos() >> 16) as u32 | 1;
        TwoWay { session, next: 0, untold: VecDeque::new(), sent: Outcomes::default(), told: None, arriving: None }
    }

    /// The next message.
    pub fn message(&mut self, now: Moment) -> Measure {
        let number = self.next;
        self.next = number.wrapping_add(1);
        if self.untold.len() >= UNTOLD {
            self.untold.pop_front();
        }
        self.untold.push_back((number, now));
        let report = self.arriving.as_ref().filter(|arriving| now.since(arriving.last) < FRESH);
        Measure { session: self.session, number, sent: 0, report: report.map(Arriving::report) }
    }

    /// The peer's message has arrived.
    pub fn handle(&mut self, measure: &Measure, at: Moment) {
        let arriving = match &mut self.arriving {
            Some(arriving) if arriving.session == measure.session => arriving,
            place => place.insert(Arriving::new(measure, at)),
        };
        let is_latest = arriving.take(measure, at);
        // One that was overtaken tells what is not so any more.
        if let Some(report) = measure.report.filter(|report| is_latest && report.session == self.session) {
            self.hear(report, at);
        }
    }

    /// The direction in which we send.
    pub fn sending(&self, now: Moment) -> Direction {
        let Some((report, _)) = self.told.filter(|(_, at)| now.since(*at) < FRESH) else { return Direction::default() };
        let micros = |micros: u32| Some(Duration::from_micros(micros.into()));
        Direction { loss: self.sent.loss(), jitter: micros(report.jitter), rise: micros(report.rise) }
    }

    /// The direction in which the peer sends.
    pub fn receiving(&self, now: Moment) -> Direction {
        let arriving = self.arriving.as_ref().filter(|arriving| now.since(arriving.last) < FRESH);
        let Some(arriving) = arriving else { return Direction::default() };
        let micros = |micros: f64| Some(Duration::from_micros(micros as u64));
        Direction { loss: arriving.outcomes.loss(), jitter: micros(arriving.jitter), rise: micros(arriving.rise) }
    }

    fn hear(&mut self, report: Report, at: Moment) {
        // It tells of what we have not sent.
        if report.highest >= self.next {
            return;
        }
        self.told = Some((report, at));
        while let Some((number, sent)) = self.untold.front().copied() {
            let behind = report.highest.checked_sub(number);
            let has_arrived = behind.is_some_and(|behind| behind < 64 && report.arrived & (1 << behind) != 0);
            let is_over = behind.is_some_and(|behind| behind >= OVERTAKEN) || at.since(sent) >= PATIENCE;
            if !has_arrived && !is_over {
                return;
            }
            self.untold.pop_front();
            // Too old for the report to tell of it.
            if behind.is_none_or(|behind| behind < 64) {
                self.sent.push(has_arrived);
            }
        }
    }
}

impl Arriving {
    fn new(first: &Measure, at: Moment) -> Arriving {
        Arriving {
            session: first.session,
            highest: first.number,
            arrived: 0,
            outcomes: Outcomes::default(),
            since_first: 0,
            last: at,
            transits: VecDeque::new(),
            jitter: 0.0,
            rise: 0.0,
        }
    }

    /// `false`: it is an old one, or came twice.
    fn take(&mut self, measure: &Measure, at: Moment) -> bool {
        let ahead = measure.number.wrapping_sub(self.highest) as i32;
        if ahead < 0 || ahead == 0 && self.arrived & 1 != 0 {
            let behind = ahead.unsigned_abs();
            // While its outcome is open, one that was overtaken counts as arrived.
            if behind > 0 && behind < OVERTAKEN {
                self.arrived |= 1 << behind;
            }
            return false;
        }
        for _ in 0..(ahead.unsigned_abs() as usize).min(WINDOW) {
            self.arrived <<= 1;
            self.settle();
        }
        (self.highest, self.last) = (measure.number, at);
        self.arrived |= 1;
        self.take_delay(measure, at);
        true
    }

    /// What has been overtaken by so many is decided.
    fn settle(&mut self) {
        self.since_first = self.since_first.saturating_add(1);
        if self.since_first >= u64::from(OVERTAKEN) {
            self.outcomes.push(self.arrived & (1 << OVERTAKEN) != 0);
        }
    }

    fn take_delay(&mut self, measure: &Measure, at: Moment) {
        let transit = micros(at).wrapping_sub(measure.sent) as i64;
        if let Some(before) = self.transits.back() {
            let difference = transit.wrapping_sub(*before).unsigned_abs() as f64;
            // RFC 3550 6.4.1.
            self.jitter += (difference.min(1e9) - self.jitter) / 16.0;
        }
        if self.transits.len() >= DELAYS {
            self.transits.pop_front();
        }
        self.transits.push_back(transit);
        let least = self.transits.iter().copied().min().unwrap_or(transit);
        self.rise += (transit.saturating_sub(least) as f64 - self.rise).min(1e9) / 8.0;
    }

    fn report(&self) -> Report {
        let Arriving { session, highest, arrived, jitter, rise, .. } = *self;
        Report { session, highest, arrived, jitter: jitter as u32, rise: rise as u32 }
    }
}

impl Outcomes {
    fn push(&mut self, arrived: bool) {
        if self.arrived.len() >= WINDOW
            && let Some(false) = self.arrived.pop_front()
        {
            self.lost = self.lost.saturating_sub(1);
        }
        self.arrived.push_back(arrived);
        self.lost += usize::from(!arrived);
    }

    fn loss(&self) -> Option<Permille> {
        (self.arrived.len() >= LEAST).then(|| Permille::of(self.lost as u64, self.arrived.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Chance;

    const PACE: Duration = Duration::from_millis(200);

    /// Two ends, whose clocks differ by an hour, and what is on its way between them.
    struct Pair {
        ends: [TwoWay; 2],
        now: Moment,
        /// When it arrives, where, and what.
        flying: Vec<(Moment, usize, Measure)>,
        /// Per mille lost, and delay, of what each end sends.
        loss: [u32; 2],
        delay: [Duration; 2],
        jitter: [Duration; 2],
        chance: Chance,
    }

    impl Pair {
        fn new() -> Pair {
            let now = Moment::from_millis(10_000);
            Pair {
                ends: [TwoWay::new(now), TwoWay::new(now + Duration::from_secs(3_600))],
                now,
                flying: Vec::new(),
                loss: [0; 2],
                delay: [Duration::from_millis(20); 2],
                jitter: [Duration::ZERO; 2],
                chance: Chance::from_number(7),
            }
        }

        fn clock(&self, end: usize) -> Moment {
            self.now + Duration::from_secs(3_600) * end as u32
        }

        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            while self.now < end {
                if (self.now.as_nanos() / 1_000_000).is_multiple_of(PACE.as_millis() as u64) {
                    for from in 0..2 {
                        let clock = self.clock(from);
                        let mut bytes = self.ends[from].message(clock).write();
                        Measure::stamp(&mut bytes, clock);
                        let spread = self.jitter[from].as_millis() as u32;
                        let late = Duration::from_millis(u64::from(self.chance.below(spread + 1)));
                        if self.chance.below(1_000) >= self.loss[from] {
                            let measure = Measure::read(&bytes).unwrap();
                            self.flying.push((self.now + self.delay[from] + late, 1 - from, measure));
                        }
                    }
                }
                self.now = self.now + Duration::from_millis(1);
                let now = self.now;
                let (arrived, flying) = self.flying.drain(..).partition(|(at, ..)| *at <= now);
                self.flying = flying;
                let arrived: Vec<(Moment, usize, Measure)> = arrived;
                for (_, to, measure) in arrived {
                    let clock = self.clock(to);
                    self.ends[to].handle(&measure, clock);
                }
            }
        }

        fn sending(&self, end: usize) -> Direction {
            self.ends[end].sending(self.clock(end))
        }

        fn receiving(&self, end: usize) -> Direction {
            self.ends[end].receiving(self.clock(end))
        }
    }

    fn permille(direction: Direction) -> u16 {
        direction.loss.expect("measured").value()
    }

    #[test]
    fn loss_of_one_direction_shows_in_that_direction_alone_and_at_both_ends() {
        let mut pair = Pair::new();
        pair.loss = [50, 0];
        let (mut up, mut rounds) = (0, 0);
        for _ in 0..20 {
            pair.run(Duration::from_secs(30));
            assert_eq!((permille(pair.receiving(0)), permille(pair.sending(1))), (0, 0));
            assert!(permille(pair.sending(0)).abs_diff(permille(pair.receiving(1))) <= 14, "both ends see the same");
            up += u32::from(permille(pair.sending(0)));
            rounds += 1;
        }
        assert!((35..=65).contains(&(up / rounds)), "{} per mille", up / rounds);
    }

    #[test]
    fn nothing_is_told_before_enough_has_arrived_nor_after_it_has_ceased() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(2));
        assert_eq!((pair.sending(0).loss, pair.receiving(0).loss), (None, None));
        pair.run(Duration::from_secs(5));
        assert_eq!((permille(pair.sending(0)), permille(pair.receiving(0))), (0, 0));
        pair.loss = [1_000, 1_000];
        pair.run(Duration::from_secs(7));
        assert_eq!((pair.sending(0), pair.receiving(0)), (Direction::default(), Direction::default()));
    }

    #[test]
    fn a_direction_that_is_cut_shows_while_the_other_still_tells_of_it() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(40));
        pair.loss = [1_000, 0];
        pair.run(Duration::from_secs(4));
        // The peer stops telling what is too old; until then all that is missing counts.
        assert!(permille(pair.sending(0)) > 30, "{:?}", pair.sending(0));
        assert_eq!(permille(pair.receiving(0)), 0);
    }

    #[test]
    fn delay_that_varies_one_way_shows_in_that_direction_alone() {
        let mut pair = Pair::new();
        pair.jitter = [Duration::from_millis(30), Duration::ZERO];
        pair.run(Duration::from_secs(60));
        let (up, down) = (pair.sending(0), pair.receiving(0));
        let ms = |span: Option<Duration>| span.unwrap().as_millis();
        assert!((6..=14).contains(&ms(up.jitter)) && ms(down.jitter) == 0, "{up:?} {down:?}");
        assert!((8..=24).contains(&ms(up.rise)) && ms(down.rise) == 0, "{up:?} {down:?}");
        // A queue that builds up.
        pair.jitter = [Duration::ZERO; 2];
        pair.run(Duration::from_secs(30));
        pair.delay[1] = Duration::from_millis(70);
        pair.run(Duration::from_secs(8));
        let (up, down) = (pair.sending(0), pair.receiving(0));
        assert!(ms(up.rise) == 0 && (45..=50).contains(&ms(down.rise)), "{up:?} {down:?}");
    }

    #[test]
    fn what_is_overtaken_is_not_lost_and_what_comes_twice_counts_once() {
        let mut pair = Pair::new();
        pair.jitter = [Duration::from_millis(390); 2];
        pair.run(Duration::from_secs(60));
        assert_eq!((permille(pair.sending(0)), permille(pair.receiving(0))), (0, 0));
        let again: Vec<_> = pair.flying.clone();
        pair.flying.extend(again);
        pair.run(Duration::from_secs(30));
        assert_eq!((permille(pair.sending(0)), permille(pair.receiving(0))), (0, 0));
    }

    #[test]
    fn reports_of_what_was_never_sent_and_of_other_sessions_change_nothing() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(30));
        let now = pair.clock(0);
        let before = pair.sending(0);
        let (ours, theirs) = (pair.ends[0].session, pair.ends[1].session);
        let number = pair.ends[1].next;
        let lie = |session, highest| Report { session, highest, arrived: 0, jitter: u32::MAX, rise: u32::MAX };
        for (number, report) in [(number, lie(ours, u32::MAX)), (number + 1, lie(ours ^ 8, 20)), (3, lie(ours, 3))] {
            let measure = Measure { session: theirs, number, sent: u64::MAX, report: Some(report) };
            pair.ends[0].handle(&measure, now);
        }
        assert_eq!(pair.sending(0), before);
        // Numbers and times that leap cost no more than any other.
        for number in [u32::MAX / 2, 7, u32::MAX, 0, 1 << 31] {
            for sent in [0, u64::MAX, 1 << 63] {
                let measure = Measure { session: theirs, number, sent, report: Some(lie(ours, 0)) };
                pair.ends[0].handle(&measure, now);
            }
        }
        assert!(pair.ends[0].sent.arrived.len() <= WINDOW && pair.ends[0].untold.len() <= UNTOLD);
    }

    #[test]
    fn a_peer_that_starts_anew_is_measured_anew() {
        let mut pair = Pair::new();
        pair.loss = [0, 500];
        pair.run(Duration::from_secs(60));
        assert!(permille(pair.receiving(0)) > 300);
        pair.loss = [0, 0];
        pair.ends[1] = TwoWay::new(pair.clock(1));
        pair.run(Duration::from_secs(10));
        assert_eq!(permille(pair.receiving(0)), 0);
        assert_eq!(permille(pair.sending(1)), 0);
    }
}
