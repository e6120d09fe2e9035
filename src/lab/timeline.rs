use std::time::Duration;

/// What happens in the demo, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Act {
    /// The tunnels come up; ends when all six are.
    Start,
    /// Traffic over three good links.
    Calm,
    FibreBrownout,
    FibreRecovers,
    DslCut,
    DslBack,
    /// Every way to the primary PoP is gone.
    PopLost,
    PopBack,
}

/// The acts after the start, each with its least length in milliseconds and its part of the time
/// beyond that. An act is long enough for its consequences to show: a window of measurements to
/// fill or drain, the failback hold, a round of steering.
const ACTS: [(Act, u64, u64); 7] = [
    (Act::Calm, 3000, 9),
    (Act::FibreBrownout, 3200, 9),
    (Act::FibreRecovers, 3300, 6),
    (Act::DslCut, 2200, 6),
    (Act::DslBack, 4400, 5),
    (Act::PopLost, 2700, 8),
    (Act::PopBack, 4000, 7),
];

/// Six tunnels take about a second on an idle machine.
pub const START_LIMIT: Duration = Duration::from_secs(10);

/// The shortest run that shows everything, and the longest that keeps all its measurements.
pub const SHORTEST_SECONDS: u32 = 25;
pub const LONGEST_SECONDS: u32 = 7_200;

/// The script of one run: when each act begins, counted from the end of `Act::Start`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeline {
    acts: Vec<(Act, Duration)>,
    pub end: Duration,
}

impl Timeline {
    /// The acts that follow the start, spread over `time`; longer when that is less than they
    /// need.
    pub fn over(time: Duration) -> Timeline {
        let least: u64 = ACTS.iter().map(|(_, least, _)| least).sum();
        let parts: u64 = ACTS.iter().map(|(_, _, part)| part).sum();
        let available = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let spare = available.saturating_sub(least);
        let mut begins = Duration::ZERO;
        let mut acts = Vec::new();
        for (act, least, part) in ACTS {
            acts.push((act, begins));
            begins += Duration::from_millis(least + spare.saturating_mul(part) / parts);
        }
        Timeline { acts, end: begins }
    }

    /// The act that is on at this time.
    pub fn act_at(&self, time: Duration) -> Act {
        let begun = self.acts.iter().take_while(|(_, begins)| *begins <= time);
        begun.last().map_or(Act::Calm, |(act, _)| *act)
    }
}

impl Act {
    /// Its name in the JSON summary.
    pub const fn name(self) -> &'static str {
        match self {
            Act::Start => "start",
            Act::Calm => "calm",
            Act::FibreBrownout => "fibre-brownout",
            Act::FibreRecovers => "fibre-recovers",
            Act::DslCut => "dsl-cut",
            Act::DslBack => "dsl-back",
            Act::PopLost => "pop-lost",
            Act::PopBack => "pop-back",
        }
    }

    /// Its name for a reader.
    pub const fn title(self) -> &'static str {
        match self {
            Act::Start => "tunnels come up",
            Act::Calm => "three good links",
            Act::FibreBrownout => "fibre brownout",
            Act::FibreRecovers => "fibre recovers",
            Act::DslCut => "DSL cut",
            Act::DslBack => "DSL back",
            Act::PopLost => "primary PoP lost",
            Act::PopBack => "primary PoP back",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_run_leaves_time_for_the_start() {
        let timeline = Timeline::over(Duration::ZERO);
        assert!(
            timeline.end + Duration::from_millis(1500) <= Duration::from_secs(SHORTEST_SECONDS.into()),
            "{:?}",
            timeline.end
        );
    }

    #[test]
    fn acts_come_in_order_and_fill_the_time() {
        for seconds in [25, 58, 600] {
            let timeline = Timeline::over(Duration::from_secs(seconds));
            let mut seen = Vec::new();
            for tenth in 0..seconds * 10 {
                let act = timeline.act_at(Duration::from_millis(tenth * 100));
                if seen.last() != Some(&act) {
                    seen.push(act);
                }
            }
            assert_eq!(seen, ACTS.map(|(act, ..)| act));
            assert!(timeline.end <= Duration::from_secs(seconds) && timeline.end > Duration::from_secs(seconds - 1));
        }
    }

    #[test]
    fn every_act_has_its_least_time() {
        let timeline = Timeline::over(Duration::from_secs(5));
        let ends = timeline.acts.iter().skip(1).map(|(_, begins)| *begins).chain([timeline.end]);
        for ((act, begins), (end, (_, least, _))) in timeline.acts.iter().zip(ends.zip(ACTS)) {
            assert!(end - *begins >= Duration::from_millis(least), "{act:?}");
        }
    }
}
