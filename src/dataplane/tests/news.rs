use super::*;

#[test]
fn ike_and_keepalives_are_told_from_esp() {
    let (mut edge, _) = pair();
    let message = vec![9; 40];
    let plain = Leg { natt: false, ..leg(0) };
    let marked = [vec![0; 4], message.clone()].concat();
    edge.io.from_wan.extend([(leg(0), 0, marked), (plain, 0, message.clone()), (leg(0), 0, vec![0xff])]);
    edge.io.from_wan.extend([(plain, 0, vec![9; 27]), (leg(0), 0, vec![0; 31])]);
    edge.turn();
    let told = edge.io.news.iter().map(|news| match news {
        ToControl::Ike { leg, bytes, .. } => (leg.natt, bytes.to_vec()),
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [(true, message.clone()), (false, message)]);
    assert_eq!(edge.drops_in(), [(DropReason::NotIpsec, 2)]);
}

fn order(path: u16, target_path: u16, id: u64) -> ToWorker {
    ToWorker::Probe(ProbeOrder {
        path: PathId(path),
        id,
        source: private(false, path),
        target: private(true, target_path),
        length: 0,
    })
}

fn probe_results(end: &mut End) -> Vec<(u64, u16, u16, Moment, Moment)> {
    let results = std::mem::take(&mut end.io.news).into_iter().filter_map(|news| match news {
        ToControl::Probe { id, sent_on, arrived_on, sent, at, .. } => Some((id, sent_on.0, arrived_on.0, sent, at)),
        _ => None,
    });
    results.collect()
}

#[test]
fn a_probe_is_answered_on_its_own_path_and_timed() {
    let (mut edge, mut pop) = pair();
    let sent = edge.now;
    edge.publish(|next| next.paths[1].usable = false);
    edge.io.orders.push_back(order(1, 1, 42));
    edge.turn();
    assert_eq!(edge.io.to_wan[0].0, leg(1), "on exactly the ordered path, usable or not");
    cross(&mut edge, &mut pop);
    edge.now = sent + Duration::from_millis(30);
    cross(&mut pop, &mut edge);
    assert_eq!(probe_results(&mut edge), [(42, 1, 1, sent, edge.now)]);
    assert!(edge.delivered().is_empty() && pop.delivered().is_empty());
    assert_eq!(edge.path(1).live.packets_out.load(Ordering::Relaxed), 0, "probes are no traffic");
    assert_eq!(edge.path(1).live.last_in.load(Ordering::Relaxed), edge.now.as_nanos());
}

#[test]
fn a_probe_answered_over_another_path_says_so() {
    let (mut edge, _) = pair();
    edge.io.orders.push_back(order(1, 1, 42));
    edge.turn();
    // A PoP that returns everything through the newest tunnel, with selectors that allow it.
    let any = || -> Box<[TrafficSelector]> { [TrafficSelector::ANY_IPV4].into() };
    let selectors = Arc::new(Selectors { local: any(), remote: any() });
    let sa = InboundSa::new(spi(2), PathId(2), Encryption::AesGcm256, &key(true, 2), selectors).unwrap();
    edge.crew.published.load().sas.inbound(spi(2)).unwrap().store(Some(Arc::new(sa)));
    let (_, _, request) = edge.io.to_wan.remove(0);
    let reply = echo_reply(&opened(&edge, 1, request));
    edge.io.from_wan.push_back(CarelessPop::on(2).sends(&reply));
    edge.turn();
    assert_eq!(probe_results(&mut edge), [(42, 1, 2, edge.now, edge.now)]);
}

/// What the PoP reads in a datagram of ours.
fn opened(edge: &End, path: u16, mut datagram: Vec<u8>) -> Vec<u8> {
    let selectors = Arc::clone(&edge.path(path).children[0].selectors);
    let sa = InboundSa::new(spi(path), PathId(path), Encryption::AesGcm256, &key(false, path), selectors).unwrap();
    let inner = sa.open(&mut datagram).unwrap().inner;
    datagram[inner].to_vec()
}

fn echo_reply(request: &[u8]) -> Vec<u8> {
    let mut reply = PacketBuf::with_capacity(2_048);
    let parsed = parse(request).unwrap();
    assert!(crate::packet::Echo::read(request, &parsed).unwrap().write_reply(&parsed, &mut reply));
    reply.bytes().to_vec()
}

#[test]
fn an_echo_reply_that_answers_no_probe_of_ours_is_dropped() {
    let (mut edge, _) = pair();
    let mut stranger = Vec::new();
    let builder = PacketBuilder::ipv4([10, 254, 9, 1], [10, 254, 1, 1], 9).icmpv4_echo_reply(0, 1);
    builder.write(&mut stranger, &[7; 26]).unwrap();
    edge.io.from_wan.push_back(CarelessPop::on(0).sends(&stranger));
    edge.turn();
    assert!(probe_results(&mut edge).is_empty());
    assert_eq!(edge.drops_in(), [(DropReason::NotNative, 1)]);
}

#[test]
fn an_sa_that_nears_its_end_is_told_whatever_kind_of_packet_took_it_there() {
    let whole = udp(1);
    let mut cut = udp_between([10, 1, 0, 5], [10, 9, 0, 7], 1, 2, 1_800);
    cut[6] = 0;
    for packet in [whole, with_checksum(cut)] {
        let (mut edge, _) = pair();
        for path in 0..PATHS {
            let forwarding = edge.crew.published.load();
            let sa = forwarding.sas.outbound(OutboundSlot(path)).unwrap().load_full().unwrap();
            sa.skip_to(u64::from(u32::MAX) / 10 * 9);
        }
        edge.send([packet.clone(), packet]);
        let limits = edge.io.news.iter().filter(|news| matches!(news, ToControl::SoftLimit { .. }));
        assert_eq!(limits.count(), 1);
    }
}

#[test]
fn first_use_is_told_once_even_when_control_is_busy() {
    let (mut edge, mut pop) = pair();
    pop.io.control_is_full = true;
    let path = edge.sent_by(udp(1)).unwrap();
    cross(&mut edge, &mut pop);
    pop.io.control_is_full = false;
    pop.turn();
    edge.sent_by(udp(1));
    cross(&mut edge, &mut pop);
    assert!(matches!(&pop.io.news[..], [ToControl::FirstUse { spi: told }] if *told == spi(path)));
}

#[test]
fn a_peer_behind_another_address_is_told_once_for_each_change() {
    let (mut edge, mut pop) = pair();
    let path = edge.sent_by(udp(1)).unwrap();
    cross(&mut edge, &mut pop);
    pop.io.news.clear();
    let moved = |port| SocketAddr::from(([203, 0, 113, 5], port));
    for port in [1024, 1024, 1024, 2048] {
        pop.now = pop.now + Duration::from_secs(2);
        edge.sent_by(udp(1));
        edge.io.to_wan.iter_mut().for_each(|(leg, ..)| leg.local = moved(port));
        cross(&mut edge, &mut pop);
    }
    let told = pop.io.news.iter().map(|news| match news {
        ToControl::Rebind { spi: told, path: on, leg } => (*told, on.0, leg.remote),
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [(spi(path), path, moved(1024)), (spi(path), path, moved(2048))]);
}

// RFC 7296 2.23: the newest packet says where the peer is, not the one that arrives last.
#[test]
fn a_packet_that_others_have_overtaken_never_rebinds() {
    let (mut edge, mut pop) = pair();
    edge.send([udp(1), udp(1), udp(1)]);
    let mut sent = std::mem::take(&mut edge.io.to_wan);
    let mut late = sent.remove(1);
    late.0.local = ([203, 0, 113, 5], 1024).into();
    for sent in [sent, vec![late]] {
        edge.io.to_wan = sent;
        cross(&mut edge, &mut pop);
    }
    assert_eq!(pop.delivered().len(), 3);
    assert!(pop.io.news.iter().all(|news| matches!(news, ToControl::FirstUse { .. })), "{:?}", pop.io.news);
}

#[test]
fn a_forged_datagram_never_rebinds() {
    let (mut edge, mut pop) = pair();
    edge.sent_by(udp(1));
    let (leg, _, bytes) = &mut edge.io.to_wan[0];
    leg.local = ([203, 0, 113, 5], 9).into();
    bytes[40] ^= 1;
    cross(&mut edge, &mut pop);
    assert!(pop.io.news.is_empty());
}

#[test]
fn a_socket_that_refuses_is_counted_for_each_packet_and_told_once() {
    let (mut edge, _) = pair();
    edge.io.broken = Some((UnderlayId(1), 101));
    let left = edge.send((0..300).map(udp));
    let refused = 300 - left.len() as u64;
    assert!(refused > 0 && !left.contains(&1));
    assert_eq!(edge.drops_out(), [(DropReason::SendFailed, refused)]);
    assert_eq!(edge.path(1).live.packets_out.load(Ordering::Relaxed), 0);
    let told: Vec<_> =
        edge.io.news.iter().filter(|news| matches!(news, ToControl::SendError { errno: 101, .. })).collect();
    assert_eq!(told.len(), 1);
}

#[test]
fn a_worker_says_which_generation_it_has_come_to_use() {
    let (mut edge, _) = pair();
    edge.turn();
    assert_eq!(edge.crew.seen[0].load(Ordering::Relaxed), 1);
    edge.publish(|_| {});
    assert_eq!(edge.crew.seen[0].load(Ordering::Relaxed), 1);
    edge.turn();
    assert_eq!(edge.crew.seen[0].load(Ordering::Relaxed), 2);
}

#[test]
fn a_turn_is_bounded_so_that_neither_side_starves() {
    let (mut edge, mut pop) = pair();
    pop.send((0..500).map(udp_back));
    for (leg, tos, bytes) in pop.io.to_wan.drain(..) {
        edge.io.from_wan.push_back((flipped(leg), tos, bytes));
    }
    edge.io.from_site.extend((0..500).map(udp));
    edge.worker.turn(&mut edge.io, edge.now);
    assert_eq!((edge.io.to_site.len(), edge.io.to_wan.len()), (WAN_BATCH, BATCH));
}

#[test]
fn a_probe_for_a_size_leaves_whole_even_beyond_the_mtu_and_its_answer_tells_the_size() {
    let (mut edge, mut pop) = pair();
    let size = MTU + 38;
    let (source, target) = (private(false, 0), private(true, 0));
    edge.io.orders.push_back(ToWorker::Probe(ProbeOrder { path: PathId(0), id: 0, source, target, length: size }));
    edge.turn();
    assert_eq!(edge.io.to_wan.len(), 1);
    cross(&mut edge, &mut pop);
    assert_eq!(pop.io.to_wan.len(), 1);
    cross(&mut pop, &mut edge);
    let told = edge.io.news.iter().find_map(|news| match news {
        ToControl::Probe { length, .. } => Some(*length),
        _ => None,
    });
    assert_eq!((told, edge.drops_out(), pop.drops_out()), (Some(size), vec![], vec![]));
}

#[test]
fn what_control_made_leaves_by_its_path_and_what_answers_it_goes_to_control() {
    let (mut edge, _) = pair();
    let (ours, theirs) = ("10.254.1.1:61500".parse().unwrap(), "10.254.9.1:7".parse().unwrap());
    let question = crate::packet::udp_packet(ours, theirs, b"question").unwrap();
    let sent = crate::forward::SentAt::default();
    let order = InnerOrder { path: PathId(0), packet: question.clone(), sent: Some(sent.clone()) };
    edge.publish(|next| next.paths[0].usable = false);
    edge.io.orders.push_back(ToWorker::Inner(order));
    edge.turn();
    let (way, _, datagram) = edge.io.to_wan.remove(0);
    assert_eq!((way, sent.get()), (leg(0), Some(edge.now)));
    assert_eq!(opened(&edge, 0, datagram), question.to_vec());
    assert_eq!(edge.path(0).live.packets_out.load(Ordering::Relaxed), 0, "questions are no traffic");

    let answer = |port: u16, length: usize| {
        let to = std::net::SocketAddr::new("10.254.1.1".parse().unwrap(), port);
        crate::packet::udp_packet(theirs, to, &vec![1; length]).unwrap().to_vec()
    };
    let pop = CarelessPop::on(0);
    // To another port, and longer than any answer to a question of ours.
    for (port, length) in [(60_999, 9), (61_500, 1_300)] {
        edge.io.from_wan.push_back(pop.sends(&answer(port, length)));
    }
    edge.turn();
    assert!(matches!(edge.io.news.pop(), Some(ToControl::FirstUse { .. })) && edge.io.news.is_empty());
    assert_eq!(edge.drops_in(), [(DropReason::NotNative, 2)]);
    edge.io.from_wan.push_back(pop.sends(&answer(61_500, 9)));
    edge.turn();
    let told = edge.io.news.pop().unwrap();
    let ToControl::Inner { arrived_on: PathId(0), at, packet } = told else { panic!("{told:?}") };
    assert_eq!((at, packet.to_vec()), (edge.now, answer(61_500, 9)));
}

#[test]
fn a_flood_of_answers_does_not_reach_control() {
    let (mut edge, _) = pair();
    let to = "10.254.1.1:61500".parse().unwrap();
    let from = |source: IpAddr| crate::packet::udp_packet(std::net::SocketAddr::new(source, 7), to, b"x").unwrap();
    let pop = CarelessPop::on(0);
    // One whom nobody asked takes nothing from those who were.
    let strangers = from("10.9.0.7".parse().unwrap());
    edge.io.from_wan.extend((0..600).map(|_| pop.sends(&strangers)));
    edge.io.from_wan.extend((0..600).map(|_| pop.sends(&from(ASKED))));
    while !edge.io.from_wan.is_empty() {
        edge.turn();
    }
    let told = edge.io.news.iter().filter(|news| matches!(news, ToControl::Inner { .. }));
    assert_eq!(told.count(), 500);
    assert_eq!(edge.drops_in(), [(DropReason::NotNative, 600), (DropReason::QueueFull, 100)]);
}
