use super::*;
use crate::forward::{BreakoutFace, Forgetting, Refusal};
use crate::steer::Breakout;

#[test]
fn packets_cross_both_ways_unchanged() {
    let (mut edge, mut pop) = pair();
    let there: Vec<_> = (0..200).map(udp).collect();
    edge.send(there.clone());
    cross(&mut edge, &mut pop);
    assert_eq!(sorted(pop.delivered()), sorted(there));

    let back: Vec<_> = (0..200).map(udp_back).collect();
    pop.send(back.clone());
    cross(&mut pop, &mut edge);
    assert_eq!(sorted(edge.delivered()), sorted(back));
    assert_eq!((edge.drops_out(), edge.drops_in(), pop.drops_in(), pop.drops_out()), (vec![], vec![], vec![], vec![]));

    let sum = |end: &End, of: fn(&PathFace) -> &AtomicU64| -> u64 {
        end.crew.published.load().paths.iter().map(|path| of(path).load(Ordering::Relaxed)).sum()
    };
    assert_eq!(sum(&edge, |path| &path.live.packets_out), 200);
    assert_eq!(sum(&edge, |path| &path.live.bytes_out), 200 * 128);
    assert_eq!(sum(&pop, |path| &path.live.packets_in), 200);
    assert_eq!(sum(&pop, |path| &path.live.bytes_in), 200 * 128);
}

fn sorted(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    packets.sort();
    packets
}

#[test]
fn flows_spread_over_the_active_role_and_each_stays_on_its_path() {
    let (mut edge, _) = pair();
    let first = edge.send((0..300).map(udp));
    for path in 0..SECONDARY {
        assert!(first.iter().filter(|used| **used == path).count() > 50, "path {path} has its share");
    }
    assert!(!first.contains(&SECONDARY));
    assert_eq!(edge.send((0..300).map(udp)), first);
    assert_eq!(edge.crew.flows.len(), 300);
}

#[test]
fn a_pinned_flow_ignores_new_weights_until_its_epoch_changes() {
    let (mut edge, _) = pair();
    let first = edge.send((0..100).map(udp));
    let only_first = |next: &mut Forwarding| {
        next.paths[1].preference = 9;
        next.paths[2].preference = 9;
    };
    edge.publish(only_first);
    assert_eq!(edge.send((0..100).map(udp)), first);
    edge.publish(|next| next.policy_epoch += 1);
    assert_eq!(edge.send((0..100).map(udp)), vec![0; 100]);
}

#[test]
fn another_epoch_of_a_path_moves_only_its_own_flows() {
    let (mut edge, _) = pair();
    let first = edge.send((0..100).map(udp));
    edge.publish(|next| {
        next.paths[1].epoch += 1;
        next.paths[1].preference = 9;
    });
    for (before, after) in first.into_iter().zip(edge.send((0..100).map(udp))) {
        assert!(if before == 1 { after != 1 } else { after == before });
    }
}

#[test]
fn a_path_that_goes_down_loses_its_flows_to_the_others_and_only_those_move() {
    let (mut edge, mut pop) = pair();
    let first = edge.send((0..100).map(udp));
    edge.publish(|next| next.paths[0].usable = false);
    let second = edge.send((0..100).map(udp));
    for (before, after) in first.iter().zip(&second) {
        assert!(if *before == 0 { *after != 0 } else { after == before });
    }
    cross(&mut edge, &mut pop);
    assert_eq!(pop.delivered().len(), 200);
}

#[test]
fn flows_follow_the_active_role_there_and_back() {
    let (mut edge, _) = pair();
    let flow = udp(5);
    let first = edge.sent_by(flow.clone());
    edge.publish(|next| next.connectors[0].active = Role::Secondary);
    assert_eq!(edge.sent_by(flow.clone()), Some(SECONDARY));
    edge.publish(|next| next.connectors[0].active = Role::Primary);
    assert_eq!(edge.sent_by(flow), first);
}

