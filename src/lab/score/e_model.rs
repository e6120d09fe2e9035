//! The E-model (ITU-T G.107, 06/2015): how good a call is, from delay and loss. Everything that is
//! not measured here has the default value of its table 3.

use std::time::Duration;

/// Table 3: send and receive loudness ratings, sidetone masking rating, listener's sidetone rating,
/// D-value of the telephone, echo loudness rating, weighted echo path loss, quantizing distortion,
/// circuit noise, noise floor, and room noise at both sides; in dB, dBm0p and dB(A).
const SLR: f64 = 8.0;
const RLR: f64 = 2.0;
const STMR: f64 = 15.0;
const LSTR: f64 = 18.0;
const DS: f64 = 3.0;
const TELR: f64 = 65.0;
const WEPL: f64 = 110.0;
const QDU: f64 = 1.0;
const NC: f64 = -70.0;
const NFOR: f64 = -64.0;
const ROOM: f64 = 35.0;

/// ITU-T G.113 Appendix I, table I.4: the loss that G.711 with concealment stands.
const BPL: f64 = 25.1;
/// Of G.711 itself.
const IE: f64 = 0.0;

/// A packet of 20 ms is sent when its last sample is there.
pub const PACKET_TIME: Duration = Duration::from_millis(20);

/// The parts of the rating that neither delay nor loss changes.
#[derive(Clone, Copy, Debug)]
pub struct EModel {
    /// Circuit, room and floor noise together, in dBm0p.
    noise: f64,
    ratio: f64,
    simultaneous: f64,
}

impl Default for EModel {
    fn default() -> EModel {
        EModel::new()
    }
}

