//! Several workers that feed one SA at once, each on a thread and with sockets of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trefoil::dataplane::{RoadIo, Unsent, Worker};
use trefoil::esp::InboundSa;
use trefoil::forward::{ToControl, ToWorker};
use trefoil::model::{Chance, DropReason, Leg, UnderlayId, WorkerId};
use trefoil::net::{Lookout, MultiMessage, Road, SiteDevice, Underlays, memory_site, roads};
use trefoil::packet::{Batch, Offload, SiteOffloads, SitePacket, Train};

use super::gate::{NOW, crew, flow, number, numbered, open, trains, waiting};
use super::world;

/// Flows that each worker reads, as the kernel's queues would spread them.
const FLOWS: u16 = 24;
const PACKETS: u32 = 40_000;
/// Packets under way at most: so few that the queues between workers hold them all, or far more,
/// so that some are dropped there, before they have a number.
const UNDER_WAY: [u64; 2] = [120, 1_500];
/// The narrowest window that peers have: the Linux kernel's.
const PEER_WINDOW: u32 = 32;

/// A worker's world: real sockets towards the WAN, and hosts that have always something to send.
struct Busy {
    road: Road,
    flows: Box<[(u16, u32)]>,
    chance: Chance,
    shared: Arc<Shared>,
    under_way: u64,
    left: u32,
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    arrived: AtomicU64,
    over: AtomicBool,
}

impl RoadIo for Busy {
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>) {
        for _ in 0..self.chance.below(65).min(self.left) {
            let (sent, arrived) =
                (self.shared.sent.load(Ordering::Relaxed), self.shared.arrived.load(Ordering::Relaxed));
            let Some(slot) = batch.next_free().filter(|_| sent.saturating_sub(arrived) < self.under_way) else {
                return;
            };
            let chosen = self.chance.below(self.flows.len() as u32) as usize;
            let (flow, next) = &mut self.flows[chosen];
            // Mixed sizes: trains end and begin all the time.
            let data = [40, 40, 200, 1_300][self.chance.below(4) as usize];
            slot.packet.fill(&numbered(*flow, *next, data, false));
            slot.offload = Offload::default();
            *next += 1;
            self.left -= 1;
            self.shared.sent.fetch_add(1, Ordering::Relaxed);
            batch.claim(1);
        }
    }

    fn site_offloads(&self) -> SiteOffloads {
        self.road.site_offloads()
    }

    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize {
        self.road.send_site(batch)
    }

    fn receive_wan(&mut self, batch: &mut Batch<Train>) {
        self.road.receive_wan(batch);
    }

    fn send_wan(&mut self, batch: &mut Batch<Train>, refused: &mut dyn FnMut(Unsent)) {
        self.road.send_wan(batch, refused);
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        self.road.next_order()
    }

    fn tell_control(&mut self, message: ToControl) -> bool {
        self.road.tell_control(message)
    }

    fn wake(&mut self, worker: WorkerId) {
        self.road.wake(worker);
    }
}

#[test]
fn two_workers_that_feed_one_sa_never_exceed_a_peers_window_of_32() {
    UNDER_WAY.into_iter().for_each(|under_way| one_sa(2, under_way));
}

#[test]
fn three_workers_that_feed_one_sa_never_exceed_a_peers_window_of_32() {
    UNDER_WAY.into_iter().for_each(|under_way| one_sa(3, under_way));
}

#[test]
fn four_workers_that_feed_one_sa_never_exceed_a_peers_window_of_32() {
    UNDER_WAY.into_iter().for_each(|under_way| one_sa(4, under_way));
}

