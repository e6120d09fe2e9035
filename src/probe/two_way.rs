use std::collections::VecDeque;
use std::time::Duration;

use super::one_way::{Measure, Report, is_sparing, micros};
use crate::model::{Moment, Permille, certain_loss};

/// Loss is told from the results of so long: 150 at five a second, 30 at one.
const WINDOW: Duration = Duration::from_secs(30);
/// And so many at most: ten a second.
const RESULTS: usize = 300;
/// With fewer it says nothing.
const LEAST: usize = 20;

/// A message that others have overtaken may still come: one is lost when so many later ones have arrived.
const OVERTAKEN: u32 = 3;

/// Between two messages: often enough that half a minute tells 5 % of loss from none.
const PACE: Duration = Duration::from_millis(200);

/// Where either end is sparing.
const PACE_SPARING: Duration = Duration::from_secs(1);

/// What was sent so long ago and is in no report that has come since is lost: a round trip, to which the pause between
/// two messages comes.
const PATIENCE: Duration = Duration::from_millis(1_800);

/// What was told longer ago says nothing of now.
const FRESH: Duration = Duration::from_secs(5);

/// Messages that no report has told of, at most: those of a minute at five a second.
const UNTOLD: usize = 300;

/// The least delay is told from so long: two clocks drift apart by no more than a millisecond meanwhile.
const DELAYS: Duration = Duration::from_secs(15);
/// And from so many at most: ten a second.
const DELAYS_MOST: usize = 150;

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
    /// It loses more than this, with a certainty of 99 %.
    pub loss_least: Option<Permille>,
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
    /// Of the clocks' difference and the delay, in microseconds, and when it came, the latest last.
    transits: VecDeque<(Moment, i64)>,
    /// Smoothed, in microseconds.
    jitter: f64,
    rise: f64,
}

/// Whether what was sent has arrived, and when that was or was to be; the newest last.
#[derive(Debug, Default)]
struct Outcomes {
    results: VecDeque<(Moment, bool)>,
}

impl TwoWay {
    /// `sparing`: few messages, from the peer too.
    pub fn new(sparing: bool, now: Moment) -> TwoWay {
        // Another one than that of any earlier IKE SA of the tunnel, and never 0.
        let session = (now.as_nanos() >> 16) as u32 | 3;
        TwoWay {
            session: if sparing { session ^ 1 } else { session },
            next: 0,
            untold: VecDeque::new(),
            sent: Outcomes::default(),
            told: None,
            arriving: None,
        }
    }

    /// How long after a message the next is due.
    pub fn pace(&self) -> Duration {
        let theirs = self.arriving.as_ref().map(|arriving| arriving.session);
        if is_sparing(self.session) || theirs.is_some_and(is_sparing) { PACE_SPARING } else { PACE }
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
        self.sent.direction(micros(report.jitter), micros(report.rise), now)
    }

    /// The direction in which the peer sends.
    pub fn receiving(&self, now: Moment) -> Direction {
        let arriving = self.arriving.as_ref().filter(|arriving| now.since(arriving.last) < FRESH);
        let Some(arriving) = arriving else { return Direction::default() };
        let micros = |micros: f64| Some(Duration::from_micros(micros as u64));
        arriving.outcomes.direction(micros(arriving.jitter), micros(arriving.rise), now)
    }

    fn hear(&mut self, report: Report, at: Moment) {
        // It tells of what we have not sent.
        if report.highest >= self.next {
            return;
        }
        if self.told.replace((report, at)).is_none() {
            self.forget_unheard(&report);
        }
        while let Some((number, sent)) = self.untold.front().copied() {
            let behind = report.highest.checked_sub(number);
            let has_arrived = behind.is_some_and(|behind| behind < 64 && report.arrived & (1 << behind) != 0);
            let is_over = behind.is_some_and(|behind| behind >= OVERTAKEN) || at.since(sent) >= PATIENCE + self.pace();
            if !has_arrived && !is_over {
                return;
            }
            self.untold.pop_front();
            // Too old for the report to tell of it.
            if behind.is_none_or(|behind| behind < 64) {
                self.sent.push(has_arrived, sent);
            }
        }
    }

