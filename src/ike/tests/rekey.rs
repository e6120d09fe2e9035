use std::sync::Arc;
use std::time::Duration;

use super::pair::*;
use crate::ike::{Event, Phase1, Phase2};
use crate::model::{Chance, Spi};

fn only_child(end: &End) -> Spi {
    assert_eq!(end.children.len(), 1);
    end.children[0].child.inbound
}

#[test]
fn either_end_rekeys_the_child_sa_and_the_old_one_goes_a_second_later() {
    for from_a in [true, false] {
        let mut pair = Pair::up(2);
        let (id, old) = if from_a { (pair.sa_a(), only_child(&pair.a)) } else { (pair.sa_b(), only_child(&pair.b)) };
        let end = if from_a { &mut pair.a } else { &mut pair.b };
        end.endpoint.rekey_child(id, old, pair.now);
        pair.run_for(Duration::from_millis(500));
        for end in [&pair.a, &pair.b] {
            assert_eq!(end.children.len(), 2);
            let new = &end.children[1].child;
            assert_eq!(new.replaces, Some(end.children[0].child.inbound));
        }
        assert_eq!(pair.a.children[1].child.initiator, from_a);
        assert_eq!(pair.b.children[1].child.initiator, !from_a);
        pair.run_for(Duration::from_secs(2));
        assert_ne!(pair.assert_one_child(), old);
        assert!(pair.a.closed().is_none() && pair.b.closed().is_none());
    }
}

#[test]
fn either_end_rekeys_the_ike_sa_and_the_child_sa_stays() {
    for from_a in [true, false] {
        let mut pair = Pair::up(3);
        let child = pair.assert_one_child();
        let id = if from_a { pair.sa_a() } else { pair.sa_b() };
        let end = if from_a { &mut pair.a } else { &mut pair.b };
        end.endpoint.rekey_ike(id, pair.now);
        pair.run_for(Duration::from_secs(3));
        for end in [&pair.a, &pair.b] {
            assert_eq!(end.count(|event| matches!(event, Event::Rekeyed { .. })), 1);
            assert_eq!(end.count(|event| matches!(event, Event::Keys(_))), 2);
        }
        assert_eq!(pair.assert_one_child(), child);
        // The new IKE SA works both ways.
        let answered = |end: &End| end.count(|event| matches!(event, Event::Answered { .. }));
        let before = (answered(&pair.a), answered(&pair.b));
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        pair.a.endpoint.check_liveness(sa_a, pair.now);
        pair.b.endpoint.check_liveness(sa_b, pair.now);
        pair.run_for(Duration::from_secs(1));
        assert_eq!((answered(&pair.a), answered(&pair.b)), (before.0 + 1, before.1 + 1));
    }
}

#[test]
fn both_ends_rekey_the_child_sa_at_once_and_one_successor_remains() {
    for seed in 0..16 {
        let mut pair = Pair::up(seed);
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        let (old_a, old_b) = (only_child(&pair.a), only_child(&pair.b));
        pair.a.endpoint.rekey_child(sa_a, old_a, pair.now);
        pair.b.endpoint.rekey_child(sa_b, old_b, pair.now);
        pair.run_for(Duration::from_secs(4));
        assert_ne!(pair.assert_one_child(), old_a, "seed {seed}");
    }
}

#[test]
fn both_ends_rekey_the_ike_sa_at_once_and_one_successor_remains() {
    for seed in 0..16 {
        let mut pair = Pair::up(seed);
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        let child = pair.assert_one_child();
        pair.a.endpoint.rekey_ike(sa_a, pair.now);
        pair.b.endpoint.rekey_ike(sa_b, pair.now);
        pair.run_for(Duration::from_secs(4));
        assert_eq!(pair.assert_one_child(), child);
        for end in [&pair.a, &pair.b] {
            assert_eq!(end.count(|event| matches!(event, Event::Rekeyed { .. })), 1, "seed {seed}");
        }
        pair.a.endpoint.check_liveness(sa_a, pair.now);
        pair.b.endpoint.check_liveness(sa_b, pair.now);
        pair.run_for(Duration::from_secs(30));
        assert!(pair.a.is_up() && pair.b.is_up());
    }
}

