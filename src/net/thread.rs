use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// What the calling thread has used of the processor so far.
pub fn processor_time() -> Duration {
    // Every kernel since 2.6.12 has this clock.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Keeps the calling thread on one core: the `number`th of those that it may use, from the first
/// again where there are fewer.
pub fn pin(number: usize) -> Result<(), Errno> {
    let caller = Pid::from_raw(0);
    let allowed = sched_getaffinity(caller)?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
    let core = *cores.get(number % cores.len().max(1)).ok_or(Errno::EINVAL)?;
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(caller, &only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_core() {
        let mine = Pid::from_raw(0);
        let before = sched_getaffinity(mine).unwrap();
        std::thread::spawn(move || {
            pin(usize::from(u8::MAX)).unwrap();
            let after = sched_getaffinity(mine).unwrap();
            let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| after.is_set(*core).unwrap()).collect();
            assert_eq!(cores.len(), 1);
            assert!(before.is_set(cores[0]).unwrap());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn work_takes_processor_time_and_sleep_does_not() {
        let before = processor_time();
        while processor_time() == before {}
        let worked = processor_time();
        std::thread::sleep(Duration::from_millis(50));
        assert!(processor_time() - worked < Duration::from_millis(50));
    }
}
