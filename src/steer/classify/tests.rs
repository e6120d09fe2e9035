use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::row::number;
use super::*;
use crate::model::{ConnectorId, Dscp, FlowKey, InterfaceId, NameId, WeekMinute};
use crate::steer::{Action, Ends, KnownNames, Matcher, Service, SiteId};

/// Few different values, so that rules and flows often meet.
fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (0u8..4, 0u8..4, prop_oneof![Just(0u8), Just(8), Just(23), Just(24), Just(30), Just(32)]).prop_map(
        |(third, last, length)| Ipv4Net::new([10, 0, third, last].into(), length).map(|net| net.trunc().into()),
    );
    let v6 = (0u16..3, 0u16..3, prop_oneof![Just(0u8), Just(32), Just(48), Just(127), Just(128)]).prop_map(
        |(third, last, length)| {
            let address = [0x2001, 0xdb8, third, 0, 0, 0, 0, last];
            Ipv6Net::new(address.into(), length).map(|net| net.trunc().into())
        },
    );
    prop_oneof![4 => v4, 1 => v6].prop_map(|net| net.expect("a length of its family"))
}

fn few<T: std::fmt::Debug + 'static>(one: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![2 => Just(0..1), 1 => Just(1..4)].prop_flat_map({
        let one = one.boxed();
        move |size: std::ops::Range<usize>| proptest::collection::vec(one.clone(), size)
    })
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        (0u16..6, 0u16..4).prop_map(|(first, length)| (first, first + length)),
        Just((0, u16::MAX)),
        Just((u16::MAX, u16::MAX))
    ]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(255)]
}

fn service() -> impl Strategy<Value = Service> {
    (few(network()), few(protocol()), few(ports())).prop_map(|(destinations, protocols, destination_ports)| Service {
        destinations,
        protocols,
        destination_ports,
    })
}

fn minute() -> impl Strategy<Value = WeekMinute> {
    prop_oneof![0u16..5, 10_075u16..10_080].prop_map(|value| WeekMinute::new(value).expect("of the week"))
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let dscp = (0u8..3).prop_map(|value| Dscp::new(value * 31).expect("below 64"));
    let connector = prop_oneof![Just(0u16), Just(1), Just(u16::MAX)].prop_map(ConnectorId);
    let hours = (minute(), minute()).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let name = prop_oneof![Just(1u16), Just(2), Just(u16::MAX)].prop_map(NameId);
    let interface = prop_oneof![Just(0u8), Just(1), Just(u8::MAX)].prop_map(InterfaceId);
    let site = prop_oneof![Just(0u16), Just(1), Just(u16::MAX)].prop_map(SiteId);
    let addresses = (few(network()), few(network()), few(protocol()));
    let rest = (
        few(ports()),
        few(ports()),
        few(dscp),
        few(connector),
        few(hours),
        (few(interface), few(name), few(site)),
        few(service()),
    );
    (addresses, rest).prop_map(
        |(
            (sources, destinations, protocols),
            (source_ports, destination_ports, dscp, connectors, minutes, (interfaces, names, sites), services),
        )| {
            Matcher {
                sources,
                destinations,
                protocols,
                source_ports,
                destination_ports,
                dscp,
                connectors,
                minutes,
                interfaces,
                names,
                sites,
                services,
            }
        },
    )
}

fn flow() -> impl Strategy<Value = NewFlow> {
    let v4 = || [0u8..5, 0u8..5].prop_map(|[third, last]| IpAddr::from([10, 0, third, last]));
    let v6 = || [0u16..4, 0u16..4].prop_map(|[third, last]| IpAddr::from([0x2001, 0xdb8, third, 0, 0, 0, 0, last]));
    let addresses = prop_oneof![4 => (v4(), v4()), 1 => (v6(), v6())];
    let port = || prop_oneof![0u16..10, Just(u16::MAX)];
    let ends = || prop_oneof![Just(0u8), Just(1), Just(u8::MAX)].prop_map(InterfaceId);
    let name = || prop_oneof![3 => Just(0u16), 1 => Just(1), 1 => Just(2), 1 => Just(u16::MAX)].prop_map(NameId);
    let ends = || {
        (ends(), [name(), name()], 0u16..3).prop_map(|(interface, [first, second], site)| {
            let names = [first, second].into_iter().filter(|name| name.0 != 0);
            Ends { site: SiteId(site), interface, names: KnownNames::new(names) }
        })
    };
    let marks = ((0u8..3), prop_oneof![Just(0u16), Just(1), Just(u16::MAX)], minute(), ends());
    (addresses, protocol(), port(), port(), marks).prop_map(
        |((source, destination), protocol, source_port, destination_port, (dscp, connector, minute, ends))| NewFlow {
            key: FlowKey { segment: 0, protocol, source, destination, source_port, destination_port },
            dscp: Dscp::new(dscp * 31).expect("below 64"),
            connector: ConnectorId(connector),
            minute,
            ends,
        },
    )
}

/// The flow's value on each axis.
fn values_of(flow: &NewFlow) -> [u128; AXES] {
    let key = &flow.key;
    [
        number(key.source),
        number(key.destination),
        key.protocol.into(),
        key.source_port.into(),
        key.destination_port.into(),
        flow.dscp.value().into(),
        flow.connector.0.into(),
        flow.minute.value().into(),
        flow.ends.interface.0.into(),
        flow.ends.names.iter().next().unwrap_or_default().0.into(),
        flow.ends.site.0.into(),
    ]
}

