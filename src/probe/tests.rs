use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Chance, Moment};
use crate::packet::{TcpSegment, parse, udp_data, udp_packet};

const RTT: Duration = Duration::from_millis(20);

fn target(ask: Ask) -> Target {
    Target { address: "10.9.0.1".parse().unwrap(), ask }
}

fn http(status: Option<u16>) -> Ask {
    Ask::Http { port: 80, host: "app.example".into(), path: "/health".into(), status, secure: false }
}

fn dns(rcode: Option<u8>) -> Ask {
    Ask::Dns { port: 53, name: "pop.example".into(), record: Record::A, rcode }
}

/// An exchange, and what it last sent.
struct Asker {
    exchange: Exchange,
    packet: Box<[u8]>,
    now: Moment,
}

impl Asker {
    fn new(ask: Ask) -> Asker {
        let mut exchange =
            Exchange::begin(&target(ask), "10.1.0.1".parse().unwrap(), &mut Chance::from_number(1)).unwrap();
        let packet = exchange.poll_transmit().unwrap();
        assert!(exchange.poll_transmit().is_none());
        Asker { exchange, packet, now: Moment::from_millis(1_000) }
    }

    /// Its own end and the target's.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        let key = parse(&self.packet).unwrap().key;
        (SocketAddr::new(key.source, key.source_port), SocketAddr::new(key.destination, key.destination_port))
    }

    fn segment(&self) -> TcpSegment<'_> {
        TcpSegment::read(&self.packet, &parse(&self.packet).unwrap()).unwrap()
    }

    /// Of what was sent last, where it is a segment.
    fn segment_number(&self) -> u32 {
        parse(&self.packet).and_then(|parsed| TcpSegment::read(&self.packet, &parsed)).map_or(0, |one| one.sequence)
    }

    fn hear(&mut self, packet: &[u8]) -> Heard {
        let parsed = parse(packet).unwrap();
        assert!(self.exchange.expects(&parsed.key));
        let heard = self.exchange.handle_packet(packet, &parsed, RTT, self.now);
        if let Some(packet) = self.exchange.poll_transmit() {
            self.packet = packet;
        }
        heard
    }

    fn hear_datagram(&mut self, data: &[u8]) -> Heard {
        let (ours, theirs) = self.ends();
        self.hear(&udp_packet(theirs, ours, data).unwrap())
    }

    fn hear_segment(&mut self, segment: TcpSegment<'_>) -> Heard {
        let (ours, theirs) = self.ends();
        self.hear(&segment.packet(theirs, ours).unwrap())
    }

    /// The server takes the connection with the number 500.
    fn accept(&mut self) -> Heard {
        let acknowledged = self.segment().sequence.wrapping_add(1);
        self.hear_segment(TcpSegment { sequence: 500, acknowledged, syn: true, ack: true, ..TcpSegment::default() })
    }

    /// The server has had the request, and says this from that number on.
    fn say(&mut self, sequence: u32, data: &[u8]) -> Heard {
        let request = self.segment();
        let acknowledged = request.sequence.wrapping_add(request.data.len() as u32);
        self.hear_segment(TcpSegment { sequence, acknowledged, ack: true, data, ..TcpSegment::default() })
    }
}

#[test]
fn an_echo_is_answered_by_its_own_data_alone() {
    let mut asker = Asker::new(Ask::Udp { port: 7 });
    let data = udp_data(&asker.packet, &parse(&asker.packet).unwrap()).unwrap().to_vec();
    assert_eq!(asker.hear_datagram(b"0123456789abcdef"), Heard::Malformed);
    assert_eq!(asker.hear_datagram(&data[..15]), Heard::Malformed);
    assert_eq!(asker.hear_datagram(&data), Heard::Answered);
    assert_eq!(asker.hear_datagram(&data), Heard::Malformed, "twice");
    assert!(asker.exchange.is_over());
}

#[test]
fn a_query_is_answered_by_its_own_id_and_the_wanted_code() {
    for (wanted, told, expected) in
        [(None, 3, Heard::Answered), (Some(0), 0, Heard::Answered), (Some(0), 3, Heard::Refused(Refusal::Rcode(3)))]
    {
        let mut asker = Asker::new(dns(wanted));
        let mut answer = udp_data(&asker.packet, &parse(&asker.packet).unwrap()).unwrap().to_vec();
        (answer[2], answer[3]) = (0x81, 0x80 | told);
        let mut other = answer.clone();
        other[0] ^= 1;
        assert_eq!(asker.hear_datagram(&other), Heard::Malformed);
        assert_eq!(asker.hear_datagram(&answer), expected);
    }
}

