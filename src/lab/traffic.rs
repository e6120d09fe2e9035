use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::clock::Clock;
use super::driver::Driver;
use super::lan::Lan;
use super::services::Services;
use super::wan::lock;
use crate::net::HostSide;

/// A `Lan` at work behind an edge, on a thread of its own.
pub struct LanTraffic {
    lan: Arc<Mutex<Lan>>,
    _driver: Driver,
}

/// The `Services` at work behind the PoPs, on a thread of their own.
pub struct ServiceTraffic {
    _driver: Driver,
}

/// How long a thread waits for packets before it looks what is due: a twentieth of the time
/// between two voice packets.
const TICK: Duration = Duration::from_millis(1);

/// Packets taken from a device before the hosts get their turn.
const RECEIVE_BURST: usize = 256;

impl LanTraffic {
    pub fn start(edge: HostSide, clock: Clock, seed: u64) -> io::Result<LanTraffic> {
        let lan = Arc::new(Mutex::new(Lan::new(clock.now(), seed)));
        let worked_on = Arc::clone(&lan);
        let driver = Driver::start("lan", move || {
            edge.wait(TICK);
            let mut lan = lock(&worked_on);
            let now = clock.now();
            for packet in std::iter::from_fn(|| edge.receive()).take(RECEIVE_BURST) {
                lan.handle_packet(packet, now);
            }
            lan.handle_timeout(now);
            while let Some(packet) = lan.poll_packet() {
                // What the edge cannot take is lost, and shows as such.
                edge.send(&packet);
            }
        })?;
        Ok(LanTraffic { lan, _driver: driver })
    }

    pub fn lan(&self) -> MutexGuard<'_, Lan> {
        lock(&self.lan)
    }
}

impl ServiceTraffic {
    pub fn start(pops: Vec<HostSide>, clock: Clock, seed: u64) -> io::Result<ServiceTraffic> {
        let mut services = Services::new(seed);
        let driver = Driver::start("services", move || {
            wait(&pops);
            for (pop, number) in pops.iter().zip(0..) {
                for packet in std::iter::from_fn(|| pop.receive()).take(RECEIVE_BURST) {
                    services.handle_packet(number, packet);
                }
            }
            services.handle_timeout(clock.now());
            while let Some((number, packet)) = services.poll_packet() {
                if let Some(pop) = pops.get(number) {
                    pop.send(&packet);
                }
            }
        })?;
        Ok(ServiceTraffic { _driver: driver })
    }
}

fn wait(pops: &[HostSide]) {
    let mut waiting: Vec<PollFd> = pops.iter().map(|pop| PollFd::new(pop.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
    // An interrupted wait is one that ended early.
    let _early = poll(&mut waiting, timeout);
}
