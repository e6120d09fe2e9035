use std::sync::Arc;
use std::time::Duration;

use super::pair::*;
use crate::ike::{CloseReason, Event, Peer};
use crate::model::{Leg, TrafficSelector};

fn answered(end: &End) -> usize {
    end.count(|event| matches!(event, Event::Answered { .. }))
}

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
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.weather = STORMY;
        pair.initiate();
        pair.run_for(Duration::from_secs(20));
        assert!(pair.a.is_up() && pair.b.is_up(), "seed {seed}");
        pair.assert_one_child();
    }
}

#[test]
fn a_request_that_overtakes_the_answer_of_ike_auth_is_answered_when_it_comes_again() {
    let mut pair = Pair::new(1);
    pair.initiate();
    while pair.b.established().is_none() {
        pair.run_for(Duration::from_millis(5));
    }
    // The answer of IKE_AUTH is lost, and the responder goes on at once.
    pair.a.dead = true;
    pair.run_for(Duration::from_millis(30));
    pair.a.dead = false;
    let sa = pair.sa_b();
    pair.b.endpoint.check_liveness(sa, pair.now);
    pair.run_for(Duration::from_secs(5));
    assert!(pair.a.is_up() && pair.b.is_up());
    assert_eq!(answered(&pair.b), 1);
    pair.run_for(Duration::from_secs(60));
    assert!(pair.b.is_up(), "{:?}", pair.b.closed());
}

#[test]
fn exported_keys_are_the_same_on_both_ends() {
    let pair = Pair::up(1);
    let keys = |end: &End| {
        end.events.iter().find_map(|(_, _, event)| match event {
            Event::Keys(keys) => Some((
                keys.initiator_spi,
                keys.responder_spi,
                keys.encryption_initiator.expose().to_vec(),
                keys.encryption_responder.expose().to_vec(),
            )),
            _ => None,
        })
    };
    assert_eq!(keys(&pair.a), keys(&pair.b));
    assert_eq!(keys(&pair.a).map(|keys| keys.2.len()), Some(36));
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
fn the_responder_narrows_to_what_both_have() {
    let network = |text: &str| TrafficSelector::of_network(text.parse().unwrap());
    let of_a = Peer {
        local_selectors: vec![network("10.1.0.0/16"), network("10.254.0.1/32")],
        remote_selectors: vec![TrafficSelector::ANY_IPV4],
        ..peer("a", "b")
    };
    let of_b = Peer {
        local_selectors: vec![network("10.2.0.0/16"), network("10.3.0.0/16")],
        remote_selectors: vec![network("10.1.4.0/24"), network("10.254.0.0/24")],
        ..peer("b", "a")
    };
    let mut pair = Pair::with(1, of_a, of_b);
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    let selectors = &pair.a.children[0].child.selectors;
    assert_eq!(*selectors.local, [network("10.1.4.0/24"), network("10.254.0.1/32")]);
    assert_eq!(*selectors.remote, [network("10.2.0.0/16"), network("10.3.0.0/16")]);
    // A rekey keeps them.
    let expected = selectors.clone();
    let (sa, old) = (pair.sa_a(), pair.a.children[0].child.inbound);
    pair.a.endpoint.rekey_child(sa, old, pair.now);
    pair.run_for(Duration::from_secs(3));
    pair.assert_one_child();
    assert_eq!(pair.a.children[0].child.selectors, expected);
}

#[test]
fn closing_deletes_everything_on_both_ends() {
    for (seed, weather) in [(1, FAIR), (2, STORMY), (3, STORMY)] {
        let mut pair = Pair::up(seed);
        pair.weather = weather;
        let sa = pair.sa_a();
        pair.a.endpoint.close(sa, "drained", pair.now);
        pair.run_for(Duration::from_secs(5));
        let reason = CloseReason::ClosedLocally { reason: "drained".into() };
        assert_eq!(pair.a.closed(), Some(&reason));
        assert_eq!(pair.b.closed(), Some(&CloseReason::DeletedByPeer));
        assert!(pair.a.children.is_empty() && pair.b.children.is_empty());
        pair.run_for(Duration::from_secs(60));
        assert_eq!((pair.a.endpoint.poll_timeout(), pair.b.endpoint.poll_timeout()), (None, None));
    }
}

#[test]
fn both_ends_close_at_once() {
    let mut pair = Pair::up(1);
    let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
    pair.a.endpoint.close(sa_a, "x", pair.now);
    pair.b.endpoint.close(sa_b, "y", pair.now);
    pair.run_for(Duration::from_secs(5));
    assert!(matches!(pair.a.closed(), Some(CloseReason::ClosedLocally { .. })));
    assert!(matches!(pair.b.closed(), Some(CloseReason::ClosedLocally { .. })));
}

#[test]
fn closing_towards_a_dead_peer_takes_two_seconds() {
    let mut pair = Pair::up(1);
    pair.b.dead = true;
    let sa = pair.sa_a();
    // A request is on its way already, and fills the window.
    pair.a.endpoint.check_liveness(sa, pair.now);
    pair.run_for(Duration::from_millis(100));
    pair.a.endpoint.close(sa, "down", pair.now);
    pair.run_for(Duration::from_millis(2001));
    assert_eq!(pair.a.closed(), Some(&CloseReason::ClosedLocally { reason: "down".into() }));
    assert!(pair.a.children.is_empty());
}

#[test]
fn abandoning_says_nothing_to_the_peer() {
    let mut pair = Pair::up(1);
    let (sa, sent) = (pair.sa_a(), pair.a.sent.len());
    pair.a.endpoint.abandon(sa, "no use");
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.a.sent.len(), sent);
    assert!(pair.a.children.is_empty() && pair.a.closed().is_some());
    assert!(pair.b.is_up());
    assert_eq!(pair.a.endpoint.poll_timeout(), None);
}

