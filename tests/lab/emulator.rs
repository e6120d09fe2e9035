//! A WAN emulator in user space, for kernels without netem: policy routing in the router
//! namespace sends what crosses it into a TUN device, a thread reads, drops, delays and paces
//! it by a seeded model, and writes it back to the same device, from where the main table routes
//! it on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use trefoil::model::Chance;

use super::namespace::Namespace;

pub struct Emulator {
    router: String,
    interfaces: Vec<String>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How one direction of a link treats packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    pub cut: bool,
    pub delay: Duration,
    /// Added to `delay`, evenly spread; packets keep their order unless `reorder` says otherwise.
    pub jitter: Duration,
    pub loss_permille: u32,
    /// This many in a thousand skip the queue and so overtake others.
    pub reorder_permille: u32,
    /// Megabits per second; 0 is unlimited.
    pub rate_mbps: u32,
    /// Packets that would wait longer than this for the rate are dropped.
    pub queue: Duration,
}

impl Model {
    pub const CLEAN: Model = Model {
        cut: false,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss_permille: 0,
        reorder_permille: 0,
        rate_mbps: 0,
        queue: Duration::from_millis(100),
    };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// What the address sends.
    From,
    /// What is sent to the address.
    To,
}

/// The last mile of one address at the rim of the emulated network, in both directions.
pub struct Link {
    pub address: Ipv4Addr,
    pub from: Model,
    pub to: Model,
}

struct Shared {
    links: Mutex<Vec<LinkState>>,
    esp: Mutex<BTreeMap<EspKind, Crossing>>,
    stop: AtomicBool,
}

/// ESP in UDP, by who sent it to whom and the length of the outer packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EspKind {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub length: usize,
}

/// What has become of the packets of one kind.
#[derive(Clone, Copy, Default, Debug)]
pub struct Crossing {
    pub entered: u64,
    pub left: u64,
}

struct LinkState {
    address: Ipv4Addr,
    from: Lane,
    to: Lane,
}

struct Lane {
    model: Model,
    /// When the last packet accepted has left the bottleneck, and when it arrives.
    free_at: Instant,
    last_arrival: Instant,
}

/// 16,384 packets of 1,500 bytes: 24 MiB, some 200 ms of a gigabit.
const MOST_QUEUED: usize = 16_384;

impl Emulator {
    /// `interfaces` are those of the router whose arriving packets go through the emulator. A
    /// packet passes the last miles of its source and of its destination: delays add up, and one
    /// cut is enough.
    pub fn start(router: &Namespace, interfaces: &[&str], links: Vec<Link>, seed: u64) -> Emulator {
        let now = Instant::now();
        let lane = |model| Lane { model, free_at: now, last_arrival: now };
        let links = links
            .into_iter()
            .map(|link| LinkState { address: link.address, from: lane(link.from), to: lane(link.to) })
            .collect();
        let shared = Arc::new(Shared { links: Mutex::new(links), esp: Mutex::default(), stop: AtomicBool::new(false) });
        let device = router.enter(|| open_tun("emu").expect("a TUN device for the emulator"));
        router.ip("link set emu up txqueuelen 10000\nroute add default dev emu table 100\n");
        for interface in interfaces {
            router.ip(&format!("rule add iif {interface} lookup 100 priority 100\n"));
        }
        let worker = shared.clone();
        let thread = thread::spawn(move || carry(device, &worker, Chance::from_number(seed)));
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        Emulator { router: router.name().to_owned(), interfaces, shared, thread: Some(thread) }
    }

    pub fn set(&self, address: Ipv4Addr, direction: Direction, model: Model) {
        self.change(address, direction, |present| *present = model);
    }

    /// Swallows everything in both directions, without a word to anyone: what a fibre cut
    /// beyond the modem looks like.
    pub fn cut(&self, address: Ipv4Addr) {
        self.change(address, Direction::From, |model| model.cut = true);
        self.change(address, Direction::To, |model| model.cut = true);
    }

    pub fn cut_one_way(&self, address: Ipv4Addr, direction: Direction) {
        self.change(address, direction, |model| model.cut = true);
    }

    pub fn mend(&self, address: Ipv4Addr) {
        self.change(address, Direction::From, |model| model.cut = false);
        self.change(address, Direction::To, |model| model.cut = false);
    }

    /// Takes the emulator out of the way: the router forwards by itself, at the kernel's speed.
    pub fn bypass(&self) {
        for interface in &self.interfaces {
            let line = format!("rule del iif {interface} lookup 100 priority 100\n");
            super::namespace::ip_in(&self.router, &line);
        }
    }

