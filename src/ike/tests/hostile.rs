use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::pair::*;
use crate::model::{Leg, UnderlayId};

/// How a recorded datagram is damaged before it is sent again.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    Splice(prop::sample::Index, Vec<u8>),
    Nothing,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1..=255u8).prop_map(|(place, value)| Damage::Flip(place, value)),
        2 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => vec(any::<u8>(), 1..40).prop_map(Damage::Append),
        2 => (any::<prop::sample::Index>(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Splice(at, bytes)),
        1 => Just(Damage::Nothing),
    ]
}

fn damaged(bytes: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Flip(place, value) => {
            let place = place.index(bytes.len());
            bytes[place] ^= value;
        }
        Damage::Cut(place) => bytes.truncate(place.index(bytes.len())),
        Damage::Append(more) => bytes.extend_from_slice(more),
        Damage::Splice(at, more) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Damage::Nothing => {}
    }
    // Half of the time the length field is made to agree, so that the damage gets further in.
    if bytes.len() >= 28 && bytes.len().is_multiple_of(2) {
        let length = (bytes.len() as u32).to_be_bytes();
        bytes[24..28].copy_from_slice(&length);
    }
    bytes
}

/// From an address of the attacker's, and from the peer's own.
fn attack(pair: &mut Pair, to_a: bool, forged: bool, bytes: Vec<u8>) {
    let (from, to) = if to_a { (&pair.b, &pair.a) } else { (&pair.a, &pair.b) };
    let remote = if forged { Pair::legs(from, to).natt.local } else { "203.0.113.66:4500".parse().unwrap() };
    let local = Pair::legs(to, from).natt.local;
    pair.inject(to_a, Leg { underlay: UnderlayId(0), natt: true, local, remote }, bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn damaged_copies_of_real_messages_close_no_established_tunnel(
        seed in 0..1000u64,
        attacks in vec((any::<prop::sample::Index>(), damage(), any::<bool>(), any::<bool>()), 1..40)
    ) {
        let mut pair = Pair::up(seed);
        let (sa_a, sa_b) = (pair.sa_a(), pair.sa_b());
        let (child_a, child_b) = (pair.a.children[0].child.inbound, pair.b.children[0].child.inbound);
        for (round, (which, damage, to_a, forged)) in attacks.into_iter().enumerate() {
            match round {
                5 => pair.a.endpoint.rekey_child(sa_a, child_a, pair.now),
                10 => pair.b.endpoint.rekey_ike(sa_b, pair.now),
                15 => pair.b.endpoint.rekey_child(sa_b, child_b, pair.now),
                _ => {
                    pair.a.endpoint.check_liveness(sa_a, pair.now);
                }
            }
            pair.run_for(Duration::from_millis(10));
            let recorded: Vec<Vec<u8>> = pair.a.sent.iter().chain(&pair.b.sent).map(|sent| sent.1.clone()).collect();
            let bytes = damaged(&recorded[which.index(recorded.len())], &damage);
            attack(&mut pair, to_a, forged, bytes);
            pair.run_for(Duration::from_millis(35));
        }
        pair.run_for(Duration::from_secs(5));
        prop_assert!(pair.a.is_up() && pair.b.is_up(), "{:?} {:?}", pair.a.closed(), pair.b.closed());
        pair.assert_one_child();
        // Both still hear each other.
        let before = (pair.a.events.len(), pair.b.events.len());
        pair.a.endpoint.check_liveness(sa_a, pair.now);
        pair.b.endpoint.check_liveness(sa_b, pair.now);
        pair.run_for(Duration::from_secs(5));
        prop_assert!(pair.a.events.len() > before.0 && pair.b.events.len() > before.1);
    }

    #[test]
    fn damaged_copies_do_not_stop_a_set_up(
        seed in 0..1000u64,
        attacks in vec((any::<prop::sample::Index>(), damage(), any::<bool>()), 1..20)
    ) {
        let mut pair = Pair::new(seed);
        pair.initiate();
        for (which, damage, to_a) in attacks {
            pair.run_for(Duration::from_millis(5));
            let recorded: Vec<Vec<u8>> = pair.a.sent.iter().chain(&pair.b.sent).map(|sent| sent.1.clone()).collect();
            let bytes = damaged(&recorded[which.index(recorded.len())], &damage);
            // What pretends to be the unprotected answer of IKE_SA_INIT can be believed, as by
            // everybody; anything else must not matter.
            if to_a && bytes.get(18) == Some(&34) {
                continue;
            }
            attack(&mut pair, to_a, false, bytes);
        }
        pair.run_for(Duration::from_secs(60));
        prop_assert!(pair.a.is_up() && pair.b.is_up(), "{:?}", pair.a.closed());
    }

    #[test]
    fn arbitrary_bytes_are_survived_at_any_time(
        seed in 0..1000u64,
        attacks in vec((vec(any::<u8>(), 0..120), any::<bool>()), 1..20)
    ) {
        let mut pair = Pair::new(seed);
        pair.initiate();
        for (bytes, to_a) in attacks {
            attack(&mut pair, to_a, true, bytes);
            pair.run_for(Duration::from_millis(7));
        }
        pair.run_for(Duration::from_secs(2));
        prop_assert!(pair.a.is_up() && pair.b.is_up());
    }
}
