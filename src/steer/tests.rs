use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::model::{Chance, ConnectorId, Dscp, FlowKey, LinkId, PathId, RuleId, Verdict, WeekMinute, protocol};

const FIBRE: LinkId = LinkId(0);
const DSL: LinkId = LinkId(1);
const LTE: LinkId = LinkId(2);

fn on(path: u16, link: LinkId, verdict: Verdict, weight: u32) -> Candidate {
    Candidate::new(PathId(path), link, verdict, if link == LTE { 2 } else { 1 }, weight)
}

fn flow(number: u64) -> FlowKey {
    let mut chance = Chance::from_number(number);
    FlowKey {
        segment: 0,
        protocol: if chance.below(2) == 0 { protocol::TCP } else { protocol::UDP },
        source: IpAddr::from([10, 20, 0, chance.below(250) as u8]),
        destination: IpAddr::from(chance.bytes::<4>()),
        source_port: 32_768 + chance.below(28_000) as u16,
        destination_port: [53, 80, 443, 5060][chance.below(4) as usize],
    }
}

fn rules(actions: Vec<Action>) -> RuleSet {
    let rule = |(index, action)| rule(&format!("rule {index}"), Matcher::default(), action);
    RuleSet::new(actions.into_iter().enumerate().map(rule).collect(), Vec::new())
}

fn rule(name: &str, matcher: Matcher, action: Action) -> Rule {
    Rule { name: name.into(), place: String::new(), matcher, action }
}

/// The flow's first packet, unmarked.
fn new(key: FlowKey) -> NewFlow {
    NewFlow {
        key,
        dscp: Dscp::DEFAULT,
        connector: ConnectorId(0),
        minute: WeekMinute::default(),
        ends: Ends::default(),
    }
}

fn path_of(rules: &RuleSet, number: u64, candidates: &[Candidate]) -> Option<u16> {
    choose(rules, &new(flow(number)), candidates).path.map(|path| path.0)
}