    /// ESP that has entered and left the emulated network so far. What was still in it has only entered.
    pub fn esp(&self, wanted: impl Fn(&EspKind) -> bool) -> Crossing {
        let counts = lock(&self.shared.esp);
        let wanted = counts.iter().filter(|(kind, _)| wanted(kind));
        wanted.fold(Crossing::default(), |sum, (_, one)| Crossing {
            entered: sum.entered + one.entered,
            left: sum.left + one.left,
        })
    }

    fn change(&self, address: Ipv4Addr, direction: Direction, change: impl FnOnce(&mut Model)) {
        let mut links = self.shared.links();
        let link = links.iter_mut().find(|link| link.address == address).expect("a link of the lab");
        change(match direction {
            Direction::From => &mut link.from.model,
            Direction::To => &mut link.to.model,
        });
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Vec<LinkState>> {
        lock(&self.links)
    }

    fn count(&self, packet: &[u8], count: impl FnOnce(&mut Crossing)) {
        if let Some(kind) = esp_kind(packet) {
            count(lock(&self.esp).entry(kind).or_default());
        }
    }

    /// When the packet arrives at the far side; `None` when it does not.
    fn arrival(&self, packet: &[u8], now: Instant, chance: &mut Chance) -> Option<Instant> {
        let (source, destination) = ipv4_ends(packet)?;
        let mut arrival = now;
        for link in self.links().iter_mut() {
            let lane = match link.address {
                address if address == source => &mut link.from,
                address if address == destination => &mut link.to,
                _ => continue,
            };
            arrival = lane.pass(packet.len(), arrival, chance)?;
        }
        Some(arrival)
    }
}

impl Lane {
    fn pass(&mut self, bytes: usize, at: Instant, chance: &mut Chance) -> Option<Instant> {
        let model = self.model;
        if model.cut || chance.below(1000) < model.loss_permille {
            return None;
        }
        let mut leaves = at;
        if model.rate_mbps > 0 {
            let start = self.free_at.max(at);
            if start - at > model.queue {
                return None;
            }
            leaves = start + Duration::from_nanos(bytes as u64 * 8 * 1000 / u64::from(model.rate_mbps));
            self.free_at = leaves;
        }
        let jitter = Duration::from_micros(u64::from(chance.below(model.jitter.as_micros() as u32)));
        let arrival = leaves + model.delay + jitter;
        if chance.below(1000) < model.reorder_permille {
            return Some(leaves);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        Some(self.last_arrival)
    }
}

fn carry(mut device: File, shared: &Shared, mut chance: Chance) {
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut number = 0;
    let mut buffer = [0; 65_536];
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        while let Some(Reverse((due, _, _))) = waiting.peek()
            && *due <= now
        {
            if let Some(Reverse((_, _, packet))) = waiting.pop() {
                // The device refuses what arrives while it goes down; nobody waits for it then.
                if device.write(&packet).is_ok() {
                    shared.count(&packet, |kind| kind.left += 1);
                }
            }
        }
        let pause = waiting.peek().map_or(Duration::from_millis(50), |Reverse((due, _, _))| *due - now);
        let mut descriptors = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        let _ = ppoll(&mut descriptors, Some(TimeSpec::from_duration(pause.min(Duration::from_millis(50)))), None);
        for _ in 0..64 {
            let Ok(length) = device.read(&mut buffer) else { break };
            let packet = &buffer[..length];
            shared.count(packet, |kind| kind.entered += 1);
            let Some(due) = shared.arrival(packet, Instant::now(), &mut chance) else { continue };
            if waiting.len() < MOST_QUEUED {
                number += 1;
                waiting.push(Reverse((due, number, packet.to_vec())));
            }
        }
    }
}

/// `None` for anything but ESP in UDP (RFC 3948): in front of IKE stand four zeroes.
fn esp_kind(packet: &[u8]) -> Option<EspKind> {
    let (source, destination) = ipv4_ends(packet)?;
    let (header, protocol) = (usize::from(packet[0] & 15) * 4, packet[9]);
    let spi = packet.get(header + 8..header + 12)?;
    let ports = packet.get(header..header + 4)?;
    let natt = ports.chunks(2).any(|port| port == 4_500_u16.to_be_bytes());
    (protocol == 17 && natt && spi != [0; 4]).then_some(EspKind { source, destination, length: packet.len() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn ipv4_ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet[0] >> 4 == 4).then(|| (source.into(), destination.into()))
}

/// Opens a TUN device in the namespace of the calling thread: no packet information, not blocking.
fn open_tun(name: &str) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    nix::ioctl_write_int!(tun_set_interface, b'T', 202);
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // struct ifreq: a name of 16 bytes, then the flags, 40 bytes in all.
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes, at this address.
    unsafe { tun_set_interface(file.as_raw_fd(), request.as_mut_ptr() as u64)? };
    Ok(file)
}
