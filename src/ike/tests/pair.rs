use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{DhGroup, Encryption, PrfAlgorithm};
use crate::ike::{
    ChildSa, CloseReason, Endpoint, EndpointOptions, Event, Identity, Legs, Peer, Phase1, Phase2, Retransmission, SaId,
};
use crate::model::{Chance, Leg, Moment, PathId, Secret, Spi, TrafficSelector, UnderlayId};

pub const PATH: PathId = PathId(0);

/// What the link between the two does to datagrams; per cent.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub loss: u32,
    pub duplication: u32,
    /// Up to this much on top of the delay, so that datagrams overtake each other.
    pub jitter_ms: u32,
}

pub const FAIR: Weather = Weather { loss: 0, duplication: 0, jitter_ms: 0 };
pub const STORMY: Weather = Weather { loss: 15, duplication: 15, jitter_ms: 60 };

/// One end with what it has reported so far.
pub struct End {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub events: Vec<(Moment, SaId, Event)>,
    /// What the data plane would have.
    pub children: Vec<Installed>,
    /// Datagrams that it has sent, the newest last.
    pub sent: Vec<(Leg, Vec<u8>)>,
    /// Nothing reaches it, nothing leaves it.
    pub dead: bool,
}

pub struct Installed {
    pub sa: SaId,
    pub child: ChildSa,
}

/// Two endpoints with a clock and a link of their own; every run replays from its seed.
pub struct Pair {
    pub now: Moment,
    pub a: End,
    pub b: End,
    pub weather: Weather,
    chance: Chance,
    link: Vec<(Moment, u64, bool, Leg, Vec<u8>)>,
    sent: u64,
}

pub const fn phase1_lifetime() -> Duration {
    Duration::from_secs(86_400)
}

pub fn phase1() -> Phase1 {
    Phase1 {
        encryption: vec![Encryption::AesGcm256, Encryption::AesGcm128],
        integrity: Vec::new(),
        prf: vec![PrfAlgorithm::Sha256, PrfAlgorithm::Sha384],
        groups: vec![DhGroup::Ecp256, DhGroup::Ecp384],
        lifetime: phase1_lifetime(),
    }
}

pub fn phase2() -> Phase2 {
    Phase2 {
        encryption: vec![Encryption::AesGcm256, Encryption::AesGcm128],
        integrity: Vec::new(),
        groups: vec![DhGroup::Ecp256, DhGroup::Ecp384],
        lifetime: Duration::from_secs(3600),
    }
}

/// `local` and `remote` are the two names; the selectors are 10.1/16 here for "a", 10.2/16 for "b".
pub fn peer(local: &str, remote: &str) -> Peer {
    let network = |name: &str| {
        let text = if name.starts_with('a') { "10.1.0.0/16" } else { "10.2.0.0/16" };
        vec![TrafficSelector::of_network(text.parse().unwrap())]
    };
    Peer {
        name: format!("test/{local}"),
        local_id: Identity::Fqdn(local.into()),
        remote_id: Identity::Fqdn(remote.into()),
        psk: Secret::new(b"correct horse battery staple".to_vec()),
        phase1: Arc::new(phase1()),
        phase2: Arc::new(phase2()),
        local_selectors: network(local),
        remote_selectors: network(remote),
        retransmission: Retransmission {
            first: Duration::from_millis(500),
            factor_percent: 180,
            longest: Duration::from_secs(10),
            tries: 5,
        },
    }
}

pub fn options() -> EndpointOptions {
    EndpointOptions { inbound_slots: 64, export_keys: true, cookie_threshold: 100, half_open_limit: 1000 }
}

impl End {
    fn new(address: &str, seed: u64) -> End {
        End {
            endpoint: Endpoint::new(options(), Chance::from_number(seed)),
            address: address.parse().unwrap(),
            events: Vec::new(),
            children: Vec::new(),
            sent: Vec::new(),
            dead: false,
        }
    }

    pub fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, _, event)| wanted(event))
    }

    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, _, event)| wanted(event)).count()
    }

    pub fn established(&self) -> Option<SaId> {
        self.events.iter().rev().find_map(|(_, id, event)| match event {
            Event::Established { .. } => Some(*id),
            _ => None,
        })
    }

    pub fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().rev().find_map(|(_, _, event)| match event {
            Event::Closed { reason } => Some(reason),
            _ => None,
        })
    }

    pub fn is_up(&self) -> bool {
        self.closed().is_none() && !self.children.is_empty()
    }

    fn drain(&mut self, now: Moment) {
        while let Some((path, id, event)) = self.endpoint.poll_event() {
            assert_eq!(path, PATH);
            match &event {
                Event::ChildEstablished(_) => {}
                Event::ChildDeleted { inbound, .. } => {
                    let before = self.children.len();
                    self.children.retain(|installed| installed.child.inbound != *inbound);
                    assert_eq!(self.children.len() + 1, before, "only what was there is deleted");
                    self.endpoint.release_spi(*inbound);
                }
                Event::Closed { .. } => {
                    assert!(
                        self.children.iter().all(|installed| installed.sa != id),
                        "children end before their IKE SA"
                    );
                }
                Event::Established { .. }
                | Event::Rekeyed { .. }
                | Event::Answered { .. }
                | Event::Asked { .. }
                | Event::Moved { .. }
                | Event::Keys(_) => {}
            }
            if let Event::ChildEstablished(child) = event {
                let child = *child;
                if let Some(replaced) = child.replaces {
                    assert!(
                        self.children.iter().any(|installed| installed.child.inbound == replaced),
                        "what is replaced is there"
                    );
                }
                self.children.push(Installed { sa: id, child });
            } else {
                self.events.push((now, id, event));
            }
        }
    }
}

