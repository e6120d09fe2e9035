//! What processes take of the processor, from /proc.
//!
//! `schedstat` counts nanoseconds of a thread on a core. It holds the thread's work in user space
//! and in the kernel, and the interrupts and soft interrupts that were served while it ran: what a
//! veth does to carry a packet to the next queue is on the account of whoever sent it. Soft
//! interrupts that were put off run in ksoftirqd and are counted by themselves.

use std::fs;
use std::time::{Duration, Instant};

/// At one moment.
#[derive(Clone, Copy)]
pub struct CpuReading {
    processes: Duration,
    soft_interrupts: Duration,
    machine: Duration,
}

/// Between two moments.
pub struct CpuUse {
    /// All threads of the processes asked for.
    pub processes: Duration,
    /// ksoftirqd of every core.
    pub soft_interrupts: Duration,
    /// Everything that ran on the machine.
    pub machine: Duration,
}

impl CpuReading {
    pub fn of(processes: &[u32]) -> CpuReading {
        CpuReading {
            processes: processes.iter().map(|process| process_time(*process)).sum(),
            soft_interrupts: soft_interrupt_time(),
            machine: machine_time(),
        }
    }

    pub fn until(self, later: CpuReading) -> CpuUse {
        CpuUse {
            processes: later.processes.saturating_sub(self.processes),
            soft_interrupts: later.soft_interrupts.saturating_sub(self.soft_interrupts),
            machine: later.machine.saturating_sub(self.machine),
        }
    }
}

/// How much of the machine's processor time is taken at present, 0 to 1; looks for so long.
pub fn busy_share(time: Duration) -> f64 {
    let (start, before) = (Instant::now(), machine_time());
    std::thread::sleep(time);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    (machine_time() - before).as_secs_f64() / start.elapsed().as_secs_f64() / cores
}

/// The largest amount of memory, in bytes, that a process had in RAM since it started.
pub fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kilobytes.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn process_time(process: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    threads.flatten().map(|thread| run_time(&thread.path().join("schedstat").display().to_string())).sum()
}

fn run_time(file: &str) -> Duration {
    let text = fs::read_to_string(file).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn soft_interrupt_time() -> Duration {
    let Ok(processes) = fs::read_dir("/proc") else { return Duration::ZERO };
    let names = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| {
            let command = fs::read_to_string(format!("/proc/{name}/comm")).unwrap_or_default();
            command.starts_with("ksoftirqd/")
        })
        .map(|name| run_time(&format!("/proc/{name}/schedstat")))
        .sum()
}

/// All that is not idle, waiting or stolen, in the kernel's hundredths of a second.
fn machine_time() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|field| ticks.get(*field)).sum();
    Duration::from_millis(busy * 10)
}
