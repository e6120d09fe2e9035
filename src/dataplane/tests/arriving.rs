use super::*;

#[test]
fn a_replayed_datagram_is_counted_and_dropped() {
    let (mut edge, mut pop) = pair();
    edge.sent_by(udp(1));
    let copy = edge.io.to_wan[0].clone();
    edge.io.to_wan.push(copy);
    cross(&mut edge, &mut pop);
    assert_eq!(pop.delivered().len(), 1);
    assert_eq!(pop.drops_in(), [(DropReason::Replayed, 1)]);
}

#[test]
fn each_bad_datagram_is_counted_under_its_reason_and_only_itself_lost() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(Spoil, DropReason); 7] = [
        (|bytes| bytes[30] ^= 1, DropReason::BadTag),
        (|bytes| bytes.truncate(20), DropReason::BadTag),
        (|bytes| bytes.truncate(5), DropReason::BadTag),
        (|bytes| bytes.truncate(3), DropReason::NotIpsec),
        (|bytes| bytes[0] ^= 0x40, DropReason::UnknownSpi),
        (|bytes| bytes[3] ^= 1, DropReason::UnknownSpi),
        (|bytes| bytes[..4].fill(0), DropReason::QueueFull),
    ];
    for (spoil, reason) in cases {
        let (mut edge, mut pop) = pair();
        pop.io.control_is_full = true;
        edge.send((0..10).map(udp));
        spoil(&mut edge.io.to_wan[4].2);
        cross(&mut edge, &mut pop);
        assert_eq!(pop.delivered().len(), 9, "{reason:?}");
        assert_eq!(pop.drops_in(), [(reason, 1)]);
    }
}

#[test]
fn a_packet_that_overtakes_the_answer_to_our_call_waits_for_its_sa_and_not_for_ever() {
    for calling in [true, false] {
        let (mut edge, mut pop) = pair();
        let sas = pop.crew.published.load().sas.clone();
        let take = |path: u16| Some((path, sas.inbound(spi(path))?.swap(None)?));
        let taken: Vec<_> = (0..4).filter_map(take).collect();
        sas.set_calling(calling);
        edge.send((0..3).map(udp));
        cross(&mut edge, &mut pop);
        assert_eq!(pop.delivered(), Vec::<Vec<u8>>::new());
        for (path, sa) in taken {
            sas.inbound(spi(path)).unwrap().store(Some(sa));
        }
        pop.turn();
        let (there, drops) = (pop.delivered().len(), pop.drops_in());
        assert_eq!((there, drops), if calling { (3, vec![]) } else { (0, vec![(DropReason::UnknownSpi, 3)]) });
    }
}

#[test]
fn an_authentic_packet_with_a_false_inside_is_dropped() {
    let everything = || {
        Arc::new(Selectors { local: [TrafficSelector::ANY_IPV4].into(), remote: [TrafficSelector::ANY_IPV4].into() })
    };
    for (packet, wide, reason) in [
        (udp_between([10, 8, 0, 7], [10, 1, 0, 5], 1, 2, 10), false, DropReason::SelectorMismatch),
        (udp_between([10, 9, 0, 7], [10, 2, 0, 5], 1, 2, 10), false, DropReason::SelectorMismatch),
        (udp_between([10, 8, 0, 7], [10, 1, 0, 5], 1, 2, 10), true, DropReason::SourceMismatch),
        (udp_between([10, 1, 0, 7], [10, 1, 0, 5], 1, 2, 10), true, DropReason::SourceMismatch),
        (udp_between([10, 254, 1, 2], [10, 1, 0, 5], 1, 2, 10), true, DropReason::SourceMismatch),
        (udp_between([10, 9, 0, 7], [10, 2, 0, 5], 1, 2, 10), true, DropReason::NotNative),
        (udp_between([10, 9, 0, 7], [10, 254, 1, 1], 1, 2, 10), true, DropReason::NotNative),
        (udp_back(1)[..100].to_vec(), true, DropReason::BadInner),
    ] {
        let (mut edge, _) = pair();
        if wide {
            let sa = InboundSa::new(spi(1), PathId(1), Encryption::AesGcm256, &key(true, 1), everything()).unwrap();
            edge.crew.published.load().sas.inbound(spi(1)).unwrap().store(Some(Arc::new(sa)));
        }
        edge.io.from_wan.push_back(CarelessPop::on(1).sends(&packet));
        edge.io.from_wan.push_back(CarelessPop::on(2).sends(&udp_back(2)));
        edge.turn();
        assert_eq!(edge.delivered(), [udp_back(2)]);
        assert_eq!(edge.path(1).live.drops_in.get(reason), 1, "{reason:?}: {:?}", edge.drops_in());
        assert_eq!(edge.drops_in(), [(reason, 1)]);
    }
}