    /// What was said before the first that the peer has heard is not lost: one end of a tunnel is up before the other, whose
    /// workers may not know yet that its peer is a Trefoil.
    fn forget_unheard(&mut self, first: &Report) {
        let heard_since = first.arrived.checked_ilog2().map_or(0, |behind| first.highest.saturating_sub(behind));
        while self.untold.front().is_some_and(|(number, _)| *number < heard_since) {
            self.untold.pop_front();
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
        // Those between were sent between: after a silence, what was open before it is old.
        let (ahead, since) = (ahead.unsigned_abs(), at.since(self.last));
        let first = ahead.saturating_sub(RESULTS as u32);
        if first > 0 {
            self.arrived = 0;
        }
        for step in first..ahead {
            self.arrived <<= 1;
            let part = f64::from(step.saturating_add(1).saturating_sub(OVERTAKEN)) / f64::from(ahead);
            self.settle(self.last + since.mul_f64(part));
        }
        (self.highest, self.last) = (measure.number, at);
        self.arrived |= 1;
        self.take_delay(measure, at);
        true
    }

    /// What has been overtaken by so many is decided.
    fn settle(&mut self, at: Moment) {
        self.since_first = self.since_first.saturating_add(1);
        if self.since_first >= u64::from(OVERTAKEN) {
            self.outcomes.push(self.arrived & (1 << OVERTAKEN) != 0, at);
        }
    }

    fn take_delay(&mut self, measure: &Measure, at: Moment) {
        let transit = micros(at).wrapping_sub(measure.sent) as i64;
        if let Some((_, before)) = self.transits.back() {
            let difference = transit.wrapping_sub(*before).unsigned_abs() as f64;
            // RFC 3550 6.4.1.
            self.jitter += (difference.min(1e9) - self.jitter) / 16.0;
        }
        keep(&mut self.transits, DELAYS, DELAYS_MOST, at);
        self.transits.push_back((at, transit));
        let least = self.transits.iter().map(|(_, transit)| *transit).min().unwrap_or(transit);
        self.rise += (transit.saturating_sub(least) as f64 - self.rise).min(1e9) / 8.0;
    }

    fn report(&self) -> Report {
        let Arriving { session, highest, arrived, jitter, rise, .. } = *self;
        Report { session, highest, arrived, jitter: jitter as u32, rise: rise as u32 }
    }
}

impl Outcomes {
    fn push(&mut self, arrived: bool, at: Moment) {
        keep(&mut self.results, WINDOW, RESULTS, at);
        self.results.push_back((at, arrived));
    }

