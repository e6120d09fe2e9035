use std::collections::VecDeque;
use std::time::Duration;

use super::field::Way;
use crate::model::{Dscp, FlowKey, Moment};

/// Bytes of a full packet on the line, and of what acknowledges two of them.
pub const PACKET: usize = 1_500;
pub const ACK: usize = 80;

/// RFC 6928: what a sender may send at first.
const INITIAL_WINDOW: f64 = 10.0;
/// RFC 9438 4.6, 5: the part that a window is cut to, and the scale of its growth.
const BETA: f64 = 0.7;
const C: f64 = 0.4;
/// Linux: the range of the retransmission timer.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(120));
/// A timer before anything was measured (RFC 6298 2.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Linux paces at twice the window in slow start, and at 1.2 of it later.
const PACE: (f64, f64) = (2.0, 1.2);
/// 16 MiB, the receive window of a tuned host.
const WINDOW_MAX: f64 = 11_000.0;

/// A transfer of which nothing is acknowledged for longer than this stands still: two timeouts, and more than any
/// queue of a line in use holds.
const STALLED: Duration = Duration::from_millis(500);

/// A sender as TCP with CUBIC is one (RFC 9438, 5681, 6298), in packets: what its window lets out in
/// a step is one burst. Lost packets are sent again; what is counted is what arrived for the first
/// time.
pub struct Transfer {
    pub key: FlowKey,
    pub dscp: Dscp,
    pub upload: bool,
    /// Packets that are still to be acknowledged; `None`: no end.
    left: Option<u64>,
    until: Option<Moment>,
    window: f64,
    threshold: f64,
    /// The window before the last cut, in CUBIC's terms, and when that was.
    highest: f64,
    cut_at: Option<Moment>,
    /// Where a sender of the old kind would be.
    friendly: f64,
    smoothed: Option<(Duration, Duration)>,
    in_flight: u32,
    /// Bursts of an older generation were given up.
    generation: u32,
    progress: Moment,
    backoff: u32,
    credit: f64,
    acknowledged: u64,
    /// Bursts on their way: when they arrive, and how many packets.
    on_the_way: VecDeque<(Moment, u32)>,
    overtaken: u64,
    /// When something was last acknowledged, or it began.
    heard: Moment,
    silence: Duration,
    pub way: Option<Way>,
}

/// A burst that has arrived, or of which the receiver knows what is missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Receipt {
    pub passed: u32,
    pub lost: u32,
    pub sent: Moment,
    pub generation: u32,
}

impl Transfer {
    pub fn new(
        (key, dscp): (FlowKey, Dscp),
        upload: bool,
        bytes: Option<u64>,
        until: Option<Moment>,
        now: Moment,
    ) -> Transfer {
        Transfer {
            key,
            dscp,
            upload,
            left: bytes.map(|bytes| bytes.div_ceil(PACKET as u64).max(1)),
            until,
            window: INITIAL_WINDOW,
            threshold: f64::INFINITY,
            highest: 0.0,
            cut_at: None,
            friendly: 0.0,
            smoothed: None,
            in_flight: 0,
            generation: 0,
            progress: now,
            backoff: 0,
            credit: INITIAL_WINDOW,
            acknowledged: 0,
            on_the_way: VecDeque::new(),
            overtaken: 0,
            heard: now,
            silence: Duration::ZERO,
            way: None,
        }
    }

    /// Packets to send now, after so long a step.
    pub fn poll_send(&mut self, step: Duration, now: Moment) -> u32 {
        if self.is_over(now) {
            return 0;
        }
        if self.in_flight > 0 && now.since(self.progress) >= self.timeout() {
            self.handle_silence(now);
        }
        let gain = if self.window < self.threshold { PACE.0 } else { PACE.1 };
        if let Some((round_trip, _)) = self.smoothed {
            let part = step.as_secs_f64() / round_trip.as_secs_f64().max(1e-3);
            self.credit =
                (self.credit + self.window * part * gain).min((self.window * part * gain).max(INITIAL_WINDOW));
        }
        let allowed = (self.window - f64::from(self.in_flight)).min(self.credit).max(0.0);
        let left = self.left.map_or(u64::MAX, |left| left.saturating_sub(u64::from(self.in_flight)));
        let packets = (allowed as u32).min(u32::try_from(left).unwrap_or(u32::MAX));
        if packets > 0 && self.in_flight == 0 {
            self.progress = now;
        }
        packets
    }

