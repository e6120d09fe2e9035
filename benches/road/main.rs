//! The packet road in memory, one core, 1,400-byte packets: sealing and opening one packet, and
//! whole batches through a worker's turn, site to WAN and WAN to site; and what segmentation
//! offload costs, in checksums, splitting and joining.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use trefoil::dataplane::{BATCH, FlowEntry, FlowTable, PACKET_CAPACITY};
use trefoil::model::{ConnectorId, Dscp, FlowKey, Moment, PathId, RuleId, WeekMinute};
use trefoil::packet::{
    Batch, Checksum, ChecksumState, Coalescer, Offered, Offload, Parsed, SegmentKind, Segments, SitePacket, Splitter,
    parse,
};
use trefoil::steer::{Action, Ends, Matcher, NewFlow, Rule, RuleSet, Why, choose};

mod world;

use world::*;

fn one_packet(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Bytes(PACKET as u64));
    let sa = outbound_sa();
    let plain = packet(1, false);
    let mut room = in_room(&sa, &plain);
    group.bench_function("seal", |b| {
        b.iter(|| {
            room[sa.header_len()..][..PACKET].copy_from_slice(&plain);
            sa.seal(&mut room, PACKET)
        });
    });
    let sa = outbound_sa();
    let inbound = inbound_sa();
    let next = || sealed(&sa, 1);
    group.bench_function("open", |b| {
        b.iter_batched_ref(next, |buffer| inbound.open(buffer).expect("a fresh packet"), BatchSize::LargeInput);
    });
    group.finish();
}

fn whole_batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    group.throughput(Throughput::Elements(BATCH as u64));
    let now = Moment::from_millis(1_000);

    let published = Arc::new(ArcSwap::from_pointee(forwarding()));
    let mut outbound = worker(&published);
    let mut io = Endless { from_site: (0..BATCH).map(|n| packet(n % FLOWS, false)).collect(), ..Endless::default() };
    group.bench_function("outbound batch", |b| b.iter(|| outbound.turn(&mut io, now)));
    assert_eq!(io.out % BATCH, 0, "every packet left");

    let mut inbound = worker(&published);
    let sa = outbound_sa();
    let mut total = 0;
    let mut next = || {
        total += BATCH;
        Endless { from_wan: trains(&sa), ..Endless::default() }
    };
    group.bench_function("inbound batch", |b| {
        b.iter_batched_ref(&mut next, |io| inbound.turn(io, now), BatchSize::LargeInput);
    });
    let received = published.load().paths[0].live.packets_in.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(received, total as u64, "every packet arrived");
    group.finish();
}

/// What a packet of a known flow costs to find its way, and what the first one of a flow does: ten
/// thousand flows, and a thousand rules of which none matches.
fn deciding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    let now = Moment::from_millis(1_000);
    let flows = FlowTable::new(1);
    let keys: Vec<_> = (0..10_000).map(|flow| parse(&packet(flow, false)).expect("a packet").key).collect();
    let entry = FlowEntry {
        path: Some(PathId(0)),
        breakout: None,
        names: Default::default(),
        names_epoch: 0,
        path_epoch: 1,
        policy_epoch: 1,
        rule: Some(RuleId(0)),
        by_rule: false,
        kept: false,
        draining: false,
        mark: None,
        child: 0,
        peers: 0,
        arrived_on: None,
        dscp: Dscp::DEFAULT,
        why: Why::OnlyCandidate,
    };
    for key in &keys {
        assert!(flows.pin(*key, entry, None, 1_400, now));
    }
    let mut next = keys.iter().cycle();
    group.bench_function("known flow", |b| b.iter(|| flows.leave(next.next().expect("endless"), 1_400, now)));

    // Every new flow takes the place of one that was idle longest.
    for limit in [65_536, 1_048_576] {
        let full = FlowTable::with_limit(1, limit);
        let mut came = 0u32;
        let mut another = || {
            came += 1;
            let source = IpAddr::V4(came.into());
            full.pin(FlowKey { source, ..keys[0] }, entry, None, 1_400, now + Duration::from_micros(came.into()))
        };
        assert!((0..limit).all(|_| another()));
        group.bench_function(format!("written down in a full table of {limit}"), |b| b.iter(&mut another));
    }

    let rule = |number: u16| Rule {
        name: format!("rule {number}"),
        place: String::new(),
        matcher: Matcher {
            destinations: vec![IpNet::from(IpAddr::from([172, 16, (number >> 8) as u8, number as u8]))],
            ..Matcher::default()
        },
        action: Action::Drop,
    };
    let rules = RuleSet::new((0..1_000).map(rule).collect(), Vec::new());
    let forwarding = forwarding();
    let candidates: Vec<_> = forwarding.paths.iter().map(|path| path.candidate()).collect();
    let dscp = parse(&packet(1, false)).expect("a packet").dscp;
    group.bench_function("new flow, 1,000 rules", |b| {
        b.iter(|| {
            let key = *black_box(next.next().expect("endless"));
            choose(
                &rules,
                &NewFlow { key, dscp, connector: ConnectorId(0), minute: WeekMinute::default(), ends: Ends::default() },
                &candidates,
            )
        });
    });
    group.finish();
}