impl EModel {
    pub fn new() -> EModel {
        let overall = SLR + RLR;
        // 7.2: basic signal-to-noise ratio.
        let at_sender = ROOM - SLR - DS - 100.0 + 0.004 * (ROOM - overall - DS - 14.0).powi(2);
        let effective = ROOM + 10.0 * (1.0 + ten_to((10.0 - LSTR) / 10.0)).log10();
        let at_receiver = RLR - 121.0 + effective + 0.008 * (effective - 35.0).powi(2);
        let powers = [NC, at_sender, at_receiver, NFOR + RLR].map(|level| ten_to(level / 10.0));
        let noise = 10.0 * powers.iter().sum::<f64>().log10();
        let ratio = 15.0 - 1.5 * (SLR + noise);
        // 7.3: what comes with the voice: too loud, sidetone, quantizing.
        let loudness = overall + 0.2 * (64.0 + noise - RLR);
        let too_loud = 20.0 * ((1.0 + (loudness / 8.0).powi(8)).powf(1.0 / 8.0) - loudness / 8.0);
        let quantized = 37.0 - 15.0 * QDU.log10();
        let g = 1.07 + 0.258 * quantized + 0.0602 * quantized * quantized;
        let y = (ratio - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0;
        let z = 46.0 / 30.0 - g / 40.0;
        let quantizing = 15.0 * (1.0 + ten_to(y) + ten_to(z)).log10();
        EModel { noise, ratio, simultaneous: too_loud + quantizing }
    }

    /// The rating R for this delay from mouth to ear, this part of the packets lost (0 to 1), and how
    /// much longer losses last than by chance alone (1: not at all).
    pub fn rating(&self, delay: Duration, loss: f64, burst_ratio: f64) -> f64 {
        let ms = delay.as_secs_f64() * 1e3;
        self.ratio - self.simultaneous - sidetone(ms) - self.delay_impairment(ms) - loss_impairment(loss, burst_ratio)
    }

    /// 7.4: talker echo, listener echo, and delay as such.
    fn delay_impairment(&self, ms: f64) -> f64 {
        let talker_ratio = -1.5 * (self.noise - RLR);
        let echo = TELR - 40.0 * ((1.0 + ms / 10.0) / (1.0 + ms / 150.0)).log10() + 6.0 * (-0.3 * ms * ms).exp();
        let echo_rating = 80.0 + 2.5 * (echo - 14.0);
        let talker = talker_ratio - echo_rating;
        let talker = (talker / 2.0 + (talker * talker / 4.0 + 100.0).sqrt() - 1.0) * (1.0 - (-ms).exp());
        let listener = self.ratio - 10.5 * (WEPL + 7.0) * (2.0 * ms + 1.0).powf(-0.25);
        let listener = listener / 2.0 + (listener * listener / 4.0 + 169.0).sqrt();
        talker + listener + delay_alone(ms)
    }
}

/// Up to 100 ms nobody minds.
fn delay_alone(ms: f64) -> f64 {
    if ms <= 100.0 {
        return 0.0;
    }
    let x = (ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// 7.3: the sidetone, which an echo adds to.
fn sidetone(ms: f64) -> f64 {
    let level = -10.0 * (ten_to(-STMR / 10.0) + (-ms / 4.0).exp() * ten_to(-TELR / 10.0)).log10();
    let part = |shift: f64, scale: f64, power: f64| (1.0 + ((level + shift) / scale).powf(power)).powf(1.0 / power);
    12.0 * part(-13.0, 6.0, 8.0) - 28.0 * part(1.0, 19.4, 35.0) - 13.0 * part(-3.0, 33.0, 13.0) + 29.0
}

/// 7.5: the effective equipment impairment factor.
fn loss_impairment(loss: f64, burst_ratio: f64) -> f64 {
    let percent = loss * 100.0;
    IE + (95.0 - IE) * percent / (percent / burst_ratio.max(1.0) + BPL)
}

/// Annex B: the mean opinion score of a rating.
pub fn mos(rating: f64) -> f64 {
    match rating {
        r if r <= 0.0 => 1.0,
        r if r >= 100.0 => 4.5,
        r => 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6,
    }
}

fn ten_to(power: f64) -> f64 {
    10f64.powf(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rating(ms: u64, loss: f64) -> f64 {
        EModel::new().rating(Duration::from_millis(ms), loss, 1.0)
    }

    #[test]
    fn the_default_values_give_the_rating_that_the_recommendation_says() {
        // G.107 7.7: "a very high quality with a rating factor of R = 93.2".
        assert!((rating(0, 0.0) - 93.2).abs() < 0.05, "{}", rating(0, 0.0));
        assert!((mos(93.2) - 4.41).abs() < 0.005, "{}", mos(93.2));
    }

    #[test]
    fn scores_are_those_of_the_table_of_annex_b() {
        // Table B.1: lower limits of R, with their MOS-CQE.
        for (rating, score) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            assert!((mos(rating) - score).abs() < 0.01, "{rating}: {}", mos(rating));
        }
        assert_eq!((mos(-5.0), mos(120.0)), (1.0, 4.5));
    }

    #[test]
    fn delay_costs_what_the_published_approximation_says() {
        // Cole and Rosenbluth, "Voice over IP performance monitoring" (2001): Id = 0.024 d, and
        // 0.11 (d - 177.3) more beyond; within 3 points up to 400 ms of their R = 94.2 - Id.
        for ms in [50u64, 100, 150, 200, 250, 300, 400] {
            let d = ms as f64;
            let approximation = 93.2 - 0.024 * d - 0.11 * (d - 177.3).max(0.0);
            assert!((rating(ms, 0.0) - approximation).abs() < 4.0, "{ms} ms: {} {approximation}", rating(ms, 0.0));
        }
        // G.114: at 150 ms most users are very satisfied, at 400 ms many are not.
        assert!(rating(150, 0.0) > 88.0 && rating(400, 0.0) < 70.0, "{} {}", rating(150, 0.0), rating(400, 0.0));
    }

    #[test]
    fn loss_costs_what_the_formula_says_and_more_in_bursts() {
        // Ie,eff = 95 * 2 / (2 + 25.1) = 7.01.
        assert!((rating(0, 0.0) - rating(0, 0.02) - 7.01).abs() < 0.01);
        let bursts = EModel::new().rating(Duration::ZERO, 0.05, 2.0);
        assert!(bursts < rating(0, 0.05), "{bursts}");
        assert!(mos(rating(40, 0.03)) > 4.0 && mos(rating(40, 0.06)) < 4.0);
    }
}
