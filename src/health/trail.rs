use std::collections::VecDeque;
use std::time::Duration;

use super::Recent;
use crate::model::{Moment, Permille, certain_loss};

/// Results are remembered for so long: as the window has it at one a second.
const KEPT: Duration = Duration::from_secs(30);
/// And so many at most: ten a second.
const RESULTS: usize = 300;
/// By so many of the newest the round trip and its variation are told.
const NEWEST: usize = 15;
/// Fewer say nothing.
const LEAST: usize = 5;

/// What became of the probes of one target, however often it was asked, with the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    /// The newest last; `None`: lost.
    results: VecDeque<(Moment, Option<Duration>)>,
}

impl Trail {
    pub fn push(&mut self, result: Option<Duration>, now: Moment) {
        while self.results.front().is_some_and(|(at, _)| now.since(*at) > KEPT) || self.results.len() >= RESULTS {
            self.results.pop_front();
        }
        self.results.push_back((now, result));
    }

    pub fn clear(&mut self) {
        self.results.clear();
    }

    pub fn recent(&self) -> Option<Recent> {
        let newest: Vec<Duration> = self.results.iter().rev().filter_map(|(_, rtt)| *rtt).take(NEWEST).collect();
        if newest.len() < LEAST {
            return None;
        }
        let differences = newest.iter().zip(newest.iter().skip(1)).map(|(one, next)| one.abs_diff(*next));
        let jitter = differences.sum::<Duration>() / u32::try_from(newest.len() - 1).unwrap_or(1);
        let mut sorted = newest;
        sorted.sort_unstable();
        let rtt = sorted.get((sorted.len() - 1) / 2).copied()?;
        let lost = self.results.iter().filter(|(_, rtt)| rtt.is_none()).count();
        let loss = Permille::of(lost as u64, self.results.len() as u64);
        Some(Recent { rtt, jitter, loss, loss_least: self.loss_least() })
    }

    fn loss_least(&self) -> Permille {
        let results = self.results.iter().rev().zip(1u32..);
        certain_loss(results.filter(|((_, rtt), _)| rtt.is_none()).map(|(_, place)| place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(results: impl IntoIterator<Item = bool>) -> Trail {
        let mut trail = Trail::default();
        for (number, answered) in (0u64..).zip(results) {
            trail.push(answered.then_some(Duration::from_millis(20)), Moment::from_millis(number * 100));
        }
        trail
    }

    fn with_losses(count: usize, lost: &[usize]) -> Option<u16> {
        let results = (0..count).map(|number| !lost.contains(&(count - number)));
        trail(results).recent().map(|recent| recent.loss_least.value())
    }

    #[test]
    fn one_loss_proves_nothing_and_two_close_together_much() {
        assert_eq!(with_losses(30, &[1]), Some(0));
        assert_eq!(with_losses(30, &[1, 14]), Some(10));
        assert_eq!(with_losses(30, &[1, 5]), Some(29));
        assert_eq!(with_losses(300, &[5, 150, 299]), Some(1));
        assert_eq!(with_losses(300, &[5, 20, 40]), Some(10));
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut trail = trail((0..10).map(|_| false));
        let later = Moment::from_millis(60_000);
        for _ in 0..5 {
            trail.push(Some(Duration::from_millis(30)), later);
        }
        let recent = trail.recent().expect("five answers");
        assert_eq!(
            (recent.loss, recent.rtt, recent.jitter),
            (Permille::ZERO, Duration::from_millis(30), Duration::ZERO)
        );
    }
}