#[test]
fn a_full_flow_table_forwards_all_the_same_and_stably() {
    let mut edge = End::with(view(false), 1, FlowTable::with_limit(1, 10), 1);
    let first = edge.send((0..50).map(udp));
    assert_eq!(first.len(), 50);
    assert_eq!(edge.send((0..50).map(udp)), first);
    assert_eq!(edge.crew.flows.len(), 10);
    assert_eq!(edge.crew.flows.forgotten().get(Forgetting::Full), 90);
    assert_eq!(edge.drops_out(), []);
}

#[test]
fn ipv6_crosses_like_ipv4() {
    let (mut edge, mut pop) = pair();
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv6(address("2001:db8:1::5"), address("2001:db8:9::7"), 9).udp(1, 2);
    builder.write(&mut packet, &[7; 99]).unwrap();
    edge.sent_by(packet.clone());
    cross(&mut edge, &mut pop);
    assert_eq!(pop.delivered(), [packet]);
}

#[test]
fn a_rule_decides_the_link() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::prefer([LinkId(2)]));
    assert_eq!(edge.send((0..20).map(udp)), vec![2; 20]);
}

#[test]
fn a_rule_that_drops_tells_the_sender_that_it_is_prohibited() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::Drop);
    assert_eq!(edge.sent_by(udp(1)), None);
    assert_eq!(edge.drops_out(), [(DropReason::Rule, 1)]);
    let answers = edge.delivered();
    assert_eq!(unreachable_code(&answers[0]), Some(icmpv4::DestUnreachableHeader::FilterProhibited));
    assert_eq!(parse(&answers[0]).unwrap().key.destination, IpAddr::from([10, 1, 0, 5]));
}

#[test]
fn a_flow_that_breaks_out_stays_on_its_link_while_that_is_up_and_goes_nowhere_when_none_is() {
    let (mut edge, _) = pair();
    let face = |link: u16| BreakoutFace { usable: true, ..BreakoutFace::new(LinkId(link)) };
    edge.publish(|next| next.breakouts = [face(1), face(2)].into());
    let links = vec![LinkId(2), LinkId(1)];
    with_rule(&edge, Action::BreakOut(Breakout { links, set_dscp: Dscp::new(10) }));
    let up = |edge: &mut End, link: u16, usable: bool| {
        edge.publish(|next| {
            next.breakouts.iter_mut().filter(|face| face.link == LinkId(link)).for_each(|face| face.usable = usable);
        });
    };
    let left = |edge: &mut End, packet: Vec<u8>| {
        assert_eq!(edge.sent_by(packet), None, "never by a tunnel");
        std::mem::take(&mut edge.io.broken_out)
    };
    let first = left(&mut edge, udp(1));
    assert_eq!(first.iter().map(|(link, _)| link.0).collect::<Vec<_>>(), [2]);
    let parsed = parse(&first[0].1).unwrap();
    assert_eq!((parsed.key, parsed.dscp.value()), (parse(&udp(1)).unwrap().key, 10));
    up(&mut edge, 2, false);
    assert_eq!(left(&mut edge, udp(1))[0].0, LinkId(1));
    up(&mut edge, 2, true);
    assert_eq!(left(&mut edge, udp(1))[0].0, LinkId(1), "its connection has that link's address");
    assert_eq!(left(&mut edge, udp(2))[0].0, LinkId(2));
    assert_eq!(edge.crew.published.load().breakout(LinkId(1)).unwrap().live.packets.load(Ordering::Relaxed), 2);
    (1..=2).for_each(|link| up(&mut edge, link, false));
    assert!(left(&mut edge, udp(1)).is_empty() && left(&mut edge, udp(3)).is_empty());
    assert_eq!(edge.drops_out(), [(DropReason::NoBreakout, 2)]);
    assert!(edge.delivered().iter().all(|answer| unreachable_code(answer).is_some()));
    let report = edge.crew.flows.get(&parse(&udp(2)).unwrap().key).unwrap();
    assert_eq!((report.path, report.breakout), (None, Some(LinkId(2))));
}