#[test]
fn a_connection_is_answered_by_a_syn_ack_and_ended_by_a_reset() {
    let mut asker = Asker::new(Ask::Tcp { port: 443 });
    let syn = asker.segment();
    assert!(syn.syn && !syn.ack && syn.data.is_empty());
    let begun = syn.sequence.wrapping_add(1);
    assert_eq!(asker.accept(), Heard::Answered);
    let reset = asker.segment();
    assert!(reset.rst && reset.sequence == begun);
}

#[test]
fn a_target_that_makes_up_segments_changes_nothing() {
    let mut asker = Asker::new(Ask::Tcp { port: 443 });
    let begun = asker.segment().sequence.wrapping_add(1);
    let right = TcpSegment { sequence: 9, acknowledged: begun, ack: true, syn: true, ..TcpSegment::default() };
    for wrong in [
        TcpSegment { acknowledged: begun.wrapping_add(1), ..right },
        TcpSegment { ack: false, ..right },
        TcpSegment { syn: false, ..right },
        TcpSegment { syn: false, ack: false, rst: true, ..right },
        TcpSegment { syn: false, rst: true, acknowledged: 0, ..right },
    ] {
        assert_eq!(asker.hear_segment(wrong), Heard::Malformed, "{wrong:?}");
    }
    let (ours, theirs) = asker.ends();
    let mut damaged = right.packet(theirs, ours).unwrap();
    damaged[30] ^= 1;
    assert_eq!(asker.hear(&damaged), Heard::Malformed);
    assert_eq!(asker.hear(&udp_packet(theirs, ours, b"x").unwrap()), Heard::Malformed);
    assert_eq!(asker.hear_segment(right), Heard::Answered);
}

#[test]
fn a_closed_port_refuses() {
    let mut asker = Asker::new(Ask::Tcp { port: 443 });
    let acknowledged = asker.segment().sequence.wrapping_add(1);
    let reset = TcpSegment { acknowledged, ack: true, rst: true, ..TcpSegment::default() };
    assert_eq!(asker.hear_segment(reset), Heard::Refused(Refusal::Closed));
}

#[test]
fn a_request_is_one_segment_and_a_status_line_answers_it() {
    for (wanted, expected) in
        [(None, Heard::Answered), (Some(204), Heard::Answered), (Some(200), Heard::Refused(Refusal::Status(204)))]
    {
        let mut asker = Asker::new(http(wanted));
        assert!(matches!(asker.accept(), Heard::Greeted { .. }));
        let request = asker.segment();
        assert!(request.data.starts_with(b"GET /health HTTP/1.1\r\nHost: app.example\r\n"));
        assert!(request.ack && request.acknowledged == 501);
        let after = request.sequence.wrapping_add(request.data.len() as u32);
        assert_eq!(asker.say(501, b"HTTP/1.1 204 No Content\r\n\r\n"), expected);
        let reset = asker.segment();
        assert!(reset.rst && reset.sequence == after, "as RFC 5961 wants it");
    }
}

#[test]
fn an_answer_may_come_in_pieces_twice_and_out_of_order() {
    let mut asker = Asker::new(http(Some(200)));
    asker.accept();
    // Of the connection, before what answers the pieces is looked at.
    let request = asker.packet.clone();
    let mut say = |sequence, data: &[u8]| {
        asker.packet = request.clone();
        asker.say(sequence, data)
    };
    assert_eq!(say(506, b"1.1 2"), Heard::Part, "a gap before it");
    assert_eq!(say(501, b"HTTP/"), Heard::Part);
    assert_eq!(say(501, b"HTTP/"), Heard::Part);
    assert_eq!(say(503, b"TP/1.1 2"), Heard::Part);
    assert_eq!(say(511, b"00 OK\r\n"), Heard::Answered);
}

