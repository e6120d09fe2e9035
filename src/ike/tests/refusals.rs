use std::sync::Arc;
use std::time::Duration;

use super::pair::*;
use crate::crypto::{DhGroup, Encryption, PrfAlgorithm};
use crate::ike::wire::{Header, Message, Payload, encode_clear};
use crate::ike::{CloseReason, Endpoint, EndpointOptions, Event, Identity, Peer, Phase1, Phase2};
use crate::model::{Chance, Leg, Secret, TrafficSelector};

/// Runs a set-up that must fail, in all weathers: the reasons that both ends report.
fn reasons(of_a: &Peer, of_b: &Peer) -> (CloseReason, Option<CloseReason>) {
    let mut outcomes = Vec::new();
    for (seed, weather) in [(1, FAIR), (2, STORMY), (3, STORMY), (4, STORMY)] {
        let mut pair = Pair::with(seed, of_a.clone(), of_b.clone());
        pair.weather = weather;
        pair.initiate();
        pair.run_for(Duration::from_secs(60));
        assert!(pair.a.children.is_empty() && pair.b.children.is_empty());
        assert!(!pair.a.has(|event| matches!(event, Event::Established { .. })));
        assert_eq!(pair.a.count(|event| matches!(event, Event::Closed { .. })), 1);
        outcomes.push((pair.a.closed().cloned().unwrap(), pair.b.closed().cloned()));
    }
    assert!(outcomes.iter().all(|outcome| outcome.0 == outcomes[0].0), "{outcomes:?}");
    outcomes.swap_remove(0)
}

#[test]
fn a_wrong_key_is_told_apart_on_both_ends() {
    let wrong = Peer { psk: Secret::new(b"another".to_vec()), ..peer("a", "b") };
    let (a, b) = reasons(&wrong, &peer("b", "a"));
    assert_eq!(a, CloseReason::AuthenticationFailed { by_peer: true });
    assert_eq!(b, Some(CloseReason::AuthenticationFailed { by_peer: false }));
}

#[test]
fn an_initiator_with_an_unknown_name_is_refused_and_named() {
    let stranger = Peer { local_id: Identity::Email("c@example".into()), ..peer("a", "b") };
    let (a, b) = reasons(&stranger, &peer("b", "a"));
    assert_eq!(a, CloseReason::AuthenticationFailed { by_peer: true });
    let expected = Identity::Fqdn("a".into());
    let found = Identity::Email("c@example".into());
    assert_eq!(b, Some(CloseReason::IdentityMismatch { expected, found }));
}

#[test]
fn an_initiator_that_calls_somebody_else_is_refused_and_told_apart() {
    let mistaken = Peer { remote_id: Identity::Fqdn("x".into()), ..peer("a", "b") };
    let (a, b) = reasons(&mistaken, &peer("b", "a"));
    assert_eq!(a, CloseReason::AuthenticationFailed { by_peer: true });
    let expected = Identity::Fqdn("b".into());
    let found = Identity::Fqdn("x".into());
    assert_eq!(b, Some(CloseReason::LocalIdentityMismatch { expected, found }));
}

#[test]
fn without_a_common_ike_proposal_both_suites_are_told() {
    let only = |prf, group| Phase1 { prf: vec![prf], groups: vec![group], ..phase1() };
    let of_a = Peer { phase1: Arc::new(only(PrfAlgorithm::Sha256, DhGroup::Ecp256)), ..peer("a", "b") };
    let of_b = Peer { phase1: Arc::new(only(PrfAlgorithm::Sha512, DhGroup::Ecp256)), ..peer("b", "a") };
    let offered = "aes-gcm-256 aes-gcm-128 prf sha2-256 group 19".to_string();
    assert_eq!(reasons(&of_a, &of_b).0, CloseReason::NoProposalChosen { by_peer: true, offered });
}

#[test]
fn without_a_common_esp_proposal_the_tunnel_closes_on_both_ends() {
    let only = |encryption| Arc::new(Phase2 { encryption: vec![encryption], ..phase2() });
    let of_a = Peer { phase2: only(Encryption::AesGcm128), ..peer("a", "b") };
    let of_b = Peer { phase2: only(Encryption::AesGcm256), ..peer("b", "a") };
    let (a, b) = reasons(&of_a, &of_b);
    let offered = "aes-gcm-128".to_string();
    assert_eq!(a, CloseReason::NoProposalChosen { by_peer: true, offered: offered.clone() });
    assert_eq!(b, Some(CloseReason::NoProposalChosen { by_peer: false, offered }));
}