#[test]
fn without_a_path_packets_are_refused_and_never_leave() {
    let (mut edge, _) = pair();
    edge.publish(|next| next.paths.iter_mut().for_each(|path| path.usable = false));
    assert!(edge.send((0..3).map(udp)).is_empty());
    assert_eq!(edge.drops_out(), [(DropReason::NoPath, 3)]);
    assert!(edge.delivered().iter().all(|answer| unreachable_code(answer).is_some()));
}

#[test]
fn an_sa_that_is_gone_takes_its_path_out_of_the_choice() {
    let (mut edge, _) = pair();
    let first = edge.sent_by(udp(5)).unwrap();
    edge.crew.published.load().sas.outbound(OutboundSlot(first)).unwrap().store(None);
    let second = edge.sent_by(udp(5));
    assert!(second.is_some() && second != Some(first));
}

#[test]
fn refusals_are_limited_in_number() {
    let (mut edge, _) = pair();
    edge.publish(|next| next.paths.iter_mut().for_each(|path| path.usable = false));
    edge.send((0..5_000).map(udp));
    assert_eq!(edge.drops_out(), [(DropReason::NoPath, 5_000)]);
    assert_eq!(edge.delivered().len(), 200);
}

#[test]
fn what_the_selectors_do_not_cover_is_refused() {
    let (mut edge, _) = pair();
    edge.publish(|next| next.routes.insert("10.8.0.0/16".parse().unwrap(), ConnectorId(0)));
    edge.sent_by(udp_between([10, 1, 0, 5], [10, 8, 0, 1], 1, 2, 10));
    assert_eq!(edge.drops_out(), [(DropReason::NoSelector, 1)]);
}

#[test]
fn what_the_site_must_not_send_does_not_leave() {
    for (packet, reason) in [
        (udp_between([10, 2, 0, 5], [10, 9, 0, 7], 1, 2, 10), DropReason::NotNative),
        (udp_between([10, 254, 1, 1], [10, 9, 0, 7], 1, 2, 10), DropReason::NotNative),
        (udp_between([10, 1, 0, 5], [192, 168, 0, 7], 1, 2, 10), DropReason::NoRoute),
        (udp_between([10, 1, 0, 5], [10, 254, 1, 1], 1, 2, 10), DropReason::NoRoute),
        (vec![0x45; 19], DropReason::Malformed),
        (vec![], DropReason::Malformed),
    ] {
        let (mut edge, _) = pair();
        assert_eq!(edge.send([packet, udp(1)]).len(), 1, "the good packet leaves");
        assert_eq!(edge.drops_out(), [(reason, 1)]);
    }
}

#[test]
fn our_own_address_is_no_source_even_without_native_ranges() {
    let (mut edge, _) = pair();
    edge.publish(|next| next.site.native = [].into());
    edge.sent_by(udp_between([10, 254, 1, 1], [10, 9, 0, 7], 1, 2, 10));
    assert_eq!(edge.drops_out(), [(DropReason::NotNative, 1)]);
}

#[test]
fn a_packet_too_big_is_answered_with_the_mtu() {
    let (mut edge, _) = pair();
    assert_eq!(edge.sent_by(udp_between([10, 1, 0, 5], [10, 9, 0, 7], 1, 2, 1_400)), None);
    assert_eq!(edge.drops_out(), [(DropReason::TooBig, 1)]);
    let expected = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: MTU };
    assert_eq!(unreachable_code(&edge.delivered()[0]), Some(expected));

    let mut packet = Vec::new();
    let (source, destination) = ("2001:db8:1::5".parse::<std::net::Ipv6Addr>(), "2001:db8:9::7".parse());
    let destination: std::net::Ipv6Addr = destination.unwrap();
    let builder = PacketBuilder::ipv6(source.unwrap().octets(), destination.octets(), 9).udp(1, 2);
    builder.write(&mut packet, &[0; 1_400]).unwrap();
    assert_eq!(edge.sent_by(packet), None);
    let answer = edge.delivered().remove(0);
    let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ip(&answer).unwrap().transport else { panic!() };
    assert_eq!(icmp.icmp_type(), etherparse::Icmpv6Type::PacketTooBig { mtu: u32::from(MTU) });
}

