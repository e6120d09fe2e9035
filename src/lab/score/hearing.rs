use std::collections::VecDeque;
use std::time::Duration;

use super::e_model::{EModel, PACKET_TIME, mos};
use crate::model::Moment;

/// So long a part of a call is judged by itself: ITU-T P.564 asks monitors for 8 s and more, RTCP
/// reports come each 5 s.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Below it users are dissatisfied (ITU-T G.109: R below 80 is "some users dissatisfied").
pub const GOOD: f64 = 4.0;

/// Packets of a window.
const WINDOW_PACKETS: usize = (WINDOW.as_millis() / PACKET_TIME.as_millis()) as usize;

/// A silence longer than this is heard, and counts as outage: five packets.
const HEARD_SILENCE: Duration = Duration::from_millis(100);

/// What one end of a call hears: judges its packets window by window.
pub struct Hearing {
    model: EModel,
    /// Of the present window: one-way delays, `None` for what was lost.
    window: Vec<Option<Duration>>,
    judged: u32,
    bad: u32,
    worst: f64,
    last_heard: Option<Moment>,
    silence: Duration,
    /// Packets on their way, for those that are overtaken.
    on_the_way: VecDeque<Moment>,
    overtaken: u64,
}

impl Default for Hearing {
    fn default() -> Hearing {
        Hearing {
            model: EModel::new(),
            window: Vec::with_capacity(WINDOW_PACKETS),
            judged: 0,
            bad: 0,
            worst: f64::INFINITY,
            last_heard: None,
            silence: Duration::ZERO,
            on_the_way: VecDeque::new(),
            overtaken: 0,
        }
    }
}

impl Hearing {
    /// A packet was sent, and will arrive then, if at all.
    pub fn handle_packet(&mut self, sent: Moment, arrives: Option<Moment>) {
        self.last_heard.get_or_insert(sent);
        if let Some(arrives) = arrives {
            while self.on_the_way.front().is_some_and(|first| *first <= sent) {
                self.on_the_way.pop_front();
            }
            // RFC 4737: of two packets in the wrong order the one that was sent first is late.
            let before = self.on_the_way.len();
            self.on_the_way.retain(|earlier| *earlier <= arrives);
            self.overtaken += (before - self.on_the_way.len()) as u64;
            self.on_the_way.push_back(arrives);
            self.hear(arrives);
        }
        self.window.push(arrives.map(|arrives| arrives.since(sent)));
        if self.window.len() >= WINDOW_PACKETS {
            self.judge();
        }
    }

    /// The call is over.
    pub fn finish(&mut self, now: Moment) {
        self.hear(now);
        if self.window.len() >= WINDOW_PACKETS / 2 {
            self.judge();
        }
    }

    /// Windows that were judged, and of these those that were not good.
    pub fn windows(&self) -> (u32, u32) {
        (self.judged, self.bad)
    }

    pub fn silence(&self) -> Duration {
        self.silence
    }

    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    fn hear(&mut self, at: Moment) {
        let Some(last) = self.last_heard.filter(|last| *last < at) else { return };
        let pause = at.since(last);
        if pause > HEARD_SILENCE {
            self.silence += pause.saturating_sub(PACKET_TIME);
        }
        self.last_heard = Some(at);
    }

    fn judge(&mut self) {
        let score = mos(self.best_rating());
        self.judged += 1;
        self.bad += u32::from(score < GOOD);
        self.worst = self.worst.min(score);
        self.window.clear();
    }

    /// The rating of the window with the playout buffer that suits it best: whatever is later than
    /// it is lost, and whatever is sooner waits.
    fn best_rating(&self) -> f64 {
        let mut delays: Vec<Duration> = self.window.iter().flatten().copied().collect();
        delays.sort_unstable();
        let all = self.window.len().max(1);
        let lost = all - delays.len();
        let burst_ratio = self.burst_ratio(lost as f64 / all as f64);
        let mut best = f64::NEG_INFINITY;
        // A buffer that leaves more than a tenth out is never best.
        for late in 0..=delays.len() / 10 {
            let Some(longest) = delays.len().checked_sub(late + 1).and_then(|index| delays.get(index)) else { break };
            let part = (lost + late) as f64 / all as f64;
            best = best.max(self.model.rating(*longest + PACKET_TIME, part, burst_ratio));
        }
        if best.is_finite() { best } else { 0.0 }
    }

    /// How much longer losses in a row are than they would be by chance alone (G.107 7.5).
    fn burst_ratio(&self, loss: f64) -> f64 {
        let lost = self.window.iter().filter(|delay| delay.is_none()).count();
        let begun = std::iter::once(false).chain(self.window.iter().map(Option::is_none));
        let bursts = begun.zip(&self.window).filter(|(before, delay)| !before && delay.is_none()).count();
        if bursts == 0 {
            return 1.0;
        }
        (lost as f64 / bursts as f64 * (1.0 - loss)).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(packets: u64, mut fate: impl FnMut(u64) -> Option<u64>) -> Hearing {
        let mut hearing = Hearing::default();
        for number in 0..packets {
            let sent = Moment::from_millis(number * 20);
            hearing.handle_packet(sent, fate(number).map(|ms| sent + Duration::from_millis(ms)));
        }
        hearing.finish(Moment::from_millis(packets * 20));
        hearing
    }

    #[test]
    fn a_good_call_is_good_and_a_lossy_or_slow_one_is_not() {
        assert_eq!(hear(500, |_| Some(30)).windows(), (2, 0));
        assert_eq!(hear(500, |number| (number % 10 != 0).then_some(30)).windows(), (2, 2));
        assert_eq!(hear(500, |_| Some(350)).windows(), (2, 2));
        assert_eq!(hear(500, |number| Some(if number < 250 { 30 } else { 350 })).windows(), (2, 1));
    }

    #[test]
    fn the_buffer_gives_up_what_is_very_late() {
        // Two of a hundred come 400 ms late: better lost than waited for.
        assert_eq!(hear(250, |number| Some(if number % 100 == 7 { 430 } else { 30 })).windows(), (1, 0));
    }

    #[test]
    fn silence_counts_when_it_is_heard() {
        let short = hear(250, |number| (!(100..103).contains(&number)).then_some(30));
        assert_eq!(short.silence(), Duration::ZERO);
        let long = hear(250, |number| (!(100..150).contains(&number)).then_some(30));
        assert_eq!(long.silence(), Duration::from_millis(1_000));
        let to_the_end = hear(250, |number| (number < 200).then_some(30));
        assert!(to_the_end.silence() > Duration::from_millis(900), "{:?}", to_the_end.silence());
    }

    #[test]
    fn packets_that_are_overtaken_are_counted() {
        // From the 100th on the way is 70 ms shorter: three or four are overtaken.
        let hearing = hear(250, |number| Some(if number < 100 { 100 } else { 30 }));
        assert_eq!(hearing.overtaken(), 3);
    }
}
