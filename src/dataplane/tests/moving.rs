use super::*;

/// The edge's flow, as its data plane knows it.
fn known(end: &End, packet: &[u8]) -> FlowReport {
    end.crew.flows.get(&parse(packet).unwrap().key).unwrap()
}

#[test]
fn traffic_that_goes_back_takes_all_flows_but_those_that_a_rule_keeps() {
    for (on_failback, after) in [(OnFailback::Move, 0), (OnFailback::Keep, SECONDARY)] {
        let (mut edge, _) = pair();
        let links = Links::Prefer(vec![LinkId(0)]);
        with_rule(&edge, Action::Steer(Steering { links, on_failback, ..Steering::default() }));
        let flow = udp(5);
        assert_eq!(edge.sent_by(flow.clone()), Some(0));
        let switch = |end: &End, role| {
            end.publish(|next| {
                next.policy_epoch += 1;
                next.connectors[0].active = role;
            });
        };
        switch(&edge, Role::Secondary);
        assert_eq!(edge.sent_by(flow.clone()), Some(SECONDARY), "when traffic goes over, all of it goes");
        switch(&edge, Role::Primary);
        assert_eq!(edge.send([flow.clone(), flow.clone()]), [after, after], "{on_failback:?}");
        assert_eq!(edge.sent_by(udp(6)), Some(0), "new flows go to the role that carries");
        let told = known(&edge, &flow);
        assert_eq!(told.moves, if after == 0 { 2 } else { 1 });
        assert!(told.history.iter().all(|moved| moved.cause == MoveCause::Role));
        // What was kept leaves when its path will do no longer.
        edge.publish(|next| {
            next.paths[usize::from(SECONDARY)].verdict = Verdict::Degraded;
            next.paths[usize::from(SECONDARY)].epoch += 1;
        });
        assert_eq!(edge.sent_by(flow), Some(0));
    }
}

#[test]
fn an_ordered_flow_moves_when_it_pauses_and_stays_there_through_a_re_steer() {
    let (mut edge, _) = pair();
    let flow = udp(5);
    let from = edge.sent_by(flow.clone()).unwrap();
    let to = (from + 1) % SECONDARY;
    let order = MoveOrder {
        key: parse(&flow).unwrap().key,
        from: PathId(from),
        to: PathId(to),
        gap: Duration::from_millis(20),
        by: edge.now + Duration::from_secs(1),
    };
    edge.io.orders.push_back(ToWorker::Move(order));
    edge.now = edge.now + Duration::from_millis(10);
    assert_eq!(edge.sent_by(flow.clone()), Some(from), "it has not paused");
    edge.now = edge.now + Duration::from_millis(20);
    assert_eq!(edge.sent_by(flow.clone()), Some(to));
    edge.publish(|next| next.policy_epoch += 1);
    assert_eq!(edge.sent_by(flow.clone()), Some(to), "no path is better than where it is");
    let told = known(&edge, &flow);
    assert_eq!(told.history.iter().map(|moved| moved.cause).collect::<Vec<_>>(), [MoveCause::Shares]);

    // An order against what the rule asks for is not carried out.
    with_rule(&edge, Action::prefer([LinkId(to)]));
    assert_eq!(edge.sent_by(flow.clone()), Some(to));
    edge.io.orders.push_back(ToWorker::Move(MoveOrder { from: PathId(to), to: PathId(from), ..order }));
    edge.now = edge.now + Duration::from_secs(2);
    assert_eq!(edge.sent_by(flow), Some(to));
}

#[test]
fn a_flow_that_its_path_loses_moves_once_and_says_why() {
    let (mut edge, _) = pair();
    let flow = udp(5);
    let first = edge.sent_by(flow.clone()).unwrap();
    edge.publish(|next| next.paths[usize::from(first)].usable = false);
    let second = edge.sent_by(flow.clone()).unwrap();
    edge.publish(|next| {
        next.policy_epoch += 1;
        next.paths[usize::from(first)].usable = true;
    });
    assert_eq!(edge.sent_by(flow.clone()), Some(second), "where it came from is no better");
    let told = known(&edge, &flow);
    let moved = told.history.first().unwrap();
    assert_eq!((moved.from, moved.to, moved.cause), (PathId(first), PathId(second), MoveCause::PathLost));
    assert_eq!(told.moves, 1);
}

#[test]
fn a_flow_that_waits_for_a_better_path_to_settle_says_why_it_is_where_it_is() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::prefer([LinkId(1)]));
    edge.publish(|next| next.paths[1].usable = false);
    let flow = udp(5);
    let elsewhere = edge.sent_by(flow.clone()).unwrap();
    let why = known(&edge, &flow).why;
    assert!(matches!(why, Why::FellBackNoLink { .. }), "{why:?}");
    let back = |settled: bool| {
        move |next: &mut Forwarding| {
            next.policy_epoch += 1;
            (next.paths[1].usable, next.paths[1].settled) = (true, settled);
        }
    };
    edge.publish(back(false));
    assert_eq!(edge.sent_by(flow.clone()), Some(elsewhere));
    assert_eq!(known(&edge, &flow).why, why, "what would take it elsewhere is no reason to be here");
    edge.now = edge.now + Duration::from_secs(60);
    edge.publish(back(true));
    assert_eq!(edge.sent_by(flow.clone()), Some(1));
    assert!(matches!(known(&edge, &flow).why, Why::RuleLink { .. }));
}

#[test]
fn what_is_asked_about_flows_is_answered_in_steps() {
    let (mut edge, _) = pair();
    with_rule(&edge, Action::prefer([LinkId(1)]));
    edge.send((0..300).map(udp));
    edge.publish(|next| {
        next.policy_epoch += 1;
        next.paths[1].usable = false;
    });
    edge.send((0..20).map(udp));
    let question = FlowQuestion { id: 7, key: None, off_preferred: true, limit: 5 };
    edge.io.orders.push_back(ToWorker::List(question));
    edge.io.orders.push_back(ToWorker::List(FlowQuestion { id: 8, off_preferred: false, ..question }));
    let key = parse(&udp(3)).unwrap().key;
    edge.io.orders.push_back(ToWorker::List(FlowQuestion { id: 9, key: Some(key), ..question }));
    edge.turn();
    let answers: Vec<(u64, usize, u64)> = edge
        .io
        .news
        .iter()
        .map(|news| match news {
            ToControl::Flows { id, flows, matching } => (*id, flows.len(), *matching),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, [(7, 5, 20), (8, 5, 300), (9, 1, 1)]);
}

#[test]
fn a_survey_names_the_flows_that_send_most() {
    let (mut edge, _) = pair();
    edge.send((0..300).map(udp));
    for _ in 0..50 {
        edge.send((0..3).map(udp));
    }
    edge.now = edge.now + Duration::from_secs(5);
    edge.io.orders.push_back(ToWorker::Survey { number: 4 });
    edge.turn();
    let Some(ToControl::Survey { number: 4, flows }) = edge.io.news.last() else { panic!("{:?}", edge.io.news) };
    let mut ports: Vec<u16> = flows.iter().map(|flow| flow.key.source_port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [0, 1, 2]);
    assert!(flows.iter().all(|flow| flow.peers == 0b111 && flow.rate > 1_000), "{flows:?}");
}
