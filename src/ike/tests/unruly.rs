//! An authentic peer that does what no good one does, or what good ones do rarely.

use std::sync::Arc;
use std::time::Duration;

use super::pair::*;
use super::puppet::Puppet;
use crate::crypto::DhGroup;
use crate::ike::wire::{Exchange, Header, Notify, NotifyType, Payload, protocol_id};
use crate::ike::{Peer, Phase2};
use crate::model::Spi;

fn delete(spi: Spi) -> [Payload; 1] {
    [Payload::Delete { protocol: protocol_id::ESP, spis: vec![spi.0] }]
}

/// Requests that end a makes within ten seconds of a peer that asks for the other group each time.
fn requests_for_another_group(ask: impl FnOnce(&mut Pair)) -> usize {
    let mut pair = Pair::up(1);
    let mut puppet = Puppet::of(&mut pair);
    ask(&mut pair);
    let mut groups = [DhGroup::Ecp384, DhGroup::Ecp256].into_iter().cycle();
    let mut requests = 0;
    for _ in 0..200 {
        pair.run_for(Duration::from_millis(50));
        requests += puppet.answer_all(&mut pair, |_| {
            let wanted = groups.next().map_or(0, DhGroup::number).to_be_bytes().to_vec();
            vec![Payload::Notify(Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, wanted))]
        });
    }
    assert!(pair.a.is_up(), "what there was stays");
    requests
}

#[test]
fn a_peer_that_wants_another_group_each_time_is_not_asked_without_pause() {
    let child = requests_for_another_group(|pair| {
        let (sa, inbound) = (pair.sa_a(), pair.a.children[0].child.inbound);
        pair.a.endpoint.rekey_child(sa, inbound, pair.now);
    });
    let ike = requests_for_another_group(|pair| {
        let sa = pair.sa_a();
        pair.a.endpoint.rekey_ike(sa, pair.now);
    });
    // Each try is two requests, and the pause after it a second at least.
    assert!((4..=20).contains(&child), "{child} requests for a Child SA");
    assert!((4..=20).contains(&ike), "{ike} requests for an IKE SA");
}

#[test]
fn a_successor_that_the_peer_takes_back_leaves_the_old_child_sa_as_it_was() {
    let mut pair = Pair::up(1);
    let mut puppet = Puppet::of(&mut pair);
    let old = pair.a.children[0].child.outbound;
    for successor in [0x1000, 0x2000] {
        let request = puppet.child_request(successor, Some(old.0));
        puppet.ask(&mut pair, Exchange::CreateChildSa, &request);
        pair.run_for(Duration::from_millis(10));
        assert_eq!(pair.a.children.len(), 2, "successor {successor:x}");
        puppet.ask(&mut pair, Exchange::Informational, &delete(Spi(successor)));
        pair.run_for(Duration::from_millis(10));
        assert_eq!(pair.a.children.len(), 1);
        assert_eq!(pair.a.children[0].child.outbound, old);
    }
    // It is ours to rekey again, too.
    let (sa, inbound) = (pair.sa_a(), pair.a.children[0].child.inbound);
    pair.a.endpoint.rekey_child(sa, inbound, pair.now);
    pair.run_for(Duration::from_millis(10));
    assert_eq!(puppet.answer_all(&mut pair, |_| Vec::new()), 1);
}

#[test]
fn a_child_sa_of_a_peer_that_falls_silent_is_rekeyed_in_time() {
    let lifetime = Duration::from_secs(600);
    let phase2 = Arc::new(Phase2 { lifetime, ..phase2() });
    let mut pair = Pair::with(1, Peer { phase2, ..peer("a", "b") }, peer("b", "a"));
    pair.initiate();
    pair.run_for(Duration::from_secs(1));
    let mut puppet = Puppet::of(&mut pair);
    let first = pair.a.children[0].child.outbound;
    puppet.ask(&mut pair, Exchange::Informational, &delete(first));
    let request = puppet.child_request(0x1000, None);
    puppet.ask(&mut pair, Exchange::CreateChildSa, &request);
    pair.run_for(Duration::from_millis(10));
    assert_eq!(pair.a.children.len(), 1);
    // It answers, and asks for nothing any more.
    pair.run_for(lifetime.mul_f64(0.96));
    let mut exchange = None;
    puppet.answer_all(&mut pair, |header: &Header| {
        exchange = Some(header.exchange);
        vec![Payload::notify(NotifyType::TEMPORARY_FAILURE)]
    });
    assert_eq!(exchange, Some(Exchange::CreateChildSa));
}
