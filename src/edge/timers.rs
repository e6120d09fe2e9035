use std::collections::BTreeSet;

use crate::model::Moment;

/// When each of many has something to do, so that the next one is found without asking all.
#[derive(Debug, Default)]
pub struct Timers {
    ordered: BTreeSet<(Moment, usize)>,
    /// By number.
    due: Vec<Option<Moment>>,
}

impl Timers {
    pub fn new(due: impl Iterator<Item = Option<Moment>>) -> Timers {
        let due: Vec<_> = due.collect();
        let ordered = due.iter().enumerate().filter_map(|(index, due)| Some(((*due)?, index))).collect();
        Timers { ordered, due }
    }

    pub fn set(&mut self, index: usize, due: Option<Moment>) {
        let Some(known) = self.due.get_mut(index) else { return };
        if *known == due {
            return;
        }
        if let Some(old) = std::mem::replace(known, due) {
            self.ordered.remove(&(old, index));
        }
        if let Some(new) = due {
            self.ordered.insert((new, index));
        }
    }

    /// Those that have something to do by now, the earliest first.
    pub fn due(&self, now: Moment) -> Vec<usize> {
        self.ordered.range(..=(now, usize::MAX)).map(|(_, index)| *index).collect()
    }

    pub fn next(&self) -> Option<Moment> {
        self.ordered.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_due_at_the_moment_that_was_set_last() {
        let at = Moment::from_millis;
        let mut timers = Timers::new([Some(at(30)), None, Some(at(10))].into_iter());
        assert_eq!(timers.next(), Some(at(10)));
        timers.set(1, Some(at(20)));
        timers.set(2, Some(at(40)));
        assert_eq!((timers.next(), timers.due(at(30))), (Some(at(20)), vec![1, 0]));
        timers.set(1, None);
        timers.set(9, Some(at(1)));
        assert_eq!((timers.next(), timers.due(at(19))), (Some(at(30)), vec![]));
    }
}
