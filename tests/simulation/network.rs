use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

use trefoil::lab::InFlight;
use trefoil::model::{Chance, Moment};

/// What a WAN link does to a datagram, in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub delay: Duration,
    /// Up to this much more, so that datagrams overtake each other.
    pub jitter: Duration,
    pub loss_permille: u32,
    /// Besides, of what the branch sends.
    pub loss_up_permille: u32,
    pub duplicate_permille: u32,
    pub cut: bool,
}

impl Weather {
    pub const FAIR: Weather = Weather {
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss_permille: 0,
        loss_up_permille: 0,
        duplicate_permille: 0,
        cut: false,
    };
}

/// Every WAN link and the datagrams in it, in simulated time.
pub struct Network {
    /// By branch link, then by PoP.
    pub weather: [[Weather; 2]; 3],
    queue: BinaryHeap<Reverse<(Moment, u64, InFlight)>>,
    sequence: u64,
    chance: Chance,
    pub lost: u64,
}

impl Network {
    pub fn new(seed: u64) -> Network {
        Network {
            weather: [[Weather::FAIR; 2]; 3],
            queue: BinaryHeap::new(),
            sequence: 0,
            chance: Chance::from_number(seed ^ 0x6e65_7477_6f72_6b00),
            lost: 0,
        }
    }

    pub fn send(&mut self, datagram: InFlight, now: Moment) {
        let Some((link, pop)) = place(datagram.source.ip(), datagram.destination.ip()) else { return };
        let weather = self.weather[link][pop];
        let is_up = super::plans::LINKS.iter().any(|link| IpAddr::V4(link.1) == datagram.source.ip());
        let loss = weather.loss_permille + if is_up { weather.loss_up_permille } else { 0 };
        if weather.cut || self.chance.below(1000) < loss {
            self.lost += 1;
            return;
        }
        let copies = if self.chance.below(1000) < weather.duplicate_permille { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = Duration::from_micros(u64::from(self.chance.below(weather.jitter.as_micros() as u32 + 1)));
            self.sequence += 1;
            let copy = InFlight { bytes: datagram.bytes.clone(), ..datagram };
            self.queue.push(Reverse((now + weather.delay + jitter, self.sequence, copy)));
        }
    }

    pub fn next_arrival(&self) -> Option<Moment> {
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    pub fn receive(&mut self, now: Moment) -> Option<InFlight> {
        if self.next_arrival()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse((_, _, datagram))| datagram)
    }
}

/// Which link and PoP lie between two addresses.
fn place(one: IpAddr, other: IpAddr) -> Option<(usize, usize)> {
    let link = |address: IpAddr| super::plans::LINKS.iter().position(|link| IpAddr::V4(link.1) == address);
    let pop = |address: IpAddr| super::plans::POPS.iter().position(|pop| IpAddr::V4(*pop) == address);
    Some((link(one).or(link(other))?, pop(one).or(pop(other))?))
}
