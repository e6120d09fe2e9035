use std::time::Duration;

use super::{Backend, PacketCipher, PacketSuite};

/// What a round seals and opens: a small packet, and a full one of a path with an MTU of 1,500.
const PACKETS: [usize; 2] = [64, 1408];
/// Enough rounds for one that nothing interrupts, where a round takes microseconds.
const ROUNDS: usize = 40;
/// The rounds of a suite end here, so that all take 4 ms, whatever the processor...
const BUDGET: Duration = Duration::from_micros(350);
/// ...and no sooner than here: the first one loads the code.
const LEAST_ROUNDS: usize = 3;
/// Bytes of the clear part: SPI and sequence number.
const CLEAR_LEN: usize = 8;

/// Which backend serves each suite in this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backends([Served; PacketSuite::ALL.len()]);

/// The backend of a suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    pub suite: PacketSuite,
    pub backend: Backend,
    /// What sealing and opening a packet of 64 and one of 1,408 bytes took, in the order of
    /// `Backend::ALL`; zero where nothing was measured.
    pub times: [Duration; Backend::ALL.len()],
}

impl Backends {
    /// One for all, without a measurement.
    pub fn only(backend: Backend) -> Backends {
        Backends(PacketSuite::ALL.map(|suite| Served { suite, backend, times: Default::default() }))
    }

    /// The fastest of each suite on this processor, which takes about 4 ms. `clock` gives the time
    /// since any fixed moment, better than to the microsecond.
    pub fn measure(mut clock: impl FnMut() -> Duration) -> Backends {
        Backends(PacketSuite::ALL.map(|suite| {
            let times = times(suite, &mut clock);
            Served { suite, backend: fastest(times), times }
        }))
    }

    pub fn of(&self, suite: PacketSuite) -> Backend {
        let [first, ..] = &self.0;
        self.0.iter().find(|served| served.suite == suite).unwrap_or(first).backend
    }

    /// All suites in the order of `PacketSuite::ALL`, for the log.
    pub fn served(&self) -> &[Served] {
        &self.0
    }
}

fn fastest(times: [Duration; Backend::ALL.len()]) -> Backend {
    let [first, ..] = Backend::ALL;
    Backend::ALL.into_iter().zip(times).min_by_key(|(_, time)| *time).map_or(first, |(backend, _)| backend)
}

/// The best of several rounds for each backend, taken in turns: what is slowed by others' work
/// does not count, and a change of clock rate meets all.
fn times(suite: PacketSuite, clock: &mut impl FnMut() -> Duration) -> [Duration; Backend::ALL.len()] {
    let ciphers = Backend::ALL.map(|backend| PacketCipher::new(backend, suite, &vec![0x6d; suite.keymat_len()]).ok());
    let mut best = Backend::ALL.map(|_| Duration::MAX);
    let mut buffer = [0; 2048];
    let start = clock();
    for round in 0..ROUNDS {
        for (cipher, best) in ciphers.iter().zip(&mut best) {
            let before = clock();
            let works = cipher.as_ref().is_some_and(|cipher| seal_and_open(cipher, round as u64, &mut buffer));
            let took = clock().saturating_sub(before);
            if works {
                *best = took.min(*best);
            }
        }
        if round + 1 >= LEAST_ROUNDS && clock().saturating_sub(start) > BUDGET {
            break;
        }
    }
    best
}

fn seal_and_open(cipher: &PacketCipher, sequence: u64, buffer: &mut [u8]) -> bool {
    let around = CLEAR_LEN + cipher.suite().iv_len() + cipher.suite().icv_len();
    PACKETS.into_iter().all(|length| {
        let Some(packet) = buffer.get_mut(..around + length) else { return false };
        cipher.seal(sequence, CLEAR_LEN, packet).is_some() && cipher.open(CLEAR_LEN, packet).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_fastest_backend_is_chosen_and_the_first_where_none_is() {
        let [quick, slow] = [3, 4].map(Duration::from_micros);
        assert_eq!(fastest([quick, slow]), Backend::AwsLc);
        assert_eq!(fastest([slow, quick]), Backend::RustCrypto);
        assert_eq!(fastest([quick, quick]), Backend::AwsLc);
        assert_eq!(Backends::measure(|| Duration::ZERO), Backends::only(Backend::AwsLc));
    }

    #[test]
    fn a_backend_is_found_again_by_its_name() {
        for backend in Backend::ALL {
            assert_eq!(Backend::from_name(backend.name()), Some(backend));
        }
        assert_eq!(Backend::from_name("auto"), None);
    }

    #[test]
    fn one_backend_can_be_had_for_all() {
        for backend in Backend::ALL {
            let only = Backends::only(backend);
            assert!(PacketSuite::ALL.iter().all(|suite| only.of(*suite) == backend));
        }
    }

    #[test]
    fn measuring_ends_soon_on_a_slow_processor_and_on_a_fast_one() {
        for step in [Duration::from_nanos(20), Duration::from_millis(5)] {
            let mut calls = 0;
            Backends::measure(|| {
                calls += 1;
                step * calls
            });
            let rounds = calls as usize / PacketSuite::ALL.len();
            assert!(rounds <= 5 * ROUNDS + 1, "{calls}");
            assert!(step < BUDGET || rounds <= 5 * LEAST_ROUNDS + 1, "{calls}");
        }
    }

    #[test]
    fn a_real_clock_gives_real_times() {
        let start = Instant::now();
        let chosen = Backends::measure(|| start.elapsed());
        for served in chosen.served() {
            assert!(served.times.iter().all(|time| !time.is_zero() && *time < Duration::from_secs(1)), "{served:?}");
            let of = |backend| served.times[(backend == Backend::RustCrypto) as usize];
            assert!(of(served.backend) <= of(Backend::AwsLc), "{served:?}");
        }
    }
}