#[test]
fn a_packet_that_may_be_cut_arrives_in_fragments() {
    let (mut edge, mut pop) = pair();
    let mut packet = udp_between([10, 1, 0, 5], [10, 9, 0, 7], 1, 2, 1_800);
    packet[6] = 0;
    let packet = with_checksum(packet);
    assert_eq!(edge.send([packet.clone()]).len(), 2);
    cross(&mut edge, &mut pop);
    let pieces = pop.delivered();
    assert!(pieces.iter().all(|piece| piece.len() <= usize::from(MTU)));
    assert_eq!(pieces.iter().flat_map(|piece| &piece[20..]).copied().collect::<Vec<_>>(), &packet[20..]);
    assert_eq!((edge.drops_out(), pop.drops_in()), (vec![], vec![]));
}

#[test]
fn a_syn_is_clamped_in_both_directions_to_the_smallest_path() {
    let (mut edge, mut pop) = pair();
    for end in [&edge, &pop] {
        end.publish(|next| next.paths[usize::from(SECONDARY)].mtu = 1_300);
    }
    let syn = |source: [u8; 4], destination: [u8; 4]| {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(source, destination, 9).tcp(1, 2, 3, 4).syn();
        builder.options(&[TcpOptionElement::MaximumSegmentSize(1460)]).unwrap().write(&mut packet, &[]).unwrap();
        packet
    };
    let mss = |packet: &[u8]| u16::from_be_bytes([packet[42], packet[43]]);
    edge.sent_by(syn([10, 1, 0, 5], [10, 9, 0, 7]));
    cross(&mut edge, &mut pop);
    assert_eq!(mss(&pop.delivered()[0]), 1_260);

    // A peer that does not clamp: its SYN is clamped where it arrives.
    pop.publish(|next| next.paths.iter_mut().for_each(|path| path.mtu = 9_000));
    pop.sent_by(syn([10, 9, 0, 7], [10, 1, 0, 5]));
    cross(&mut pop, &mut edge);
    assert_eq!(mss(&edge.delivered()[0]), 1_260);
}

#[test]
fn a_rule_marks_every_packet_of_its_flows_inside_and_outside() {
    let (mut edge, mut pop) = pair();
    let ef = Dscp::new(46).unwrap();
    with_rule(&edge, Action::Steer(Steering { set_dscp: Some(ef), ..Steering::default() }));
    let sent: Vec<_> = (0..5).map(udp).collect();
    // The first packet of a flow chooses, the second one finds the flow in the table.
    edge.send(sent.iter().cloned().chain(sent.iter().cloned()));
    assert!(edge.io.to_wan.iter().all(|(_, tos, _)| *tos >> 2 == 46), "the outer header has the mark too");
    cross(&mut edge, &mut pop);
    let arrived = pop.delivered();
    assert_eq!(arrived.len(), 10);
    for packet in &arrived {
        assert_eq!(parse(packet).unwrap().dscp, ef);
        let Some(NetSlice::Ipv4(ip)) = SlicedPacket::from_ip(packet).unwrap().net else { panic!("no IPv4") };
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    }
    let mut unmarked = arrived;
    unmarked.iter_mut().for_each(|packet| crate::packet::set_dscp(packet, Dscp::DEFAULT));
    assert_eq!(sorted(unmarked), sorted([sent.clone(), sent].concat()), "nothing else has changed");
}

#[test]
fn a_rule_counts_each_of_its_flows_once() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::balance());
    edge.send((0..7).map(udp));
    edge.publish(|next| next.policy_epoch += 1);
    edge.send((0..9).map(udp));
    let hits = edge.crew.published.load().rules.hits(RuleId(0));
    assert_eq!((hits.count, hits.last), (9, Some(edge.now)));
}

