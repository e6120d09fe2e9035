use std::time::Duration;

/// How nervously a path is watched for outages. The numbers are in `docs/steering.md`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Sensitivity {
    /// For clean links that carry calls: soonest, and wrong now and then where packets are lost in rows.
    Voice,
    #[default]
    Normal,
    /// For links with short holes, such as mobile ones: waits out what passes by itself.
    Calm,
}

impl Sensitivity {
    pub const ALL: [Sensitivity; 3] = [Sensitivity::Voice, Sensitivity::Normal, Sensitivity::Calm];

    pub const fn name(self) -> &'static str {
        match self {
            Sensitivity::Voice => "voice",
            Sensitivity::Normal => "normal",
            Sensitivity::Calm => "calm",
        }
    }

    pub(super) const fn nerves(self) -> Nerves {
        match self {
            Sensitivity::Voice => Nerves {
                quiet: Duration::from_millis(20),
                ask_after: Duration::from_millis(50),
                // Asked so often, a path loses a probe 70,000 times a day by chance, at 2 % each way.
                doubt: 2e-7,
                step: Duration::from_millis(15),
                probes: (4, 24),
            },
            Sensitivity::Normal => Nerves {
                quiet: Duration::from_millis(30),
                ask_after: Duration::from_millis(75),
                doubt: 1e-6,
                step: Duration::from_millis(30),
                probes: (4, 20),
            },
            Sensitivity::Calm => Nerves {
                quiet: Duration::from_millis(100),
                ask_after: Duration::from_millis(100),
                doubt: 1e-10,
                step: Duration::from_millis(30),
                probes: (12, 40),
            },
        }
    }
}

/// What a sensitivity comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nerves {
    /// Silence shorter than this is not unusual on any path.
    pub quiet: Duration,
    /// A path that sends and hears nothing for so long is asked.
    pub ask_after: Duration,
    /// The chance that chance alone loses all probes of a verdict, at the path's measured loss.
    pub doubt: f64,
    /// Between two probes of a burst.
    pub step: Duration,
    /// So many unanswered probes make a verdict, at least and at most.
    pub probes: (u16, u16),
}

impl Nerves {
    /// So many probes in a row are lost by chance with a probability of `doubt` at most.
    pub fn probes_for(&self, loss: f64) -> u16 {
        let loss = loss.clamp(0.001, 0.999);
        let needed = (self.doubt.ln() / loss.ln()).ceil();
        // Positive and small, or beyond the most anyway.
        (needed as u16).clamp(self.probes.0, self.probes.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_probes_are_those_of_the_documentation() {
        let table =
            [(0.02, [4, 4, 12]), (0.04, [5, 5, 12]), (0.15, [9, 8, 13]), (0.3, [13, 12, 20]), (0.9, [24, 20, 40])];
        for (loss, expected) in table {
            assert_eq!(Sensitivity::ALL.map(|one| one.nerves().probes_for(loss)), expected, "loss {loss}");
        }
    }
}
