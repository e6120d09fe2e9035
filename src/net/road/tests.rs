use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::edge::PortPlan;
use crate::forward::ProbeOrder;
use crate::model::{Leg, PathId, Spi};
use crate::net::namespace::{Namespace, ip};
use crate::net::{HostSide, memory_site};

/// Longer than any test waits; a wait that ends by it has failed.
const LONG: Duration = Duration::from_secs(20);

/// A road that has a thread of its own.
struct Watched {
    road: Road,
    lookout: Lookout,
}

impl Watched {
    fn new(mut road: Road) -> Watched {
        let lookout = Lookout::new().unwrap();
        lookout.add(&mut road).unwrap();
        Watched { road, lookout }
    }

    fn wait(&mut self, timeout: Duration) {
        self.road.begin_turn();
        self.lookout.wait([&mut self.road].into_iter(), timeout);
    }

    fn glance(&mut self) {
        self.lookout.glance([&mut self.road].into_iter());
    }
}

impl Deref for Watched {
    type Target = Road;

    fn deref(&self) -> &Road {
        &self.road
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut Road {
        &mut self.road
    }
}

struct World {
    roads: Vec<Watched>,
    handles: Vec<RoadHandle>,
    hosts: HostSide,
    underlays: Arc<Underlays>,
    inbox: mpsc::Receiver<ToControl>,
}

fn world(workers: usize, underlays: u8) -> World {
    let (memory, hosts) = memory_site(64).unwrap();
    let underlays = Arc::new(Underlays::new((0..underlays).map(|id| sockets(workers, id)).collect()));
    let (to_control, inbox) = mpsc::channel(1);
    let hand_over = Arc::new(HandOver::new(workers, 2_000));
    let (roads, handles) = roads(SiteDevice::Memory(memory), hand_over, underlays.clone(), to_control).unwrap();
    World { roads: roads.into_iter().map(Watched::new).collect(), handles, hosts, underlays, inbox }
}

/// With the road of its only worker.
fn small_world(underlays: u8) -> (Watched, World) {
    let mut world = world(1, underlays);
    (world.roads.remove(0), world)
}

fn sockets(workers: usize, id: u8) -> UnderlaySockets {
    let address = Some(Ipv4Addr::new(127, 0, 1, id + 1));
    let ports = PortPlan { ike: 0, natt: 0 };
    UnderlaySockets::open(UnderlayId(id.into()), None, address, ports, workers, None).unwrap()
}

fn leg(underlays: &Underlays, from: u16, to: u16, natt: bool) -> Leg {
    let local = |id| underlays.get(UnderlayId(id)).unwrap().local(natt);
    Leg { underlay: UnderlayId(from), natt, local: local(from), remote: local(to) }
}

fn trains(capacity: usize) -> Batch<Train> {
    Batch::new(capacity, || Train::with_capacity(2_000))
}

fn put(batch: &mut Batch<Train>, leg: Leg, bytes: &[u8]) {
    let slot = batch.next_free().unwrap();
    (slot.leg, slot.tos, slot.segment) = (leg, 0, bytes.len());
    assert!(slot.packet.fill(bytes));
    batch.claim(1);
}

fn esp(slot: u16, number: u8) -> Vec<u8> {
    [&Spi::of_slot(slot, 1).0.to_be_bytes()[..], &[number]].concat()
}

fn order(id: u64) -> ToWorker {
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    ToWorker::Probe(ProbeOrder { path: PathId(0), id, source: nobody, target: nobody, length: 0 })
}

#[test]
fn a_host_a_peer_and_control_each_end_the_wait() {
    let (mut road, World { mut handles, hosts, underlays, .. }) = small_world(2);
    let started = Instant::now();
    assert!(hosts.send(b"packet"));
    road.wait(LONG);
    let mut packets = Batch::new(4, || SitePacket::with_capacity(100));
    road.receive_site(&mut packets);
    road.receive_site(&mut packets);
    assert_eq!(packets.filled().len(), 1);

    underlays.send_ike(leg(&underlays, 0, 1, true), b"ike").unwrap();
    road.wait(LONG);
    let mut arrived = trains(4);
    road.receive_wan(&mut arrived);
    assert_eq!(arrived.filled()[0].leg, leg(&underlays, 1, 0, true));
    assert_eq!(arrived.filled()[0].packet.bytes(), b"\0\0\0\0ike");

    let handle = handles.remove(0);
    let ringing = std::thread::spawn(move || handle.order(order(5)));
    road.wait(LONG);
    ringing.join().unwrap().unwrap();
    assert!(matches!(road.next_order(), Some(ToWorker::Probe(ProbeOrder { id: 5, .. }))));
    assert!(started.elapsed() < LONG);
}

#[test]
fn what_comes_between_two_turns_is_found_without_waiting() {
    let (mut road, World { hosts, underlays, .. }) = small_world(1);
    let (mut packets, mut arrived) = (Batch::new(9, || SitePacket::with_capacity(100)), trains(9));
    for round in 1..=3 {
        assert!(hosts.send(b"packet"));
        for natt in [false, true] {
            underlays.send_ike(leg(&underlays, 0, 0, natt), b"ike").unwrap();
        }
        road.glance();
        road.receive_wan(&mut arrived);
        road.receive_site(&mut packets);
        assert_eq!((arrived.filled().len(), packets.filled().len()), (round * 2, round));
        road.receive_wan(&mut arrived);
        road.receive_site(&mut packets);
    }
}

#[test]
fn with_nothing_to_do_the_wait_lasts() {
    let (mut road, World { handles, .. }) = small_world(1);
    handles[0].wake();
    road.wait(LONG);
    let started = Instant::now();
    road.wait(Duration::from_millis(30));
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[test]
fn an_order_that_was_left_over_keeps_the_worker_awake() {
    let (mut road, World { handles, .. }) = small_world(1);
    assert!(handles[0].order(order(1)).is_ok() && handles[0].order(order(2)).is_ok());
    road.wait(LONG);
    assert!(road.next_order().is_some());
    let started = Instant::now();
    road.wait(LONG);
    assert!(started.elapsed() < LONG);
    assert!(road.next_order().is_some());
}

#[test]
fn orders_and_messages_beyond_the_bounds_are_refused() {
    let (mut road, World { handles, mut inbox, .. }) = small_world(1);
    let accepted = (0..2_000).filter(|id| handles[0].order(order(*id)).is_ok()).count();
    assert_eq!(accepted, ORDER_LIMIT);
    assert!(road.tell_control(ToControl::FirstUse { spi: Spi(1) }));
    assert!(!road.tell_control(ToControl::FirstUse { spi: Spi(2) }));
    assert!(matches!(inbox.try_recv(), Ok(ToControl::FirstUse { spi: Spi(1) })));
}

#[test]
fn a_mixed_batch_leaves_by_its_legs_in_order_and_refusals_name_their_index() {
    let (mut road, World { underlays, .. }) = small_world(3);
    let (a, b) = (leg(&underlays, 0, 2, true), leg(&underlays, 1, 2, true));
    let closed = Leg { underlay: UnderlayId(9), ..a };
    let mut batch = trains(8);
    for (byte, leg) in (0u8..).zip([a, a, b, closed, a, b]) {
        put(&mut batch, leg, &[byte; 4]);
    }
    batch.filled_mut()[3].segment = 1;
    let mut refused = Vec::new();
    road.send_wan(&mut batch, &mut |unsent| refused.push(unsent));
    assert_eq!(refused, [Unsent { index: 3, datagrams: 4, errno: libc::ENOTCONN }]);
    assert!(batch.is_empty());
    let mut arrived = trains(8);
    road.glance();
    road.receive_wan(&mut arrived);
    let from = |leg: Leg| {
        let same = arrived.filled().iter().filter(move |train| train.leg.remote == leg.local);
        same.flat_map(Train::datagrams).map(|datagram| datagram[0]).collect::<Vec<_>>()
    };
    assert_eq!((from(a), from(b)), (vec![0, 1, 4], vec![2, 5]));
}

#[test]
fn a_busy_underlay_does_not_starve_another() {
    let (mut road, World { underlays, .. }) = small_world(3);
    for _ in 0..50 {
        underlays.send_ike(leg(&underlays, 2, 0, true), b"flood").unwrap();
    }
    underlays.send_ike(leg(&underlays, 2, 1, true), b"mine").unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut batch = trains(4);
        road.glance();
        road.receive_wan(&mut batch);
        seen.extend(batch.filled().iter().map(|train| train.leg.underlay));
    }
    assert!(seen.contains(&UnderlayId(1)), "{seen:?}");
}

#[test]
fn replaced_sockets_are_served_and_the_old_ones_close() {
    let World { mut roads, handles, underlays, .. } = world(2, 2);
    let old = Arc::downgrade(&underlays.get(UnderlayId(0)).unwrap());
    underlays.put(sockets(2, 0));
    for (road, handle) in roads.iter_mut().zip(&handles) {
        assert!(old.upgrade().is_some());
        handle.wake();
        road.wait(LONG);
        road.wait(Duration::ZERO);
    }
    assert!(old.upgrade().is_none(), "nobody holds the old sockets any more");
    underlays.send_ike(leg(&underlays, 1, 0, false), b"ike").unwrap();
    let started = Instant::now();
    let road = &mut roads[0];
    road.wait(LONG);
    assert!(started.elapsed() < LONG);
    let mut arrived = trains(4);
    road.receive_wan(&mut arrived);
    assert_eq!(arrived.filled().len(), 1);
    underlays.remove(UnderlayId(0));
    road.receive_wan(&mut trains(1));
    let started = Instant::now();
    road.wait(Duration::from_millis(20));
    assert!(started.elapsed() >= Duration::from_millis(20));
}

#[test]
fn each_worker_is_woken_by_its_own_packets_and_reads_no_others() {
    let World { mut roads, underlays, .. } = world(3, 2);
    let way = leg(&underlays, 0, 1, true);
    let mut batch = trains(16);
    for slot in 3..9 {
        put(&mut batch, way, &esp(slot, slot as u8));
    }
    // Nobody sends for the other two, and yet they get theirs.
    roads[0].send_wan(&mut batch, &mut |unsent| panic!("{unsent:?}"));
    for (road, worker) in roads.iter_mut().zip(0..) {
        let started = Instant::now();
        road.wait(LONG);
        assert!(started.elapsed() < LONG);
        let mut arrived = trains(4);
        road.receive_wan(&mut arrived);
        let numbers: Vec<_> = arrived.filled().iter().flat_map(Train::datagrams).map(|bytes| bytes[4]).collect();
        assert_eq!(numbers, [3 + worker, 6 + worker]);
    }
    underlays.send_ike(leg(&underlays, 0, 1, false), b"ike").unwrap();
    underlays.send_ike(way, b"ike").unwrap();
    let mut arrived = trains(4);
    roads.iter_mut().for_each(Watched::glance);
    roads[1].receive_wan(&mut arrived);
    roads[2].receive_wan(&mut arrived);
    assert!(arrived.is_empty());
    roads[0].receive_wan(&mut arrived);
    assert_eq!(arrived.filled().len(), 2, "IKE is the first worker's");
}

#[test]
fn a_worker_that_is_stuck_does_not_stop_another() {
    let World { mut roads, handles, underlays, .. } = world(2, 2);
    let way = leg(&underlays, 0, 1, true);
    let stuck = roads.remove(1);
    let started = Instant::now();
    for round in 0..2_000u32 {
        let mut batch = trains(16);
        for slot in 1..=8 {
            put(&mut batch, way, &esp(slot, round as u8));
        }
        let road = &mut roads[0];
        // The other one's socket is full before long, which is nobody else's loss.
        road.send_wan(&mut batch, &mut |unsent| panic!("{unsent:?}"));
        road.wake(WorkerId(1));
        // Its queue of orders is full before long as well.
        let _ = handles[1].order(order(1));
        let mut mine = Vec::new();
        while mine.len() < 4 {
            road.wait(LONG);
            let mut arrived = trains(16);
            road.receive_wan(&mut arrived);
            mine.extend(arrived.filled().iter().flat_map(Train::datagrams).map(|bytes| bytes[4]));
        }
        assert_eq!(mine, [round as u8; 4]);
    }
    assert!(started.elapsed() < LONG);
    drop(stuck);
}

#[test]
fn workers_wake_each_other_and_none_oversleeps() {
    const ROUNDS: u64 = 20_000;
    let World { mut roads, .. } = world(2, 1);
    // What the two leave for each other: each adds one when the other has.
    let left: Arc<[AtomicU64; 2]> = Arc::default();
    let mut second = roads.remove(1);
    let mut first = roads.remove(0);
    let play = move |road: &mut Watched, me: usize, left: &[AtomicU64; 2]| {
        let other = 1 - me;
        while left[me].load(Ordering::Relaxed) < ROUNDS {
            let (mine, theirs) = (left[me].load(Ordering::Relaxed), left[other].load(Ordering::Relaxed));
            if theirs + (1 - me as u64) > mine {
                left[me].store(mine + 1, Ordering::Relaxed);
                road.wake(WorkerId(other as u16));
                continue;
            }
            let started = Instant::now();
            road.wait(LONG);
            assert!(started.elapsed() < LONG, "{me} has overslept");
        }
    };
    let their_left = left.clone();
    let playing = std::thread::spawn(move || play(&mut second, 1, &their_left));
    play(&mut first, 0, &left);
    playing.join().unwrap();
}

#[test]
fn a_site_in_memory_is_read_by_the_first_worker_and_written_by_all() {
    let World { mut roads, hosts, .. } = world(2, 0);
    assert!(hosts.send(b"packet"));
    let mut packets = Batch::new(4, || SitePacket::with_capacity(100));
    roads.iter_mut().for_each(Watched::glance);
    roads[1].receive_site(&mut packets);
    assert!(packets.is_empty());
    roads[0].receive_site(&mut packets);
    assert_eq!(packets.filled().len(), 1);
    assert_eq!(roads[1].site_offloads(), SiteOffloads::default());
    assert_eq!(roads[1].send_site(&mut packets), 0);
    assert_eq!(hosts.receive(), Some(b"packet".to_vec()));
}

#[test]
fn workers_whose_device_is_deleted_see_it_and_do_not_spin() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        let tun = Tun::open("nt-lost", 1_400, NonZero::new(2).unwrap()).unwrap();
        let (to_control, _inbox) = mpsc::channel(1);
        let hand_over = Arc::new(HandOver::new(2, 2_000));
        let (roads, _handles) = roads(SiteDevice::Tun(tun), hand_over, Arc::default(), to_control).unwrap();
        assert!(roads.iter().all(Road::site_lives));
        ip("link del nt-lost");
        for mut road in roads.into_iter().map(Watched::new) {
            road.wait(Duration::from_millis(10));
            assert!(!road.site_lives());
            let started = Instant::now();
            road.wait(Duration::from_millis(30));
            assert!(started.elapsed() >= Duration::from_millis(30));
        }
    });
}

#[test]
fn a_call_about_nothing_that_waits_on_the_road_is_a_reason_for_a_turn_whenever_it_comes() {
    let (mut road, World { handles, .. }) = small_world(0);
    road.begin_turn();
    road.receive_site(&mut Batch::new(4, || SitePacket::with_capacity(100)));
    assert!(!road.has_work());
    // Between the look and the sleep.
    handles[0].wake();
    road.lookout.wait([&mut road.road].into_iter(), LONG);
    assert!(road.has_work());
    road.begin_turn();
    assert!(!road.has_work());
}

#[test]
fn a_road_that_no_poller_watches_is_looked_at_at_every_turn() {
    let (Watched { mut road, lookout }, World { hosts, .. }) = small_world(0);
    let mut packets = Batch::new(4, || SitePacket::with_capacity(100));
    road.receive_site(&mut packets);
    lookout.remove(&mut road);
    assert!(hosts.send(b"packet"));
    road.begin_turn();
    road.receive_site(&mut packets);
    assert_eq!(packets.filled().len(), 1);
}
