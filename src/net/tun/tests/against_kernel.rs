//! Splitting and joining, held against the kernel: super-packets are handed to a device that takes
//! them, forwarded, and come out of one that does not, cut by the kernel itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::model::protocol;
use crate::packet::{Checksum, ChecksumState, Coalescer, IPV4_HEADER, IPV6_HEADER, Offered, Offload, Segments};

const SEEDS: u64 = 300;

/// Everything that the test chooses comes from here.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A packet by its fields, to be written with right lengths and checksums.
#[derive(Clone)]
struct Packet {
    ipv4: bool,
    tos: u8,
    id: u16,
    dont_fragment: bool,
    ports: [u16; 2],
    tcp: Option<Tcp>,
    data: Vec<u8>,
}

#[derive(Clone)]
struct Tcp {
    sequence: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
}

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const ECE: u8 = 64;
const CWR: u8 = 128;

impl Packet {
    fn random(dice: &mut Dice, length: usize) -> Packet {
        let tcp = (!dice.one_in(3)).then(|| Tcp {
            sequence: [dice.below(1 << 30) as u32, u32::MAX - 3_000][dice.below(2)],
            flags: ACK | [0, PSH, FIN, PSH | FIN, ECE][dice.below(5)],
            window: dice.below(65_536) as u16,
            options: vec![1; [0, 4, 12, 40][dice.below(4)]],
        });
        Packet {
            ipv4: dice.one_in(2),
            tos: [0, 0, 0xb8, 0x02, 0x03][dice.below(5)],
            id: [dice.below(65_536) as u16, 65_530][dice.below(2)],
            dont_fragment: dice.one_in(2),
            ports: [1 + dice.below(4) as u16, 7],
            tcp,
            data: (0..length).map(|_| dice.below(256) as u8).collect(),
        }
    }

    /// The packet, with its checksum, or the pseudo-header's sum where it is to be completed.
    fn bytes(&self, partial: bool) -> Vec<u8> {
        let protocol = if self.tcp.is_some() { protocol::TCP } else { protocol::UDP };
        let mut transport: Vec<u8> = self.ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        match &self.tcp {
            Some(tcp) => {
                transport.extend(tcp.sequence.to_be_bytes());
                transport.extend([0, 0, 0, 9, (((20 + tcp.options.len()) / 4) << 4) as u8, tcp.flags]);
                transport.extend(tcp.window.to_be_bytes());
                transport.extend([0; 4]);
                transport.extend(&tcp.options);
            }
            None => transport.extend([(8 + self.data.len() as u16).to_be_bytes(), [0; 2]].concat()),
        }
        transport.extend(&self.data);
        let (source, destination) = self.addresses();
        let sum = Checksum::new().with_pseudo_header(source, destination, protocol, transport.len());
        let sum = if partial { !sum.finish() } else { sum.with(&transport).finish() };
        let field = if self.tcp.is_some() { 16 } else { 6 };
        let sum = if sum == 0 && self.tcp.is_none() { 0xffff } else { sum };
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let mut packet = self.ip_header(protocol, transport.len());
        packet.extend(transport);
        packet
    }

    fn addresses(&self) -> (IpAddr, IpAddr) {
        if self.ipv4 {
            (Ipv4Addr::new(10, 9, 0, 2).into(), Ipv4Addr::new(10, 10, 0, 2).into())
        } else {
            let address = |site| Ipv6Addr::new(site, 0, 0, 0, 0, 0, 0, 2).into();
            (address(0xfd09), address(0xfd10))
        }
    }

    fn ip_header(&self, protocol: u8, length: usize) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = self.addresses() else {
            let (IpAddr::V6(source), IpAddr::V6(destination)) = self.addresses() else { unreachable!() };
            let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
            header.extend((length as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend([source.octets(), destination.octets()].concat());
            return header;
        };
        let mut header = vec![0x45, self.tos];
        header.extend(((IPV4_HEADER + length) as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
        header.extend([source.octets(), destination.octets()].concat());
        let sum = Checksum::new().with(&header).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

/// What forwarding changes is put back, so that a packet can be compared with what was sent. The
/// identification of a packet that must not be cut means nothing (RFC 6864 4.1) and is blanked.
fn before_forwarding(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] += 1;
        return packet;
    }
    assert_eq!(Checksum::new().with(&packet[..IPV4_HEADER]).finish(), 0, "the IP header's checksum");
    packet[8] += 1;
    without_idle_id(packet)
}

fn without_idle_id(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        if packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
        }
        packet[10..12].fill(0);
    }
    packet
}

/// The two devices, in the namespace of the calling thread.
struct Router {
    takes: Tun,
    cuts: Tun,
}

impl Router {
    fn new() -> Router {
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
        }
        let takes = Tun::open("nt-takes", 1_400, ONE).unwrap();
        let cuts = open_plain("nt-cuts", 1, libc::IFF_VNET_HDR, &[0]);
        for (tun, site) in [(&takes, 9), (&cuts, 10)] {
            let name = tun.name();
            ip(&format!("link set {name} up"));
            ip(&format!("addr add 10.{site}.0.1/24 dev {name}"));
            ip(&format!("addr add fd{site:02}::1/64 dev {name} nodad"));
        }
        Router { takes, cuts }
    }

