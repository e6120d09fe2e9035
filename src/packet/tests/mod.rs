//! Super-packets, split and joined, against packets that etherparse builds one by one.

mod join;
mod split;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};
use proptest::prelude::*;

use super::*;

/// What the packets of one flow have in common.
#[derive(Clone, Debug)]
struct Flow {
    v6: bool,
    tcp: bool,
    port: u16,
    /// Of the first data byte.
    sequence: u32,
    acknowledged: u32,
    window: u16,
    traffic_class: u8,
    hops: u8,
    /// IPv4 identification of the first packet.
    id: u16,
    dont_fragment: bool,
    label: u32,
    /// TCP options, in units of 4 bytes.
    options: Vec<[u8; 4]>,
    ece: bool,
    urgent: u16,
}

#[derive(Clone, Copy, Default, Debug)]
struct Flags {
    syn: bool,
    fin: bool,
    psh: bool,
    rst: bool,
    urg: bool,
    cwr: bool,
}

const V4: ([u8; 4], [u8; 4]) = ([10, 1, 0, 1], [10, 9, 0, 2]);
const V6: ([u8; 16], [u8; 16]) = ([0x20; 16], [0xfd; 16]);

impl Flow {
    fn tcp(v6: bool) -> Flow {
        Flow {
            v6,
            tcp: true,
            port: 443,
            sequence: 0xffff_f000,
            acknowledged: 77,
            window: 501,
            traffic_class: 2,
            hops: 61,
            id: 0xfff8,
            dont_fragment: true,
            label: 0x000a_bcde,
            options: vec![[1, 1, 8, 10], [0, 0, 1, 2], [3, 4, 5, 6]],
            ece: false,
            urgent: 0,
        }
    }

    fn udp(v6: bool) -> Flow {
        Flow { tcp: false, ..Flow::tcp(v6) }
    }

