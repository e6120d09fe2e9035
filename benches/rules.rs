//! What it costs a new flow to find its rule. A packet of a known flow does not ask.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use trefoil::model::{Chance, ConnectorId, Dscp, FlowKey, WeekMinute, protocol};
use trefoil::steer::{Action, Ends, Matcher, NewFlow, Rule, RuleSet, Service};

fn net(chance: &mut Chance, length: u8) -> IpNet {
    let address = Ipv4Addr::from([10, chance.below(64) as u8, chance.below(256) as u8, chance.below(256) as u8]);
    Ipv4Net::new(address, length).expect("a length of IPv4").trunc().into()
}

/// What the rules of a large site look like: servers and their ports, subnets, hosts, markings,
/// applications.
fn mixed(number: u64, chance: &mut Chance) -> Matcher {
    let port = |chance: &mut Chance| [22, 80, 443, 1433, 3306, 3389, 5060, 8080][chance.below(8) as usize];
    let base = Matcher::default();
    match number % 8 {
        0 | 1 => {
            let ports = vec![(port(chance), port(chance))].into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let destinations = vec![net(chance, 24)];
            Matcher { destinations, protocols: vec![protocol::TCP], destination_ports: ports, ..base }
        }
        2 => Matcher { sources: vec![net(chance, 24)], destinations: vec![net(chance, 16)], ..base },
        3 => Matcher { destinations: vec![net(chance, 32)], ..base },
        4 => Matcher { sources: vec![net(chance, 28)], destination_ports: vec![(port(chance), 9_000)], ..base },
        5 => Matcher { sources: vec![net(chance, 32)], dscp: vec![Dscp::new(46).expect("below 64")], ..base },
        6 => {
            let first = 10_000 + chance.below(50_000) as u16;
            let (destinations, destination_ports) = (vec![net(chance, 20)], vec![(first, first.saturating_add(500))]);
            Matcher { destinations, protocols: vec![protocol::UDP], destination_ports, ..base }
        }
        _ => {
            let service = |chance: &mut Chance| Service {
                destinations: vec![net(chance, 22), net(chance, 23)],
                protocols: vec![protocol::TCP],
                destination_ports: vec![(443, 443)],
            };
            Matcher { services: vec![service(chance), service(chance)], sources: vec![net(chance, 20)], ..base }
        }
    }
}

/// Every rule would match `UNLUCKY` but for one of its four fields, another one each time: no
/// field alone rules anything out.
fn nearly(number: u64, _: &mut Chance) -> Matcher {
    let host = |third, last| vec![IpNet::from(IpAddr::from([10, 1, third, last]))];
    let other = (number >> 8) as u8;
    let mut matcher = Matcher {
        sources: host(0, 1),
        destinations: host(0, 2),
        protocols: vec![protocol::TCP],
        destination_ports: vec![(443, 443)],
        ..Matcher::default()
    };
    match number % 4 {
        0 => matcher.sources = host(other, 3),
        1 => matcher.destinations = host(other, 3),
        2 => matcher.destination_ports = vec![(1_000 + number as u16, 1_000 + number as u16)],
        _ => matcher.protocols = vec![protocol::UDP],
    }
    matcher
}

/// Ranges of ports that all overlap: no two ports allow the same rules.
fn nested(number: u64, _: &mut Chance) -> Matcher {
    let number = number as u16;
    let source = IpNet::from(IpAddr::from([10, 9, (number >> 8) as u8, number as u8]));
    let ports = vec![(number, u16::MAX - number)];
    Matcher { sources: vec![source], destination_ports: ports, ..Matcher::default() }
}

fn rules(count: u64, make: fn(u64, &mut Chance) -> Matcher) -> RuleSet {
    let mut chance = Chance::from_number(7);
    let rule = |number| Rule {
        name: format!("rule {number}"),
        place: String::new(),
        matcher: make(number, &mut chance),
        action: Action::balance(),
    };
    RuleSet::new((0..count).map(rule).collect(), Vec::new())
}

const UNLUCKY: FlowKey = FlowKey {
    segment: 0,
    protocol: protocol::TCP,
    source: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)),
    destination: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)),
    source_port: 40_000,
    destination_port: 443,
};

fn flow(key: FlowKey) -> NewFlow {
    NewFlow {
        key,
        dscp: Dscp::DEFAULT,
        connector: ConnectorId(0),
        minute: WeekMinute::default(),
        ends: Ends::default(),
    }
}

fn random_flows(count: usize) -> Vec<NewFlow> {
    let mut chance = Chance::from_number(11);
    let address = |chance: &mut Chance| {
        IpAddr::from([10, chance.below(64) as u8, chance.below(256) as u8, chance.below(256) as u8])
    };
    let one = |_| {
        flow(FlowKey {
            segment: 0,
            protocol: if chance.below(3) == 0 { protocol::UDP } else { protocol::TCP },
            source: address(&mut chance),
            destination: address(&mut chance),
            source_port: 32_768 + chance.below(28_000) as u16,
            destination_port: [22, 53, 80, 443, 5060, 8080, 12_000, 50_000][chance.below(8) as usize],
        })
    };
    (0..count).map(one).collect()
}

type Make = fn(u64, &mut Chance) -> Matcher;

fn looking_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("new flow");
    let flows = random_flows(16_384);
    for (mix, make, flows) in [
        ("mixed rules", mixed as Make, &flows[..]),
        ("rules that all nearly match", nearly as Make, &[flow(UNLUCKY)][..]),
        ("port ranges that all overlap", nested as Make, &flows[..]),
    ] {
        for count in [1_000, 10_000] {
            let rules = rules(count, make);
            let matched = flows.iter().filter(|flow| rules.first_match(flow).is_some()).count();
            let kib = rules.compiled_size().expect("these can be compiled") / 1024;
            eprintln!("{count} {mix}: {kib} KiB compiled; {matched} of {} flows match one", flows.len());
            let mut next = flows.iter().cycle();
            group.bench_function(BenchmarkId::new(mix, count), |b| {
                b.iter(|| rules.first_match(black_box(next.next().expect("endless"))).map(|(id, _)| id));
            });
        }
    }
    group.finish();
}

fn compiling(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for count in [1_000, 10_000] {
        let set = rules(count, mixed);
        group.bench_function(BenchmarkId::new("mixed rules", count), |b| {
            b.iter(|| RuleSet::new(set.rules().to_vec(), Vec::new()));
        });
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = looking_up, compiling
}
criterion_main!(all);
