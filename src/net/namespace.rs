use std::fs;
use std::process::Command;
use std::sync::mpsc;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, which lives as long as this value and what was opened in it. Threads are
/// in a namespace, so there is one that does what is to be done there.
pub struct Namespace(mpsc::Sender<Job>);

impl Namespace {
    /// `None`, with a word, without the right to make one.
    pub fn new() -> Option<Namespace> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root to make a network namespace");
            return None;
        }
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            inbox.iter().for_each(|job| job());
        });
        Some(Namespace(jobs))
    }

    /// Does something in the namespace, and panics when that panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, outcome) = mpsc::channel();
        self.0.send(Box::new(move || _ = done.send(job()))).expect("a thread that has not panicked");
        outcome.recv().expect("a job that does not panic; see above")
    }

    /// One of the kernel's counters, by its table's name and its own.
    pub fn counter(&self, table: &str, name: &str) -> u64 {
        let (prefix, name) = (format!("{table}: "), name.to_owned());
        let lines = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let mut rows = lines.lines().filter_map(|line| line.strip_prefix(&prefix));
        let (names, numbers) = (rows.next().unwrap(), rows.next().unwrap());
        let position = names.split(' ').position(|known| known == name).unwrap();
        numbers.split(' ').nth(position).unwrap().parse().unwrap()
    }

    /// One of the kernel's counters for IPv6.
    pub fn counter6(&self, name: &str) -> u64 {
        let prefix = format!("{name} ");
        let lines = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp6").unwrap());
        lines.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().trim().parse().unwrap()
    }
}

/// In the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
