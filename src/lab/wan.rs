use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address_block::AddressBlock;
use super::clock::Clock;
use super::courier::Courier;
use super::driver::Driver;
use super::impairment::{Impairment, LinkModel, NetworkLoss};
use super::network;
use super::relay::{Direction, Relay};
use crate::model::{Dscp, Moment};

/// The WAN links between the edge and the PoPs: UDP relays on real loopback sockets that delay,
/// lose, queue and cut as each link's model says. One thread; everything can be changed while
/// it runs.
pub struct Wan {
    lines: Arc<Mutex<Lines>>,
    _driver: Driver,
}

/// A WAN link as it shall be: the same line leads to every PoP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WanLink {
    pub up: LinkModel,
    pub down: LinkModel,
}

/// What one direction of one link carried and lost, over all PoPs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WanCounters {
    pub delivered_packets: u64,
    /// UDP payload.
    pub delivered_bytes: u64,
    pub lost_random: u64,
    pub lost_queue: u64,
    pub lost_cut: u64,
    /// All that was put on this link, delivered or not, in UDP payload bytes.
    pub offered_bytes: u64,
    /// The part of it that is marked as voice and as light flows, which tells where they go.
    pub voice_bytes: u64,
    pub light_bytes: u64,
}

/// A datagram's IPv4 and UDP headers, which take their time on the line too.
const HEADERS: usize = 28;

/// The state of all links, shared between the thread and whoever changes it.
pub struct Lines {
    /// By link and direction.
    links: Vec<[Line; 2]>,
    /// By PoP: whether all ways to it are cut.
    unreachable: Vec<bool>,
}

struct Line {
    impairment: Impairment,
    counters: WanCounters,
}

impl Wan {
    /// Binds all relays of the block and starts. Fails when one of its addresses is in use.
    pub fn start(block: AddressBlock, links: &[WanLink], pops: u8, clock: Clock, seed: u64) -> io::Result<Wan> {
        let mut relays = Vec::new();
        for (link, number) in (0..links.len()).zip(0u8..) {
            for pop in 0..pops {
                let (inside, outside) = (block.relay(number, pop), block.public(number, pop));
                for port in block.ports() {
                    relays.push(Relay::bind((link, usize::from(pop)), inside, outside, block.pop(pop), port)?);
                }
            }
        }
        let lines = Arc::new(Mutex::new(Lines::new(links, usize::from(pops), seed)));
        let mut courier = Courier::new(relays, Arc::clone(&lines), clock);
        let driver = Driver::start("wan", move || {
            courier.turn();
            courier.sleep();
        })?;
        Ok(Wan { lines, _driver: driver })
    }

    pub fn set(&self, link: usize, direction: Direction, model: LinkModel) {
        if let Some(line) = lock(&self.lines).line(link, direction) {
            line.impairment.set_model(model);
        }
    }

    /// Nothing passes the link any more in either direction; what is under way dies too.
    pub fn cut(&self, link: usize) {
        self.set_cut(link, true);
    }

    pub fn restore(&self, link: usize) {
        self.set_cut(link, false);
    }

    /// The PoP is gone: nothing reaches it or comes from it, over any link.
    pub fn cut_pop(&self, pop: usize) {
        self.set_unreachable(pop, true);
    }

    pub fn restore_pop(&self, pop: usize) {
        self.set_unreachable(pop, false);
    }

    /// By link, then by `Direction::index`.
    pub fn counters(&self) -> Vec<[WanCounters; 2]> {
        let lines = lock(&self.lines);
        lines.links.iter().map(|pair| pair.each_ref().map(|line| line.counters)).collect()
    }

    fn set_cut(&self, link: usize, cut: bool) {
        let mut lines = lock(&self.lines);
        for direction in Direction::ALL {
            if let Some(line) = lines.line(link, direction) {
                line.impairment.set_cut(cut);
            }
        }
    }

    fn set_unreachable(&self, pop: usize, unreachable: bool) {
        if let Some(place) = lock(&self.lines).unreachable.get_mut(pop) {
            *place = unreachable;
        }
    }
}

