//! Once flows are known, the packet road allocates nothing: neither for a packet nor for a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use allocation_counter::measure;
use arc_swap::ArcSwap;
use trefoil::dataplane::{BATCH, Crew, FlowTable, Worker};
use trefoil::forward::{Cap, LinkFace};
use trefoil::model::{Mbps, Moment, WorkerId};
use trefoil::packet::{ChecksumState, Offload, ProbeKey, SegmentKind, Segments};

#[path = "../benches/road/world.rs"]
mod world;

use world::{Endless, FLOWS, forwarding, outbound_sa, packet, trains, worker};

const TURNS: usize = 50;
const NOW: Moment = Moment::from_millis(1_000);

#[test]
fn what_is_allocated_is_counted() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1_u8]))).count_total, 1);
}

#[test]
fn packets_from_the_site_leave_without_an_allocation() {
    let mut worker = worker(&Arc::new(ArcSwap::from_pointee(forwarding())));
    let mut io = Endless { from_site: (0..BATCH).map(|n| packet(n % FLOWS, false)).collect(), ..Endless::default() };
    worker.turn(&mut io, NOW);
    let counted = measure(|| {
        (0..TURNS).for_each(|_| {
            worker.turn(&mut io, NOW);
        })
    });
    assert_eq!(io.out, (TURNS + 1) * BATCH);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn super_packets_are_cut_and_sealed_without_an_allocation() {
    let mut worker = worker(&Arc::new(ArcSwap::from_pointee(forwarding())));
    let segments = Some(Segments { kind: SegmentKind::Udp, size: 300 });
    let offload = Offload { checksum: ChecksumState::Partial { start: 20, offset: 6 }, segments };
    let mut io = Endless { from_site: vec![packet(1, false)], offload, ..Endless::default() };
    worker.turn(&mut io, NOW);
    let counted = measure(|| {
        (0..TURNS).for_each(|_| {
            worker.turn(&mut io, NOW);
        })
    });
    assert_eq!(io.out, (TURNS + 1) * 1_372_usize.div_ceil(300));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn what_waits_for_its_turn_on_a_shaped_link_leaves_without_an_allocation() {
    let mut view = forwarding();
    view.paths.iter_mut().for_each(|path| (path.shaped, path.policed) = (true, true));
    let rate = Mbps::new(100);
    let face = |_| LinkFace { cap: Cap::new(rate, rate), home: WorkerId(0), live: Arc::default() };
    view.links = (0..view.paths.len()).map(face).collect();
    let mut worker = worker(&Arc::new(ArcSwap::from_pointee(view)));
    let segments = Some(Segments { kind: SegmentKind::Udp, size: 300 });
    let offload = Offload { checksum: ChecksumState::Partial { start: 20, offset: 6 }, segments };
    let sa = outbound_sa();
    // More than may leave, and more than may arrive.
    let world = |_| Endless {
        from_site: (0..BATCH).map(|n| packet(n % FLOWS, false)).collect(),
        offload,
        from_wan: trains(&sa),
        ..Endless::default()
    };
    let mut turns: Vec<Endless> = (0..=TURNS).map(world).collect();
    let at = |turn: usize| Moment::from_millis(1_000 + turn as u64);
    worker.turn(&mut turns[0], at(0));
    let counted = measure(|| {
        turns[1..].iter_mut().enumerate().for_each(|(index, io)| {
            worker.turn(io, at(index + 1));
        })
    });
    let out: usize = turns.iter().map(|io| io.out).sum();
    assert!(out > TURNS * 30 && out < TURNS * BATCH * 2, "{out}");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn packets_from_the_wan_reach_the_site_without_an_allocation() {
    let published = Arc::new(ArcSwap::from_pointee(forwarding()));
    let mut worker = worker(&published);
    let sa = outbound_sa();
    let mut turns: Vec<Endless> =
        (0..=TURNS).map(|_| Endless { from_wan: trains(&sa), ..Endless::default() }).collect();
    worker.turn(&mut turns[0], NOW);
    let counted = measure(|| {
        turns[1..].iter_mut().for_each(|io| {
            worker.turn(io, NOW);
        })
    });
    let arrived = published.load().paths[0].live.packets_in.load(Ordering::Relaxed);
    assert_eq!(arrived, ((TURNS + 1) * BATCH) as u64);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn packets_are_handed_over_without_an_allocation() {
    let mut view = forwarding();
    view.paths.iter_mut().for_each(|path| path.home = WorkerId(1));
    let crew = Crew::new(2, Arc::new(ArcSwap::from_pointee(view)), FlowTable::new(1), ProbeKey::new([7; 32]));
    let (mut reads, mut sends) = (Worker::new(WorkerId(0), crew.clone()), Worker::new(WorkerId(1), crew));
    let mut io = Endless { from_site: (0..BATCH).map(|n| packet(n % FLOWS, false)).collect(), ..Endless::default() };
    let mut far = Endless::default();
    let mut turn = || {
        reads.turn(&mut io, NOW);
        sends.turn(&mut far, NOW);
    };
    turn();
    let counted = measure(|| (0..TURNS).for_each(|_| turn()));
    assert_eq!((io.out, far.out), (0, (TURNS + 1) * BATCH));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
