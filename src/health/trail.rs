use std::collections::VecDeque;
use std::time::Duration;

use super::Recent;
use super::window::Outcome;
use crate::model::{Moment, Permille, certain_loss};

/// Of late is the last half minute: as the window has it at one a second,
const OF_LATE: Duration = Duration::from_secs(30);
/// and so many at least, where they come more rarely.
const OF_LATE_LEAST: usize = 30;
/// So many results are remembered: those of half a minute at ten a second, or of five minutes at one. They are
/// enough to be sure of the absence of 1 % of loss.
const RESULTS: usize = 300;
/// What is older tells of another day.
const KEPT: Duration = Duration::from_secs(600);
/// By so many of the newest the round trip and its variation are told.
const NEWEST: usize = 15;
/// By so many, where it must be soon.
const LATEST: usize = 5;
/// Fewer say nothing.
const LEAST: usize = 5;
/// At this mean, a Poisson process has no more than `n` losses with a chance of 10 %; by `n`, from none.
const MEANS_MOST: [f64; 10] = [2.303, 3.890, 5.322, 6.681, 7.994, 9.275, 10.532, 11.771, 12.995, 14.206];

/// What became of the probes of one target, however often it was asked, with the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    /// The newest last.
    results: VecDeque<(Moment, Outcome)>,
}

impl Trail {
    pub fn push(&mut self, result: Outcome, now: Moment) {
        while self.results.front().is_some_and(|(at, _)| now.since(*at) > KEPT) || self.results.len() >= RESULTS {
            self.results.pop_front();
        }
        self.results.push_back((now, result));
    }

    pub fn clear(&mut self) {
        self.results.clear();
    }

    /// Forgets everything up to the last loss.
    pub fn keep_since_loss(&mut self) {
        let last = self.results.iter().rposition(|(_, result)| *result == Outcome::Lost);
        self.results.drain(..last.map_or(0, |last| last + 1));
    }

    pub fn recent(&self) -> Option<Recent> {
        let newest: Vec<Duration> = self.rtts().take(NEWEST).collect();
        if newest.len() < LEAST {
            return None;
        }
        let differences = newest.iter().zip(newest.iter().skip(1)).map(|(one, next)| one.abs_diff(*next));
        let jitter = differences.sum::<Duration>() / u32::try_from(newest.len() - 1).unwrap_or(1);
        let count = self.of_late();
        let lost = self.lost().take_while(|place| *place <= count).count();
        let loss = Permille::of(lost as u64, count as u64);
        let (loss_least, loss_most) = (self.loss_least(), self.loss_most());
        Some(Recent { rtt: median(newest)?, jitter, loss, loss_least, loss_most })
    }

    /// The median of the newest few round trips.
    pub fn latest(&self) -> Option<Duration> {
        median(self.rtts().take(LATEST).collect())
    }

    /// It loses more than this, of late.
    pub fn loss_least(&self) -> Permille {
        let count = self.of_late();
        certain_loss(self.lost().take_while(|place| *place <= count).filter_map(|place| u32::try_from(place).ok()))
    }

    /// And less than this. What came after each of the newest losses is looked at by itself: loss that is over is forgotten when as much was
    /// answered as its absence takes to be seen.
    fn loss_most(&self) -> Permille {
        let all = self.results.len();
        let until = self.lost().map(|place| place - 1).chain(std::iter::once(all));
        let most = until.zip(MEANS_MOST).filter(|(probes, _)| *probes > 0);
        let most = most.map(|(probes, mean)| mean / probes as f64).fold(1.0, f64::min);
        Permille::new((most * 1_000.0).ceil() as u16).unwrap_or(Permille::FULL)
    }

    /// How many of the newest results are of late.
    fn of_late(&self) -> usize {
        let Some((newest, _)) = self.results.back() else { return 0 };
        let young = self.results.iter().rev().take_while(|(at, _)| newest.since(*at) <= OF_LATE).count();
        young.max(OF_LATE_LEAST).min(self.results.len())
    }

    /// How many results back each loss is, from 1.
    fn lost(&self) -> impl Iterator<Item = usize> + '_ {
        (1..).zip(self.results.iter().rev()).filter(|(_, (_, result))| *result == Outcome::Lost).map(|(place, _)| place)
    }

    /// The newest first.
    fn rtts(&self) -> impl Iterator<Item = Duration> + '_ {
        self.results.iter().rev().filter_map(|(_, result)| match result {
            Outcome::Answered(rtt) => *rtt,
            Outcome::Lost => None,
        })
    }
}

/// The lower of two middle ones.
fn median(mut rtts: Vec<Duration>) -> Option<Duration> {
    rtts.sort_unstable();
    rtts.get(rtts.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(millis: u64) -> Outcome {
        Outcome::Answered(Some(Duration::from_millis(millis)))
    }

    fn trail(results: impl IntoIterator<Item = bool>) -> Trail {
        let mut trail = Trail::default();
        for (number, is_answered) in (0u64..).zip(results) {
            trail.push(if is_answered { answered(20) } else { Outcome::Lost }, Moment::from_millis(number * 100));
        }
        trail
    }

    fn with_losses(count: usize, lost: &[usize]) -> Recent {
        let results = (0..count).map(|number| !lost.contains(&(count - number)));
        trail(results).recent().expect("some were answered")
    }

    #[test]
    fn one_loss_proves_nothing_and_two_close_together_much() {
        let least = |count, lost: &[usize]| with_losses(count, lost).loss_least.value();
        assert_eq!(least(30, &[1]), 0);
        assert_eq!(least(30, &[1, 14]), 10);
        assert_eq!(least(30, &[1, 5]), 29);
        assert_eq!(least(300, &[5, 150, 299]), 1);
        assert_eq!(least(300, &[5, 20, 40]), 10);
    }

    #[test]
    fn it_takes_some_250_answers_to_be_sure_that_less_than_a_hundredth_is_lost() {
        let most = |count, lost: &[usize]| with_losses(count, lost).loss_most.value();
        assert_eq!(most(30, &[]), 77, "few answers say little");
        assert_eq!(most(250, &[]), 10);
        assert_eq!(most(256, &[]), 9);
        // What was lost before counts for as much as came after.
        assert_eq!(most(300, &[257, 258, 259, 260, 261]), 9);
        assert_eq!(most(300, &[10, 20, 30, 40, 50]), 31);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut trail = trail((0..10).map(|_| false));
        let later = Moment::from_millis(700_000);
        for _ in 0..5 {
            trail.push(answered(30), later);
        }
        let recent = trail.recent().expect("five answers");
        assert_eq!(
            (recent.loss, recent.rtt, recent.jitter),
            (Permille::ZERO, Duration::from_millis(30), Duration::ZERO)
        );
    }

    #[test]
    fn the_latest_round_trip_is_that_of_the_newest_few() {
        let mut trail = trail((0..100).map(|_| true));
        for number in 0..3 {
            trail.push(answered(90), Moment::from_millis(20_000 + number * 1_000));
        }
        assert_eq!(trail.latest(), Some(Duration::from_millis(90)));
        assert_eq!(trail.recent().map(|recent| recent.rtt), Some(Duration::from_millis(20)));
        trail.push(Outcome::Lost, Moment::from_millis(30_000));
        trail.push(answered(20), Moment::from_millis(31_000));
        trail.keep_since_loss();
        assert_eq!((trail.latest(), trail.recent()), (Some(Duration::from_millis(20)), None));
    }
}