    /// Hands a batch over and returns what the kernel makes of it.
    fn forward(&self, batch: &mut Batch<SitePacket>) -> Vec<Vec<u8>> {
        assert_eq!(self.takes.send(batch), 0);
        let mut out = Vec::new();
        loop {
            let mut batch = packets();
            let more = self.cuts.receive(WorkerId(0), &mut batch).unwrap();
            for packet in batch.filled_mut() {
                assert_eq!(packet.offload.segments, None);
                packet.complete_checksum();
                // The kernel's own, which look for routers.
                let own = parse(packet.packet.bytes()).is_none_or(|parsed| parsed.icmp_type.is_some());
                out.extend((!own).then(|| before_forwarding(packet.packet.bytes())));
            }
            if !more {
                return out;
            }
        }
    }
}

/// The first packet in which the two differ.
fn assert_same(what: &str, got: &[Vec<u8>], expected: &[Vec<u8>]) {
    assert_eq!(got.len(), expected.len(), "{what}: packets");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got == expected, "{what}, packet {index}:\nkernel {got:02x?}\nours   {expected:02x?}");
    }
}

#[test]
fn super_packets_are_cut_as_the_kernel_cuts_them() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        let router = Router::new();
        for seed in 1..=SEEDS {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let size = [1 + dice.below(1_200), 1_200, 536][dice.below(3)];
            let segments = 1 + dice.below((60_000 / size).min(60));
            let length = (segments * size - dice.below(size)).max(1);
            let mut packet = Packet::random(&mut dice, length);
            let mut kind = if packet.tcp.is_some() { SegmentKind::Tcp } else { SegmentKind::Udp };
            if let Some(tcp) = packet.tcp.as_mut().filter(|_| dice.one_in(3)) {
                tcp.flags |= CWR;
                kind = SegmentKind::TcpEcn;
            }
            let transport = if packet.ipv4 { IPV4_HEADER } else { IPV6_HEADER } as u16;
            let offset = if packet.tcp.is_some() { 16 } else { 6 };
            let checksum = ChecksumState::Partial { start: transport, offset };
            let offload = Offload { checksum, segments: Some(Segments { kind, size: size as u16 }) };
            let bytes = packet.bytes(true);

            let parsed = parse(&bytes).unwrap();
            let mut splitter = Splitter::new(&bytes, &parsed, &offload, UNLIMITED).unwrap();
            let mut ours = Vec::new();
            let mut room = [0; 2_000];
            while let Some(length) = splitter.write_next(&mut room) {
                ours.push(without_idle_id(room[..length].to_vec()));
            }
            let mut batch = packets();
            let slot = batch.next_free().unwrap();
            slot.offload = offload;
            assert!(slot.packet.fill(&bytes));
            batch.claim(1);
            let what = format!("seed {seed}: {length} bytes by {size}, {kind:?}");
            assert_same(&what, &router.forward(&mut batch), &ours);
        }
    });
}

#[test]
fn what_is_joined_is_cut_by_the_kernel_into_what_it_was() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.run(|| {
        let router = Router::new();
        let mut joined = 0;
        for seed in 1..=SEEDS {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut coalescer = Coalescer::new(64, true, true);
            let mut batch = packets();
            let mut sent = Vec::new();
            for _ in 0..4 {
                for packet in flow(&mut dice) {
                    let offered = coalescer.offer(&packet, &parse(&packet).unwrap(), &mut batch);
                    if offered == Offered::Taken {
                        sent.push(without_idle_id(packet));
                    }
                }
            }
            coalescer.finish(&mut batch);
            joined += batch.filled().iter().filter(|packet| packet.offload.segments.is_some()).count();
            assert_same(&format!("seed {seed}"), &sorted(router.forward(&mut batch)), &sorted(sent));
        }
        assert!(joined > SEEDS as usize, "only {joined} super-packets");
    });
}

/// Packets of one flow as they might arrive: some fit together, some do not.
fn flow(dice: &mut Dice) -> Vec<Vec<u8>> {
    let size = [1 + dice.below(1_200), 1_200][dice.below(2)];
    let mut packet = Packet::random(dice, size);
    let mut packets = Vec::new();
    for _ in 0..1 + dice.below(30) {
        if dice.one_in(12) {
            let length = 1 + dice.below(packet.data.len());
            packet.data.truncate(length);
        }
        let mut bytes = packet.bytes(false);
        if dice.one_in(40) {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        packets.push(bytes);
        packet.id = packet.id.wrapping_add(if dice.one_in(15) { 2 } else { 1 });
        if let Some(tcp) = &mut packet.tcp {
            let gap = if dice.one_in(15) { 100 } else { 0 };
            tcp.sequence = tcp.sequence.wrapping_add(packet.data.len() as u32 + gap);
            tcp.flags = if dice.one_in(10) { ACK | [PSH, CWR, FIN, ECE][dice.below(4)] } else { ACK };
            if dice.one_in(20) {
                tcp.window = tcp.window.wrapping_add(1);
            }
        }
        if dice.one_in(20) {
            packet.tos ^= 0x02;
        }
    }
    packets
}

/// Those of each flow in order: flows may overtake each other.
fn sorted(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let key =
        |packet: &Vec<u8>| parse(packet).map(|parsed| (parsed.is_ipv4(), parsed.key.protocol, parsed.key.source_port));
    packets.sort_by_key(key);
    packets
}
