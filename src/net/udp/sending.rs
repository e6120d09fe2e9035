use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::errno::Errno;

use super::RunLimits;
use super::runs::{Place, Rules, Runs};
use crate::dataplane::Unsent;
use crate::packet::Train;

/// Sends trains in order, in runs as long as the kernel takes them. `call` hands runs over from
/// the front and returns how many the socket took, at least one, or the error of the first.
/// `refused` hears of datagrams that it did not take; the rest is sent all the same.
pub fn send<'a>(
    trains: &'a [Train],
    limits: &mut RunLimits,
    segmentation: &AtomicBool,
    local: SocketAddr,
    refused: &mut dyn FnMut(Unsent),
    mut call: impl FnMut(Runs<'a, '_>) -> Result<usize, Errno>,
) {
    limits.recover(Instant::now);
    let mut place = Place::default();
    // A train of which a run of so many datagrams was refused: perhaps each alone is not.
    let mut suspect: Option<(usize, usize)> = None;
    loop {
        let alone = suspect.map(|(index, _)| index);
        let rules = Rules { limits, segmentation: segmentation.load(Ordering::Relaxed), alone };
        let mut runs = Runs { trains, place, rules };
        let Some(first) = runs.clone().next() else { return };
        let outcome = call(runs.clone());
        match outcome {
            Ok(sent) => {
                (0..sent).for_each(|_| _ = runs.next());
                place = runs.place;
                if let Some((_, datagrams)) = suspect.take_if(|(index, _)| *index == first.index) {
                    limits.shrink(first.train.leg, datagrams, Instant::now());
                }
            }
            Err(Errno::EINTR) => {}
            // The socket is full; asking for each of the others would only cost more time.
            Err(Errno::EAGAIN) => {
                for (index, datagrams) in place.rest(trains) {
                    refused(Unsent { index, datagrams, errno: libc::EAGAIN });
                }
                return;
            }
            Err(Errno::EIO) if first.datagrams > 1 => {
                if segmentation.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%local, "the interface cannot segment; sending datagrams one by one");
                }
            }
            Err(Errno::EINVAL | Errno::EMSGSIZE) if first.datagrams > 1 => {
                suspect = Some((first.index, first.datagrams));
            }
            Err(error) => {
                runs.next();
                (place, suspect) = (runs.place, None);
                // Those of the same length exceed the same MTU.
                let equal = if error == Errno::EMSGSIZE { place.skip_equal(trains) } else { 0 };
                refused(Unsent { index: first.index, datagrams: first.datagrams + equal, errno: error as i32 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Leg, UnderlayId};
    use crate::net::RunLimits;

    /// Trains of so many datagrams of so many bytes; the last datagram of each has half as many.
    fn trains(shapes: &[(u8, usize, usize)]) -> Vec<Train> {
        let mut number = 0;
        let mut train = |(remote, datagrams, size): (u8, usize, usize)| {
            let mut train = Train::with_capacity(65_507);
            let address = |host| ([127, 0, 0, host], 4_500).into();
            train.leg = Leg { underlay: UnderlayId(0), natt: true, local: address(1), remote: address(remote) };
            train.segment = size;
            let mut bytes = Vec::new();
            for _ in 0..datagrams {
                bytes.extend(vec![number; size]);
                number += 1;
            }
            bytes.truncate(bytes.len() - size / 2);
            assert!(train.packet.fill(&bytes));
            train
        };
        shapes.iter().map(|shape| train(*shape)).collect()
    }

    /// A kernel that takes some runs, and what has come of it.
    struct Kernel {
        limits: RunLimits,
        segmentation: AtomicBool,
        /// The number of each datagram that was taken.
        taken: Vec<u8>,
        refused: Vec<Unsent>,
        calls: usize,
        /// Of each run that was taken.
        lengths: Vec<usize>,
    }

    impl Kernel {
        fn new() -> Kernel {
            Kernel {
                limits: RunLimits::default(),
                segmentation: AtomicBool::new(true),
                taken: Vec::new(),
                refused: Vec::new(),
                calls: 0,
                lengths: Vec::new(),
            }
        }

        /// `judge` is asked for each run: its remote, how many datagrams, and how long each.
        fn send(&mut self, trains: &[Train], judge: impl Fn(u8, usize, usize) -> Result<(), Errno>) {
            let Kernel { limits, segmentation, taken, refused, calls, lengths } = self;
            let local = ([127, 0, 0, 1], 4_500).into();
            send(trains, limits, segmentation, local, &mut |unsent| refused.push(unsent), |runs| {
                *calls += 1;
                let mut count = 0;
                for run in runs.take(64) {
                    let SocketAddr::V4(remote) = run.train.leg.remote else { panic!("IPv4 only") };
                    let size = run.train.segment.min(run.bytes.len());
                    match judge(remote.ip().octets()[3], run.datagrams, size) {
                        Ok(()) => {
                            let datagrams: Vec<_> = run.bytes.chunks(run.train.segment).collect();
                            assert_eq!(datagrams.len(), run.datagrams);
                            taken.extend(datagrams.iter().map(|bytes| bytes[0]));
                            lengths.push(run.datagrams);
                            count += 1;
                        }
                        Err(error) if count == 0 => return Err(error),
                        Err(_) => break,
                    }
                }
                Ok(count)
            });
        }
    }

    const ALL: [(u8, usize, usize); 4] = [(2, 20, 1_000), (3, 1, 800), (2, 44, 1_400), (3, 30, 500)];

    #[test]
    fn what_the_kernel_takes_goes_in_one_call_and_one_run_a_train() {
        let mut kernel = Kernel::new();
        kernel.send(&trains(&ALL), |_, _, _| Ok(()));
        assert_eq!((kernel.calls, kernel.lengths.as_slice()), (1, &[20, 1, 44, 30][..]));
        assert_eq!(kernel.taken, (0..95).collect::<Vec<u8>>());
        assert!(kernel.refused.is_empty());
    }

    #[test]
    fn a_run_that_is_refused_is_sent_one_by_one_and_shrinks_that_leg_alone() {
        for errno in [Errno::EINVAL, Errno::EMSGSIZE] {
            let mut kernel = Kernel::new();
            let trains = trains(&ALL);
            let judge = |remote, datagrams, _| if remote == 2 && datagrams > 12 { Err(errno) } else { Ok(()) };
            kernel.send(&trains, judge);
            assert_eq!(kernel.taken, (0..95).collect::<Vec<u8>>());
            assert!(kernel.refused.is_empty());
            assert_eq!((kernel.limits.of(&trains[0].leg), kernel.limits.of(&trains[1].leg)), (10, 64));
            kernel.lengths.clear();
            kernel.calls = 0;
            kernel.send(&trains, judge);
            assert_eq!((kernel.calls, kernel.lengths.as_slice()), (1, &[10, 10, 1, 10, 10, 10, 10, 4, 30][..]));
        }
    }

    #[test]
    fn an_interface_that_cannot_segment_is_given_datagrams_one_by_one_from_then_on() {
        let mut kernel = Kernel::new();
        let judge = |_, datagrams, _| if datagrams > 1 { Err(Errno::EIO) } else { Ok(()) };
        kernel.send(&trains(&ALL), judge);
        assert_eq!(kernel.taken, (0..95).collect::<Vec<u8>>());
        assert!(!kernel.segmentation.load(Ordering::Relaxed));
        // One that failed, and 64 datagrams a call.
        assert_eq!(kernel.calls, 1 + 2);
        assert_eq!(kernel.limits.of(&trains(&ALL)[0].leg), 64, "it is not the length of the run");
    }

    #[test]
    fn what_exceeds_the_mtu_is_counted_without_asking_for_each() {
        let mut kernel = Kernel::new();
        let trains = trains(&ALL);
        kernel.send(&trains, |_, _, size| if size > 900 { Err(Errno::EMSGSIZE) } else { Ok(()) });
        let refused = |index, datagrams| Unsent { index, datagrams, errno: libc::EMSGSIZE };
        assert_eq!(kernel.refused, [refused(0, 19), refused(2, 43)]);
        // The last, shorter one of each train fits.
        let fits = |number: &u8| *number == 19 || *number == 20 || *number >= 64;
        assert_eq!(kernel.taken, (0..95).filter(fits).collect::<Vec<u8>>());
        assert_eq!(kernel.limits.of(&trains[0].leg), 64, "shorter runs would not help");
        assert!(kernel.calls <= 7, "{}", kernel.calls);
    }

    #[test]
    fn a_full_socket_ends_it_and_everything_left_is_counted() {
        let mut kernel = Kernel::new();
        kernel.send(
            &trains(&ALL),
            |remote, datagrams, _| {
                if remote == 2 && datagrams > 40 { Err(Errno::EAGAIN) } else { Ok(()) }
            },
        );
        assert_eq!(kernel.taken, (0..21).collect::<Vec<u8>>());
        let refused = |index, datagrams| Unsent { index, datagrams, errno: libc::EAGAIN };
        assert_eq!(kernel.refused, [refused(2, 44), refused(3, 30)]);
    }

    #[test]
    fn a_remote_that_cannot_be_reached_costs_only_its_own() {
        let mut kernel = Kernel::new();
        kernel.send(&trains(&ALL), |remote, _, _| if remote == 3 { Err(Errno::EHOSTUNREACH) } else { Ok(()) });
        assert_eq!(kernel.taken, (0..20).chain(21..65).collect::<Vec<u8>>());
        let refused = |index, datagrams| Unsent { index, datagrams, errno: libc::EHOSTUNREACH };
        assert_eq!(kernel.refused, [refused(1, 1), refused(3, 30)]);
    }

    #[test]
    fn every_datagram_is_sent_once_or_counted_once_whatever_the_kernel_does() {
        use std::cell::Cell;
        let errors = [Errno::EINVAL, Errno::EMSGSIZE, Errno::EIO, Errno::EPERM, Errno::EINTR, Errno::ENOBUFS];
        for seed in 1..200u32 {
            let state = Cell::new(seed);
            let random = || {
                state.set(state.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
                (state.get() >> 16) as usize
            };
            let mut kernel = Kernel::new();
            kernel.send(&trains(&ALL), |_, _, _| match random() % 3 {
                0 => Err(errors[random() % errors.len()]),
                _ => Ok(()),
            });
            let counted: usize = kernel.refused.iter().map(|unsent| unsent.datagrams).sum();
            assert_eq!(kernel.taken.len() + counted, 95, "seed {seed}");
            assert!(kernel.taken.is_sorted_by(|one, next| one < next), "seed {seed}");
        }
    }
}