#[test]
fn liveness_is_answered_by_both_ends() {
    let mut pair = Pair::up(1);
    for _ in 0..5 {
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        pair.a.endpoint.check_liveness(sa_a, pair.now);
        pair.b.endpoint.check_liveness(sa_b, pair.now);
        pair.run_for(Duration::from_secs(1));
    }
    assert_eq!((answered(&pair.a), answered(&pair.b)), (5, 5));
    assert!(pair.a.has(|event| matches!(
        event,
        Event::Answered { first_sent, last_sent, transmissions: 1, .. } if first_sent == last_sent
    )));
}

#[test]
fn asking_again_sends_the_same_bytes_and_counts_against_no_try() {
    let mut pair = Pair::up(1);
    pair.b.dead = true;
    let sa = pair.sa_a();
    let before = pair.a.sent.len();
    for _ in 0..4 {
        pair.a.endpoint.check_liveness(sa, pair.now);
        pair.run_for(Duration::from_millis(100));
    }
    assert_eq!(pair.a.sent.len(), before + 4);
    assert!(pair.a.sent[before..].iter().all(|sent| *sent == pair.a.sent[before]));
    pair.run_for(Duration::from_secs(40));
    let expected = CloseReason::Unanswered { exchange: "INFORMATIONAL", transmissions: 4 + 5 };
    assert_eq!(pair.a.closed(), Some(&expected));
}

#[test]
fn the_answer_tells_how_often_it_was_asked_for() {
    let mut pair = Pair::up(1);
    let sa = pair.sa_a();
    let asked = pair.now;
    pair.a.endpoint.check_liveness(sa, pair.now);
    pair.run_for(Duration::from_millis(5));
    pair.a.endpoint.check_liveness(sa, pair.now);
    pair.run_for(Duration::from_secs(1));
    assert!(pair.a.has(|event| matches!(
        event,
        Event::Answered { first_sent, last_sent, transmissions: 2, .. }
            if *first_sent == asked && *last_sent == asked + Duration::from_millis(5)
    )));
    assert_eq!(answered(&pair.a), 1);
}

#[test]
fn a_restarted_peer_replaces_its_old_ike_sa() {
    let mut pair = Pair::up(1);
    let old = pair.sa_b();
    // It has forgotten everything, and says so (INITIAL_CONTACT).
    let sa = pair.sa_a();
    pair.a.endpoint.abandon(sa, "restart");
    pair.settle();
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    assert!(
        pair.b
            .events
            .iter()
            .any(|(_, id, event)| *id == old && matches!(event, Event::Closed { reason: CloseReason::Replaced }))
    );
    assert_ne!(pair.sa_b(), old);
    pair.assert_one_child();
}

#[test]
fn a_second_ike_sa_beside_a_live_one_replaces_nothing() {
    let mut pair = Pair::up(1);
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    assert_eq!((pair.a.children.len(), pair.b.children.len()), (2, 2));
    assert!(pair.b.closed().is_none());
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

#[test]
fn the_responder_follows_a_new_address_of_the_initiator() {
    let mut pair = Pair::up(1);
    let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
    pair.a.endpoint.check_liveness(sa_a, pair.now);
    // The request passes a NAT that has changed its mind.
    let (leg, request) = pair.a.endpoint.poll_transmit().unwrap();
    let moved = Leg { local: leg.remote, remote: "203.0.113.9:61000".parse().unwrap(), ..leg };
    pair.inject(false, moved, request);
    pair.run_for(Duration::from_secs(1));
    assert!(pair.b.has(|event| matches!(event, Event::Moved { leg } if *leg == moved)));
    pair.b.endpoint.check_liveness(sa_b, pair.now);
    pair.settle();
    assert_eq!(pair.b.sent.last().unwrap().0, moved);
}

#[test]
fn the_initiator_keeps_to_the_configured_address() {
    let mut pair = Pair::up(1);
    let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
    pair.b.endpoint.check_liveness(sa_b, pair.now);
    let (leg, request) = pair.b.endpoint.poll_transmit().unwrap();
    let moved = Leg { local: leg.remote, remote: "203.0.113.9:61000".parse().unwrap(), ..leg };
    pair.inject(true, moved, request);
    pair.run_for(Duration::from_secs(1));
    assert!(!pair.a.has(|event| matches!(event, Event::Moved { .. })));
    pair.a.endpoint.check_liveness(sa_a, pair.now);
    pair.settle();
    assert_eq!(pair.a.sent.last().unwrap().0.remote.ip(), pair.b.address.ip());
}

#[test]
fn places_for_inbound_sas_come_back_and_run_out_gracefully() {
    let mut pair = Pair::up(1);
    for round in 0..200 {
        let (sa, old) = (pair.sa_a(), pair.a.children[0].child.inbound);
        pair.a.endpoint.rekey_child(sa, old, pair.now);
        pair.run_for(Duration::from_secs(3));
        assert_ne!(pair.assert_one_child(), old, "round {round}");
    }
    // Unless the data plane keeps them: then the tunnel stays as it is.
    let options = crate::ike::EndpointOptions { inbound_slots: 2, ..options() };
    pair.b.endpoint = crate::ike::Endpoint::new(options, crate::model::Chance::from_number(8));
    pair.b.endpoint.set_peer(PATH, Arc::new(peer("b", "a")));
    pair.b.children.clear();
    let sa = pair.sa_a();
    pair.a.endpoint.abandon(sa, "again");
    pair.settle();
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    let (sa, old) = (pair.sa_a(), pair.assert_one_child());
    pair.a.endpoint.rekey_child(sa, old, pair.now);
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.assert_one_child(), old);
}