    fn headers(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.options.len() * 4 } else { 8 }
    }

    fn transport(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Where the transport checksum stands in a packet.
    fn field(&self) -> usize {
        self.transport() + if self.tcp { 16 } else { 6 }
    }

    /// The packet with this data, behind `passed` bytes in `count` packets.
    fn packet(&self, passed: usize, count: usize, data: &[u8], flags: Flags) -> Vec<u8> {
        let length = self.headers() - self.transport() + data.len();
        let protocol = if self.tcp { IpNumber::TCP } else { IpNumber::UDP };
        let mut v4 = Ipv4Header::new(0, self.hops, protocol, V4.0, V4.1).unwrap();
        let mut v6 = Ipv6Header { next_header: protocol, source: V6.0, destination: V6.1, ..Default::default() };
        let mut bytes = Vec::new();
        if self.v6 {
            v6.traffic_class = self.traffic_class;
            v6.flow_label = Ipv6FlowLabel::try_new(self.label).unwrap();
            v6.hop_limit = self.hops;
            v6.set_payload_length(length).unwrap();
            bytes.extend(v6.to_bytes());
        } else {
            v4.dscp = etherparse::IpDscp::try_new(self.traffic_class >> 2).unwrap();
            v4.ecn = etherparse::IpEcn::try_new(self.traffic_class & 3).unwrap();
            v4.dont_fragment = self.dont_fragment;
            v4.identification = self.id.wrapping_add(count as u16);
            v4.set_payload_len(length).unwrap();
            v4.header_checksum = v4.calc_header_checksum();
            bytes.extend(v4.to_bytes());
        }
        if self.tcp {
            let mut tcp = TcpHeader::new(self.port, 5_000, self.sequence.wrapping_add(passed as u32), self.window);
            tcp.acknowledgment_number = self.acknowledged;
            (tcp.ack, tcp.ece) = (true, self.ece);
            (tcp.syn, tcp.fin, tcp.psh, tcp.rst) = (flags.syn, flags.fin, flags.psh, flags.rst);
            (tcp.urg, tcp.cwr, tcp.urgent_pointer) = (flags.urg, flags.cwr, self.urgent);
            tcp.set_options_raw(self.options.as_flattened()).unwrap();
            tcp.checksum = if self.v6 {
                tcp.calc_checksum_ipv6(&v6, data).unwrap()
            } else {
                tcp.calc_checksum_ipv4(&v4, data).unwrap()
            };
            bytes.extend(tcp.to_bytes());
        } else {
            let udp = if self.v6 {
                UdpHeader::with_ipv6_checksum(self.port, 5_000, &v6, data).unwrap()
            } else {
                UdpHeader::with_ipv4_checksum(self.port, 5_000, &v4, data).unwrap()
            };
            bytes.extend(udp.to_bytes());
        }
        bytes.extend(data);
        bytes
    }

    /// The packets that this data makes, `size` bytes in each.
    fn train(&self, data: &[u8], size: usize, flags: Flags) -> Vec<Vec<u8>> {
        let last = data.len().div_ceil(size) - 1;
        let each = data.chunks(size).enumerate().map(|(n, chunk)| {
            let (fin, psh) = (flags.fin && n == last, flags.psh && n == last);
            self.packet(n * size, n, chunk, Flags { fin, psh, cwr: flags.cwr && n == 0, ..flags })
        });
        each.collect()
    }

    /// All this data in one packet, and what the kernel says of it.
    fn super_packet(&self, data: &[u8], size: usize, flags: Flags) -> (Vec<u8>, Offload) {
        let mut packet = self.packet(0, 0, data, flags);
        let pseudo = self.pseudo_sum(packet.len() - self.transport());
        packet[self.field()..][..2].copy_from_slice(&pseudo.to_be_bytes());
        (packet, Offload { checksum: self.partial(), segments: Some(self.segments(size)) })
    }

    fn partial(&self) -> ChecksumState {
        let start = self.transport() as u16;
        ChecksumState::Partial { start, offset: self.field() as u16 - start }
    }

    fn segments(&self, size: usize) -> Segments {
        Segments { kind: if self.tcp { SegmentKind::Tcp } else { SegmentKind::Udp }, size: size as u16 }
    }

    fn pseudo_sum(&self, length: usize) -> u16 {
        let (a, b) = if self.v6 { (&V6.0[..], &V6.1[..]) } else { (&V4.0[..], &V4.1[..]) };
        let protocol = if self.tcp { 6 } else { 17 };
        plain_sum(&[a, b, &(length as u32).to_be_bytes(), &[0, protocol]].concat())
    }
}

/// RFC 1071 1, word by word.
fn plain_sum(data: &[u8]) -> u16 {
    data.chunks(2).fold(0_u16, |sum, pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum + u16::from(carry)
    })
}

fn split(packet: &[u8], offload: &Offload, mtu: u16) -> Result<Vec<Vec<u8>>, Unsplittable> {
    let mut splitter = Splitter::new(packet, &parse(packet).unwrap(), offload, mtu)?;
    let mut pieces = Vec::new();
    let expected = splitter.left();
    while let Some(length) = splitter.next_len() {
        let mut out = vec![0xaa; length];
        assert_eq!(splitter.write_next(&mut out[..length - 1]), None, "too little room, and nothing is lost");
        assert_eq!(splitter.write_next(&mut out), Some(length));
        pieces.push(out);
    }
    assert_eq!((pieces.len(), splitter.left()), (expected, 0));
    assert_eq!(splitter.write_next(&mut [0; 65_535]), None);
    Ok(pieces)
}

/// Any bytes whose packets differ from each other.
fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let ip = (any::<bool>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>(), 0_u32..1 << 20);
    let tcp = (any::<bool>(), any::<u16>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<bool>());
    let options = proptest::collection::vec(any::<[u8; 4]>(), 0..=10);
    (ip, tcp, options).prop_map(|(ip, tcp, options)| {
        let (v6, traffic_class, hops, id, dont_fragment, label) = ip;
        let (tcp, port, sequence, acknowledged, window, ece) = tcp;
        let fixed = Flow { v6, tcp, port, sequence, acknowledged, window, traffic_class, hops, ..Flow::tcp(v6) };
        Flow { id, dont_fragment, label, options, ece, ..fixed }
    })
}