    fn direction(&self, jitter: Option<Duration>, rise: Option<Duration>, now: Moment) -> Direction {
        // What is old says nothing, however slowly news come.
        let results = || self.results.iter().rev().take_while(|(at, _)| now.since(*at) <= WINDOW);
        let lost = || results().zip(1u32..).filter(|((_, arrived), _)| !arrived).map(|(_, place)| place);
        let (all, told) = (results().count(), results().count() >= LEAST);
        let loss = told.then(|| Permille::of(lost().count() as u64, all as u64));
        Direction { loss, loss_least: told.then(|| certain_loss(lost())), jitter, rise }
    }
}

/// Makes room for one that comes now.
fn keep<T>(results: &mut VecDeque<(Moment, T)>, span: Duration, most: usize, now: Moment) {
    while results.front().is_some_and(|(at, _)| now.since(*at) > span) || results.len() >= most {
        results.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Chance;

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
        pace: Duration,
        chance: Chance,
    }

    impl Pair {
        fn new() -> Pair {
            let now = Moment::from_millis(10_000);
            Pair {
                ends: [TwoWay::new(false, now), TwoWay::new(false, now + Duration::from_secs(3_600))],
                now,
                flying: Vec::new(),
                loss: [0; 2],
                delay: [Duration::from_millis(20); 2],
                jitter: [Duration::ZERO; 2],
                pace: PACE,
                chance: Chance::from_number(7),
            }
        }

        fn clock(&self, end: usize) -> Moment {
            self.now + Duration::from_secs(3_600) * end as u32
        }

        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            while self.now < end {
                if (self.now.as_nanos() / 1_000_000).is_multiple_of(self.pace.as_millis() as u64) {
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
        assert!(pair.ends[0].sent.results.len() <= RESULTS && pair.ends[0].untold.len() <= UNTOLD);
    }

    #[test]
    fn loss_of_more_than_half_a_minute_ago_is_over_however_slowly_messages_come() {
        for pace in [PACE, PACE * 5] {
            let mut pair = Pair::new();
            pair.pace = pace;
            pair.loss = [400, 400];
            pair.run(Duration::from_secs(60));
            let directions = |pair: &Pair| [pair.sending(0), pair.receiving(0), pair.sending(1), pair.receiving(1)];
            assert!(directions(&pair).into_iter().all(|way| permille(way) > 200), "{pace:?}: {:?}", directions(&pair));
            pair.loss = [0, 0];
            pair.run(WINDOW + PATIENCE + PACE_SPARING + Duration::from_secs(1));
            assert_eq!(directions(&pair).map(permille), [0; 4], "{pace:?}");
        }
    }

    #[test]
    fn what_was_known_before_a_silence_is_not_told_after_it() {
        let mut pair = Pair::new();
        pair.loss = [500, 500];
        pair.run(Duration::from_secs(60));
        // The path rests for a while, as one that is taken down does, and is fine when it comes back.
        pair.flying.clear();
        pair.pace = Duration::from_secs(3_600);
        pair.now = pair.now + Duration::from_secs(60);
        (pair.pace, pair.loss) = (PACE, [0, 0]);
        pair.run(Duration::from_secs(3));
        assert_eq!((pair.sending(0).loss, pair.receiving(0).loss), (None, None), "too few have come since");
        pair.run(Duration::from_secs(10));
        assert_eq!((permille(pair.sending(0)), permille(pair.receiving(0))), (0, 0));
    }

    #[test]
    fn what_is_certain_of_a_direction_is_less_than_what_was_lost_and_soon_known() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(40));
        pair.loss = [0, 80];
        let (mut seen, mut below) = (0, 0);
        for _ in 0..40 {
            pair.run(Duration::from_secs(5));
            let (least, loss) = (pair.receiving(0).loss_least.unwrap(), pair.receiving(0).loss.unwrap());
            assert_eq!([pair.sending(0).loss_least, pair.receiving(1).loss_least], [Some(Permille::ZERO); 2]);
            seen += u32::from(least > Permille::ZERO);
            below += u32::from(least < Permille::new(80).unwrap() && least <= loss.max(Permille::new(149).unwrap()));
        }
        assert!(seen >= 38 && below >= 36, "{seen} {below}");
    }

    #[test]
    fn where_one_end_is_sparing_both_say_little_and_slow_reports_are_no_loss() {
        let mut pair = Pair::new();
        assert_eq!(pair.ends[0].pace(), PACE);
        pair.ends[1] = TwoWay::new(true, pair.clock(1));
        pair.run(Duration::from_secs(1));
        assert_eq!([0, 1].map(|end| pair.ends[end].pace()), [PACE_SPARING; 2]);
        // A report of what was sent comes after a round trip and the pause between two.
        (pair.pace, pair.delay) = (PACE_SPARING, [Duration::from_millis(850); 2]);
        pair.run(Duration::from_secs(60));
        assert_eq!([0, 1].map(|end| permille(pair.sending(end))), [0; 2]);
        // Set up anew, it may have more to spend.
        pair.ends[1] = TwoWay::new(false, pair.clock(1));
        pair.run(Duration::from_secs(3));
        assert_eq!([0, 1].map(|end| pair.ends[end].pace()), [PACE; 2]);
        let now = pair.now;
        for session in [TwoWay::new(true, now).session, TwoWay::new(true, Moment::ZERO).session] {
            assert!(session != 0 && is_sparing(session));
        }
    }

    #[test]
    fn what_is_said_before_the_other_end_listens_is_not_lost() {
        for deaf in [1, 3, 30] {
            let mut pair = Pair::new();
            // What arrives there meanwhile is dropped, by an end that does not know yet what it is.
            pair.loss = [1_000, 0];
            pair.run(PACE * deaf);
            pair.flying.retain(|(_, to, _)| *to != 1);
            pair.loss = [0, 0];
            pair.run(Duration::from_secs(6));
            assert_eq!((permille(pair.sending(0)), permille(pair.receiving(1))), (0, 0), "{deaf} at first");
            // What is lost from then on is.
            pair.loss = [1_000, 0];
            pair.run(PACE);
            pair.loss = [0, 0];
            pair.run(PACE * 5);
            assert_eq!(pair.ends[0].sent.results.iter().filter(|(_, arrived)| !arrived).count(), 1, "{deaf} at first");
        }
    }

    proptest! {
        #[test]
        fn no_peer_makes_an_end_panic_or_grow(
            messages in proptest::collection::vec(
                (any::<u32>(), any::<u32>(), any::<u64>(), any::<(u32, u32, u64, u32, u32)>(), 0u64..4_000), 0..200
            )
        ) {
            let mut now = Moment::from_millis(10_000);
            let mut end = TwoWay::new(false, now);
            for (session, number, sent, (of, highest, arrived, jitter, rise), pause) in messages {
                let ours = end.message(now);
                // Half of them go by what they have seen.
                let near = number.is_multiple_of(2);
                let report = Report {
                    session: if near { ours.session } else { of },
                    highest: if near { ours.number.wrapping_sub(highest % 80) } else { highest },
                    arrived, jitter, rise,
                };
                let (session, number) = if near { (7, number % 400) } else { (session, number) };
                end.handle(&Measure { session, number, sent, report: Some(report) }, now);
                now = now + Duration::from_millis(pause);
                for way in [end.sending(now), end.receiving(now)] {
                    prop_assert!(way.loss_least <= way.loss.map(|_| Permille::FULL));
                }
            }
            prop_assert!(end.sent.results.len() <= RESULTS && end.untold.len() <= UNTOLD);
            prop_assert!(end.arriving.is_none_or(|one| one.outcomes.results.len() <= RESULTS && one.transits.len() <= DELAYS_MOST));
        }
    }

    #[test]
    fn a_peer_that_starts_anew_is_measured_anew() {
        let mut pair = Pair::new();
        pair.loss = [0, 500];
        pair.run(Duration::from_secs(60));
        assert!(permille(pair.receiving(0)) > 300);
        pair.loss = [0, 0];
        pair.ends[1] = TwoWay::new(false, pair.clock(1));
        pair.run(Duration::from_secs(10));
        assert_eq!(permille(pair.receiving(0)), 0);
        assert_eq!(permille(pair.sending(1)), 0);
    }
}
