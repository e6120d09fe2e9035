use super::*;
use crate::edge::flow_status::flow_status;
use crate::esp::largest_inner_with;
use crate::forward::{FlowReport, Refusal, Refused, SaTable, ToControl};
use crate::ike::{Event, SaId};
use crate::model::{DropReason, Dscp, FlowKey, RuleId};
use crate::steer::{Action, Matcher, Rule, RuleSet, Why};

/// One end with its tunnel up.
fn up() -> Pair {
    let mut pair = Pair::new([plan(0, Mode::Initiator), plan(1, Mode::Responder)]);
    assert!(pair.run(15 * SECOND).both_healthy(), "{}", pair.story());
    pair
}

/// Hands an event of the tunnel's IKE SA to the first end.
fn tell(pair: &mut Pair, event: Event) {
    let now = pair.now;
    // Its number is the first that the end gave.
    pair.ends[0].with_tunnel(0, now, |tunnel, context| tunnel.handle_ike_event(SaId(1), event, context));
    pair.ends[0].settle(now);
    pair.drain(0);
}

#[test]
fn flows_choose_again_when_one_of_several_child_sas_goes() {
    let mut pair = up();
    let first = pair.ends[0].tunnels[0].children().next().map(|child| child.current()).unwrap();
    let second = Spi::of_slot(9, 1);
    tell(&mut pair, Event::ChildEstablished(Box::new(child(second, None, [network(0), TrafficSelector::ANY_IPV4]))));
    let before = pair.published[0].last().unwrap().paths[0].clone();
    assert_eq!(before.children.len(), 2);
    tell(&mut pair, Event::ChildDeleted { inbound: first, reason: "the peer has no more use for it".to_owned() });
    let after = &pair.published[0].last().unwrap().paths[0];
    // What was the second is the first now: a flow that was pinned to the first must not take it.
    assert_eq!((after.children.len(), after.children[0].slot), (1, before.children[1].slot));
    assert_ne!(after.epoch, before.epoch);
}

#[test]
fn selectors_that_a_rekey_has_narrowed_are_published() {
    let mut pair = up();
    let first = pair.ends[0].tunnels[0].children().next().map(|child| child.current()).unwrap();
    let narrow = TrafficSelector::of_network("10.1.2.0/24".parse().unwrap());
    let successor = child(Spi::of_slot(9, 1), Some(first), [network(0), narrow]);
    tell(&mut pair, Event::ChildEstablished(Box::new(successor)));
    let path = &pair.published[0].last().unwrap().paths[0];
    assert_eq!(path.children[0].selectors.remote.as_ref(), [narrow]);
}

#[test]
fn another_mtu_of_the_wan_is_published() {
    let mut pair = up();
    let before = pair.published[0].last().unwrap().paths[0].mtu;
    let now = pair.now;
    pair.ends[0].handle_underlay(UnderlayId(0), Some(fact(0, 1400)), now);
    pair.drain(0);
    let after = pair.published[0].last().unwrap().paths[0].mtu;
    assert!(after < before && after > 1200, "{before} became {after}");
}

#[test]
fn the_inner_mtu_is_what_the_smallest_wan_of_both_roles_leaves_with_the_worst_suite_allowed() {
    let mut plan = plan(0, Mode::Initiator);
    // The second role goes over a second WAN, and may use other ciphers.
    let phase2 = Phase2 { encryption: Encryption::ALL.to_vec(), ..(*plan.tunnels[0].phase2).clone() };
    let second =
        TunnelPlan { role: Role::Secondary, link: LinkId(1), phase2: Arc::new(phase2), ..plan.tunnels[0].clone() };
    plan.tunnels.push(second);
    plan.links.push(LinkPlan { underlay: UnderlayId(1), ..plan.links[0].clone() });
    plan.underlays.push(plan.underlays[0].clone());
    plan.connectors[0].roles[1] = Some(RolePlan { pop_location: None, tunnels: vec![PathId(1)] });
    let suites: Vec<_> = plan.tunnels[1].phase2.suites().collect();
    assert!(!suites.is_empty());
    for outer in [1_500, 1_400, 1_280] {
        let left = suites.iter().map(|suite| largest_inner_with(*suite, outer, true)).min();
        assert_eq!(Some(usize::from(plan.inner_mtu(ConnectorId(0), outer as u16))), left);
        assert_eq!(plan.device_mtu(outer as u16), plan.inner_mtu(ConnectorId(0), outer as u16));
        assert_eq!(plan.narrow_ranges(outer as u16), []);
    }
    // Jumbo frames stop at the next router that has none.
    assert_eq!(plan.inner_mtu(ConnectorId(0), 9_000), plan.inner_mtu(ConnectorId(0), 1_500));

    let wanted = plan.inner_mtu(ConnectorId(0), 1_400);
    let (mut edge, _) = Edge::new(Arc::new(plan), Backends::only(Backend::AwsLc), false, [1; 32], Moment::ZERO);
    let mut published = None;
    for (underlay, mtu) in [(0, 1_500), (1, 1_400)] {
        edge.handle_underlay(UnderlayId(underlay), Some(fact(0, mtu)), Moment::ZERO);
    }
    while let Some(effect) = edge.poll_effect() {
        if let Effect::Publish(forwarding) = effect {
            published = Some(forwarding);
        }
    }
    let paths = &published.expect("a new MTU is published").paths;
    assert_eq!(paths.iter().map(|path| path.mtu).collect::<Vec<_>>(), [wanted; 2]);
}