/// A TCP packet of a flow with this much data, behind `passed` bytes.
fn tcp(flow: u16, passed: usize, data: usize) -> Vec<u8> {
    let step = PacketBuilder::ipv4([10, 9, 0, 1], [10, 1, 0, 1], 61).tcp(flow, 443, passed as u32, 501).ack(1);
    let mut packet = Vec::new();
    step.write(&mut packet, &vec![0x5a; data]).expect("a buffer takes all");
    packet
}

/// Data bytes of a TCP segment that fills a packet.
const SEGMENT: usize = PACKET - 40;

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for length in [64, PACKET] {
        let data = packet(1, true);
        let data = &data[..length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("{length} bytes"), |b| b.iter(|| Checksum::new().with(black_box(data)).finish()));
    }
    group.finish();
}

fn splitting(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    let packet = tcp(1, 0, 48 * SEGMENT);
    let parsed = parse(&packet).expect("a packet");
    let offload = Offload {
        checksum: ChecksumState::Partial { start: 20, offset: 16 },
        segments: Some(Segments { kind: SegmentKind::Tcp, size: SEGMENT as u16 }),
    };
    let mut out = vec![0; PACKET_CAPACITY];
    group.throughput(Throughput::Elements(48));
    group.bench_function("48 segments of 1400", |b| {
        b.iter(|| {
            let mut splitter = Splitter::new(black_box(&packet), &parsed, &offload, 1_400).expect("it can be split");
            while splitter.write_next(black_box(&mut out)).is_some() {}
        });
    });
    group.finish();
}

fn joining(c: &mut Criterion) {
    let mut group = c.benchmark_group("join");
    let read = |packet: Vec<u8>| (parse(&packet).expect("a packet"), packet);
    let mut batch = Batch::new(BATCH, || SitePacket::with_capacity(usize::from(u16::MAX)));
    let mut coalescer = Coalescer::new(BATCH, true, true);
    let mut join = |packets: &[(Parsed, Vec<u8>)]| {
        for (parsed, packet) in packets {
            assert_eq!(coalescer.offer(black_box(packet), parsed, &mut batch), Offered::Taken);
        }
        coalescer.finish(&mut batch);
        let slots = batch.filled().len();
        batch.clear();
        slots
    };
    for (name, flows, rounds) in [
        ("45 segments of one flow", 1, 45),
        ("32 flows, two segments each, mixed", 32, 2),
        ("64 flows, one segment each", 64, 1),
        ("one segment", 1, 1),
    ] {
        let packets: Vec<_> = (0..rounds)
            .flat_map(|round| (0..flows).map(move |flow| tcp(flow, round * SEGMENT, SEGMENT)))
            .map(read)
            .collect();
        assert_eq!(join(&packets), usize::from(flows));
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_function(name, |b| b.iter(|| join(&packets)));
    }
    group.finish();
}

criterion_group! {
    name = road;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = one_packet, whole_batches, deciding, checksums, splitting, joining
}
criterion_main!(road);
