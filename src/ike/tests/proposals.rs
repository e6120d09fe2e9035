use super::pair::{phase1, phase2};
use crate::crypto::{DhGroup, Encryption, PrfAlgorithm};
use crate::ike::proposal::*;
use crate::ike::wire::{Proposal, Transform, protocol_id, transform_type};
use crate::ike::{Phase1, Phase2};

const INTEGRITY_NONE: Transform = Transform::new(transform_type::INTEGRITY, 0);
const INTEGRITY_SHA256: Transform = Transform::new(transform_type::INTEGRITY, 12);
const ESN: Transform = Transform::new(transform_type::ESN, 1);
const NO_ESN: Transform = Transform::new(transform_type::ESN, 0);
const ANY: KeyExchangeRule = KeyExchangeRule::ByProfile { offered: None };

fn ike_offer() -> Vec<Proposal> {
    offer_ike(&phase1(), &[])
}

fn child_offer() -> Vec<Proposal> {
    offer_child(&phase2(), 0x1_0000, true)
}

fn with(mut proposals: Vec<Proposal>, transform: Transform) -> Vec<Proposal> {
    proposals[0].transforms.push(transform);
    proposals
}

fn without(mut proposals: Vec<Proposal>, kind: u8) -> Vec<Proposal> {
    proposals[0].transforms.retain(|transform| transform.kind != kind);
    proposals
}

#[test]
fn what_we_offer_we_choose_and_accept() {
    let (suite, answer) = choose_ike(&phase1(), &ike_offer(), 20, &[]).unwrap();
    assert_eq!(
        suite,
        IkeSuite { encryption: Encryption::AesGcm256, prf: PrfAlgorithm::Sha256, group: DhGroup::Ecp384 },
        "the group of the KE payload wins"
    );
    assert_eq!(accept_ike(&phase1(), &ike_offer(), &[answer]), Some(suite));
    let (suite, outbound, answer) = choose_child(&phase2(), &child_offer(), ANY, 0x2_0000).unwrap();
    assert_eq!(outbound, 0x1_0000);
    assert_eq!(suite, ChildSuite { encryption: Encryption::AesGcm256, group: Some(DhGroup::Ecp256) });
    assert_eq!(accept_child(&phase2(), &child_offer(), &[answer]), Some((suite, 0x2_0000)));
}

#[test]
fn our_order_of_algorithms_decides() {
    let ours = Phase1 { encryption: vec![Encryption::AesGcm128, Encryption::AesGcm256], ..phase1() };
    assert_eq!(choose_ike(&ours, &ike_offer(), 19, &[]).unwrap().0.encryption, Encryption::AesGcm128);
}

#[test]
fn an_answer_outside_our_offer_is_refused() {
    let (_, answer) = choose_ike(&phase1(), &ike_offer(), 19, &[]).unwrap();
    let refused = |change: &dyn Fn(&mut Proposal)| {
        let mut answer = answer.clone();
        change(&mut answer);
        accept_ike(&phase1(), &ike_offer(), &[answer]).is_none()
    };
    assert!(!refused(&|_| {}));
    assert!(!refused(&|answer| answer.transforms.push(INTEGRITY_NONE)));
    assert!(refused(&|answer| answer.number = 2));
    assert!(refused(&|answer| answer.protocol = protocol_id::ESP));
    assert!(refused(&|answer| answer.transforms[0].key_bits = Some(192)));
    assert!(refused(&|answer| answer.transforms[0].foreign = true));
    assert!(refused(&|answer| answer.transforms.push(INTEGRITY_SHA256)));
    assert!(refused(&|answer| answer.transforms.push(answer.transforms[1])));
    assert!(refused(&|answer| {
        answer.transforms.pop();
    }));
    assert!(accept_ike(&phase1(), &ike_offer(), &[answer.clone(), answer]).is_none());
    assert!(accept_ike(&phase1(), &ike_offer(), &[]).is_none());
}