fn counts(rules: &RuleSet, flows: u64, candidates: &[Candidate]) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for number in 0..flows {
        if let Some(path) = path_of(rules, number, candidates) {
            *counts.entry(path).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn flows_follow_the_weights_within_one_per_cent() {
    use Verdict::Healthy;
    for weights in [[100, 50, 10], [1, 1, 1], [1_000, 30, 5], [100_000, 100_000, 1]] {
        let candidates =
            [on(0, FIBRE, Healthy, weights[0]), on(1, DSL, Healthy, weights[1]), on(7, DSL, Healthy, weights[2])];
        let total = f64::from(weights.iter().sum::<u32>());
        let counted = counts(&RuleSet::default(), 100_000, &candidates);
        for (candidate, told) in candidates.iter().zip(shares(&candidates)) {
            let share = *counted.get(&candidate.path.0).unwrap_or(&0) as f64 / 100_000.0;
            let expected = f64::from(candidate.weight) / total;
            assert!((share - expected).abs() < 0.01, "{weights:?} path {:?}: {share} for {expected}", candidate.path);
            assert!((f64::from(told.1.value()) / 1000.0 - expected).abs() < 0.001, "{told:?} for {expected}");
        }
    }
}

#[test]
fn flows_that_differ_in_one_port_spread_too() {
    let candidates = [on(0, FIBRE, Verdict::Healthy, 1), on(1, DSL, Verdict::Healthy, 1)];
    let mut first = 0;
    for port in 0..20_000 {
        let key = FlowKey { source_port: port, ..flow(1) };
        let choice = choose(&RuleSet::default(), &new(key), &candidates);
        first += u32::from(choice.path == Some(PathId(0)));
    }
    assert!((9_700..10_300).contains(&first), "{first}");
}

#[test]
fn a_path_that_goes_moves_only_its_own_flows() {
    let rules = RuleSet::default();
    let three =
        [on(0, FIBRE, Verdict::Healthy, 100), on(1, DSL, Verdict::Healthy, 50), on(2, DSL, Verdict::Healthy, 25)];
    let without_second = [three[0], three[2]];
    for number in 0..20_000 {
        let before = path_of(&rules, number, &three);
        let after = path_of(&rules, number, &without_second);
        assert!(before == Some(1) || before == after, "flow {number} moved from {before:?} to {after:?}");
    }
}

#[test]
fn a_changed_weight_moves_flows_only_to_or_from_that_path() {
    let rules = RuleSet::default();
    let before = [on(0, FIBRE, Verdict::Healthy, 100), on(1, DSL, Verdict::Healthy, 100)];
    let after = [on(0, FIBRE, Verdict::Healthy, 100), on(1, DSL, Verdict::Healthy, 150)];
    let mut moved = 0;
    for number in 0..50_000 {
        let (old, new) = (path_of(&rules, number, &before), path_of(&rules, number, &after));
        if old != new {
            assert_eq!((old, new), (Some(0), Some(1)));
            moved += 1;
        }
    }
    // From 50 % to 60 %.
    assert!((4_500..5_500).contains(&moved), "{moved} of 50000 moved");
}

#[test]
fn without_a_rule_health_comes_before_preference_and_preference_before_weight() {
    use Verdict::{Degraded, Down, Healthy, Unknown};
    let rules = RuleSet::default();
    // (fibre, dsl, metered lte), the paths that may carry, and the reason given.
    let table = [
        ([Healthy, Healthy, Healthy], vec![0, 1], Why::Share { verdict: Healthy, among: 2 }),
        ([Degraded, Healthy, Healthy], vec![1], Why::Best { verdict: Healthy }),
        ([Degraded, Degraded, Healthy], vec![2], Why::Best { verdict: Healthy }),
        ([Degraded, Unknown, Unknown], vec![1], Why::Best { verdict: Unknown }),
        ([Degraded, Degraded, Degraded], vec![0, 1], Why::Share { verdict: Degraded, among: 2 }),
        ([Down, Degraded, Unknown], vec![2], Why::Best { verdict: Unknown }),
        ([Down, Down, Degraded], vec![2], Why::OnlyCandidate),
        ([Down, Down, Down], vec![], Why::NoCandidate),
    ];
    for (verdicts, expected, why) in table {
        let candidates = [on(0, FIBRE, verdicts[0], 3), on(1, DSL, verdicts[1], 1), on(2, LTE, verdicts[2], 2)];
        let used: Vec<u16> = counts(&rules, 200, &candidates).into_keys().collect();
        assert_eq!(used, expected, "{verdicts:?}");
        assert_eq!(choose(&rules, &new(flow(1)), &candidates).why, why, "{verdicts:?}");
    }
}

#[test]
fn a_rule_prefers_its_links_in_order_but_health_beats_order() {
    use Verdict::{Degraded, Down, Healthy, Unknown};
    let rules = rules(vec![Action::prefer(vec![DSL, LTE])]);
    let link = |link, place, verdict| Why::RuleLink { link, place, verdict };
    let table = [
        ([Healthy, Healthy, Healthy], Some(1), link(DSL, 1, Healthy)),
        ([Healthy, Degraded, Healthy], Some(2), link(LTE, 2, Healthy)),
        ([Healthy, Down, Healthy], Some(2), link(LTE, 2, Healthy)),
        ([Degraded, Degraded, Unknown], Some(2), link(LTE, 2, Unknown)),
        ([Degraded, Degraded, Degraded], Some(1), link(DSL, 1, Degraded)),
        // An unknown link is no reason to leave a preferred one that at least answers.
        ([Unknown, Degraded, Degraded], Some(1), link(DSL, 1, Degraded)),
        ([Healthy, Degraded, Degraded], Some(0), Why::FellBackHealth { verdict: Degraded, among: 1 }),
        ([Healthy, Unknown, Down], Some(0), Why::FellBackHealth { verdict: Unknown, among: 1 }),
        ([Degraded, Down, Down], Some(0), Why::FellBackNoLink { among: 1 }),
        ([Down, Down, Down], None, Why::NoCandidate),
    ];
    for (verdicts, path, why) in table {
        let candidates = [on(0, FIBRE, verdicts[0], 1), on(1, DSL, verdicts[1], 1), on(2, LTE, verdicts[2], 1)];
        for number in 0..20 {
            let choice = choose(&rules, &new(flow(number)), &candidates);
            let expected = (Some(RuleId(0)), path.map(PathId), why);
            assert_eq!((choice.rule, choice.path, choice.why), expected, "{verdicts:?}");
        }
    }
}

#[test]
fn a_strict_rule_refuses_rather_than_use_another_link() {
    use Verdict::{Degraded, Down, Healthy};
    let rules = rules(vec![Action::strict(vec![FIBRE, DSL])]);
    let table = [
        ([Healthy, Healthy, Healthy], Some(0), None),
        ([Degraded, Healthy, Healthy], Some(1), None),
        ([Degraded, Down, Healthy], Some(0), None),
        ([Down, Down, Healthy], None, Some(crate::model::DropReason::Rule)),
        ([Down, Down, Down], None, Some(crate::model::DropReason::NoPath)),
    ];
    for (verdicts, path, dropped) in table {
        let candidates = [on(0, FIBRE, verdicts[0], 1), on(1, DSL, verdicts[1], 1), on(2, LTE, verdicts[2], 1)];
        let choice = choose(&rules, &new(flow(3)), &candidates);
        assert_eq!((choice.path.map(|path| path.0), choice.why.drop_reason()), (path, dropped), "{verdicts:?}");
    }
}

#[test]
fn tunnels_on_one_link_share_a_rule_s_flows_by_weight() {
    let rules = rules(vec![Action::prefer(vec![FIBRE])]);
    let healthy = Verdict::Healthy;
    let candidates = [on(0, FIBRE, healthy, 300), on(1, FIBRE, healthy, 100), on(2, DSL, healthy, 1_000)];
    let counted = counts(&rules, 20_000, &candidates);
    assert_eq!(counted.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert!((14_700..15_300).contains(&counted[&0]), "{counted:?}");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let voice = Matcher {
        protocols: vec![protocol::UDP],
        dscp: vec![Dscp::new(46).unwrap()],
        destination_ports: vec![(16_384, 32_767)],
        ..Matcher::default()
    };
    let lab = Matcher {
        sources: vec!["10.20.9.0/24".parse().unwrap()],
        destinations: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ..Matcher::default()
    };
    let web =
        Matcher { protocols: vec![protocol::TCP], destination_ports: vec![(80, 80), (443, 443)], ..Matcher::default() };
    let from_port = Matcher { source_ports: vec![(5_000, 5_000)], ..Matcher::default() };
    let rules = RuleSet::new(
        vec![
            rule("voice", voice, Action::prefer(vec![DSL])),
            rule("lab", lab, Action::Drop),
            rule("web", web, Action::strict(vec![FIBRE])),
            rule("port", from_port, Action::strict(vec![LTE])),
        ],
        Vec::new(),
    );
    let key = |protocol, source: &str, source_port, destination: &str, destination_port| FlowKey {
        segment: 0,
        protocol,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port,
        destination_port,
    };
    let table = [
        (key(17, "10.20.1.1", 4_000, "192.0.2.1", 16_384), 46, Some(0)),
        (key(17, "10.20.9.1", 4_000, "192.0.2.1", 32_767), 46, Some(0)),
        (key(17, "10.20.9.1", 4_000, "192.0.2.1", 32_767), 0, Some(1)),
        (key(17, "10.20.9.1", 4_000, "192.0.3.1", 32_768), 46, None),
        (key(6, "10.20.9.255", 4_000, "192.0.2.9", 443), 0, Some(1)),
        (key(6, "10.20.8.255", 4_000, "192.0.2.9", 443), 0, Some(2)),
        (key(6, "10.20.8.255", 4_000, "192.0.2.9", 444), 0, None),
        (key(6, "10.20.8.255", 5_000, "192.0.2.9", 444), 0, Some(3)),
        // An echo identifier is not a port.
        (key(1, "10.20.8.255", 5_000, "192.0.2.9", 443), 0, None),
        (key(58, "2001:db8::1", 0, "2001:db8::2", 0), 0, None),
    ];
    for (key, dscp, expected) in table {
        let found = rules.first_match(&NewFlow { dscp: Dscp::new(dscp).unwrap(), ..new(key) }).map(|(rule, _)| rule.0);
        assert_eq!(found, expected, "{key:?}");
    }
}

#[test]
fn shares_add_up_to_the_whole_and_name_idle_paths() {
    use Verdict::{Degraded, Down, Healthy};
    let candidates =
        [on(0, FIBRE, Healthy, 1), on(1, DSL, Healthy, 1), on(2, LTE, Healthy, 1), on(3, FIBRE, Healthy, 1)];
    let told: Vec<(u16, u16)> = shares(&candidates).iter().map(|(path, share)| (path.0, share.value())).collect();
    assert_eq!(told, [(0, 333), (1, 334), (2, 0), (3, 333)]);
    let only_lte = [on(0, FIBRE, Down, 1), on(1, DSL, Degraded, 1), on(2, LTE, Healthy, 1)];
    let told: Vec<u16> = shares(&only_lte).iter().map(|(_, share)| share.value()).collect();
    assert_eq!(told, [0, 0, 1000]);
    assert!(shares(&[on(0, FIBRE, Down, 1)]).iter().all(|(_, share)| share.value() == 0));
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Healthy), Just(Verdict::Unknown), Just(Verdict::Degraded), Just(Verdict::Down)]
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    proptest::collection::vec((0u16..3, any_verdict(), 1u8..4, 0u32..1_000_000), 0..6).prop_map(|parts| {
        let made = |(index, (link, verdict, preference, weight)): (usize, (u16, Verdict, u8, u32))| {
            Candidate::new(PathId(index as u16), LinkId(link), verdict, preference, weight)
        };
        parts.into_iter().enumerate().map(made).collect()
    })
}

fn any_action() -> impl Strategy<Value = Action> {
    let links = proptest::collection::vec((0u16..3).prop_map(LinkId), 0..4);
    prop_oneof![
        links.clone().prop_map(Action::prefer),
        links.prop_map(Action::strict),
        Just(Action::balance()),
        Just(Action::Drop)
    ]
}

proptest! {
    #[test]
    fn no_choice_breaks_the_promises_of_its_rule(
        action in any_action(), candidates in any_candidates(), number in any::<u64>()
    ) {
        let rules = rules(vec![action.clone()]);
        let choice = choose(&rules, &new(flow(number)), &candidates);
        let chosen = choice.path.and_then(|path| candidates.iter().find(|candidate| candidate.path == path));
        prop_assert_eq!(choice.path.is_some(), choice.why.drop_reason().is_none());
        prop_assert_eq!(choice.path.is_some(), chosen.is_some());
        let up = || candidates.iter().filter(|candidate| candidate.verdict != Verdict::Down);
        let any_healthy = up().any(|candidate| candidate.verdict == Verdict::Healthy);
        if let Some(chosen) = chosen {
            prop_assert_ne!(chosen.verdict, Verdict::Down);
            match &action {
                Action::Steer(Steering { links: Links::Strict(links), .. }) => {
                    prop_assert!(links.contains(&chosen.link));
                }
                Action::Steer(_) => prop_assert!(!any_healthy || chosen.verdict == Verdict::Healthy),
                Action::BreakOut(_) | Action::Drop => prop_assert!(false, "dropped flows have no path"),
            }
        } else {
            match &action {
                Action::Steer(Steering { links: Links::Strict(links), .. }) => {
                    prop_assert!(!up().any(|candidate| links.contains(&candidate.link)));
                }
                Action::Steer(_) => prop_assert_eq!(up().count(), 0),
                Action::BreakOut(_) | Action::Drop => {}
            }
        }
        // The order in which candidates are given says nothing.
        let mut turned = candidates.clone();
        turned.reverse();
        let other = choose(&rules, &new(flow(number)), &turned);
        prop_assert_eq!((choice.rule, choice.path, choice.why), (other.rule, other.path, other.why));
    }

    #[test]
    fn shares_of_up_paths_are_whole(candidates in any_candidates()) {
        let told: u32 = shares(&candidates).iter().map(|(_, share)| u32::from(share.value())).sum();
        let any_up = candidates.iter().any(|candidate| candidate.verdict != Verdict::Down);
        prop_assert_eq!(told, if any_up { 1000 } else { 0 });
    }
}