/// The first end looks for the path's MTU, by probes to the far end's private address.
fn searching() -> Pair {
    let mut plans = [plan(0, Mode::Initiator), plan(1, Mode::Responder)];
    plans[0].connectors[0].pmtu_discovery = true;
    plans[0].tunnels[0].private_local = Some("10.0.255.1/30".parse().unwrap());
    plans[0].tunnels[0].probes = ProbePlan::icmp("10.1.255.1".parse().unwrap());
    let mut pair = Pair::new(plans);
    while !pair.tunnel(0).usable {
        pair.run(Duration::from_millis(10));
    }
    // The first probe is on its way.
    pair.run(Duration::from_millis(10));
    pair
}

/// Answers a probe for a size, as if it had come through.
fn answer(pair: &mut Pair, length: u16) {
    let (now, path) = (pair.now, PathId(0));
    let target = "10.1.255.1".parse().unwrap();
    let answer = ToControl::Probe { id: 0, target, sent_on: path, arrived_on: path, sent: now, at: now, length };
    pair.ends[0].handle_message(answer, now);
    pair.drain(0);
}

#[test]
fn a_packet_that_the_host_refuses_as_too_large_lowers_the_mtu_of_its_path_at_once() {
    let mut pair = searching();
    let mtu = |pair: &Pair| pair.published[0].last().unwrap().paths[0].mtu;
    let full = mtu(&pair);
    answer(&mut pair, full);
    assert_eq!((mtu(&pair), pair.tunnel(0).path_mtu), (full, Some(full)));
    let leg = pair.ends[0].tunnels[0].leg().unwrap();
    let now = pair.now;
    pair.ends[0].handle_message(ToControl::SendError { leg, errno: 1 }, now);
    pair.drain(0);
    assert_eq!(mtu(&pair), full);
    pair.ends[0].handle_message(ToControl::SendError { leg, errno: 90 }, now);
    pair.drain(0);
    assert_eq!((mtu(&pair), pair.tunnel(0).mtu, pair.tunnel(0).path_mtu), (1_200, Some(1_200), None));
}

#[test]
fn without_discovery_nothing_is_looked_for() {
    let mut pair = up();
    let leg = pair.ends[0].tunnels[0].leg().unwrap();
    let (before, now) = (pair.tunnel(0).mtu, pair.now);
    pair.ends[0].handle_message(ToControl::SendError { leg, errno: 90 }, now);
    pair.drain(0);
    assert_eq!((pair.tunnel(0).mtu, pair.tunnel(0).path_mtu), (before, None));
}

#[test]
fn the_device_takes_what_the_widest_connector_carries_and_the_routes_to_others_say_less() {
    let mut plan = plan(0, Mode::Initiator);
    let range = |text: &str| vec![LabelledRange { label: String::new(), range: text.parse().unwrap() }];
    plan.connectors[0].ranges = range("10.1.0.0/16");
    plan.connectors.push(ConnectorPlan {
        mtu: Some(1_300),
        ranges: range("10.2.0.0/16"),
        ..plan.connectors[0].clone()
    });
    let wide = plan.inner_mtu(ConnectorId(0), 1_500);
    assert_eq!((plan.device_mtu(1_500), plan.smallest_inner_mtu(1_500)), (wide, 1_300));
    assert_eq!(plan.narrow_ranges(1_500), [("10.2.0.0/16".parse().unwrap(), 1_300)]);
    // One default route for all leaves no choice.
    plan.connectors[0].ranges.clear();
    assert_eq!((plan.device_mtu(1_500), plan.narrow_ranges(1_500)), (1_300, vec![]));
}