fn contains(row: &Row, flow: &NewFlow) -> bool {
    // A row holds a flow by any of its names.
    let with_name = |name: NameId| Ends { names: KnownNames::new([name]), ..flow.ends };
    if flow.ends.names.iter().count() > 1 {
        return flow.ends.names.iter().any(|name| contains(row, &NewFlow { ends: with_name(name), ..*flow }));
    }
    let families = [flow.key.source, flow.key.destination].map(Family::of);
    families == [row.family; 2] && row.axes.iter().zip(values_of(flow)).all(|(ranges, value)| ranges.contains(value))
}

fn rule(matcher: Matcher) -> Rule {
    Rule { name: "one".into(), place: String::new(), matcher, action: Action::Drop }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Up to 300 rules: more than one word of rows, and with services sometimes several hundred rows.
    #[test]
    fn the_classifier_finds_the_rule_that_trying_one_after_another_finds(
        matchers in proptest::collection::vec(matcher(), 0..300),
        flows in proptest::collection::vec(flow(), 200),
    ) {
        let rules: Vec<Rule> = matchers.into_iter().map(rule).collect();
        let classifier = Classifier::new(&rules).expect("few rules");
        for flow in &flows {
            let found = classifier.first_match(flow);
            let first = rules.iter().position(|rule| rule.matcher.matches(flow));
            prop_assert_eq!(found, first.map(|index| index as u32), "{:?}", flow);
        }
    }

    #[test]
    fn the_rows_of_a_matcher_say_together_what_it_says(
        matcher in matcher(), flows in proptest::collection::vec(flow(), 50)
    ) {
        let rows = Row::all_of(&matcher);
        for sample in matcher.samples() {
            prop_assert!(matcher.matches(&sample), "{:?}", sample);
        }
        for flow in &flows {
            prop_assert_eq!(rows.iter().any(|row| contains(row, flow)), matcher.matches(flow), "{:?}", flow);
        }
    }

    #[test]
    fn taking_a_row_away_leaves_exactly_the_rest(
        left in matcher(), right in matcher(), flows in proptest::collection::vec(flow(), 50)
    ) {
        for one in Row::all_of(&left) {
            for other in Row::all_of(&right) {
                let rest = one.without(&other);
                prop_assert_eq!(rest.is_empty(), one.is_within(&other));
                // A flow of two names is in a row by either, so it can be in the rest by the one and in what was
                // taken by the other.
                for flow in flows.iter().filter(|flow| flow.ends.names.iter().count() < 2) {
                    let parts = rest.iter().filter(|part| contains(part, flow)).count();
                    prop_assert_eq!(parts, usize::from(contains(&one, flow) && !contains(&other, flow)));
                }
            }
        }
    }
}

/// Thousands of rows: several words of summary.
#[test]
fn many_rules_are_told_apart_by_any_axis() {
    let net = |number: u32| IpNet::from(Ipv4Net::new((0x0a00_0000 + number * 256).into(), 24).expect("a length"));
    let matcher = |number: u16| match number % 3 {
        0 => Matcher { destinations: vec![net(number.into())], ..Matcher::default() },
        1 => Matcher { destination_ports: vec![(number, number)], ..Matcher::default() },
        _ => Matcher { sources: vec![net(number.into())], protocols: vec![17], ..Matcher::default() },
    };
    let rules: Vec<Rule> = (0..9_000).map(|number| rule(matcher(number))).collect();
    let classifier = Classifier::new(&rules).expect("they are simple");
    let flow = |source: u32, destination: u32, port: u16, protocol: u8| NewFlow {
        key: FlowKey {
            segment: 0,
            protocol,
            source: IpAddr::V4((0x0a00_0000 + source * 256 + 5).into()),
            destination: IpAddr::V4((0x0a00_0000 + destination * 256 + 7).into()),
            source_port: 1,
            destination_port: port,
        },
        dscp: Dscp::DEFAULT,
        connector: ConnectorId(0),
        minute: WeekMinute::default(),
        ends: Ends::default(),
    };
    assert_eq!(classifier.first_match(&flow(0, 8_997, 8_998, 6)), Some(8_997));
    assert_eq!(classifier.first_match(&flow(0, 8_996, 8_998, 6)), Some(8_998));
    assert_eq!(classifier.first_match(&flow(8_999, 1, 0, 17)), Some(8_999));
    assert_eq!(classifier.first_match(&flow(8_999, 1, 0, 6)), None);
    for number in (0..9_000u16).step_by(97) {
        let flow = flow(number.into(), number.into(), number, 17);
        let first = rules.iter().position(|rule| rule.matcher.matches(&flow));
        assert_eq!(classifier.first_match(&flow), first.map(|index| index as u32), "{number}");
    }
}

#[test]
fn a_rule_for_the_very_last_address_has_a_flow_that_shows_it() {
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128".parse().unwrap();
    let matcher = Matcher { destinations: vec![last, "255.255.255.255/32".parse().unwrap()], ..Matcher::default() };
    let samples: Vec<NewFlow> = matcher.samples().collect();
    assert!(samples.len() == 2 && samples.iter().all(|flow| matcher.matches(flow)), "{samples:?}");
}
