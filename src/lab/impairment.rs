use std::time::Duration;

use crate::model::{Chance, Mbps, Moment, Permille};

/// What one direction of a WAN link does to packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkModel {
    /// One-way delay of every packet.
    pub delay: Duration,
    /// On top of `delay`, evenly between zero and this. Packets still arrive in order, as they
    /// do behind one queue.
    pub jitter: Duration,
    pub loss: Permille,
    pub rate: Mbps,
    /// How much waiting traffic the link holds, as time at its rate; beyond it packets are
    /// dropped.
    pub queue: Duration,
}

/// What became of many packets that entered at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Burst {
    pub passed: u32,
    /// By chance, or because the queue was full.
    pub lost: u32,
    /// When the last one comes out.
    pub arrives: Moment,
}

/// Why the network itself lost a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkLoss {
    /// The link or the way to that PoP is cut.
    Cut,
    /// The model's random loss.
    Random,
    /// More waits than the link holds.
    QueueFull,
}

/// One direction of a WAN link at work: given a packet's size and the time, it tells when the
/// packet comes out, or why not.
pub struct Impairment {
    model: LinkModel,
    cut: bool,
    /// When the line has sent all that waits.
    free_at: Moment,
    last_delivery: Moment,
    chance: Chance,
}

impl Impairment {
    pub fn new(model: LinkModel, seed: u64) -> Impairment {
        Impairment {
            model,
            cut: false,
            free_at: Moment::ZERO,
            last_delivery: Moment::ZERO,
            chance: Chance::from_number(seed),
        }
    }

    /// A packet of `bytes` enters at `now`: the moment at which it leaves at the far end.
    pub fn handle_packet(&mut self, bytes: usize, now: Moment) -> Result<Moment, NetworkLoss> {
        if self.cut {
            return Err(NetworkLoss::Cut);
        }
        if self.free_at.since(now) > self.model.queue {
            return Err(NetworkLoss::QueueFull);
        }
        let start = self.free_at.max(now);
        self.free_at = start + self.time_on_line(bytes);
        // After the line, so that a lost packet has used its bandwidth.
        if self.chance.below(1000) < u32::from(self.model.loss.value()) {
            return Err(NetworkLoss::Random);
        }
        let jitter = self.jitter();
        self.last_delivery = self.last_delivery.max(self.free_at + self.model.delay + jitter);
        Ok(self.last_delivery)
    }

    /// Many packets of `bytes` each enter at `now`. An error when none comes out.
    pub fn handle_burst(&mut self, packets: u32, bytes: usize, now: Moment) -> Result<Burst, NetworkLoss> {
        if self.cut {
            return Err(NetworkLoss::Cut);
        }
        let waiting = self.free_at.since(now);
        let each = self.time_on_line(bytes).max(Duration::from_nanos(1));
        // As for a single packet: the last one may enter while there is any room.
        let room = self.model.queue.checked_sub(waiting).map_or(0, |room| room.as_nanos() / each.as_nanos() + 1);
        let entered = packets.min(u32::try_from(room).unwrap_or(u32::MAX));
        if entered == 0 {
            return Err(NetworkLoss::QueueFull);
        }
        self.free_at = self.free_at.max(now) + each * entered;
        let loss = u32::from(self.model.loss.value());
        let unlucky =
            if loss == 0 { 0 } else { (0..entered).filter(|_| self.chance.below(1000) < loss).count() as u32 };
        let passed = entered - unlucky;
        if passed == 0 {
            return Err(NetworkLoss::Random);
        }
        let jitter = self.jitter();
        self.last_delivery = self.last_delivery.max(self.free_at + self.model.delay + jitter);
        Ok(Burst { passed, lost: packets - passed, arrives: self.last_delivery })
    }

    /// How long a packet that enters now waits before it is sent.
    pub fn backlog(&self, now: Moment) -> Duration {
        self.free_at.since(now)
    }

    pub fn model(&self) -> LinkModel {
        self.model
    }

    /// Packets already under way keep the time they were given; later ones never overtake them.
    pub fn set_model(&mut self, model: LinkModel) {
        self.model = model;
    }

    pub fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    pub fn is_cut(&self) -> bool {
        self.cut
    }

    fn time_on_line(&self, bytes: usize) -> Duration {
        // Bits over megabits per second are microseconds; in nanoseconds nothing is lost.
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        Duration::from_nanos(bits.saturating_mul(1000) / u64::from(self.model.rate.value()))
    }

