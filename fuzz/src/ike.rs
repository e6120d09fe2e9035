use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use trefoil::crypto::{Backend, DhGroup, Encryption, PrfAlgorithm, SaltedKey};
use trefoil::ike::wire::{
    Exchange, HEADER_BYTES, Header, Message, decode_payloads, encode_clear, encode_payloads, payload_type,
};
use trefoil::ike::{
    Endpoint, EndpointOptions, Event, Identity, IkeKeys, Legs, Peer, Phase1, Phase2, Retransmission, SaId,
};
use trefoil::model::{Chance, Leg, Moment, PathId, Secret, Spi, TrafficSelector, UnderlayId};

const PATH: PathId = PathId(0);
/// What one input may do: enough to rekey and close, short enough to stay fast.
const RECORDS_MAX: usize = 16;

/// An IKE message as it is and with its length field put right, then the same bytes as the
/// payloads inside an encrypted one. What decodes must encode to something that decodes to the
/// same bytes again.
pub fn message(bytes: &[u8]) {
    let mut fitted = bytes.to_vec();
    fit_length(&mut fitted);
    for bytes in [bytes, &fitted] {
        let Ok(message) = Message::decode(bytes) else { continue };
        if message.encrypted.is_some() {
            continue;
        }
        let first = encode_clear(&message.header, &message.payloads);
        let again = Message::decode(&first).expect("what we encode decodes");
        assert_eq!(again.header, message.header);
        assert_eq!(encode_clear(&again.header, &again.payloads), first);
    }
    let Some((kind, chain)) = bytes.split_first() else { return };
    if let Ok(payloads) = decode_payloads(*kind, chain) {
        let (kind, chain) = encode_payloads(&payloads);
        let again = decode_payloads(kind, &chain).expect("what we encode decodes");
        assert_eq!(encode_payloads(&again), (kind, chain));
    }
}

/// An endpoint at some stage of its life under a series of records. The first byte says which end
/// of the reference run it is (bit 0) and how much of the set-up it has behind it (bits 1 and 2);
/// a record is a kind, two bytes of length, and that many bytes.
pub fn endpoint(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let initiator = first & 1 == 1;
    let heard = usize::from(first >> 1).min(2);
    let mut subject = Subject::after(initiator, heard);
    for _ in 0..RECORDS_MAX {
        let Some(([kind, high, low], tail)) = rest.split_first_chunk::<3>() else { return };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (body, tail) = tail.split_at(length);
        rest = tail;
        subject.run(*kind, body);
    }
}

/// A set-up between two endpoints without loss, always the same.
struct Reference {
    to_initiator: Vec<Vec<u8>>,
    to_responder: Vec<Vec<u8>>,
    keys: IkeKeys,
}

static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let (mut initiator, mut responder) = (end(true), end(false));
    let mut keys = None;
    let (mut to_initiator, mut to_responder) = (Vec::new(), Vec::new());
    initiator.initiate(PATH, legs(true), Moment::ZERO).expect("a peer is there");
    loop {
        let mut quiet = true;
        while let Some((leg, bytes)) = initiator.poll_transmit() {
            responder.handle_datagram(arriving(leg), &bytes, Moment::ZERO);
            to_responder.push(bytes);
            quiet = false;
        }
        while let Some((leg, bytes)) = responder.poll_transmit() {
            initiator.handle_datagram(arriving(leg), &bytes, Moment::ZERO);
            to_initiator.push(bytes);
            quiet = false;
        }
        while let Some((.., event)) = initiator.poll_event() {
            if let Event::Keys(exported) = event {
                keys = Some(*exported);
            }
        }
        if quiet {
            let keys = keys.expect("the set-up succeeds");
            return Reference { to_initiator, to_responder, keys };
        }
    }
});

struct Subject {
    endpoint: Endpoint,
    initiator: bool,
    established: bool,
    now: Moment,
    /// The peer's key, so that authentic messages with anything inside can be made.
    key: SaltedKey,
    sealed: u64,
    next_request: u32,
    /// The last request that the endpoint sent.
    asked: Option<Header>,
    sa: Option<SaId>,
    children: Vec<(SaId, Spi)>,
}