#[test]
fn a_lost_request_is_repeated_and_a_silent_server_is_given_up() {
    let mut asker = Asker::new(http(None));
    let Heard::Greeted { until } = asker.accept() else { panic!() };
    let request = asker.packet.clone();
    // Our answer to the SYN-ACK was lost.
    asker.packet = Box::default();
    let (syn, mut sent) = (parse(&request).unwrap(), 0);
    let again = TcpSegment {
        sequence: 500,
        acknowledged: TcpSegment::read(&request, &syn).unwrap().sequence,
        syn: true,
        ack: true,
        ..TcpSegment::default()
    };
    let ends = (SocketAddr::new(syn.key.source, syn.key.source_port), SocketAddr::new(syn.key.destination, 80));
    assert_eq!(asker.hear(&again.packet(ends.1, ends.0).unwrap()), Heard::Part);
    assert_eq!(asker.packet, request);
    while let Some(at) = asker.exchange.poll_timeout() {
        assert!(at <= until && at > asker.now);
        asker.now = at;
        asker.exchange.handle_timeout(at);
        asker.packet = asker.exchange.poll_transmit().unwrap();
        sent += 1;
    }
    assert_eq!((asker.now, sent, asker.exchange.is_over()), (until, 4, true));
    assert!(asker.segment().rst);
}

#[test]
fn what_is_no_http_or_no_tls_is_no_answer() {
    let mut asker = Asker::new(http(None));
    asker.accept();
    assert_eq!(asker.say(501, b"SSH-2.0-OpenSSH_9.2\r\n"), Heard::Malformed);

    let tls = || Asker::new(Ask::Tls { port: 443, name: Some("app.example".into()) });
    let mut asker = tls();
    asker.accept();
    assert_eq!(asker.segment().data[..3], [22, 3, 1]);
    assert_eq!(asker.say(501, b"HTTP/1.1 400 Bad Request\r\n"), Heard::Malformed);
    let mut asker = tls();
    asker.accept();
    assert_eq!(asker.say(501, &[22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]), Heard::Answered);
}

/// A TLS server that answers any request with this status, and has what it says next at hand.
struct Server {
    tls: rustls::ServerConnection,
    status: u16,
    heard: Vec<u8>,
    /// All that it has said, from its first number on.
    said: Vec<u8>,
}

impl Server {
    fn new(status: u16, versions: &[&'static rustls::SupportedProtocolVersion]) -> Server {
        let certified = rcgen::generate_simple_self_signed(["app.example".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.into()], key.into()).unwrap();
        let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        Server { tls, status, heard: Vec::new(), said: Vec::new() }
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            self.tls.process_new_packets().unwrap();
        }
        let _ = self.tls.reader().read_to_end(&mut self.heard);
        if self.heard.ends_with(b"\r\n\r\n") {
            let status = self.status;
            write!(self.tls.writer(), "HTTP/1.1 {status} Told\r\n\r\n").unwrap();
            assert!(std::mem::take(&mut self.heard).starts_with(b"GET /health HTTP/1.1\r\nHost: app.example\r\n"));
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.said).unwrap();
        }
    }
}

/// A handshake and a request, of which every `lost`th segment each way is lost; and how many segments it took.
fn ask_over_tls(server: &mut Server, wanted: Option<u16>, lost: u32) -> (Heard, u32) {
    let Ask::Http { host, path, .. } = http(None) else { panic!() };
    let mut asker = Asker::new(Ask::Http { port: 443, host, path, status: wanted, secure: true });
    assert!(matches!(asker.accept(), Heard::Greeted { .. }));
    let first = asker.segment().sequence;
    let (mut taken, mut acknowledged, mut segments) = (0_usize, 0_usize, 0);
    let gone = |segments: &mut u32| {
        *segments += 1;
        segments.is_multiple_of(lost)
    };
    for _ in 0..200 {
        // Our side's last segment arrives, or does not.
        if !gone(&mut segments) {
            let segment = asker.segment();
            if segment.rst {
                panic!("given up");
            }
            let new = taken.checked_sub(segment.sequence.wrapping_sub(first) as usize);
            let new = new.and_then(|known| segment.data.get(known..)).unwrap_or_default().to_vec();
            acknowledged = acknowledged.max(segment.acknowledged.wrapping_sub(501) as usize);
            taken += new.len();
            server.hear(&new);
        }
        let upto = server.said.len().min(acknowledged + 300);
        let data = server.said[acknowledged.min(upto)..upto].to_vec();
        if !gone(&mut segments) {
            let sequence = 501 + acknowledged as u32;
            let acknowledged = first.wrapping_add(taken as u32);
            let data = &data[..];
            let heard =
                asker.hear_segment(TcpSegment { sequence, acknowledged, ack: true, data, ..TcpSegment::default() });
            if heard != Heard::Part {
                return (heard, segments);
            }
        }
        asker.now = asker.now + Duration::from_millis(20);
        asker.exchange.handle_timeout(asker.now);
        if let Some(packet) = asker.exchange.poll_transmit() {
            asker.packet = packet;
        }
    }
    panic!("no end");
}

