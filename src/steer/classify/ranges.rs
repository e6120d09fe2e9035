/// Values of one axis: ranges with both ends, in order, none touching the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// All values from 0 to `last`.
    pub fn whole(last: u128) -> Ranges {
        Ranges(vec![(0, last)])
    }

    /// Any ranges, in any order.
    pub fn of(ranges: impl IntoIterator<Item = (u128, u128)>) -> Ranges {
        let mut sorted: Vec<(u128, u128)> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ranges(merged)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    /// The least value.
    pub fn first(&self) -> Option<u128> {
        self.0.first().map(|(first, _)| *first)
    }

    pub fn contains(&self, value: u128) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= value);
        after.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|(_, last)| value <= *last)
    }

    pub fn intersection(&self, other: &Ranges) -> Ranges {
        let mut common = Vec::new();
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&(first, last)), Some(&&(its_first, its_last))) = (ours.peek(), theirs.peek()) {
            let both = (first.max(its_first), last.min(its_last));
            if both.0 <= both.1 {
                common.push(both);
            }
            if last < its_last {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Ranges(common)
    }

    /// What is in `self` and not in `other`.
    pub fn without(&self, other: &Ranges) -> Ranges {
        let mut left = Vec::new();
        let mut theirs = other.0.iter().peekable();
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            while let (Some(start), Some(&&(its_first, its_last))) = (from, theirs.peek()) {
                if its_last < start {
                    theirs.next();
                    continue;
                }
                if its_first > last {
                    break;
                }
                if its_first > start {
                    left.push((start, its_first - 1));
                }
                from = its_last.checked_add(1).filter(|next| *next <= last);
                if its_last <= last {
                    theirs.next();
                } else {
                    break;
                }
            }
            left.extend(from.map(|start| (start, last)));
        }
        Ranges(left)
    }

    pub fn is_within(&self, other: &Ranges) -> bool {
        self.0.iter().all(|(first, last)| {
            let after = other.0.partition_point(|(start, _)| start <= first);
            after.checked_sub(1).and_then(|index| other.0.get(index)).is_some_and(|(_, end)| last <= end)
        })
    }

    pub fn meets(&self, other: &Ranges) -> bool {
        // Most have one range, and most do not meet.
        if let ([(first, last)], [(its_first, its_last)]) = (&self.0[..], &other.0[..]) {
            return first.max(its_first) <= last.min(its_last);
        }
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&(first, last)), Some(&&(its_first, its_last))) = (ours.peek(), theirs.peek()) {
            if first.max(its_first) <= last.min(its_last) {
                return true;
            }
            if last < its_last {
                ours.next()
            } else {
                theirs.next()
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> impl Strategy<Value = Ranges> {
        proptest::collection::vec((0u128..40, 0u128..8), 0..6)
            .prop_map(|parts| Ranges::of(parts.into_iter().map(|(first, length)| (first, first + length))))
    }

    proptest! {
        #[test]
        fn arithmetic_of_ranges_is_that_of_sets(left in some(), right in some()) {
            let (both, without) = (left.intersection(&right), left.without(&right));
            for value in 0..50 {
                let (ours, theirs) = (left.contains(value), right.contains(value));
                prop_assert_eq!(both.contains(value), ours && theirs);
                prop_assert_eq!(without.contains(value), ours && !theirs, "{} of {:?} {:?}", value, left, right);
            }
            prop_assert_eq!(left.meets(&right), !both.is_empty());
            prop_assert_eq!(left.is_within(&right), without.is_empty());
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_values_like_others() {
        let all = Ranges::whole(u128::MAX);
        let last = Ranges::of([(u128::MAX, u128::MAX)]);
        assert!(all.contains(u128::MAX) && last.is_within(&all));
        assert_eq!(all.without(&last), Ranges::of([(0, u128::MAX - 1)]));
        assert!(last.without(&all).is_empty());
    }
}