    /// So many packets have left and arrive then; `None` when they never do, and nobody knows.
    pub fn handle_sent(&mut self, packets: u32, arrives: Option<Moment>, now: Moment) {
        self.in_flight += packets;
        self.credit -= f64::from(packets);
        let Some(arrives) = arrives else { return };
        while self.on_the_way.front().is_some_and(|(first, _)| *first <= now) {
            self.on_the_way.pop_front();
        }
        let mut overtaken = 0;
        self.on_the_way.retain(|(earlier, packets)| {
            let late = *earlier > arrives;
            overtaken += if late { u64::from(*packets) } else { 0 };
            !late
        });
        self.overtaken += overtaken;
        self.on_the_way.push_back((arrives, packets));
    }

    /// The acknowledgement of a burst has come.
    pub fn handle_receipt(&mut self, receipt: Receipt, now: Moment) {
        self.acknowledged += u64::from(receipt.passed);
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(u64::from(receipt.passed));
        }
        if receipt.generation == self.generation {
            self.in_flight = self.in_flight.saturating_sub(receipt.passed + receipt.lost);
        }
        if receipt.passed > 0 {
            self.hear(now);
            self.progress = now;
            self.backoff = 0;
            if receipt.generation == self.generation {
                self.measure(now.since(receipt.sent));
            }
        }
        // One cut for each window (RFC 6582): of what was sent before the last one nothing is new.
        if receipt.lost > 0 && self.cut_at.is_none_or(|cut| receipt.sent > cut) {
            self.cut(now);
        } else if receipt.lost == 0 {
            self.grow(receipt.passed, now);
        }
    }

    pub fn is_over(&self, now: Moment) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| now >= until)
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Bytes that the receiver has.
    pub fn delivered(&self) -> u64 {
        self.acknowledged.saturating_mul(PACKET as u64)
    }

    pub fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// Nothing was acknowledged for longer than a user takes for slowness.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// Nothing more comes of it.
    pub fn finish(&mut self, now: Moment) {
        self.hear(self.until.map_or(now, |until| until.min(now)));
    }

    fn hear(&mut self, now: Moment) {
        let pause = now.since(self.heard);
        if pause > STALLED {
            self.silence += pause;
        }
        self.heard = now;
    }

    fn timeout(&self) -> Duration {
        let usual = self.smoothed.map_or(FIRST_TIMEOUT, |(round_trip, variation)| round_trip + 4 * variation);
        usual.max(TIMEOUTS.0).saturating_mul(1 << self.backoff.min(10)).min(TIMEOUTS.1)
    }

    /// RFC 5681 3.1: everything is lost, and begins again with one packet.
    fn handle_silence(&mut self, now: Moment) {
        if self.backoff == 0 {
            self.threshold = (self.window * BETA).max(2.0);
            self.highest = self.window;
        }
        self.window = 1.0;
        self.in_flight = 0;
        self.generation = self.generation.wrapping_add(1);
        self.backoff += 1;
        self.progress = now;
        self.credit = 1.0;
        self.cut_at = None;
        self.on_the_way.clear();
    }

    fn measure(&mut self, sample: Duration) {
        // RFC 6298 2.
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                let error = smoothed.abs_diff(sample);
                ((smoothed * 7 + sample) / 8, (variation * 3 + error) / 4)
            }
        });
    }

    fn cut(&mut self, now: Moment) {
        self.highest = self.window;
        self.window = (self.window * BETA).max(2.0);
        self.threshold = self.window;
        self.friendly = self.window;
        self.cut_at = Some(now);
    }

    fn grow(&mut self, passed: u32, now: Moment) {
        let passed = f64::from(passed);
        if self.window < self.threshold {
            self.window = (self.window + passed).min(WINDOW_MAX);
            return;
        }
        let Some(cut) = self.cut_at else {
            // After a timeout: from here as from a cut.
            self.friendly = self.window;
            self.cut_at = Some(now);
            return;
        };
        let round_trip = self.smoothed.map_or(0.1, |(round_trip, _)| round_trip.as_secs_f64());
        let time = now.since(cut).as_secs_f64() + round_trip;
        let plateau = (self.highest.max(self.window) * (1.0 - BETA) / C).cbrt();
        let target = C * (time - plateau).powi(3) + self.highest;
        let step = ((target - self.window) / self.window).clamp(0.0, 0.5) * passed;
        // RFC 9438 4.3.
        self.friendly += 3.0 * (1.0 - BETA) / (1.0 + BETA) * passed / self.window;
        self.window = (self.window + step).max(self.friendly).min(WINDOW_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::lab::impairment::{Impairment, LinkModel};
    use crate::model::{Mbps, Permille, protocol};

    fn key() -> (FlowKey, Dscp) {
        let key = FlowKey {
            segment: 0,
            protocol: protocol::TCP,
            source: [10, 20, 0, 1].into(),
            destination: [10, 90, 0, 1].into(),
            source_port: 1_000,
            destination_port: 443,
        };
        (key, Dscp::DEFAULT)
    }

    const STEP: Duration = Duration::from_millis(10);

    /// Bytes a second of a single transfer over 20 s of a line of 10 Mbps.
    fn rate(delay_ms: u64, loss: u16, queue_ms: u64) -> f64 {
        let model = LinkModel {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: Permille::new(loss).unwrap_or_default(),
            rate: Mbps::new(10).expect("10"),
            queue: Duration::from_millis(queue_ms),
        };
        let mut line = Impairment::new(model, 3);
        let mut transfer = Transfer::new(key(), true, None, None, Moment::ZERO);
        let mut receipts: VecDeque<(Moment, Receipt)> = VecDeque::new();
        for step in 0..2_000 {
            let now = Moment::from_millis(step * 10);
            while receipts.front().is_some_and(|(at, _)| *at <= now) {
                let (_, receipt) = receipts.pop_front().expect("there is one");
                transfer.handle_receipt(receipt, now);
            }
            let packets = transfer.poll_send(STEP, now);
            if packets == 0 {
                continue;
            }
            let burst = line.handle_burst(packets, PACKET, now).ok();
            transfer.handle_sent(packets, burst.map(|burst| burst.arrives), now);
            let at = burst.map_or(now + line.backlog(now), |burst| burst.arrives) + model.delay;
            let (passed, lost) = burst.map_or((0, packets), |burst| (burst.passed, burst.lost));
            receipts.push_back((at, Receipt { passed, lost, sent: now, generation: transfer.generation() }));
        }
        transfer.delivered() as f64 / 20.0
    }

    #[test]
    fn a_transfer_fills_a_line_and_loss_slows_it_down_as_it_does_tcp() {
        let clean = rate(10, 0, 80);
        assert!(clean > 0.9 * 1_250_000.0, "{clean}");
        // Mathis: 1500 / 0.2 s * 1.22 / sqrt(0.03), some 53,000 bytes a second; CUBIC does better.
        let lossy = rate(100, 30, 80);
        assert!((25_000.0..160_000.0).contains(&lossy), "{lossy}");
        assert!(rate(10, 10, 80) > rate(100, 10, 80));
    }

    #[test]
    fn a_transfer_that_hears_nothing_waits_longer_each_time_and_goes_on() {
        let mut transfer = Transfer::new(key(), true, Some(300_000), None, Moment::ZERO);
        let mut sent = Vec::new();
        for step in 0..1_000 {
            let now = Moment::from_millis(step * 10);
            let packets = transfer.poll_send(STEP, now);
            if packets > 0 {
                sent.push(step * 10);
                transfer.handle_sent(packets, None, now);
            }
        }
        assert_eq!(sent, [0, 1_000, 3_000, 7_000]);
        let now = Moment::from_millis(10_000);
        let receipt = Receipt { passed: 1, lost: 0, sent: now, generation: transfer.generation() };
        transfer.handle_receipt(receipt, now + STEP);
        assert!(transfer.poll_send(STEP, now + STEP) >= 1);
    }

    #[test]
    fn bursts_that_are_overtaken_are_counted() {
        let mut transfer = Transfer::new(key(), true, None, None, Moment::ZERO);
        transfer.handle_sent(4, Some(Moment::from_millis(100)), Moment::ZERO);
        transfer.handle_sent(3, Some(Moment::from_millis(110)), Moment::from_millis(10));
        transfer.handle_sent(2, Some(Moment::from_millis(105)), Moment::from_millis(20));
        assert_eq!(transfer.overtaken(), 3);
    }
}