impl Subject {
    /// The end of the reference run that has heard that many of the other's datagrams.
    fn after(initiator: bool, heard: usize) -> Subject {
        let keys = &REFERENCE.keys;
        let (key, from_peer) = if initiator {
            (&keys.encryption_responder, &REFERENCE.to_initiator)
        } else {
            (&keys.encryption_initiator, &REFERENCE.to_responder)
        };
        let mut subject = Subject {
            endpoint: end(initiator),
            initiator,
            established: heard == 2,
            now: Moment::ZERO,
            key: SaltedKey::new(Backend::RustCrypto, keys.encryption, key.expose()).expect("the key fits"),
            sealed: 0,
            next_request: if initiator { 0 } else { heard as u32 },
            asked: None,
            sa: None,
            children: Vec::new(),
        };
        if initiator {
            subject.sa = subject.endpoint.initiate(PATH, legs(true), subject.now);
        }
        for bytes in from_peer.iter().take(heard) {
            subject.endpoint.handle_datagram(arriving(legs(!initiator).ike), bytes, subject.now);
        }
        subject.drain();
        subject
    }

    fn run(&mut self, kind: u8, body: &[u8]) {
        match kind % 6 {
            0 => self.hear_stranger(body),
            1 => {
                let mut datagram = body.to_vec();
                let spis = [REFERENCE.keys.initiator_spi.to_be_bytes(), REFERENCE.keys.responder_spi.to_be_bytes()];
                for (place, byte) in datagram.iter_mut().zip(spis.as_flattened()) {
                    *place = *byte;
                }
                fit_length(&mut datagram);
                self.hear_stranger(&datagram);
            }
            2 => {
                let Some(([exchange, first], chain)) = body.split_first_chunk::<2>() else { return };
                let header = self.header(Exchange::of_number(*exchange), false, self.next_request);
                self.hear_peer(&header, *first, chain);
            }
            3 => {
                let Some((first, chain)) = body.split_first() else { return };
                let Some(asked) = self.asked else { return };
                let header = self.header(asked.exchange, true, asked.message_id);
                self.hear_peer(&header, *first, chain);
            }
            4 => {
                let millis = body.iter().take(4).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
                self.now = self.now + Duration::from_millis(millis);
                self.endpoint.handle_timeout(self.now);
                assert!(
                    self.endpoint.poll_timeout().is_none_or(|due| due > self.now),
                    "a timeout that stays due spins"
                );
                self.drain();
            }
            _ => self.command(body.first().copied().unwrap_or(0)),
        }
    }

    fn command(&mut self, number: u8) {
        let Some(sa) = self.sa else { return };
        match number % 5 {
            0 => {
                self.endpoint.check_liveness(sa, self.now);
            }
            1 => {
                if let Some((_, spi)) = self.children.first() {
                    self.endpoint.rekey_child(sa, *spi, self.now);
                }
            }
            2 => self.endpoint.rekey_ike(sa, self.now),
            3 => self.endpoint.close(sa, "asked to", self.now),
            _ => {
                self.endpoint.initiate(PATH, legs(self.initiator), self.now);
            }
        }
        self.drain();
    }

    /// A datagram from someone without the keys, who must not be able to do anything to an
    /// established IKE SA, nor make us send more than an answer.
    fn hear_stranger(&mut self, datagram: &[u8]) {
        self.endpoint.handle_datagram(arriving(legs(!self.initiator).natt), datagram, self.now);
        let (events, sent) = self.drain();
        assert!(sent <= 1, "{sent} datagrams for one");
        assert!(!self.established || events == 0, "a stranger made {events} events");
    }

    fn hear_peer(&mut self, header: &Header, first: u8, chain: &[u8]) {
        let body_len = chain.len() + 1;
        let payload_len = 4 + 8 + body_len + 16;
        let total = HEADER_BYTES + payload_len;
        let (Ok(payload_len), Ok(total)) = (u16::try_from(payload_len), u32::try_from(total)) else { return };
        let mut datagram = header.encode(payload_type::SK, total).to_vec();
        datagram.extend_from_slice(&[first, 0]);
        datagram.extend_from_slice(&payload_len.to_be_bytes());
        self.sealed += 1;
        let iv = (u64::MAX - self.sealed).to_be_bytes();
        let mut body = [chain, &[0]].concat();
        let tag = self.key.seal(iv, &datagram, &mut body).expect("short");
        datagram.extend([&iv[..], &body, &tag].concat());
        self.endpoint.handle_datagram(arriving(legs(!self.initiator).natt), &datagram, self.now);
        self.drain();
    }