#[test]
fn a_request_goes_through_either_version_of_tls_and_the_status_line_answers_it() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for (wanted, expected) in
            [(None, Heard::Answered), (Some(204), Heard::Answered), (Some(200), Heard::Refused(Refusal::Status(204)))]
        {
            let (heard, clean) = ask_over_tls(&mut Server::new(204, &[version]), wanted, u32::MAX);
            assert_eq!(heard, expected, "{version:?}");
            let (heard, lossy) = ask_over_tls(&mut Server::new(204, &[version]), wanted, 3);
            assert_eq!(heard, expected, "{version:?} with losses");
            assert!(clean < lossy, "{clean} and {lossy} segments");
        }
    }
}

#[test]
fn a_server_that_ends_the_handshake_refuses_and_one_that_speaks_no_tls_says_nothing() {
    let ask = || {
        Asker::new(Ask::Http { port: 443, host: "app.example".into(), path: "/".into(), status: None, secure: true })
    };
    let mut asker = ask();
    asker.accept();
    assert_eq!(asker.say(501, &[21, 3, 3, 0, 2, 2, 40]), Heard::Refused(Refusal::Alert(40)));
    assert!(asker.segment().rst);
    let mut asker = ask();
    asker.accept();
    assert_eq!(asker.say(501, b"HTTP/1.1 400 Bad Request\r\n\r\n"), Heard::Malformed);
}

#[test]
fn a_reset_of_a_connection_counts_at_the_right_number_only() {
    let mut asker = Asker::new(http(None));
    asker.accept();
    let acknowledged = asker.segment().sequence;
    let reset = |sequence| TcpSegment { sequence, acknowledged, ack: true, rst: true, ..TcpSegment::default() };
    assert_eq!(asker.hear_segment(reset(502)), Heard::Malformed);
    assert_eq!(asker.hear_segment(reset(501)), Heard::Refused(Refusal::Reset));
}

#[test]
fn a_server_that_has_lost_the_connection_resets_it_without_an_acknowledgement() {
    let mut asker = Asker::new(http(None));
    asker.accept();
    // RFC 9293 3.10.7.1: its number is the one that the request has acknowledged.
    let sequence = asker.segment().acknowledged;
    let reset = |sequence| TcpSegment { sequence, rst: true, ..TcpSegment::default() };
    for wrong in [0, sequence - 1, sequence + 1] {
        assert_eq!(asker.hear_segment(reset(wrong)), Heard::Malformed);
    }
    assert_eq!(asker.hear_segment(reset(sequence)), Heard::Refused(Refusal::Reset));
    assert_eq!(Refusal::Reset.to_string(), "connection reset");
    assert!(asker.exchange.is_over());
}

#[test]
fn whoever_answers_from_another_address_or_port_is_not_expected() {
    let asker = Asker::new(dns(None));
    let (ours, theirs) = asker.ends();
    let expects = |from: SocketAddr, to: SocketAddr| {
        asker.exchange.expects(&parse(&udp_packet(from, to, b"x").unwrap()).unwrap().key)
    };
    assert!(expects(theirs, ours));
    assert!(!expects("10.9.0.2:53".parse().unwrap(), ours));
    assert!(!expects("10.9.0.1:54".parse().unwrap(), ours));
    assert!(!expects(theirs, SocketAddr::new(ours.ip(), ours.port() ^ 1)));
}

#[test]
fn a_connection_that_nobody_knows_of_is_reset_once_it_is_offered() {
    let (ours, theirs) = ("10.1.0.1:62000".parse().unwrap(), "10.9.0.1:80".parse().unwrap());
    let offer = TcpSegment { sequence: 1, acknowledged: 77, syn: true, ack: true, ..TcpSegment::default() };
    let tidied = |segment: TcpSegment<'_>| {
        let packet = segment.packet(theirs, ours).unwrap();
        tidy(&packet, &parse(&packet).unwrap())
    };
    let reset = tidied(offer).unwrap();
    let read = TcpSegment::read(&reset, &parse(&reset).unwrap()).unwrap();
    assert!(read.rst && read.sequence == 77);
    assert_eq!(tidied(TcpSegment { rst: true, ..offer }), None);
    assert_eq!(tidied(TcpSegment { syn: false, ..offer }), None);
}

