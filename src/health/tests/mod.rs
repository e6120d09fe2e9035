mod inner_targets;
mod measuring;
mod one_way;
mod outages;
mod peace;
mod promises;
mod verdicts;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::model::{Chance, Moment, Verdict};

/// What the world does to one probe.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Back(Duration),
    /// Answered over another tunnel.
    Elsewhere(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ike,
    Inner(IpAddr),
    /// A packet of the site's, and what comes back for it.
    Site,
}

/// The site's packets on the path.
#[derive(Clone, Copy)]
struct Flow {
    /// Time between two packets, and up to how much more by chance.
    every: Duration,
    spread: Duration,
    /// They are answered over the same path.
    answered: bool,
    next: Moment,
}

impl Flow {
    fn new(every: u64, spread: u64, answered: bool) -> Flow {
        Flow { every: ms(every), spread: ms(spread), answered, next: Moment::ZERO }
    }
}

enum Arrival {
    Ike { exchange: u64 },
    Echo { id: u64, target: usize, same_path: bool, sent: Moment },
    Site,
}

/// A path's health with the world around it: an IKE SA that has one request outstanding at a
/// time, and inner targets.
struct World<F: FnMut(Moment, Kind, &mut Chance) -> Fate> {
    health: PathHealth,
    targets: Vec<IpAddr>,
    fate: F,
    chance: Chance,
    now: Moment,
    /// Number, first transmission and number of transmissions of the outstanding IKE request.
    request: Option<(u64, Moment, u32)>,
    arrivals: BTreeMap<(Moment, u64), Arrival>,
    count: u64,
    flow: Option<Flow>,
    /// The first packet of the site at or after `missing_from`.
    missed: Option<Moment>,
    missing_from: Moment,
    traffic: Traffic,
    peer: PeerSigns,
    budget: ProbeBudget,
    changes: Vec<VerdictChange>,
    /// How long each change came after the last own answer.
    silences: Vec<Option<Duration>>,
    probes: Vec<(Moment, ProbeKind)>,
    /// Of inner probes.
    ids: Vec<u64>,
    /// The first inner target says no.
    refusing: bool,
    /// The last own answer.
    answered: Option<Moment>,
}

impl<F: FnMut(Moment, Kind, &mut Chance) -> Fate> World<F> {
    fn new(settings: HealthSettings, targets: &[IpAddr], seed: u64, fate: F) -> Self {
        let mut chance = Chance::from_number(seed);
        let addresses = targets.to_vec();
        let targets: Vec<ProbeTarget> =
            targets.iter().map(|address| ProbeTarget { name: address.to_string(), light: true }).collect();
        World {
            targets: addresses,
            health: PathHealth::new(settings, &targets, Moment::ZERO, &mut chance),
            fate,
            chance,
            now: Moment::ZERO,
            request: None,
            arrivals: BTreeMap::new(),
            count: 0,
            flow: None,
            missed: None,
            missing_from: Moment::from_nanos(u64::MAX),
            traffic: Traffic::default(),
            peer: PeerSigns::default(),
            budget: ProbeBudget::default(),
            changes: Vec::new(),
            silences: Vec::new(),
            probes: Vec::new(),
            ids: Vec::new(),
            refusing: false,
            answered: None,
        }
    }

    fn run(&mut self, seconds: f64) -> &mut Self {
        let end = Moment::ZERO + Duration::from_secs_f64(seconds);
        loop {
            let arrival = self.arrivals.first_key_value().map(|(&(at, _), _)| at);
            let timeout = self.health.poll_timeout();
            let packet = self.flow.map(|flow| flow.next.max(self.now));
            let next = [arrival, packet].into_iter().flatten().fold(timeout, Moment::min);
            if next > end {
                self.now = end;
                return self;
            }
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            if packet == Some(next) {
                self.send();
                continue;
            }
            if arrival == Some(next) {
                self.deliver();
            } else {
                self.time_out();
            }
            self.drain();
            assert!(self.health.poll_timeout() > self.now || arrival == Some(next), "a timeout that stays due");
        }
    }