#[test]
fn padding_behind_the_inner_packet_is_cut_off() {
    let (mut edge, _) = pair();
    let mut padded = udp_back(1);
    padded.extend([0; 333]);
    edge.io.from_wan.push_back(CarelessPop::on(0).sends(&padded));
    edge.turn();
    assert_eq!(edge.delivered(), [udp_back(1)]);
}

#[test]
fn a_gateway_answers_on_the_path_of_arrival_until_a_rule_speaks() {
    let (mut edge, mut pop) = pair();
    let there = edge.send((0..50).map(udp));
    cross(&mut edge, &mut pop);
    assert_eq!(pop.send((0..50).map(udp_back)), there);
    pop.publish(|next| next.policy_epoch += 1);
    assert_eq!(pop.send((0..50).map(udp_back)), there, "a re-steer without a better path moves nothing");

    let matcher = Matcher::default();
    let rule = Rule { name: "all".into(), place: String::new(), matcher, action: Action::prefer([LinkId(2)]) };
    pop.publish(|next| {
        next.policy_epoch += 1;
        next.rules = Arc::new(RuleSet::new(vec![rule], Vec::new()));
    });
    assert_eq!(pop.send((0..50).map(udp_back)), vec![2; 50]);
}

#[test]
fn a_gateway_leaves_the_path_of_arrival_for_one_in_better_health() {
    let (mut edge, mut pop) = pair();
    let there = edge.sent_by(udp(9)).unwrap();
    cross(&mut edge, &mut pop);
    assert_eq!(pop.sent_by(udp_back(9)), Some(there));
    pop.publish(|next| {
        next.policy_epoch += 1;
        next.paths[usize::from(there)].verdict = Verdict::Degraded;
    });
    assert_ne!(pop.sent_by(udp_back(9)), Some(there));
}

#[test]
fn a_gateway_follows_a_flow_that_comes_to_arrive_elsewhere() {
    let (mut edge, mut pop) = pair();
    let there = edge.sent_by(udp(9)).unwrap();
    cross(&mut edge, &mut pop);
    pop.sent_by(udp_back(9));
    edge.publish(|next| next.paths[usize::from(there)].usable = false);
    let moved = edge.sent_by(udp(9)).unwrap();
    cross(&mut edge, &mut pop);
    assert_ne!(there, moved);
    assert_eq!(pop.sent_by(udp_back(9)), Some(moved));
}

#[test]
fn a_branch_stays_on_its_own_choice_and_counts_what_comes_back_elsewhere() {
    let (mut edge, _) = pair();
    let there = edge.sent_by(udp(9)).unwrap();
    let other = (there + 1) % SECONDARY;
    edge.io.from_wan.push_back(CarelessPop::on(other).sends(&udp_back(9)));
    edge.turn();
    assert_eq!(edge.delivered().len(), 1);
    assert_eq!(edge.path(other).live.asymmetric_in.load(Ordering::Relaxed), 1);
    assert_eq!(edge.sent_by(udp(9)), Some(there));
}

#[test]
fn the_outer_header_carries_dscp_and_ecn_and_congestion_comes_through() {
    let (mut edge, mut pop) = pair();
    let mut packet = udp(1);
    packet[1] = 46 << 2 | Ecn::Capable0.bits();
    edge.send([with_checksum(packet), udp(2)]);
    assert_eq!(edge.io.to_wan.iter().map(|(_, tos, _)| *tos).collect::<Vec<_>>(), [46 << 2 | 2, 0]);
    for (_, tos, _) in &mut edge.io.to_wan {
        *tos |= Ecn::Congested.bits();
    }
    cross(&mut edge, &mut pop);
    let arrived = pop.delivered();
    assert_eq!(arrived.len(), 1, "a sender that does not know ECN loses the packet instead");
    assert_eq!(arrived[0][1], 46 << 2 | 3);
    assert_eq!(arrived[0], with_checksum(arrived[0].clone()));
    assert_eq!(pop.drops_in(), [(DropReason::Congested, 1)]);
}

#[test]
fn an_outer_dscp_hides_the_inner_one_and_leaves_both_ecn_fields_and_the_inner_packet_alone() {
    let (mut edge, mut pop) = pair();
    let cs1 = Dscp::new(8).unwrap();
    edge.publish(|next| next.paths.iter_mut().for_each(|path| path.outer_dscp = Some(cs1)));
    let mut packet = udp(1);
    packet[1] = 46 << 2 | Ecn::Capable0.bits();
    let packet = with_checksum(packet);
    edge.send([packet.clone(), udp(2)]);
    assert_eq!(edge.io.to_wan.iter().map(|(_, tos, _)| *tos).collect::<Vec<_>>(), [8 << 2 | 2, 8 << 2]);
    cross(&mut edge, &mut pop);
    assert_eq!(pop.delivered()[0], packet);
}