    fn jitter(&mut self) -> Duration {
        let limit = u32::try_from(self.model.jitter.as_micros()).unwrap_or(u32::MAX);
        Duration::from_micros(u64::from(self.chance.below(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: LinkModel = LinkModel {
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: Permille::ZERO,
        rate: match Mbps::new(8) {
            Some(rate) => rate,
            None => panic!("8 is a bandwidth"),
        },
        queue: Duration::from_millis(50),
    };

    #[test]
    fn a_packet_takes_its_time_on_the_line_and_the_delay() {
        let mut link = Impairment::new(QUIET, 1);
        let now = Moment::from_millis(5);
        // 1,000 bytes at 8 Mbps are 1 ms; the second packet waits for the first.
        assert_eq!(link.handle_packet(1000, now), Ok(Moment::from_millis(16)));
        assert_eq!(link.handle_packet(1000, now), Ok(Moment::from_millis(17)));
        assert_eq!(link.handle_packet(1000, Moment::from_millis(100)), Ok(Moment::from_millis(111)));
    }

    #[test]
    fn a_full_queue_drops_and_drains_again() {
        let mut link = Impairment::new(QUIET, 1);
        let passed = (0..100).filter(|_| link.handle_packet(1000, Moment::ZERO).is_ok()).count();
        assert_eq!(passed, 51, "50 ms of waiting at 1 ms each, and the one that is being sent");
        assert_eq!(link.handle_packet(1000, Moment::ZERO), Err(NetworkLoss::QueueFull));
        assert!(link.handle_packet(1000, Moment::from_millis(2)).is_ok());
    }

    #[test]
    fn a_burst_is_so_many_packets_at_once() {
        let (mut one_by_one, mut at_once) = (Impairment::new(QUIET, 1), Impairment::new(QUIET, 1));
        let last = (0..100).filter_map(|_| one_by_one.handle_packet(1000, Moment::ZERO).ok()).last();
        let burst = at_once.handle_burst(100, 1000, Moment::ZERO).expect("most pass");
        assert_eq!((burst.passed, burst.lost, Some(burst.arrives)), (51, 49, last));
        assert_eq!(at_once.handle_burst(1, 1000, Moment::ZERO), Err(NetworkLoss::QueueFull));
        let lossy = LinkModel { loss: Permille::new(80).unwrap_or(Permille::ZERO), ..QUIET };
        let mut lossy = Impairment::new(lossy, 7);
        let bursts = (0..500).filter_map(|n| lossy.handle_burst(20, 100, Moment::from_millis(n * 20)).ok());
        let lost: u32 = bursts.map(|burst| burst.lost).sum();
        assert!((700..900).contains(&lost), "{lost} of 10,000 at 8 %");
    }

    #[test]
    fn loss_is_as_configured_and_the_same_for_the_same_seed() {
        let lossy = LinkModel { loss: Permille::new(80).unwrap_or(Permille::ZERO), ..QUIET };
        let run = |seed| {
            let mut link = Impairment::new(lossy, seed);
            (0..10_000)
                .map(|n| link.handle_packet(100, Moment::from_millis(n)) == Err(NetworkLoss::Random))
                .collect::<Vec<_>>()
        };
        let lost = run(7).iter().filter(|lost| **lost).count();
        assert!((700..900).contains(&lost), "{lost} of 10,000 at 8 %");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn jitter_varies_the_delay_and_keeps_the_order() {
        let shaky = LinkModel { jitter: Duration::from_millis(40), ..QUIET };
        let mut link = Impairment::new(shaky, 3);
        let mut last = Moment::ZERO;
        let mut delays = Vec::new();
        for n in 0..500 {
            let now = Moment::from_millis(n * 20);
            let out = link.handle_packet(100, now).expect("no loss is configured");
            assert!(out >= last);
            last = out;
            delays.push(out.since(now));
        }
        let (shortest, longest) = (delays.iter().min().copied(), delays.iter().max().copied());
        assert!(shortest >= Some(Duration::from_millis(10)) && shortest < Some(Duration::from_millis(15)));
        assert!(longest > Some(Duration::from_millis(40)) && longest <= Some(Duration::from_millis(51)));
    }

    #[test]
    fn a_cut_link_passes_nothing_until_it_is_restored() {
        let mut link = Impairment::new(QUIET, 1);
        link.set_cut(true);
        assert_eq!(link.handle_packet(100, Moment::ZERO), Err(NetworkLoss::Cut));
        link.set_cut(false);
        assert!(link.handle_packet(100, Moment::ZERO).is_ok());
    }
}
