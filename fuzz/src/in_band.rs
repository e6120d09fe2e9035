use std::time::Duration;

use trefoil::model::{Moment, Permille};
use trefoil::probe::{MEASURE_BYTES, Measure, TwoWay};

/// What another Trefoil says inside a tunnel: messages, each behind a byte of pauses of 20 ms. In between we say ours.
pub fn in_band(bytes: &[u8]) {
    let mut now = Moment::from_millis(10_000);
    let mut end = TwoWay::new(false, now);
    for said in bytes.chunks(1 + MEASURE_BYTES) {
        let Some((pause, message)) = said.split_first() else { return };
        now = now + Duration::from_millis(20) * u32::from(*pause);
        let ours = end.message(now);
        assert_eq!(Measure::read(&ours.write()), Some(ours), "ours is read as it was written");
        let Some(mut measure) = Measure::read(message) else { continue };
        assert_eq!(
            Measure::read(&measure.write()).map(|read| (read.session, read.number)),
            Some((measure.session, measure.number))
        );
        // Nobody guesses our session; who was told it may say anything.
        if let Some(report) = &mut measure.report {
            report.session = ours.session;
        }
        end.handle(&measure, now);
        for way in [end.sending(now), end.receiving(now)] {
            assert_eq!(way.loss.is_some(), way.loss_least.is_some());
            assert!(way.loss_least < Permille::new(500), "ten of ten are certain of no more");
        }
    }
}
