use std::time::Duration;

use super::pair::*;
use crate::ike::Event;
use crate::model::Leg;

#[test]
fn a_tunnel_comes_up_and_both_ends_have_the_same_keys() {
    let pair = Pair::up(1);
    pair.assert_one_child();
    assert!(pair.a.has(|event| matches!(event, Event::Established { initiator: true, leg, .. } if leg.natt)));
    assert!(pair.b.has(|event| matches!(event, Event::Established { initiator: false, leg, .. } if leg.natt)));
    assert_eq!(pair.a.sent.len(), 2);
    assert_eq!(pair.b.sent.len(), 2);
}

#[test]
fn it_comes_up_through_loss_reordering_and_duplication() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        pair.weather = STORMY;
        pair.initiate();
        pair.run_for(Duration::from_secs(20));
        assert!(pair.a.is_up() && pair.b.is_up(), "seed {seed}");
        pair.assert_one_child();
    }
}

#[test]
fn both_ends_may_initiate_at_once() {
    let mut pair = Pair::new(5);
    pair.initiate();
    pair.initiate_from_b();
    pair.run_for(Duration::from_secs(3));
    assert_eq!((pair.a.children.len(), pair.b.children.len()), (2, 2));
}

#[test]
fn a_replayed_request_gets_the_same_answer_and_moves_nothing() {
    let mut pair = Pair::up(6);
    let (leg, request) = pair.a.sent.last().cloned().unwrap();
    let answer = pair.b.sent.last().cloned().unwrap().1;
    let elsewhere = Leg { local: leg.remote, remote: "203.0.113.9:4500".parse().unwrap(), ..leg };
    pair.inject(false, elsewhere, request);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.sent.last().unwrap().1, answer);
    assert!(!pair.b.has(|event| matches!(event, Event::Moved { .. })));
    pair.assert_one_child();
}