#[test]
fn an_aead_takes_no_integrity_algorithm() {
    assert!(choose_ike(&phase1(), &with(ike_offer(), INTEGRITY_SHA256), 19, &[]).is_none());
    let (_, answer) = choose_ike(&phase1(), &with(ike_offer(), INTEGRITY_NONE), 19, &[]).unwrap();
    assert!(answer.transforms.contains(&INTEGRITY_NONE));
    assert!(choose_child(&phase2(), &with(child_offer(), INTEGRITY_SHA256), ANY, 0x2_0000).is_none());
}

#[test]
fn extended_sequence_numbers_are_not_chosen() {
    let (_, _, answer) = choose_child(&phase2(), &with(child_offer(), ESN), ANY, 0x2_0000).unwrap();
    assert!(answer.transforms.contains(&NO_ESN) && !answer.transforms.contains(&ESN));
    let only = with(without(child_offer(), transform_type::ESN), ESN);
    assert!(choose_child(&phase2(), &only, ANY, 0x2_0000).is_none());
    assert!(choose_child(&phase2(), &without(child_offer(), transform_type::ESN), ANY, 0x2_0000).is_some());
}

#[test]
fn forward_secrecy_is_as_the_profile_says() {
    let none = Phase2 { groups: Vec::new(), ..phase2() };
    let plain = offer_child(&none, 0x1_0000, true);
    assert!(choose_child(&phase2(), &plain, ANY, 0x2_0000).is_none(), "we want a key exchange");
    assert!(choose_child(&none, &child_offer(), ANY, 0x2_0000).is_none(), "the peer wants one");
    assert_eq!(choose_child(&none, &plain, ANY, 0x2_0000).unwrap().0.group, None);
    let optional = with(child_offer(), Transform::new(transform_type::KEY_EXCHANGE, 0));
    assert_eq!(choose_child(&none, &optional, ANY, 0x2_0000).unwrap().0.group, None);
    // In IKE_AUTH there is none.
    let (suite, _, answer) = choose_child(&phase2(), &child_offer(), KeyExchangeRule::Never, 0x2_0000).unwrap();
    assert_eq!(suite.group, None);
    assert!(answer.transforms.iter().all(|transform| transform.kind != transform_type::KEY_EXCHANGE));
}

#[test]
fn reserved_spis_unknown_types_and_foreign_protocols_are_passed_over() {
    assert!(choose_child(&phase2(), &offer_child(&phase2(), 255, true), ANY, 0x2_0000).is_none());
    assert!(choose_child(&phase2(), &with(child_offer(), Transform::new(6, 0)), ANY, 0x2_0000).is_none());
    assert!(choose_ike(&phase1(), &child_offer(), 19, &[]).is_none());
    // A later proposal is taken then, under its own number.
    let mut proposals = with(child_offer(), Transform::new(6, 35));
    proposals.extend(child_offer());
    proposals[1].number = 2;
    assert_eq!(choose_child(&phase2(), &proposals, ANY, 0x2_0000).unwrap().2.number, 2);
}

#[test]
fn an_ike_rekey_carries_an_spi_that_is_not_zero() {
    let with_spi = |spi: &[u8]| offer_ike(&phase1(), spi);
    assert_eq!(ike_spi(&with_spi(&7u64.to_be_bytes()), 1), Some(7));
    assert_eq!(ike_spi(&with_spi(&0u64.to_be_bytes()), 1), None);
    assert_eq!(ike_spi(&with_spi(&[1, 2, 3, 4]), 1), None);
    assert_eq!(ike_spi(&with_spi(&7u64.to_be_bytes()), 2), None);
}

#[test]
fn an_offer_is_described_by_name_and_the_unknown_by_number() {
    let offer = with(ike_offer(), Transform::new(transform_type::PRF, 99));
    assert_eq!(describe(&offer), "aes-gcm-256 aes-gcm-128 prf sha2-256 prf sha2-384 group 19 group 20 prf 99");
}
