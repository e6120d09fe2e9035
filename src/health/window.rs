use std::time::Duration;

use crate::model::Permille;

/// 600 results: ten minutes at one a second. Longer windows would tell of the past, not the path.
const MAX_WINDOW: usize = 600;

/// What became of one probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Lost,
    /// Without a round-trip time when it cannot be told which transmission was answered.
    Answered(Option<Duration>),
}

/// The last results of one kind of probe, in a ring of fixed size.
#[derive(Clone, Debug)]
pub(super) struct Window {
    ring: Box<[Outcome]>,
    next: usize,
    filled: usize,
}

impl Window {
    pub fn new(size: u16) -> Window {
        let size = usize::from(size).clamp(1, MAX_WINDOW);
        Window { ring: vec![Outcome::Lost; size].into_boxed_slice(), next: 0, filled: 0 }
    }

    pub fn push(&mut self, outcome: Outcome) {
        if let Some(place) = self.ring.get_mut(self.next) {
            *place = outcome;
        }
        self.next = (self.next + 1) % self.ring.len();
        self.filled = (self.filled + 1).min(self.ring.len());
    }

    pub fn clear(&mut self) {
        self.next = 0;
        self.filled = 0;
    }

    /// Forgets everything up to the last loss.
    pub fn keep_since_loss(&mut self) {
        let all: Vec<Outcome> = self.newest(self.filled).collect();
        self.clear();
        let since = all.iter().rposition(|outcome| *outcome == Outcome::Lost).map_or(0, |last| last + 1);
        all.into_iter().skip(since).for_each(|outcome| self.push(outcome));
    }

    /// How many results it can hold.
    pub fn size(&self) -> usize {
        self.ring.len()
    }

    pub fn len(&self) -> usize {
        self.filled
    }

    /// The newest `count` results, or as many as there are, oldest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = Outcome> + '_ {
        let count = count.min(self.filled);
        // The ring goes on at its beginning.
        let older = count.saturating_sub(self.next);
        let end = self.ring.get(self.ring.len() - older..).unwrap_or_default();
        let beginning = self.ring.get(self.next + older - count..self.next).unwrap_or_default();
        end.iter().chain(beginning).copied()
    }

    pub fn lost(&self, count: usize) -> usize {
        self.newest(count).filter(|outcome| *outcome == Outcome::Lost).count()
    }

    pub fn loss(&self) -> Option<Permille> {
        (self.filled > 0).then(|| Permille::of(self.lost(self.filled) as u64, self.filled as u64))
    }

    /// Median round-trip time of the newest `count` results (the lower of two middle ones).
    pub fn median_rtt(&self, count: usize) -> Option<Duration> {
        let mut rtts: Vec<Duration> = self.rtts(count).collect();
        rtts.sort_unstable();
        rtts.get(rtts.len().saturating_sub(1) / 2).copied()
    }

    /// Differences of successive round-trip times among the newest `count` results.
    pub fn differences(&self, count: usize) -> impl Iterator<Item = Duration> + '_ {
        self.rtts(count).zip(self.rtts(count).skip(1)).map(|(one, next)| one.abs_diff(next))
    }

    pub fn jitter(&self, count: usize) -> Option<Duration> {
        let (sum, differences) =
            self.differences(count).fold((Duration::ZERO, 0), |(sum, count), one| (sum + one, count + 1));
        sum.checked_div(differences)
    }

    pub fn rtts(&self, count: usize) -> impl Iterator<Item = Duration> + '_ {
        self.newest(count).filter_map(|outcome| match outcome {
            Outcome::Answered(rtt) => rtt,
            Outcome::Lost => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(millis: u64) -> Outcome {
        Outcome::Answered(Some(Duration::from_millis(millis)))
    }

    #[test]
    fn the_newest_are_told_in_their_order_wherever_in_the_ring_they_stand() {
        for size in 1..=5 {
            let mut window = Window::new(size);
            for number in 0..12 {
                for count in 0..7 {
                    let known = (number as usize).min(window.size()).min(count) as u64;
                    let newest: Vec<Outcome> = window.newest(count).collect();
                    assert_eq!(newest, (number - known..number).map(answered).collect::<Vec<_>>(), "{size} {number}");
                }
                window.push(answered(number));
            }
        }
    }

    #[test]
    fn the_ring_forgets_the_oldest_result() {
        let mut window = Window::new(4);
        assert_eq!((window.loss(), window.median_rtt(4), window.jitter(4)), (None, None, None));
        for outcome in [Outcome::Lost, answered(10), answered(30), Outcome::Answered(None), answered(60)] {
            window.push(outcome);
        }
        assert_eq!(window.lost(4), 0);
        assert_eq!(window.median_rtt(4), Some(Duration::from_millis(30)));
        assert_eq!(window.jitter(4), Some(Duration::from_millis(25)));
        assert_eq!(window.rtts(2).collect::<Vec<_>>(), [Duration::from_millis(60)]);
        window.push(Outcome::Lost);
        assert_eq!(window.loss(), Permille::new(250));
        window.clear();
        assert_eq!((window.len(), window.loss()), (0, None));
    }
}