    fn time_out(&mut self) {
        let around = Surroundings { traffic: self.traffic, peer: self.peer, budget: &mut self.budget };
        self.health.handle_timeout(self.now, around);
    }

    fn send(&mut self) {
        let Some(flow) = &mut self.flow else { return };
        let spread = self.chance.below(flow.spread.as_micros() as u32 + 1);
        flow.next = self.now + flow.every + Duration::from_micros(u64::from(spread));
        self.traffic.sent += 1;
        if self.now >= self.missing_from {
            self.missed.get_or_insert(self.now);
        }
        self.count += 1;
        if flow.answered
            && let Fate::Back(after) = (self.fate)(self.now, Kind::Site, &mut self.chance)
        {
            self.arrivals.insert((self.now + after, self.count), Arrival::Site);
        }
    }

    fn deliver(&mut self) {
        let Some((_, arrival)) = self.arrivals.pop_first() else { return };
        match arrival {
            Arrival::Ike { exchange } => {
                if let Some((number, first, transmissions)) = self.request
                    && number == exchange
                {
                    self.request = None;
                    self.answered = Some(self.now);
                    let rtt = (transmissions == 1).then(|| self.now.since(first));
                    self.health.handle_liveness(rtt, self.now);
                }
            }
            Arrival::Echo { id, target: 0, same_path, sent } if self.refusing => {
                let why = "HTTP status 503".to_owned();
                self.health.handle_refusal(id, 0, same_path, self.now.since(sent), why, self.now);
            }
            Arrival::Echo { id, target, same_path, sent } => {
                if same_path {
                    self.answered = Some(self.now);
                }
                self.health.handle_inner(id, target, same_path, self.now.since(sent), self.now);
            }
            Arrival::Site => {
                self.traffic.received += 1;
                self.traffic.last_in = Some(self.now);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(probe) = self.health.poll_probe(self.now) {
            self.probes.push((self.now, probe.kind));
            self.count += 1;
            let (kind, arrival) = match probe.kind {
                ProbeKind::Liveness => {
                    let (number, first, transmissions) = self.request.unwrap_or((self.count, self.now, 0));
                    self.request = Some((number, first, transmissions + 1));
                    (Kind::Ike, Arrival::Ike { exchange: number })
                }
                ProbeKind::Inner(target) => {
                    let address = self.targets[target];
                    self.ids.push(probe.id);
                    (Kind::Inner(address), Arrival::Echo { id: probe.id, target, same_path: true, sent: self.now })
                }
            };
            match ((self.fate)(self.now, kind, &mut self.chance), arrival) {
                (Fate::Lost, _) | (Fate::Elsewhere(_), Arrival::Ike { .. } | Arrival::Site) => {}
                (Fate::Back(after), arrival) => {
                    self.arrivals.insert((self.now + after, self.count), arrival);
                }
                (Fate::Elsewhere(after), Arrival::Echo { id, target, sent, .. }) => {
                    let arrival = Arrival::Echo { id, target, same_path: false, sent };
                    self.arrivals.insert((self.now + after, self.count), arrival);
                }
            }
        }
        while let Some(change) = self.health.poll_change() {
            assert_ne!(change.from, change.to);
            assert_eq!(change.at, self.now);
            self.silences.push(self.answered.map(|answered| self.now.since(answered)));
            self.changes.push(change);
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.changes.iter().map(|change| change.to).collect()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn every(interval: u64) -> HealthSettings {
    HealthSettings { interval: ms(interval), inner_interval: ms(interval), ..HealthSettings::default() }
}

fn at(seconds: f64) -> Moment {
    Moment::ZERO + Duration::from_secs_f64(seconds)
}

fn target(last: u8) -> IpAddr {
    IpAddr::from([10, 9, 0, last])
}

/// A path with this round-trip time, up to a millisecond of jitter, and this loss.
fn line(rtt: u64, loss: u32) -> impl FnMut(Moment, Kind, &mut Chance) -> Fate {
    move |_, _, chance| {
        if chance.below(1000) < loss {
            return Fate::Lost;
        }
        Fate::Back(ms(rtt) + Duration::from_micros(u64::from(chance.below(1000))))
    }
}
