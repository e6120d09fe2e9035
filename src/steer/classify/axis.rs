use std::collections::BTreeMap;

use super::Ranges;

/// Rows that one word, and that one word of a summary, speak for.
pub const WORD: usize = 64;

/// One axis of the classifier: for each value, the rows that it allows. A value falls into one of
/// the intervals between the ends of all rows' ranges; each interval has a set of rows, of which
/// only the words that are not zero are kept, with a summary of where they stand. Rows that allow
/// every value are kept apart, once.
pub struct Axis<K> {
    /// Where each interval begins, in order. The first begins at 0.
    starts: Vec<K>,
    /// By interval: index of its set.
    set_of: Vec<u32>,
    /// By set: its first word in `words`, and its summary in `summaries`.
    first_word: Vec<u32>,
    summaries: Vec<u64>,
    words: Vec<u64>,
    everywhere: Vec<u64>,
    everywhere_summary: Vec<u64>,
    summary_len: usize,
    /// Every row allows every value.
    pub is_idle: bool,
}

/// The rows that one value allows.
#[derive(Clone, Copy)]
pub struct Allowed<'a> {
    summary: &'a [u64],
    words: &'a [u64],
    everywhere: &'a [u64],
    everywhere_summary: &'a [u64],
    /// Words of the set before the present summary word.
    passed: usize,
}

impl<K: Copy + Ord + TryFrom<u128>> Axis<K> {
    /// `ranges` has one entry for each row; `last` is the last value. `None`: it would take more than
    /// `words_max` words.
    pub fn new<'a>(ranges: impl ExactSizeIterator<Item = &'a Ranges>, last: u128, words_max: usize) -> Option<Axis<K>> {
        let rows = ranges.len();
        let words_len = rows.div_ceil(WORD);
        let summary_len = words_len.div_ceil(WORD);
        let mut everywhere = vec![0; words_len];
        // Where a row begins or ceases to allow values.
        let mut events: Vec<(u128, u32)> = Vec::new();
        let whole = Ranges::whole(last);
        for (row, ranges) in (0u32..).zip(ranges) {
            if *ranges == whole {
                flip(&mut everywhere, row);
                continue;
            }
            for (first, end) in ranges.iter() {
                events.push((first, row));
                events.extend(end.checked_add(1).filter(|next| *next <= last).map(|next| (next, row)));
            }
        }
        events.sort_unstable();
        let mut axis = Axis {
            starts: Vec::new(),
            set_of: Vec::new(),
            first_word: Vec::new(),
            summaries: Vec::new(),
            words: Vec::new(),
            everywhere_summary: summary(&everywhere),
            everywhere,
            summary_len,
            is_idle: events.is_empty(),
        };
        let mut known: BTreeMap<Vec<u64>, u32> = BTreeMap::new();
        let mut present = vec![0; words_len];
        axis.begin(0, &present, &mut known);
        let mut events = events.into_iter().peekable();
        while let Some((at, row)) = events.next() {
            flip(&mut present, row);
            if events.peek().is_none_or(|(next, _)| *next > at) {
                axis.begin(at, &present, &mut known);
            }
            if axis.words.len() + axis.summaries.len() > words_max {
                return None;
            }
        }
        Some(axis)
    }

    /// An interval begins, with this set.
    fn begin(&mut self, at: u128, present: &[u64], known: &mut BTreeMap<Vec<u64>, u32>) {
        let Ok(start) = K::try_from(at) else { return };
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.set_of.pop();
        }
        let summary = summary(present);
        let mut key = summary.clone();
        key.extend(present.iter().filter(|word| **word != 0));
        let next = self.first_word.len() as u32;
        let set = match known.get(&key) {
            Some(set) => *set,
            None => {
                self.first_word.push(self.words.len() as u32);
                self.words.extend(key.iter().skip(summary.len()));
                self.summaries.extend(summary);
                known.insert(key, next);
                next
            }
        };
        self.starts.push(start);
        self.set_of.push(set);
    }

    pub fn allowed(&self, value: K) -> Allowed<'_> {
        let interval = self.starts.partition_point(|start| *start <= value).saturating_sub(1);
        let set = self.set_of.get(interval).map_or(0, |set| *set as usize);
        let first = self.first_word.get(set).map_or(0, |first| *first as usize);
        Allowed {
            summary: self.summaries.get(set * self.summary_len..).unwrap_or(&[]),
            words: self.words.get(first..).unwrap_or(&[]),
            everywhere: &self.everywhere,
            everywhere_summary: &self.everywhere_summary,
            passed: 0,
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.starts.len() * size_of::<K>()
            + (self.set_of.len() + self.first_word.len()) * size_of::<u32>()
            + (self.summaries.len() + self.words.len()) * size_of::<u64>()
            + (self.everywhere.len() + self.everywhere_summary.len()) * size_of::<u64>()
    }
}

impl Allowed<'_> {
    /// Which of the 64 words of one summary word may have rows.
    #[inline]
    pub fn summary(&self, index: usize) -> u64 {
        word(self.summary, index) | word(self.everywhere_summary, index)
    }

    /// The rows of a word: the `bit`th of summary word `index`.
    #[inline]
    pub fn rows(&self, index: usize, bit: u32) -> u64 {
        let summary = word(self.summary, index);
        let own = if summary >> bit & 1 == 0 {
            0
        } else {
            let before = (summary & !(u64::MAX << bit)).count_ones() as usize;
            word(self.words, self.passed + before)
        };
        own | word(self.everywhere, index * WORD + bit as usize)
    }

    /// Strikes out of all 64 words of a summary word what this axis does not allow: cheaper than one
    /// by one when most of them may have rows.
    pub fn strike(&self, index: usize, words: &mut [u64; WORD]) {
        let mut allowed = [0; WORD];
        let everywhere = self.everywhere.get(index * WORD..).unwrap_or(&[]);
        allowed.iter_mut().zip(everywhere).for_each(|(allowed, everywhere)| *allowed = *everywhere);
        let own = self.words.get(self.passed..).unwrap_or(&[]);
        let mut left = word(self.summary, index);
        if left == u64::MAX {
            allowed.iter_mut().zip(own).for_each(|(allowed, own)| *allowed |= own);
        } else {
            for own in own.iter().take(left.count_ones() as usize) {
                // Below 64: the word has a bit for each word that is taken.
                allowed[left.trailing_zeros() as usize % WORD] |= own;
                left &= left.wrapping_sub(1);
            }
        }
        words.iter_mut().zip(allowed).for_each(|(word, allowed)| *word &= allowed);
    }

    /// On to the next summary word.
    #[inline]
    pub fn pass(&mut self, index: usize) {
        self.passed += word(self.summary, index).count_ones() as usize;
    }
}

#[inline]
fn word(words: &[u64], index: usize) -> u64 {
    words.get(index).copied().unwrap_or(0)
}

fn flip(words: &mut [u64], row: u32) {
    if let Some(word) = words.get_mut(row as usize / WORD) {
        *word ^= 1 << (row as usize % WORD);
    }
}

/// Which words are not zero.
fn summary(words: &[u64]) -> Vec<u64> {
    let bit = |word: (usize, &u64)| u64::from(*word.1 != 0) << word.0;
    words.chunks(WORD).map(|chunk| chunk.iter().enumerate().map(bit).sum()).collect()
}
