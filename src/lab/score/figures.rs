use serde::Serialize;

/// What came of one scenario for one contender. Of calls it is the mean of all.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Figures {
    pub voice_minutes: f64,
    /// Of these below MOS 4.0, in either direction.
    pub voice_minutes_bad: f64,
    /// A call heard nothing, in either direction, for longer than 100 ms.
    pub outage_seconds: f64,
    /// Of transfers, each byte once.
    pub goodput_bytes: u64,
    /// Packets that arrived behind one that was sent later.
    pub reordered: u64,
    /// Flows that went over to another way.
    pub moves: u64,
}

/// Differences that are none: one window of one call in four, a quarter of a second, a hundredth.
const VOICE_TIE: f64 = 5.0 / 60.0;
const OUTAGE_TIE: f64 = 0.25;
const GOODPUT_TIE: f64 = 0.01;

impl Figures {
    /// Better in minutes of good voice, then in outage, then in goodput; differences that are none
    /// left out.
    pub fn beats(&self, other: &Figures) -> bool {
        let voice = other.voice_minutes_bad - self.voice_minutes_bad;
        if voice.abs() > VOICE_TIE {
            return voice > 0.0;
        }
        let outage = other.outage_seconds - self.outage_seconds;
        if outage.abs() > OUTAGE_TIE {
            return outage > 0.0;
        }
        self.goodput_bytes as f64 > other.goodput_bytes as f64 * (1.0 + GOODPUT_TIE)
    }

    /// The better of both in each of the three.
    pub fn at_least_as_good_as(self, other: &Figures) -> Figures {
        Figures {
            voice_minutes_bad: self.voice_minutes_bad.min(other.voice_minutes_bad),
            outage_seconds: self.outage_seconds.min(other.outage_seconds),
            goodput_bytes: self.goodput_bytes.max(other.goodput_bytes),
            ..self
        }
    }

    /// Counts are rounded.
    pub fn mean<'a>(all: impl Iterator<Item = &'a Figures> + Clone) -> Figures {
        let count = all.clone().count().max(1);
        let real = |of: fn(&Figures) -> f64| all.clone().map(of).sum::<f64>() / count as f64;
        let whole = |of: fn(&Figures) -> u64| {
            let sum: u64 = all.clone().map(of).fold(0, u64::saturating_add);
            (sum + count as u64 / 2) / count as u64
        };
        Figures {
            voice_minutes: real(|figures| figures.voice_minutes),
            voice_minutes_bad: real(|figures| figures.voice_minutes_bad),
            outage_seconds: real(|figures| figures.outage_seconds),
            goodput_bytes: whole(|figures| figures.goodput_bytes),
            reordered: whole(|figures| figures.reordered),
            moves: whole(|figures| figures.moves),
        }
    }

    pub fn voice_minutes_good(&self) -> f64 {
        self.voice_minutes - self.voice_minutes_bad
    }

    /// In per cent; nothing of nothing is all.
    pub fn goodput_percent(&self, oracle: &Figures) -> f64 {
        percent(self.goodput_bytes as f64, oracle.goodput_bytes as f64)
    }

    pub fn voice_percent(&self, oracle: &Figures) -> f64 {
        percent(self.voice_minutes_good(), oracle.voice_minutes_good())
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(bad: f64, outage: f64, goodput: u64) -> Figures {
        Figures {
            voice_minutes: 3.0,
            voice_minutes_bad: bad,
            outage_seconds: outage,
            goodput_bytes: goodput,
            ..Figures::default()
        }
    }

    #[test]
    fn the_mean_of_several_seeds_is_that_of_each_figure() {
        let mean = Figures::mean([figures(0.0, 1.0, 100), figures(1.0, 2.0, 201)].iter());
        assert_eq!(mean, Figures { voice_minutes: 3.0, ..figures(0.5, 1.5, 151) });
    }

    #[test]
    fn voice_comes_first_then_outage_then_goodput() {
        assert!(figures(0.0, 9.0, 1).beats(&figures(0.5, 0.0, 100)));
        assert!(figures(0.0, 0.2, 1).beats(&figures(0.05, 1.0, 100)));
        assert!(figures(0.0, 0.2, 100).beats(&figures(0.05, 0.3, 90)));
        let (one, other) = (figures(0.0, 0.2, 100), figures(0.05, 0.3, 100));
        assert!(!one.beats(&other) && !other.beats(&one), "they are tied");
        assert_eq!(one.goodput_percent(&figures(0.0, 0.0, 200)), 50.0);
    }
}