    fn header(&self, exchange: Exchange, response: bool, message_id: u32) -> Header {
        let (initiator_spi, responder_spi) = (REFERENCE.keys.initiator_spi, REFERENCE.keys.responder_spi);
        Header { initiator_spi, responder_spi, exchange, from_initiator: !self.initiator, response, message_id }
    }

    /// Takes what the endpoint has to say, as events and datagrams, and counts both.
    fn drain(&mut self) -> (usize, usize) {
        let mut events = 0;
        while let Some((path, sa, event)) = self.endpoint.poll_event() {
            assert_eq!(path, PATH);
            events += 1;
            match event {
                Event::Established { .. } => self.sa = Some(sa),
                Event::ChildEstablished(child) => {
                    let known = |spi| self.children.iter().any(|(_, one)| *one == spi);
                    assert!(!known(child.inbound) && child.replaces.is_none_or(known));
                    self.children.push((sa, child.inbound));
                }
                Event::ChildDeleted { inbound, .. } => {
                    let place = self.children.iter().position(|child| *child == (sa, inbound));
                    self.children.swap_remove(place.expect("only what is there is deleted"));
                    self.endpoint.release_spi(inbound);
                }
                Event::Closed { .. } => {
                    assert!(self.children.iter().all(|(of, _)| *of != sa), "children end before their IKE SA");
                }
                Event::Rekeyed { .. }
                | Event::Answered { .. }
                | Event::Asked { .. }
                | Event::Moved { .. }
                | Event::Keys(_) => {}
            }
        }
        let mut sent = 0;
        while let Some((_, bytes)) = self.endpoint.poll_transmit() {
            sent += 1;
            let (header, _) = Header::decode(&bytes).expect("what we send is a message");
            if !header.response {
                self.asked = Some(header);
            } else if header.message_id == self.next_request {
                self.next_request += 1;
            }
        }
        (events, sent)
    }
}

fn fit_length(datagram: &mut [u8]) {
    let length = (datagram.len() as u32).to_be_bytes();
    if let Some(field) = datagram.get_mut(24..28) {
        field.copy_from_slice(&length);
    }
}

fn end(initiator: bool) -> Endpoint {
    let options = EndpointOptions { inbound_slots: 16, export_keys: true, cookie_threshold: 2, half_open_limit: 4 };
    let mut endpoint = Endpoint::new(options, Chance::from_number(u64::from(initiator)));
    let (local, remote) = if initiator { ("a", "b") } else { ("b", "a") };
    let identity = |name: &str| Identity::Fqdn(format!("{name}.example"));
    let peer = Peer {
        name: format!("fuzz/{local}"),
        local_id: identity(local),
        remote_id: identity(remote),
        psk: Secret::new(b"correct horse battery staple".to_vec()),
        phase1: Arc::new(Phase1 {
            encryption: vec![Encryption::AesGcm256, Encryption::AesGcm128],
            integrity: Vec::new(),
            prf: vec![PrfAlgorithm::Sha256],
            groups: vec![DhGroup::Ecp256, DhGroup::Ecp384],
            lifetime: Duration::from_secs(86_400),
        }),
        phase2: Arc::new(Phase2 {
            encryption: vec![Encryption::AesGcm256],
            integrity: Vec::new(),
            groups: Vec::new(),
            lifetime: Duration::from_secs(3600),
        }),
        local_selectors: vec![TrafficSelector::ANY_IPV4],
        remote_selectors: vec![TrafficSelector::ANY_IPV4],
        retransmission: Retransmission {
            first: Duration::from_millis(500),
            factor_percent: 180,
            longest: Duration::from_secs(10),
            tries: 5,
        },
    };
    endpoint.set_peer(PATH, Arc::new(peer));
    endpoint
}

fn legs(of_initiator: bool) -> Legs {
    let (ours, theirs) =
        if of_initiator { ([192, 0, 2, 1], [198, 51, 100, 1]) } else { ([198, 51, 100, 1], [192, 0, 2, 1]) };
    let leg = |natt: bool, port: u16| Leg {
        underlay: UnderlayId(0),
        natt,
        local: SocketAddr::from((ours, port)),
        remote: SocketAddr::from((theirs, port)),
    };
    Legs { ike: leg(false, 500), natt: leg(true, 4500) }
}

/// The other end's view of a datagram sent over `leg`.
fn arriving(leg: Leg) -> Leg {
    Leg { local: leg.remote, remote: leg.local, ..leg }
}