#[test]
fn a_live_flow_that_its_rule_comes_to_refuse_says_so_until_it_leaves_again() {
    let (mut edge, _) = pair();
    let links = Links::Strict(vec![LinkId(2)]);
    with_rule(&edge, Action::Steer(Steering { links, ..Steering::default() }));
    let (flow, rules) = (udp(5), Arc::clone(&edge.crew.published.load().rules));
    let key = parse(&flow).unwrap().key;
    assert_eq!(edge.send([flow.clone(), flow.clone()]), [2, 2]);
    let well = edge.crew.flows.get(&key).unwrap();
    assert_eq!((well.refused(), well.packets, rules.hits(RuleId(0)).count), (None, 2, 1));

    edge.publish(|next| next.paths[2].usable = false);
    edge.now = edge.now + Duration::from_secs(8);
    assert!(edge.send([flow.clone(), flow.clone(), flow.clone()]).is_empty());
    let told = edge.crew.flows.get(&key).unwrap();
    let refused = Refused { reason: DropReason::Rule, rule: Some(RuleId(0)), why: Why::StrictNoLink };
    assert_eq!(told.refused(), Some(refused));
    assert_eq!((told.bytes, told.packets, told.last), (well.bytes, 2, edge.now), "what was refused has not left");
    let hits = rules.hits(RuleId(0));
    assert_eq!((hits.count, hits.last), (4, Some(edge.now)), "each refused packet is counted");
    assert_eq!(edge.drops_out(), [(DropReason::Rule, 3)]);

    // The path is as it was, with the epochs that the flow was pinned by.
    edge.publish(|next| next.paths[2].usable = true);
    assert_eq!(edge.send([flow.clone(), flow]), [2, 2]);
    let back = edge.crew.flows.get(&key).unwrap();
    assert_eq!((back.refused(), back.packets, back.moves, back.why), (None, 4, 0, well.why));
    assert_eq!(rules.hits(RuleId(0)).count, 4);

    let since = told.refusal.unwrap().since;
    edge.now = edge.now + Duration::from_secs(1);
    edge.publish(|next| next.paths[2].usable = false);
    edge.send([udp(5)]);
    let [once, again] = [back, edge.crew.flows.get(&key).unwrap()].map(|flow| flow.refusal.unwrap());
    assert_eq!(once, Refusal { refused, since, until: Some(since) }, "it is remembered");
    assert_eq!(again, Refusal { refused, since: edge.now, until: None });
}

#[test]
fn a_live_flow_whose_rule_has_no_link_to_break_out_by_says_so() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::BreakOut(Breakout { links: vec![LinkId(1)], set_dscp: None }));
    let usable = |usable: bool| {
        move |next: &mut Forwarding| {
            next.breakouts = [BreakoutFace { link: LinkId(1), usable, live: Arc::default() }].into();
        }
    };
    let key = parse(&udp(5)).unwrap().key;
    let mut refused = Vec::new();
    for up in [true, false, true] {
        edge.publish(usable(up));
        edge.sent_by(udp(5));
        refused.push(edge.crew.flows.get(&key).unwrap().refused().map(|refused| refused.why));
    }
    assert_eq!(refused, [None, Some(Why::NoBreakout), None]);
    assert_eq!(edge.io.broken_out.len(), 2);
}

#[test]
fn each_packet_that_finds_no_path_counts_for_its_rule() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::balance());
    edge.send([udp(5), udp(5)]);
    edge.publish(|next| next.paths.iter_mut().for_each(|path| path.usable = false));
    assert!(edge.send([udp(5), udp(5), udp(6)]).is_empty());
    assert_eq!(edge.crew.published.load().rules.hits(RuleId(0)).count, 4);
}

#[test]
fn a_refused_flow_is_off_preferred_where_tunnels_that_are_well_would_have_it() {
    let (mut edge, _) = pair();
    let links = Links::Strict(vec![LinkId(2)]);
    with_rule(&edge, Action::Steer(Steering { links, ..Steering::default() }));
    let key = parse(&udp(5)).unwrap().key;
    let is_off = |edge: &End| edge.crew.published.load().is_off_preferred(&edge.crew.flows.get(&key).unwrap());
    edge.send([udp(5)]);
    assert!(!is_off(&edge));
    edge.publish(|next| next.paths[2].usable = false);
    edge.send([udp(5)]);
    assert!(is_off(&edge));
    with_rule(&edge, Action::Drop);
    edge.send([udp(5)]);
    assert!(!is_off(&edge));
}
