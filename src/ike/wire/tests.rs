use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ike::Identity;
use crate::model::TrafficSelector;

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), proptest::option::of(any::<u16>())).prop_map(|(kind, id, key_bits)| Transform {
        kind,
        id,
        key_bits,
        foreign: false,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..9), vec(transform(), 0..9))
        .prop_map(|(number, protocol, spi, transforms)| Proposal { number, protocol, spi, transforms })
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let v4 = (any::<u32>(), any::<u32>())
        .prop_map(|(a, b)| (IpAddr::V4(Ipv4Addr::from_bits(a.min(b))), IpAddr::V4(Ipv4Addr::from_bits(a.max(b)))));
    let v6 = (any::<u128>(), any::<u128>())
        .prop_map(|(a, b)| (IpAddr::V6(Ipv6Addr::from_bits(a.min(b))), IpAddr::V6(Ipv6Addr::from_bits(a.max(b)))));
    (any::<u8>(), any::<u16>(), any::<u16>(), prop_oneof![v4, v6]).prop_map(|(protocol, a, b, (first, last))| {
        TrafficSelector { protocol, ports: (a.min(b), a.max(b)), first, last }
    })
}

fn identity() -> impl Strategy<Value = IdBody> {
    (any::<u8>(), any::<[u8; 3]>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, reserved, data)| IdBody {
        kind,
        reserved,
        data,
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        vec(proposal(), 1..5).prop_map(Payload::Sa),
        (any::<u16>(), vec(any::<u8>(), 0..300)).prop_map(|(group, data)| Payload::KeyExchange { group, data }),
        identity().prop_map(Payload::IdInitiator),
        identity().prop_map(Payload::IdResponder),
        (any::<u8>(), vec(any::<u8>(), 0..70)).prop_map(|(method, data)| Payload::Auth { method, data }),
        vec(any::<u8>(), NONCE_BYTES_MIN..=NONCE_BYTES_MAX).prop_map(Payload::Nonce),
        (any::<u8>(), vec(any::<u8>(), 0..9), any::<u16>(), vec(any::<u8>(), 0..70)).prop_map(
            |(protocol, spi, kind, data)| Payload::Notify(Notify { protocol, spi, kind: NotifyType(kind), data })
        ),
        Just(Payload::Delete { protocol: protocol_id::IKE, spis: Vec::new() }),
        vec(any::<u32>(), 0..9).prop_map(|spis| Payload::Delete { protocol: protocol_id::ESP, spis }),
        vec(any::<u8>(), 0..40).prop_map(Payload::Vendor),
        vec(selector(), 0..9).prop_map(Payload::SelectorsInitiator),
        vec(selector(), 0..9).prop_map(Payload::SelectorsResponder),
        (prop_oneof![Just(37u8), Just(38), Just(47), Just(48), 49..=255u8], vec(any::<u8>(), 0..40))
            .prop_map(|(kind, body)| Payload::Other { kind, body }),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (1..u64::MAX, any::<u64>(), any::<u8>(), any::<bool>(), any::<bool>(), any::<u32>()).prop_map(
        |(initiator_spi, responder_spi, exchange, from_initiator, response, message_id)| Header {
            initiator_spi,
            responder_spi,
            exchange: Exchange::of_number(exchange),
            from_initiator,
            response,
            message_id,
        },
    )
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_itself(header in header(), payloads in vec(payload(), 0..12)) {
        let bytes = encode_clear(&header, &payloads);
        let message = Message::decode(&bytes);
        prop_assert_eq!(message, Ok(Message { header, payloads, encrypted: None }));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes);
        let _ = decode_payloads(payload_type::SA, &bytes);
    }

    #[test]
    fn any_bytes_behind_a_good_header_decode_or_are_refused(
        header in header(), first in 30..60u8, body in vec(any::<u8>(), 0..200)
    ) {
        let mut bytes = header.encode(first, (HEADER_BYTES + body.len()) as u32).to_vec();
        bytes.extend_from_slice(&body);
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn a_damaged_message_decodes_or_is_refused(
        header in header(), payloads in vec(payload(), 1..8), place in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = encode_clear(&header, &payloads);
        let place = place.index(bytes.len());
        bytes[place] = value;
        let _ = Message::decode(&bytes);
        let _ = Message::decode(&bytes[..cut.index(bytes.len())]);
    }
}

fn plain_header() -> Header {
    Header {
        initiator_spi: 1,
        responder_spi: 2,
        exchange: Exchange::Informational,
        from_initiator: true,
        response: false,
        message_id: 7,
    }
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = plain_header().encode(first, (HEADER_BYTES + body.len()) as u32).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn an_unknown_critical_payload_is_refused_by_its_type() {
    assert_eq!(Message::decode(&framed(200, &[0, 0x80, 0, 4])), Err(WireError::UnsupportedCritical(200)));
    assert!(Message::decode(&framed(200, &[0, 0, 0, 4])).is_ok());
    // Defined by the RFC, so the bit is ignored.
    assert!(Message::decode(&framed(payload_type::CERT, &[0, 0x80, 0, 4])).is_ok());
}

#[test]
fn a_length_that_disagrees_is_refused() {
    let mut bytes = framed(0, &[]);
    assert!(Message::decode(&bytes).is_ok());
    bytes.push(0);
    assert_eq!(Message::decode(&bytes), Err(WireError::BadLength));
    assert_eq!(Message::decode(&framed(payload_type::VENDOR, &[0, 0, 0, 3])), Err(WireError::BadLength));
    assert_eq!(Message::decode(&framed(payload_type::VENDOR, &[0, 0, 0, 5])), Err(WireError::Truncated));
}

#[test]
fn the_encrypted_payload_ends_the_message() {
    let message = Message::decode(&framed(payload_type::SK, &[41, 0, 0, 6, 9, 9])).unwrap();
    assert_eq!(message.encrypted, Some(Encrypted { first: 41, body: 32..34 }));
    assert_eq!(Message::decode(&framed(payload_type::SK, &[41, 0, 0, 6, 9, 9, 0])), Err(WireError::AfterEncrypted));
}

#[test]
fn a_transform_with_an_unknown_attribute_is_marked() {
    // One proposal, one transform, with a key length and a long attribute of three bytes.
    let body = [0, 0, 0, 27, 1, 1, 0, 1, 0, 0, 0, 19, 1, 0, 0, 20, 0x80, 14, 1, 0, 0x00, 99, 0, 3, 1, 2, 3];
    let proposals = sa::decode(&body).unwrap();
    assert_eq!(proposals[0].transforms, [Transform { kind: 1, id: 20, key_bits: Some(256), foreign: true }]);
}

#[test]
fn opaque_and_unknown_selectors_are_left_out() {
    let body = [2, 0, 0, 0, 7, 0, 0, 16, 0xff, 0xff, 0, 0, 10, 0, 0, 0, 10, 0, 0, 255, 9, 0, 0, 8, 1, 2, 3, 4];
    assert_eq!(super::selector::decode(&body), Ok(Vec::new()));
}

#[test]
fn an_identity_survives_the_wire() {
    for identity in [
        Identity::Ipv4(Ipv4Addr::new(192, 0, 2, 1)),
        Identity::Fqdn("edge.example".into()),
        Identity::Email("edge@example".into()),
        Identity::KeyId(vec![0, 1, 0xff]),
    ] {
        assert_eq!(IdBody::new(&identity).identity(), Some(identity));
    }
}