#[test]
fn selectors_without_anything_in_common_close_the_tunnel_on_both_ends() {
    let foreign = vec![TrafficSelector::of_network("172.16.0.0/12".parse().unwrap())];
    let ours = vec![TrafficSelector::of_network("10.1.0.0/16".parse().unwrap())];
    let of_a = Peer { local_selectors: ours, remote_selectors: foreign, ..peer("a", "b") };
    let (a, b) = reasons(&of_a, &peer("b", "a"));
    let offered = "10.1.0.0-10.1.255.255 to 172.16.0.0-172.31.255.255".to_owned();
    assert_eq!(a, CloseReason::SelectorsUnacceptable { by_peer: true, offered: offered.clone() });
    assert_eq!(b, Some(CloseReason::SelectorsUnacceptable { by_peer: false, offered }));
}

#[test]
fn a_peer_that_never_answers_is_given_up_after_its_tries() {
    let mut pair = Pair::new(1);
    pair.b.dead = true;
    pair.initiate();
    pair.run_for(Duration::from_secs(60));
    let expected = CloseReason::Unanswered { exchange: "IKE_SA_INIT", transmissions: 6 };
    assert_eq!(pair.a.closed(), Some(&expected));
    assert_eq!(pair.a.sent.len(), 6);
    assert_eq!(pair.a.endpoint.poll_timeout(), None);
}

#[test]
fn a_profile_without_supported_algorithms_fails_at_once() {
    let cbc = Phase1 { encryption: vec![Encryption::AesCbc128], groups: vec![DhGroup::Modp1024], ..phase1() };
    let mut pair = Pair::with(1, Peer { phase1: Arc::new(cbc), ..peer("a", "b") }, peer("b", "a"));
    pair.initiate();
    assert!(matches!(pair.a.closed(), Some(CloseReason::ClosedLocally { .. })));
    assert!(pair.a.sent.is_empty());
}

#[test]
fn the_initiator_changes_over_to_the_responders_group() {
    for seed in 0..8 {
        let groups = |groups: &[DhGroup]| Arc::new(Phase1 { groups: groups.to_vec(), ..phase1() });
        let of_a = Peer { phase1: groups(&[DhGroup::Ecp256, DhGroup::Ecp384]), ..peer("a", "b") };
        let of_b = Peer { phase1: groups(&[DhGroup::Ecp384]), ..peer("b", "a") };
        let mut pair = Pair::with(seed, of_a, of_b);
        pair.weather = if seed == 0 { FAIR } else { STORMY };
        pair.initiate();
        pair.run_for(Duration::from_secs(20));
        assert!(pair.a.is_up() && pair.b.is_up(), "seed {seed}: {:?}", pair.a.closed());
        assert!(pair.a.has(|event| matches!(event, Event::Established { suite, .. } if suite.ends_with("group 20"))));
    }
}

#[test]
fn rekeys_change_over_to_the_responders_group_too() {
    let groups1 = |groups: &[DhGroup]| Arc::new(Phase1 { groups: groups.to_vec(), ..phase1() });
    let groups2 = |groups: &[DhGroup]| Arc::new(Phase2 { groups: groups.to_vec(), ..phase2() });
    let both = [DhGroup::Ecp256, DhGroup::Ecp384];
    let of_a = Peer { phase1: groups1(&both), phase2: groups2(&both), ..peer("a", "b") };
    let of_b = Peer { phase1: groups1(&both[1..]), phase2: groups2(&both[1..]), ..peer("b", "a") };
    let mut pair = Pair::with(1, of_a, of_b);
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    let (sa, old) = (pair.sa_a(), pair.a.children[0].child.inbound);
    pair.a.endpoint.rekey_child(sa, old, pair.now);
    pair.a.endpoint.rekey_ike(sa, pair.now);
    pair.run_for(Duration::from_secs(4));
    assert_ne!(pair.assert_one_child(), old);
    assert_eq!(pair.a.count(|event| matches!(event, Event::Rekeyed { .. })), 1);
}

#[test]
fn under_pressure_an_initiator_must_return_a_cookie() {
    for seed in 0..8 {
        let mut pair = Pair::new(seed);
        pair.weather = if seed == 0 { FAIR } else { STORMY };
        let options = EndpointOptions { cookie_threshold: 0, ..options() };
        pair.b.endpoint = Endpoint::new(options, Chance::from_number(9));
        pair.b.endpoint.set_peer(PATH, Arc::new(peer("b", "a")));
        pair.initiate();
        pair.run_for(Duration::from_secs(20));
        assert!(pair.a.is_up() && pair.b.is_up(), "seed {seed}: {:?}", pair.a.closed());
        if seed == 0 {
            // IKE_SA_INIT twice, IKE_AUTH once.
            assert_eq!(pair.a.sent.len(), 3);
            assert!(pair.b.sent[0].1.len() < pair.a.sent[0].1.len(), "a cookie amplifies nothing");
        }
    }
}