impl Lines {
    pub fn new(links: &[WanLink], pops: usize, seed: u64) -> Lines {
        let line = |model, seed| Line { impairment: Impairment::new(model, seed), counters: WanCounters::default() };
        let lines = links.iter().zip(0u64..).map(|(link, n)| {
            // Far apart, so that runs with neighbouring seeds share no line's randomness.
            let seed = seed.wrapping_mul(1000).wrapping_add(2 * n);
            [line(link.up, seed), line(link.down, seed.wrapping_add(1))]
        });
        Lines { links: lines.collect(), unreachable: vec![false; pops] }
    }

    /// A datagram enters a link: when it leaves at the other end; `None` when it is lost, which
    /// is then counted.
    pub fn handle_entry(
        &mut self,
        (link, pop): (usize, usize),
        direction: Direction,
        tos: u8,
        bytes: usize,
        now: Moment,
    ) -> Option<Moment> {
        let unreachable = self.is_unreachable(pop);
        let line = self.line(link, direction)?;
        line.counters.offered_bytes += bytes as u64;
        match Dscp::of_traffic_class(tos) {
            network::VOICE_DSCP => line.counters.voice_bytes += bytes as u64,
            network::LIGHT_DSCP => line.counters.light_bytes += bytes as u64,
            _ => {}
        }
        let fate =
            if unreachable { Err(NetworkLoss::Cut) } else { line.impairment.handle_packet(bytes + HEADERS, now) };
        fate.inspect_err(|loss| line.count(*loss)).ok()
    }

    /// A datagram comes out of a link: whether it still may. One under way on a link or to a PoP
    /// that has been cut since is lost.
    pub fn handle_exit(&mut self, (link, pop): (usize, usize), direction: Direction, bytes: usize) -> bool {
        let unreachable = self.is_unreachable(pop);
        let Some(line) = self.line(link, direction) else { return false };
        if unreachable || line.impairment.is_cut() {
            line.count(NetworkLoss::Cut);
            return false;
        }
        line.counters.delivered_packets += 1;
        line.counters.delivered_bytes += bytes as u64;
        true
    }

    /// A datagram that found no room anywhere.
    pub fn handle_overflow(&mut self, link: usize, direction: Direction) {
        if let Some(line) = self.line(link, direction) {
            line.count(NetworkLoss::QueueFull);
        }
    }

    fn line(&mut self, link: usize, direction: Direction) -> Option<&mut Line> {
        let [up, down] = self.links.get_mut(link)?;
        Some(match direction {
            Direction::Up => up,
            Direction::Down => down,
        })
    }

    fn is_unreachable(&self, pop: usize) -> bool {
        self.unreachable.get(pop).copied().unwrap_or(true)
    }
}

impl Line {
    fn count(&mut self, loss: NetworkLoss) {
        match loss {
            NetworkLoss::Cut => self.counters.lost_cut += 1,
            NetworkLoss::Random => self.counters.lost_random += 1,
            NetworkLoss::QueueFull => self.counters.lost_queue += 1,
        }
    }
}

