//! The packet road in memory, one core, 1,400-byte packets: sealing and opening one packet, and
//! whole batches through a worker's turn, site to WAN and WAN to site; and what segmentation
//! offload costs, in checksums, splitting and joining.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use trefoil::crypto::Encryption;
use trefoil::dataplane::{BATCH, Crew, FlowTable, PACKET_CAPACITY, RoadIo, Unsent, Worker};
use trefoil::esp::{InboundSa, OutboundSa};
use trefoil::forward::{
    ChildFace, ConnectorFace, Forwarding, PathFace, RouteTable, SaTable, SiteFace, ToControl, ToWorker,
};
use trefoil::model::{
    ConnectorId, Leg, LinkId, Moment, OutboundSlot, PathId, Role, Secret, Selectors, Spi, TrafficSelector, UnderlayId,
    Verdict, WorkerId, protocol,
};
use trefoil::packet::{
    Batch, Checksum, ChecksumState, Coalescer, Offered, Offload, Parsed, ProbeKey, SegmentKind, Segments, SiteOffloads,
    SitePacket, Splitter, Train, parse, write_header,
};
use trefoil::steer::RuleSet;

const PACKET: usize = 1_400;
const SPI: Spi = Spi::of_slot(1, 1);
const SUITE: Encryption = Encryption::AesGcm256;
/// Flows that a batch is made of: eight packets each.
const FLOWS: usize = BATCH / 8;

/// A world that always has a batch waiting on one side and takes whatever comes out.
#[derive(Default)]
struct Endless {
    from_site: Vec<Vec<u8>>,
    offload: Offload,
    from_wan: Vec<Vec<Vec<u8>>>,
    out: usize,
}

impl RoadIo for Endless {
    fn receive_site(&mut self, batch: &mut Batch<SitePacket>) {
        for (slot, packet) in batch.free().iter_mut().zip(&self.from_site) {
            slot.packet.fill(packet);
            slot.offload = self.offload;
        }
        batch.claim(self.from_site.len());
    }

    fn site_offloads(&self) -> SiteOffloads {
        SiteOffloads { tcp: true, udp: true }
    }

    fn send_site(&mut self, batch: &mut Batch<SitePacket>) -> usize {
        self.out += batch.filled().len();
        0
    }

    fn receive_wan(&mut self, batch: &mut Batch<Train>) {
        for (slot, packets) in batch.free().iter_mut().zip(&self.from_wan) {
            slot.leg = leg();
            slot.segment = packets.first().map_or(0, Vec::len);
            slot.packet.fill(&packets.concat());
        }
        batch.claim(self.from_wan.len());
    }

    fn send_wan(&mut self, batch: &mut Batch<Train>, _: &mut dyn FnMut(Unsent)) {
        self.out += batch.filled().iter().map(|train| train.datagrams().count()).sum::<usize>();
    }

    fn next_order(&mut self) -> Option<ToWorker> {
        None
    }

    fn tell_control(&mut self, _: ToControl) -> bool {
        true
    }

    fn wake(&mut self, _: WorkerId) {}
}

fn leg() -> Leg {
    let (local, remote) = (([192, 0, 2, 1], 4500).into(), ([198, 51, 100, 1], 4500).into());
    Leg { underlay: UnderlayId(0), natt: true, local, remote }
}

fn key() -> Secret {
    Secret::new(vec![7; 36])
}

fn selectors() -> Arc<Selectors> {
    Arc::new(Selectors { local: [TrafficSelector::ANY_IPV4].into(), remote: [TrafficSelector::ANY_IPV4].into() })
}

fn outbound_sa() -> OutboundSa {
    OutboundSa::new(SPI, PathId(0), SUITE, &key()).expect("the key fits the suite")
}

fn inbound_sa() -> InboundSa {
    InboundSa::new(SPI, PathId(0), SUITE, &key(), selectors()).expect("the key fits the suite")
}

/// The UDP packet of a flow, from one site to the other.
fn packet(flow: usize, arrives: bool) -> Vec<u8> {
    let (near, far) = ([10, 1, 0, 1].into(), [10, 9, 0, 1].into());
    let (source, destination) = if arrives { (far, near) } else { (near, far) };
    let mut packet = vec![0; PACKET];
    let header = write_header(&mut packet, source, destination, protocol::UDP, 0, PACKET - 20).expect("it fits");
    packet[header..header + 2].copy_from_slice(&(flow as u16).to_be_bytes());
    packet
}

/// The packet with the room that sealing needs around it.
fn in_room(sa: &OutboundSa, packet: &[u8]) -> Vec<u8> {
    let mut room = vec![0; sa.sealed_len(packet.len())];
    room[sa.header_len()..][..packet.len()].copy_from_slice(packet);
    room
}

fn sealed(sa: &OutboundSa, flow: usize) -> Vec<u8> {
    let mut room = in_room(sa, &packet(flow, true));
    sa.seal(&mut room, PACKET).expect("a fresh SA seals");
    room
}

/// A site with one connector and three paths of one role.
fn forwarding() -> Forwarding {
    let sas = SaTable::new(4, 4);
    sas.inbound(SPI).expect("place 1 of 4").store(Some(Arc::new(inbound_sa())));
    let face = |path: u16| {
        sas.outbound(OutboundSlot(path)).expect("place below 4").store(Some(Arc::new(outbound_sa())));
        PathFace {
            id: PathId(path),
            connector: ConnectorId(0),
            role: Role::Primary,
            epoch: 1,
            usable: true,
            verdict: Verdict::Healthy,
            link: LinkId(path),
            preference: 1,
            weight: 100,
            home: WorkerId(0),
            leg: leg(),
            mtu: 1_420,
            private: None,
            children: [ChildFace { selectors: selectors(), slot: OutboundSlot(path) }].into(),
            live: Arc::default(),
        }
    };
    let paths = (0..3).map(face).collect();
    let mut routes = RouteTable::default();
    routes.insert("10.9.0.0/16".parse().expect("a network"), ConnectorId(0));
    Forwarding {
        generation: 1,
        policy_epoch: 1,
        site: SiteFace {
            native: ["10.1.0.0/16".parse().expect("a network")].into(),
            own: (1..=6).map(|last| [10, 254, 0, last].into()).collect(),
            answer_on_arrival: false,
        },
        routes,
        connectors: [ConnectorFace {
            id: ConnectorId(0),
            active: Role::Primary,
            roles: [(0..3).map(PathId).collect(), Default::default()],
        }]
        .into(),
        paths,
        rules: Arc::new(RuleSet::default()),
        sas: Arc::new(sas),
    }
}

fn worker(published: &Arc<ArcSwap<Forwarding>>) -> Worker {
    Worker::new(WorkerId(0), Crew::new(1, Arc::clone(published), FlowTable::new(1), ProbeKey::new([7; 32])))
}

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
        let trains = (0..FLOWS).map(|flow| (0..BATCH / FLOWS).map(|_| sealed(&sa, flow)).collect());
        Endless { from_wan: trains.collect(), ..Endless::default() }
    };
    group.bench_function("inbound batch", |b| {
        b.iter_batched_ref(&mut next, |io| inbound.turn(io, now), BatchSize::LargeInput);
    });
    let received = published.load().paths[0].live.packets_in.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(received, total as u64, "every packet arrived");
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
    targets = one_packet, whole_batches, checksums, splitting, joining
}
criterion_main!(road);