#[test]
fn a_refused_flow_has_no_tunnel_and_says_why_and_by_which_rule() {
    let mut plan = plan(0, Mode::Initiator);
    let rule = |name: &str| Rule {
        name: name.to_owned(),
        place: String::new(),
        matcher: Matcher::default(),
        action: Action::balance(),
    };
    plan.rules = Arc::new(RuleSet::new(vec![rule("before"), rule("now")], Vec::new()));
    let (drops, forgotten) = (DropCounters::default(), Forgotten::default());
    let facts = StatusFacts {
        unix_ms_at_zero: 0,
        started: Moment::ZERO,
        drops: &drops,
        flows: 1,
        flow_limit: 1,
        forgotten: &forgotten,
        workers: &[],
    };
    let told = |refused: Option<Refused>| {
        let flow = FlowReport {
            key: FlowKey {
                segment: 0,
                protocol: 17,
                source: [10, 0, 0, 1].into(),
                destination: [10, 1, 0, 1].into(),
                source_port: 1,
                destination_port: 2,
            },
            dscp: Dscp::DEFAULT,
            path: Some(PathId(0)),
            refusal: refused.map(|refused| Refusal { refused, since: Moment::ZERO, until: None }),
            breakout: None,
            names: Default::default(),
            arrived_on: None,
            rule: Some(RuleId(0)),
            why: Why::OnlyCandidate,
            first: Moment::ZERO,
            last: Moment::ZERO,
            bytes: 0,
            packets: 0,
            moves: 0,
            history: Default::default(),
        };
        let told = flow_status(&flow, &plan, &facts);
        assert_eq!(told.refused, refused.is_some());
        (told.tunnel, told.link, told.rule, told.why)
    };
    let some = |text: &str| Some(text.to_owned());
    let well = "the only path that is up".to_owned();
    assert_eq!(told(None), (some("far/primary/fibre"), some("fibre"), some("before"), well));
    let refused = |reason, rule, why| told(Some(Refused { reason, rule, why }));
    let by_rule = "refused: no link that the rule allows has a path that is up".to_owned();
    let strict = refused(DropReason::Rule, Some(RuleId(1)), Why::StrictNoLink);
    assert_eq!(strict, (None, None, some("now"), by_rule));
    for reason in [DropReason::NoSelector, DropReason::NoRoute, DropReason::NotNative, DropReason::NoPath] {
        let (tunnel, link, rule, why) = refused(reason, None, Why::NoCandidate);
        assert_eq!((tunnel, link, rule), (None, None, None));
        assert!(why.starts_with("refused: "), "{reason:?}: {why}");
    }
}

#[test]
fn what_the_hosts_own_routes_lead_elsewhere_is_explained_by_them_and_not_refused() {
    let mut plan = plan(0, Mode::Initiator);
    let range = |text: &str| LabelledRange { label: String::new(), range: text.parse().unwrap() };
    plan.site.native = vec!["10.0.0.0/16".parse().unwrap()];
    plan.connectors[0].ranges = vec![range("10.1.0.0/16"), range("10.0.9.0/24")];
    let (drops, forgotten) = (DropCounters::default(), Forgotten::default());
    let facts = StatusFacts {
        unix_ms_at_zero: 0,
        started: Moment::ZERO,
        drops: &drops,
        flows: 0,
        flow_limit: 1,
        forgotten: &forgotten,
        workers: &[],
    };
    let told = |plan: &Plan, source: [u8; 4], destination: [u8; 4]| {
        let pair = Pair::new([plan.clone(), super::plan(1, Mode::Responder)]);
        let forwarding = blank(plan, &Arc::new(SaTable::new(1, 1)));
        let (source, destination) = (source.into(), destination.into());
        let key = FlowKey { segment: 0, protocol: 17, source, destination, source_port: 1, destination_port: 2 };
        let told = pair.ends[0].explain(&forwarding, key, None, None, &facts, Moment::ZERO);
        (told.by_host, told.connector.is_some(), told.why)
    };
    let (site, stranger) = ([10, 0, 0, 5], [192, 168, 0, 5]);
    let no_range =
        "not through Trefoil: no connector's network ranges contain the destination, so the host's own routes lead it";
    let native =
        "not through Trefoil: the destination is in the site's native ranges, so the host's own routes lead it";
    for source in [site, stranger] {
        assert_eq!(told(&plan, source, [203, 0, 113, 9]), (true, false, no_range.to_owned()));
        assert_eq!(told(&plan, source, [10, 0, 8, 1]), (true, false, native.to_owned()));
    }
    let to_range = |destination| told(&plan, site, destination);
    assert_eq!(to_range([10, 0, 9, 1]), (false, true, "refused: no path is up".to_owned()), "more closely");
    assert_eq!(told(&plan, stranger, [10, 1, 0, 1]).2, "refused: the source is not in the site's native ranges");
    plan.connectors[0].ranges.clear();
    assert_eq!(told(&plan, site, [203, 0, 113, 9]), (false, true, "refused: no path is up".to_owned()), "everything");
    assert_eq!(told(&plan, site, [10, 0, 9, 1]), (true, false, native.to_owned()));
}