/// The state behind a lock stays usable when another thread panicked: it holds counters and
/// models, each whole in itself.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::{Chance, Mbps, Permille};

    fn link(delay_ms: u64) -> WanLink {
        let model = LinkModel {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: Permille::ZERO,
            rate: Mbps::new(50).expect("50 is a bandwidth"),
            queue: Duration::from_millis(50),
        };
        WanLink { up: model, down: model }
    }

    /// A WAN with one socket for the edge on each link and one for each PoP.
    fn world(links: &[WanLink]) -> (Wan, AddressBlock, Vec<UdpSocket>, Vec<UdpSocket>) {
        let salt = salt();
        let (block, wan) = (0..100)
            .find_map(|attempt| {
                let block = AddressBlock::nth(attempt, salt);
                let wan = Wan::start(block, links, 2, Clock::start(), 1).ok()?;
                block.is_free_for(3, 2).then_some((block, wan))
            })
            .expect("some block is free");
        let open = |address| {
            let socket = UdpSocket::bind((address, block.ike_port())).expect("the block is free");
            socket.set_read_timeout(Some(Duration::from_millis(1_500))).expect("a timeout can be set");
            socket
        };
        let edges = (0..3).map(|n| open(block.edge(n))).collect();
        let pops = (0..2).map(|n| open(block.pop(n))).collect();
        (wan, block, edges, pops)
    }

    /// Tests run side by side, so each starts its search elsewhere.
    fn salt() -> u32 {
        let here = Instant::now();
        let place = &raw const here as usize as u64;
        Chance::from_number(place ^ u64::from(std::process::id())).next_u32()
    }

    fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut storage = [0; 2048];
        let (length, from) = socket.recv_from(&mut storage).ok()?;
        Some((storage[..length].to_vec(), from))
    }

    #[test]
    fn a_relay_is_a_one_to_one_nat_with_the_links_delay() {
        let (wan, block, edges, pops) = world(&[link(5), link(20), link(40)]);
        for n in 0..3u8 {
            let start = Instant::now();
            let relay = (block.relay(n, 1), block.ike_port());
            edges[usize::from(n)].send_to(b"hello", relay).expect("sent");
            let (bytes, from) = receive(&pops[1]).expect("the PoP receives it");
            assert_eq!((bytes.as_slice(), from), (&b"hello"[..], (block.public(n, 1), block.ike_port()).into()));
            pops[1].send_to(b"answer", from).expect("sent");
            let (bytes, from) = receive(&edges[usize::from(n)]).expect("the edge receives the answer");
            assert_eq!((bytes.as_slice(), from), (&b"answer"[..], relay.into()));
            let delay = [10, 40, 80][usize::from(n)];
            assert!(start.elapsed() >= Duration::from_millis(delay), "{:?} over link {n}", start.elapsed());
        }
        let counters = wan.counters();
        assert!(
            counters
                .iter()
                .flatten()
                .all(|line| (line.delivered_packets, line.lost_random, line.lost_queue) == (1, 0, 0))
        );
    }

    #[test]
    fn a_cut_link_and_a_lost_pop_carry_nothing_and_come_back() {
        let (wan, block, edges, pops) = world(&[link(1), link(1), link(1)]);
        let send = |n: u8, pop: u8| {
            edges[usize::from(n)].send_to(b"x", (block.relay(n, pop), block.ike_port())).expect("sent");
            receive(&pops[usize::from(pop)]).is_some()
        };
        wan.cut(0);
        assert!(!send(0, 0) && send(1, 0));
        wan.restore(0);
        wan.cut_pop(0);
        assert!(!send(0, 0) && send(0, 1));
        wan.restore_pop(0);
        assert!(send(0, 0));
        let up = Direction::Up.index();
        assert_eq!(wan.counters()[0][up].lost_cut, 2);
    }

    #[test]
    fn losses_are_counted_and_a_model_changes_while_it_runs() {
        let (wan, block, edges, pops) = world(&[link(1), link(1), link(1)]);
        let relay = (block.relay(2, 0), block.ike_port());
        let all_lost = LinkModel { loss: Permille::FULL, ..link(1).up };
        wan.set(2, Direction::Up, all_lost);
        for _ in 0..50 {
            edges[2].send_to(b"lost", relay).expect("sent");
        }
        assert!(receive(&pops[0]).is_none());
        wan.set(2, Direction::Up, link(1).up);
        edges[2].send_to(b"passes", relay).expect("sent");
        assert!(receive(&pops[0]).is_some());
        let counters = wan.counters()[2][Direction::Up.index()];
        assert_eq!((counters.lost_random, counters.delivered_packets), (50, 1));
    }

    #[test]
    fn voice_is_counted_by_its_mark_and_the_mark_passes() {
        let (wan, block, edges, pops) = world(&[link(1), link(1), link(1)]);
        let tos = i32::from(network::VOICE_DSCP.value() << 2);
        nix::sys::socket::setsockopt(&edges[0], nix::sys::socket::sockopt::Ipv4Tos, &tos).expect("TOS can be set");
        for socket in &edges[..2] {
            let n = u8::from(socket.local_addr().expect("bound").ip() != std::net::IpAddr::V4(block.edge(0)));
            socket.send_to(b"v", (block.relay(n, 0), block.ike_port())).expect("sent");
            assert!(receive(&pops[0]).is_some());
        }
        let voice: Vec<u64> = wan.counters().iter().map(|line| line[0].voice_bytes).collect();
        assert_eq!(voice, [1, 0, 0]);
    }
}
