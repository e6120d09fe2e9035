use std::fmt;

const WORD_BITS: u32 = u64::BITS;
const WORDS: u32 = 64;

/// Sequence numbers behind the highest one that are still told apart: 4,032, which at 4 Gbit/s of
/// full packets is a reordering of 10 ms. The bitmap takes 512 bytes an SA.
pub const WINDOW: u32 = (WORDS - 1) * WORD_BITS;

/// Which sequence numbers have arrived (RFC 4303 3.4.3): a ring of words, of which those ahead of
/// the highest number are cleared as it moves on (RFC 6479), so that nothing is ever shifted.
pub(super) struct ReplayWindow {
    highest: u32,
    seen: [u64; WORDS as usize],
}

impl ReplayWindow {
    pub(super) const fn new() -> ReplayWindow {
        ReplayWindow { highest: 0, seen: [0; WORDS as usize] }
    }

    /// Has this number not been seen, as far as can be told? 0 is never sent (RFC 4303 3.3.3).
    pub(super) fn is_new(&self, sequence: u32) -> bool {
        if sequence > self.highest {
            return true;
        }
        let behind = self.highest - sequence;
        sequence != 0 && behind < WINDOW && self.seen[word(sequence)] & bit(sequence) == 0
    }

    /// Notes a number that `is_new` and whose packet is authentic. Says whether it is the highest.
    pub(super) fn mark(&mut self, sequence: u32) -> bool {
        let highest = sequence > self.highest;
        if highest {
            let ahead = (sequence / WORD_BITS - self.highest / WORD_BITS).min(WORDS);
            for step in 0..ahead {
                self.seen[word(sequence.wrapping_sub(step * WORD_BITS))] = 0;
            }
            self.highest = sequence;
        }
        self.seen[word(sequence)] |= bit(sequence);
        highest
    }
}

const fn word(sequence: u32) -> usize {
    (sequence / WORD_BITS % WORDS) as usize
}

const fn bit(sequence: u32) -> u64 {
    1 << (sequence % WORD_BITS)
}

impl fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayWindow").field("highest", &self.highest).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::Chance;

    /// The window as the RFC describes it, without a bitmap.
    #[derive(Default)]
    struct Model {
        highest: u32,
        seen: HashSet<u32>,
    }

    impl Model {
        fn is_new(&self, sequence: u32) -> bool {
            let recent = u64::from(sequence) + u64::from(WINDOW) > u64::from(self.highest);
            sequence != 0 && recent && !self.seen.contains(&sequence)
        }

        fn mark(&mut self, sequence: u32) -> bool {
            let highest = sequence > self.highest;
            self.highest = self.highest.max(sequence);
            self.seen.insert(sequence);
            highest
        }
    }

    #[test]
    fn the_window_agrees_with_a_set_under_any_reordering_and_repetition() {
        for seed in 0..200 {
            let mut chance = Chance::from_number(seed);
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            // Some runs pass the end of the ring often, some live at the end of the numbers.
            let spread = [4, 70, 3000, 20_000][seed as usize % 4];
            let mut front: u32 = if seed % 3 == 0 { u32::MAX - 40_000 } else { 1 };
            for step in 0..2000 {
                front = front.saturating_add(chance.below(if step % 97 == 0 { spread * 4 } else { 3 }));
                let sequence = front.saturating_add(10).saturating_sub(chance.below(spread));
                let sequence = if chance.below(50) == 0 { chance.next_u32() >> chance.below(32) } else { sequence };
                let new = window.is_new(sequence);
                assert_eq!(new, model.is_new(sequence), "seed {seed} step {step} sequence {sequence}");
                // A forged packet is checked and not marked.
                if new && chance.below(4) != 0 {
                    assert_eq!(window.mark(sequence), model.mark(sequence));
                    front = front.max(sequence);
                }
            }
        }
    }

    #[test]
    fn the_edges_of_the_window_are_where_they_are_said_to_be() {
        let mut window = ReplayWindow::new();
        assert!(!window.is_new(0));
        assert!(window.is_new(1) && window.is_new(u32::MAX));
        window.mark(WINDOW + 10);
        assert!(!window.is_new(10));
        assert!(window.is_new(11));
        window.mark(11);
        assert!(!window.is_new(11));
        window.mark(u32::MAX);
        assert!(!window.is_new(u32::MAX) && !window.is_new(0));
        assert!(window.is_new(u32::MAX - WINDOW + 1) && !window.is_new(u32::MAX - WINDOW));
    }
}