impl Pair {
    pub fn new(seed: u64) -> Pair {
        Pair::with(seed, peer("a", "b"), peer("b", "a"))
    }

    pub fn with(seed: u64, of_a: Peer, of_b: Peer) -> Pair {
        let mut pair = Pair {
            now: Moment::from_millis(1000),
            a: End::new("192.0.2.1:500", seed.wrapping_mul(3) + 1),
            b: End::new("198.51.100.1:500", seed.wrapping_mul(3) + 2),
            weather: FAIR,
            chance: Chance::from_number(seed.wrapping_mul(3)),
            link: Vec::new(),
            sent: 0,
        };
        pair.a.endpoint.set_peer(PATH, Arc::new(of_a));
        pair.b.endpoint.set_peer(PATH, Arc::new(of_b));
        pair
    }

    pub fn legs(from: &End, to: &End) -> Legs {
        let leg = |natt: bool, port: u16| Leg {
            underlay: UnderlayId(0),
            natt,
            local: SocketAddr::new(from.address.ip(), port),
            remote: SocketAddr::new(to.address.ip(), port),
        };
        Legs { ike: leg(false, 500), natt: leg(true, 4500) }
    }

    pub fn initiate(&mut self) -> SaId {
        let legs = Pair::legs(&self.a, &self.b);
        let id = self.a.endpoint.initiate(PATH, legs, self.now).unwrap();
        self.settle();
        id
    }

    pub fn initiate_from_b(&mut self) -> SaId {
        let legs = Pair::legs(&self.b, &self.a);
        let id = self.b.endpoint.initiate(PATH, legs, self.now).unwrap();
        self.settle();
        id
    }

    /// Up on both ends, or panics.
    pub fn up(seed: u64) -> Pair {
        let mut pair = Pair::new(seed);
        pair.initiate();
        pair.run_for(Duration::from_secs(2));
        assert!(pair.a.is_up() && pair.b.is_up());
        pair
    }

    pub fn sa_a(&self) -> SaId {
        self.a.established().unwrap()
    }

    pub fn sa_b(&self) -> SaId {
        self.b.established().unwrap()
    }

    /// Takes what both have to say onto the link.
    pub fn settle(&mut self) {
        for from_a in [true, false] {
            let (end, other) = if from_a { (&mut self.a, &self.b) } else { (&mut self.b, &self.a) };
            end.drain(self.now);
            while let Some((leg, bytes)) = end.endpoint.poll_transmit() {
                end.sent.push((leg, bytes.clone()));
                if end.dead || leg.remote.ip() != other.address.ip() {
                    continue;
                }
                let arriving = Leg { local: leg.remote, remote: leg.local, ..leg };
                let copies = 1 + u32::from(self.chance.below(100) < self.weather.duplication);
                for _ in 0..copies {
                    if self.chance.below(100) < self.weather.loss {
                        continue;
                    }
                    let delay = 20 + self.chance.below(self.weather.jitter_ms + 1);
                    self.sent += 1;
                    let at = self.now + Duration::from_millis(u64::from(delay));
                    self.link.push((at, self.sent, from_a, arriving, bytes.clone()));
                }
            }
        }
        self.check_agreement();
    }

    /// Puts a datagram onto the link towards one end, as if it came over `leg`.
    pub fn inject(&mut self, to_a: bool, leg: Leg, bytes: Vec<u8>) {
        self.sent += 1;
        self.link.push((self.now, self.sent, !to_a, leg, bytes));
    }

    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        loop {
            let next_arrival = self.link.iter().map(|(at, ..)| *at).min();
            let timers = [self.a.endpoint.poll_timeout(), self.b.endpoint.poll_timeout()];
            let next = timers.into_iter().flatten().chain(next_arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if let Some(place) = (0..self.link.len())
                .filter(|index| self.link[*index].0 <= self.now)
                .min_by_key(|index| (self.link[*index].0, self.link[*index].1))
            {
                let (_, _, from_a, leg, bytes) = self.link.remove(place);
                let to = if from_a { &mut self.b } else { &mut self.a };
                if !to.dead {
                    to.endpoint.handle_datagram(leg, &bytes, self.now);
                }
            }
            for end in [&mut self.a, &mut self.b] {
                if end.endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                    end.endpoint.handle_timeout(self.now);
                    let due = end.endpoint.poll_timeout();
                    assert!(due.is_none_or(|due| due > self.now), "a timeout that stays due spins");
                }
            }
            self.settle();
        }
        self.now = end;
    }

    /// A Child SA that both ends have must have crossed keys and selectors.
    fn check_agreement(&self) {
        for ours in &self.a.children {
            for theirs in &self.b.children {
                if ours.child.inbound == theirs.child.outbound && ours.child.outbound == theirs.child.inbound {
                    assert_eq!(ours.child.inbound_key.expose(), theirs.child.outbound_key.expose());
                    assert_eq!(ours.child.outbound_key.expose(), theirs.child.inbound_key.expose());
                    assert_eq!(ours.child.encryption, theirs.child.encryption);
                    assert_eq!(ours.child.selectors.local, theirs.child.selectors.remote);
                    assert_eq!(ours.child.selectors.remote, theirs.child.selectors.local);
                }
            }
        }
    }

    /// Both ends have exactly one Child SA, the same one.
    pub fn assert_one_child(&self) -> Spi {
        let spis = |end: &End| -> Vec<(Spi, Spi)> {
            end.children.iter().map(|installed| (installed.child.inbound, installed.child.outbound)).collect()
        };
        let (a, b) = (spis(&self.a), spis(&self.b));
        assert_eq!(a.len(), 1, "{a:?} {b:?}");
        assert_eq!(b, [(a[0].1, a[0].0)]);
        a[0].0
    }
}