#[test]
fn beyond_the_limit_of_half_open_ike_sas_there_is_silence_until_they_expire() {
    let mut pair = Pair::new(1);
    let options = EndpointOptions { half_open_limit: 2, ..options() };
    pair.b.endpoint = Endpoint::new(options, Chance::from_number(9));
    pair.b.endpoint.set_peer(PATH, Arc::new(peer("b", "a")));
    pair.a.dead = true;
    pair.initiate();
    let (leg, request) = pair.a.sent[0].clone();
    let arriving = Leg { local: leg.remote, remote: leg.local, ..leg };
    for spi in 1..=3u8 {
        let mut request = request.clone();
        request[0] = spi;
        pair.inject(false, arriving, request);
    }
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.sent.len(), 2);
    pair.run_for(Duration::from_secs(40));
    assert_eq!(pair.b.endpoint.poll_timeout(), None, "they are gone");
    pair.inject(false, arriving, request);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.sent.len(), 3);
}

/// Opens IKE SAs from this address with copies of what end a would send. `patient` returns the
/// cookies that it is asked for.
fn flood(pair: &mut Pair, remote: &str, count: u64, patient: bool) {
    let mut scratch = Pair::new(1);
    scratch.initiate();
    let (leg, request) = scratch.a.sent[0].clone();
    let leg = Leg { local: leg.remote, remote: remote.parse().unwrap(), ..leg };
    let request = Message::decode(&request).unwrap();
    for number in 1..=count {
        let header = Header { initiator_spi: number, ..request.header };
        let answered = pair.b.sent.len();
        pair.inject(false, leg, encode_clear(&header, &request.payloads));
        pair.run_for(Duration::from_millis(1));
        let Some((_, answer)) = pair.b.sent.get(answered).filter(|_| patient) else { continue };
        let answer = Message::decode(answer).unwrap().payloads;
        if let [Payload::Notify(cookie)] = answer.as_slice() {
            let payloads = [&[Payload::Notify(cookie.clone())], request.payloads.as_slice()].concat();
            pair.inject(false, leg, encode_clear(&header, &payloads));
            pair.run_for(Duration::from_millis(1));
        }
    }
}

#[test]
fn one_address_alone_cannot_keep_the_others_out() {
    let mut pair = Pair::new(1);
    let options = EndpointOptions { half_open_limit: 100, ..options() };
    pair.b.endpoint = Endpoint::new(options, Chance::from_number(9));
    pair.b.endpoint.set_peer(PATH, Arc::new(peer("b", "a")));
    flood(&mut pair, "203.0.113.66:500", 300, true);
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    assert!(pair.a.is_up() && pair.b.is_up(), "{:?}", pair.a.closed());
}

#[test]
fn who_only_pretends_to_an_address_cannot_keep_its_owner_out() {
    let mut pair = Pair::new(1);
    let address = pair.a.address.to_string();
    flood(&mut pair, &address, 300, false);
    pair.initiate();
    pair.run_for(Duration::from_secs(2));
    assert!(pair.a.is_up() && pair.b.is_up(), "{:?}", pair.a.closed());
}

#[test]
fn the_peer_is_found_by_both_identities_and_so_is_its_key() {
    // Two tunnels to one peer that differ in our name alone, each with a key of its own.
    let key = |text: &str| Secret::new(text.as_bytes().to_vec());
    let mut pair =
        Pair::with(1, Peer { psk: key("one"), ..peer("a", "b") }, Peer { psk: key("two"), ..peer("b", "a2") });
    pair.b.endpoint.set_peer(crate::model::PathId(7), Arc::new(Peer { psk: key("one"), ..peer("b", "a") }));
    let legs = Pair::legs(&pair.a, &pair.b);
    pair.a.endpoint.initiate(PATH, legs, pair.now).unwrap();
    let mut up_on = Vec::new();
    for _ in 0..4 {
        while let Some((leg, bytes)) = pair.a.endpoint.poll_transmit() {
            let arriving = Leg { local: leg.remote, remote: leg.local, ..leg };
            pair.b.endpoint.handle_datagram(arriving, &bytes, pair.now);
        }
        while let Some((path, _, event)) = pair.b.endpoint.poll_event() {
            if matches!(event, Event::Established { .. }) {
                up_on.push(path.0);
            }
        }
        while let Some((leg, bytes)) = pair.b.endpoint.poll_transmit() {
            let arriving = Leg { local: leg.remote, remote: leg.local, ..leg };
            pair.a.endpoint.handle_datagram(arriving, &bytes, pair.now);
        }
    }
    assert_eq!(up_on, [7]);
}
