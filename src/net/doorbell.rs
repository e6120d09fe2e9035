use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::Bell;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const CALLED: u8 = 2;

/// A worker's bell, which rings only while the worker sleeps: calling one that is awake costs no
/// system call. Clones are the same doorbell.
///
/// What was left for the worker before a call is found by it after the call: every change of
/// state is one atomic exchange, so either the worker sees the call before it sleeps, or the
/// caller sees it asleep.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bell: Bell,
    state: AtomicU8,
}

impl Doorbell {
    pub fn new() -> io::Result<Doorbell> {
        Ok(Doorbell(Arc::new(Inner { bell: Bell::new()?, state: AtomicU8::new(AWAKE) })))
    }

    /// Makes the worker look for what was left for it before, now or as soon as it would sleep.
    pub fn call(&self) {
        if self.0.state.swap(CALLED, Ordering::AcqRel) == ASLEEP {
            self.0.bell.ring();
        }
    }

    /// Has anybody called since the worker was last awake?
    pub fn is_called(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == CALLED
    }

    /// The worker is about to wait until the bell rings; `false` when somebody has called, and it
    /// has to look once more instead.
    pub fn fall_asleep(&self) -> bool {
        let fell = self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        if fell.is_err() {
            self.wake_up();
        }
        fell.is_ok()
    }

    /// The worker will look for all that was left for it so far; has anybody called?
    pub fn wake_up(&self) -> bool {
        self.0.state.swap(AWAKE, Ordering::AcqRel) == CALLED
    }

    /// Stops the ringing.
    pub fn clear(&self) {
        self.0.bell.clear();
    }
}

/// Readable while it rings.
impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    /// Longer than any pause of a busy machine; a sleep that lasts so long has missed its call.
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn only_a_sleeping_worker_is_rung_and_a_call_before_the_sleep_prevents_it() {
        let doorbell = Doorbell::new().unwrap();
        doorbell.call();
        assert!(doorbell.is_called() && !doorbell.0.bell.wait(Duration::ZERO));
        assert!(!doorbell.fall_asleep());
        assert!(doorbell.fall_asleep());
        doorbell.call();
        doorbell.call();
        assert!(doorbell.0.bell.wait(Duration::ZERO));
        doorbell.wake_up();
        doorbell.clear();
        assert!(doorbell.fall_asleep());
    }

    #[test]
    fn no_call_is_missed_however_the_two_sides_interleave() {
        const ITEMS: u64 = 200_000;
        let doorbell = Doorbell::new().unwrap();
        // Relaxed, so that nothing but the doorbell orders what was left before the call.
        let left = Arc::new(AtomicU64::new(0));
        let (taken, callers) = (Arc::new(AtomicU64::new(0)), 2);
        let calling: Vec<_> = (0..callers)
            .map(|caller| {
                let (doorbell, left, taken) = (doorbell.clone(), left.clone(), taken.clone());
                std::thread::spawn(move || {
                    for item in 0..ITEMS {
                        let mine = left.fetch_add(1, Ordering::Relaxed) + 1;
                        doorbell.call();
                        // One caller now and then lets the worker go to sleep, the other does not.
                        while caller == 0 && item % 16 == 0 && taken.load(Ordering::Relaxed) < mine {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut slept = 0;
        loop {
            let seen = left.load(Ordering::Relaxed);
            taken.store(seen, Ordering::Relaxed);
            if seen == ITEMS * callers {
                break;
            }
            if doorbell.fall_asleep() {
                assert!(doorbell.0.bell.wait(LONG), "slept through a call at {seen}");
                doorbell.wake_up();
                doorbell.clear();
                slept += 1;
            }
        }
        calling.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(slept > 0, "the test has not tested sleeping");
    }
}