#[test]
fn an_ike_rekey_meets_a_child_rekey_and_both_come_to_pass() {
    for seed in 0..16 {
        let mut pair = Pair::up(seed);
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        let old = only_child(&pair.b);
        pair.a.endpoint.rekey_ike(sa_a, pair.now);
        pair.b.endpoint.rekey_child(sa_b, old, pair.now);
        pair.run_for(Duration::from_secs(8));
        pair.assert_one_child();
        assert_ne!(only_child(&pair.b), old, "seed {seed}");
        assert!(pair.a.has(|event| matches!(event, Event::Rekeyed { .. })), "seed {seed}");
    }
}

#[test]
fn short_lifetimes_rekey_for_an_hour_through_bad_weather() {
    for seed in 0..8 {
        let short = |local, remote| {
            let mut peer = peer(local, remote);
            peer.phase1 = Arc::new(Phase1 { lifetime: Duration::from_secs(47), ..phase1() });
            peer.phase2 = Arc::new(Phase2 { lifetime: Duration::from_secs(20), ..phase2() });
            peer
        };
        let mut pair = Pair::with(seed, short("a", "b"), short("b", "a"));
        pair.weather = Weather { loss: 5, duplication: 5, jitter_ms: 30 };
        pair.initiate();
        for minute in 0..60 {
            pair.run_for(Duration::from_secs(60));
            assert!(pair.a.is_up() && pair.b.is_up(), "seed {seed}, minute {minute}: {:?}", pair.a.closed());
            assert!(pair.a.children.len() <= 4 && pair.b.children.len() <= 4);
        }
        assert!(pair.a.count(|event| matches!(event, Event::Rekeyed { .. })) > 60);
    }
}

#[test]
fn rekeys_without_forward_secrecy_have_no_key_exchange() {
    let without = |local, remote| {
        let mut peer = peer(local, remote);
        peer.phase2 = Arc::new(Phase2 { groups: Vec::new(), ..phase2() });
        peer
    };
    let mut pair = Pair::with(4, without("a", "b"), without("b", "a"));
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    let old = only_child(&pair.a);
    let sa = pair.sa_a();
    pair.a.endpoint.rekey_child(sa, old, pair.now);
    pair.run_for(Duration::from_secs(3));
    assert_ne!(pair.assert_one_child(), old);
}

#[test]
fn whatever_both_ends_ask_for_in_a_storm_ends_in_one_tunnel() {
    for seed in 0..100 {
        let mut pair = Pair::up(seed);
        let mut chance = Chance::from_number(seed);
        pair.weather = Weather { loss: 8, duplication: 10, jitter_ms: 80 };
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        for _ in 0..80 {
            let now = pair.now;
            let from_a = chance.below(2) == 0;
            let (end, sa) = if from_a { (&mut pair.a, sa_a) } else { (&mut pair.b, sa_b) };
            match chance.below(4) {
                0 => end.endpoint.rekey_ike(sa, now),
                1 | 2 => {
                    let which = chance.below(end.children.len() as u32) as usize;
                    let inbound = end.children[which].child.inbound;
                    end.endpoint.rekey_child(sa, inbound, now);
                }
                _ => {
                    end.endpoint.check_liveness(sa, now);
                }
            }
            pair.run_for(Duration::from_millis(u64::from(chance.below(400))));
            assert!(pair.a.is_up() && pair.b.is_up(), "seed {seed}: {:?} {:?}", pair.a.closed(), pair.b.closed());
        }
        pair.weather = FAIR;
        pair.run_for(Duration::from_secs(40));
        pair.assert_one_child();
        let answered = |end: &End| end.count(|event| matches!(event, Event::Answered { .. }));
        let before = (answered(&pair.a), answered(&pair.b));
        pair.a.endpoint.check_liveness(sa_a, pair.now);
        pair.b.endpoint.check_liveness(sa_b, pair.now);
        pair.run_for(Duration::from_secs(1));
        assert_eq!((answered(&pair.a), answered(&pair.b)), (before.0 + 1, before.1 + 1), "seed {seed}");
    }
}