#[test]
fn questions_come_from_our_ports_and_to_one_family() {
    let mut chance = Chance::from_number(3);
    let asked = target(Ask::Udp { port: 7 });
    for _ in 0..500 {
        let mut exchange = Exchange::begin(&asked, "10.1.0.1".parse().unwrap(), &mut chance).unwrap();
        let key = parse(&exchange.poll_transmit().unwrap()).unwrap().key;
        assert!(PORTS.contains(&key.source_port));
    }
    assert!(Exchange::begin(&asked, "2001:db8::1".parse().unwrap(), &mut chance).is_none());
    assert!(Exchange::begin(&Target::icmp(asked.address), asked.address, &mut chance).is_none());
}

/// What a hostile target does, near enough to what is expected to get far.
#[derive(Clone, Debug)]
enum Trick {
    Datagram(Vec<u8>),
    Segment {
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        data: Vec<u8>,
    },
    /// Our own packet back from the other end, with a byte changed.
    Echo {
        at: usize,
        byte: u8,
    },
    Time(u64),
}

fn tricks() -> impl Strategy<Value = Vec<Trick>> {
    let start = prop_oneof![Just(&b"HTTP/1.1 200 OK\r\n"[..]), Just(&[22, 3, 3, 0, 40, 2][..]), Just(&[][..])];
    let data =
        (start, proptest::collection::vec(any::<u8>(), 0..1_500)).prop_map(|(start, rest)| [start, &rest].concat());
    let near = prop_oneof![0_u32..3, 499_u32..503, any::<u32>()];
    let trick = prop_oneof![
        data.clone().prop_map(Trick::Datagram),
        (near.clone(), near, any::<u8>(), data).prop_map(|(sequence, acknowledged, flags, data)| Trick::Segment {
            sequence,
            acknowledged,
            flags,
            data
        }),
        (0_usize..200, any::<u8>()).prop_map(|(at, byte)| Trick::Echo { at, byte }),
        (0_u64..3_000).prop_map(Trick::Time),
    ];
    proptest::collection::vec(trick, 0..60)
}

proptest! {
    #[test]
    fn no_target_makes_an_exchange_panic_or_last_or_talk_without_end(
        ask in prop_oneof![
            Just(Ask::Udp { port: 7 }), Just(Ask::Tcp { port: 22 }), Just(http(Some(200))), Just(dns(None)),
            Just(Ask::Tls { port: 443, name: Some("app.example".into()) }),
            Just(Ask::Http { port: 443, host: "app.example".into(), path: "/".into(), status: None, secure: true }),
        ],
        tricks in tricks(),
    ) {
        let mut asker = Asker::new(ask);
        let (ours, theirs) = asker.ends();
        let mut heard = 0;
        for trick in tricks {
            let packet = match trick {
                Trick::Time(ms) => {
                    asker.now = asker.now + Duration::from_millis(ms);
                    asker.exchange.handle_timeout(asker.now);
                    None
                }
                Trick::Datagram(data) => udp_packet(theirs, ours, &data),
                Trick::Echo { at, byte } => {
                    let mut packet = asker.packet.clone();
                    let at = at % packet.len();
                    packet[at] = byte;
                    Some(packet)
                }
                Trick::Segment { sequence, acknowledged, flags, data } => {
                    let (syn, ack) = (flags & 1 != 0, flags & 2 != 0);
                    let (fin, rst, push) = (flags & 12 == 12, flags & 48 == 48, flags & 64 != 0);
                    let acknowledged = asker.segment_number().wrapping_add(acknowledged);
                    let data = &data[..];
                    let segment = TcpSegment { sequence, acknowledged, syn, ack, fin, rst, push, window: 0, mss: None, data };
                    segment.packet(theirs, ours)
                }
            };
            if let Some((packet, parsed)) = packet.as_ref().and_then(|packet| Some((packet, parse(packet)?))) {
                heard += 1;
                asker.exchange.handle_packet(packet, &parsed, RTT, asker.now);
            }
            let mut sent = 0;
            while let Some(packet) = asker.exchange.poll_transmit() {
                asker.packet = packet;
                sent += 1;
            }
            prop_assert!(sent <= 1, "one packet for what happened at most");
        }
        // Whoever has been greeted and does not answer is given up.
        let mut rounds = 0;
        while let Some(at) = asker.exchange.poll_timeout() {
            asker.exchange.handle_timeout(at);
            rounds += 1;
            prop_assert!(rounds < 40, "after {heard} packets");
        }
    }
}