fn one_sa(workers: u16, under_way: u64) {
    let address = Ipv4Addr::new(127, 0, 3, workers as u8);
    let peer = open(Ipv4Addr::new(127, 0, 4, workers as u8), 1);
    let sockets = open(address, usize::from(workers));
    let mut view = world::forwarding();
    // One path, at home with the last worker.
    view.connectors[0].roles[0].truncate(1);
    view.paths[0].home = WorkerId(workers - 1);
    let leg = Leg { underlay: UnderlayId(0), natt: true, local: sockets.local(true), remote: peer.local(true) };
    view.paths.iter_mut().for_each(|path| path.leg = leg);
    let crew = crew(view, usize::from(workers));
    let (memory, _hosts) = memory_site(1).expect("a site in memory");
    let (to_control, _news) = mpsc::channel(64);
    let underlays = Arc::new(Underlays::new(vec![sockets]));
    let (roads, _handles) =
        roads(SiteDevice::Memory(memory), crew.hand_over.clone(), underlays, to_control).expect("roads");
    let shared = Arc::new(Shared::default());
    let threads: Vec<_> = (0..)
        .zip(roads)
        .map(|(id, road)| {
            let mut worker = Worker::new(WorkerId(id), crew.clone());
            let flows = (0..FLOWS).map(|flow| (1 + id * FLOWS + flow, 0)).collect();
            let chance = Chance::from_number(u64::from(workers * 10 + id));
            let mut io = Busy { road, flows, chance, shared: shared.clone(), under_way, left: PACKETS };
            thread::spawn(move || {
                let lookout = Lookout::new().expect("a poller");
                lookout.add(&mut io.road).expect("watched");
                while !io.shared.over.load(Ordering::Relaxed) {
                    io.road.begin_turn();
                    let worked = worker.turn(&mut io, NOW).worked;
                    let (road, longest) = ([&mut io.road].into_iter(), Duration::from_millis(1));
                    if worked { lookout.glance(road) } else { lookout.wait(road, longest) }
                }
            })
        })
        .collect();

    let total = u64::from(PACKETS) * u64::from(workers);
    let dropped = || {
        let view = crew.published.load();
        view.paths.iter().map(|path| path.live.drops_out.get(DropReason::QueueFull)).sum::<u64>()
    };
    let sa = world::inbound_sa();
    let mut seen = Seen::default();
    let (mut calls, mut batch) = (MultiMessage::default(), trains(64));
    let started = Instant::now();
    while seen.packets + dropped() < total {
        for datagram in waiting(&peer, &mut calls, &mut batch).into_iter().flatten() {
            seen.take(datagram, &sa);
        }
        shared.arrived.store(seen.packets + dropped(), Ordering::Relaxed);
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {total}, {} dropped", seen.packets, dropped());
    }
    shared.over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a worker"));
    println!(
        "{workers} workers, one SA: {} packets of {} flows in {:.1} s, at most {} behind the highest number; \
         {} dropped before they had one",
        seen.packets,
        seen.next.len(),
        started.elapsed().as_secs_f64(),
        seen.furthest_behind,
        dropped()
    );
    assert!(seen.furthest_behind < PEER_WINDOW);
    assert!(under_way > UNDER_WAY[0] || dropped() == 0);
    assert!(seen.packets > u64::from(PACKETS) / 2, "too much was dropped to tell anything");
}

/// What a peer with a window of 32 sees.
#[derive(Default)]
struct Seen {
    packets: u64,
    highest: u32,
    furthest_behind: u32,
    /// By flow, the number that may come next at the earliest.
    next: BTreeMap<u16, u32>,
}

impl Seen {
    fn take(&mut self, mut datagram: Vec<u8>, sa: &InboundSa) {
        let sequence = u32::from_be_bytes(datagram[4..8].try_into().expect("a sequence number"));
        self.packets += 1;
        self.furthest_behind = self.furthest_behind.max(self.highest.saturating_sub(sequence));
        self.highest = self.highest.max(sequence);
        // Authentic, and not a number that came before.
        let inner = sa.open(&mut datagram).expect("an authentic packet").inner;
        let inner = &datagram[inner];
        let (flow, number) = (flow(inner), number(inner));
        let next = self.next.entry(flow).or_default();
        assert!(number >= *next, "flow {flow}: {number} after {next}");
        *next = number + 1;
    }
}
