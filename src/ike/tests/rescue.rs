use std::time::Duration;

use super::pair::*;
use crate::ike::{Asked, CloseReason, Event};
use crate::model::{Leg, UnderlayId};

const PAUSE: Duration = Duration::from_millis(50);

/// Up, and then the way from a to b loses everything; the way around does not.
fn cut() -> (Pair, Leg) {
    let mut pair = Pair::up(1);
    pair.run_for(Duration::from_secs(1));
    let around = Leg {
        underlay: UnderlayId(1),
        natt: true,
        local: "203.0.113.7:4500".parse().unwrap(),
        remote: "198.51.100.1:4500".parse().unwrap(),
    };
    pair.weather.loss = 100;
    (pair, around)
}

/// Runs for a while; what a sends around reaches b, and nothing comes back.
fn run_around(pair: &mut Pair, around: Leg, lost: &[usize]) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let mut taken = pair.a.sent.len();
    for _ in 0..60 {
        pair.run_for(Duration::from_millis(10));
        for index in taken..pair.a.sent.len() {
            let (leg, bytes) = pair.a.sent[index].clone();
            if leg == around {
                if !lost.contains(&seen.len()) {
                    let arriving = Leg { underlay: UnderlayId(0), local: leg.remote, remote: leg.local, natt: true };
                    pair.inject(false, arriving, bytes.clone());
                }
                seen.push(bytes);
            }
        }
        taken = pair.a.sent.len();
    }
    seen
}

fn was_deleted(pair: &Pair) -> bool {
    pair.b.closed() == Some(&CloseReason::DeletedByPeer)
}

#[test]
fn the_peer_is_told_around_the_dead_way_request_first_and_then_the_delete() {
    let (mut pair, around) = cut();
    let sa = pair.sa_a();
    // The peer never got this one, and would not take the DELETE without it.
    assert_eq!(pair.a.endpoint.check_liveness(sa, pair.now), Asked::Light);
    pair.settle();
    let request = pair.a.sent.last().unwrap().1.clone();
    pair.run_for(Duration::from_millis(100));
    pair.a.endpoint.rescue(sa, around, PAUSE, "dead", pair.now);
    let seen = run_around(&mut pair, around, &[]);
    assert_eq!(seen.len(), 6, "three times two");
    assert!(seen.iter().step_by(2).all(|bytes| *bytes == request), "byte for byte");
    assert!(seen.iter().skip(1).step_by(2).all(|bytes| *bytes == seen[1] && *bytes != request));
    assert!(was_deleted(&pair));
    assert!(pair.a.closed().is_some_and(|reason| reason.to_string().contains("dead")), "no answer was needed");
    assert!(pair.a.children.is_empty() && pair.b.children.is_empty());
}

#[test]
fn it_works_when_the_way_around_loses_most_of_it() {
    for lost in [&[0, 1, 2, 3][..], &[0, 3][..], &[1, 2, 4][..]] {
        let (mut pair, around) = cut();
        let sa = pair.sa_a();
        pair.a.endpoint.check_liveness(sa, pair.now);
        pair.a.endpoint.rescue(sa, around, PAUSE, "dead", pair.now);
        run_around(&mut pair, around, lost);
        assert!(was_deleted(&pair), "lost {lost:?}");
    }
}

#[test]
fn without_an_outstanding_request_the_delete_comes_at_once() {
    let (mut pair, around) = cut();
    let sa = pair.sa_a();
    pair.a.endpoint.rescue(sa, around, PAUSE, "dead", pair.now);
    let seen = run_around(&mut pair, around, &[0, 1]);
    assert_eq!(seen.len(), 3);
    assert!(was_deleted(&pair));
}

#[test]
fn answers_end_it_sooner_and_tell_over_which_way_they_came() {
    let (mut pair, around) = cut();
    let sa = pair.sa_a();
    pair.a.endpoint.check_liveness(sa, pair.now);
    pair.a.endpoint.rescue(sa, around, PAUSE, "dead", pair.now);
    let started = pair.now;
    // Both directions work around.
    let (mut from_a, mut from_b) = (pair.a.sent.len(), pair.b.sent.len());
    pair.settle();
    for _ in 0..30 {
        let sent = pair.a.sent[from_a..].to_vec();
        for (leg, bytes) in sent {
            if leg == around {
                let arriving = Leg { underlay: UnderlayId(0), local: leg.remote, remote: leg.local, natt: true };
                pair.inject(false, arriving, bytes);
            }
        }
        from_a = pair.a.sent.len();
        let sent = pair.b.sent[from_b..].to_vec();
        for (_, bytes) in sent {
            pair.inject(true, around, bytes);
        }
        from_b = pair.b.sent.len();
        pair.run_for(Duration::from_millis(2));
    }
    assert!(was_deleted(&pair));
    let (closed, _, _) = pair.a.events.iter().find(|(_, _, event)| matches!(event, Event::Closed { .. })).unwrap();
    assert!(closed.since(started) < PAUSE, "both were answered at once");
    assert!(pair.a.has(|event| matches!(event, Event::Answered { leg, .. } if leg.underlay == UnderlayId(1))));
}

#[test]
fn while_it_ends_nothing_else_is_asked() {
    let (mut pair, around) = cut();
    let sa = pair.sa_a();
    pair.a.endpoint.rescue(sa, around, PAUSE, "dead", pair.now);
    let child = pair.a.children[0].child.inbound;
    assert_eq!(pair.a.endpoint.check_liveness(sa, pair.now), Asked::Nothing);
    pair.a.endpoint.rekey_child(sa, child, pair.now);
    pair.a.endpoint.rekey_ike(sa, pair.now);
    pair.a.endpoint.close(sa, "closed as well", pair.now);
    let own = pair.a.sent.len();
    run_around(&mut pair, around, &[]);
    assert!(pair.a.sent[own..].iter().all(|(leg, _)| *leg == around), "nothing on the dead way");
    assert!(was_deleted(&pair));
}

#[test]
fn a_request_of_the_peer_s_is_a_sign_of_life_and_a_repeated_one_is_none() {
    let mut pair = Pair::up(1);
    let asked = |end: &End| end.count(|event| matches!(event, Event::Asked { .. }));
    let before = asked(&pair.a);
    let sa = pair.sa_b();
    pair.b.endpoint.check_liveness(sa, pair.now);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(asked(&pair.a), before + 1);
    let (leg, bytes) = pair.b.sent.last().unwrap().clone();
    pair.inject(true, Leg { local: leg.remote, remote: leg.local, ..leg }, bytes);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(asked(&pair.a), before + 1, "anybody may have kept it");
}
