//! Both directions against each other, against damage, and against an independent implementation.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::crypto::hex::hex;
use crate::crypto::{Backend, Encryption, SaltedKey};
use crate::model::{DropReason, PathId, Secret, Selectors, Spi, TrafficSelector};
use crate::packet::{PacketBuf, TAILROOM};

const SPI: Spi = Spi(0x0007_beef);
const PATH: PathId = PathId(3);

pub(super) fn keymat(encryption: Encryption) -> Secret {
    Secret::new((0x40..).take(encryption.keymat_len()).collect())
}

fn packet_of(bytes: &[u8]) -> PacketBuf {
    let mut packet = PacketBuf::with_capacity(70_000);
    assert!(packet.fill(bytes));
    packet
}

/// An inner packet of `length` bytes as far as ESP looks into it.
pub(super) fn ipv4(length: usize) -> PacketBuf {
    packet_of(&inner(0x45, length))
}

fn inner(first: u8, length: usize) -> Vec<u8> {
    std::iter::once(first).chain((1..length).map(|i| (i * 7) as u8)).collect()
}

/// Seals in the room that every packet buffer has around its packet.
pub(super) fn seal(sa: &OutboundSa, packet: &mut PacketBuf) -> Result<(), DropReason> {
    let inner_len = packet.len();
    packet.prepend(sa.header_len()).expect("headroom");
    packet.append(TAILROOM).expect("tailroom");
    let length = sa.seal(packet.bytes_mut(), inner_len)?;
    packet.truncate(length);
    Ok(())
}

/// Opens, and leaves the inner packet: `first_use` of it.
fn open(sa: &InboundSa, packet: &mut PacketBuf) -> Result<bool, DropReason> {
    let opened = sa.open(packet.bytes_mut())?;
    packet.trim_front(opened.inner.start);
    packet.truncate(opened.inner.len());
    Ok(opened.first_use)
}

fn outbound(encryption: Encryption) -> OutboundSa {
    OutboundSa::new(SPI, PATH, encryption, &keymat(encryption)).expect("the key fits")
}

fn inbound(encryption: Encryption) -> InboundSa {
    let any = Box::new([TrafficSelector::ANY_IPV4, TrafficSelector::ANY_IPV6]);
    let selectors = Arc::new(Selectors { local: any.clone(), remote: any });
    InboundSa::new(SPI, PATH, encryption, &keymat(encryption), selectors).expect("the key fits")
}

/// An authentic ESP packet with anything at all inside.
fn forge(sequence: u32, body: &[u8]) -> PacketBuf {
    let encryption = Encryption::AesGcm256;
    let key = SaltedKey::new(Backend::RustCrypto, encryption, keymat(encryption).expose()).expect("the key fits");
    let aad = [SPI.0.to_be_bytes(), sequence.to_be_bytes()].concat();
    let iv = [9; 8];
    let mut body = body.to_vec();
    let tag = key.seal(iv, &aad, &mut body).expect("short");
    packet_of(&[aad.as_slice(), &iv, &body, &tag].concat())
}

#[test]
fn a_sealed_packet_has_the_shape_of_its_rfc() {
    let sa = outbound(Encryption::AesGcm256);
    for (number, length) in [20, 21, 22, 23, 1400].into_iter().enumerate() {
        let mut packet = ipv4(length);
        assert_eq!(seal(&sa, &mut packet), Ok(()));
        let sequence = number as u8 + 1;
        assert_eq!(packet.bytes()[..16], [0, 7, 0xbe, 0xef, 0, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0, sequence]);
        assert_eq!(packet.len(), length + esp_overhead(Encryption::AesGcm256, length));
        assert_eq!(packet.len() % 4, 0);
    }
}

#[test]
fn only_ip_packets_are_sealed() {
    let sa = outbound(Encryption::AesGcm128);
    for bytes in [&[][..], &[0x05; 40], &[0x75; 40]] {
        assert_eq!(seal(&sa, &mut packet_of(bytes)), Err(DropReason::Malformed));
    }
    let mut packet = packet_of(&inner(0x60, 48));
    assert_eq!(seal(&sa, &mut packet), Ok(()));
    assert_eq!(packet.bytes()[7], 1, "a refused packet takes no sequence number");
}

#[test]
fn a_packet_opens_once_and_the_first_one_is_told() {
    let (sender, receiver) = (outbound(Encryption::AesGcm256), inbound(Encryption::AesGcm256));
    let mut first = ipv4(100);
    seal(&sender, &mut first).expect("sealed");
    let again = first.bytes().to_vec();
    assert_eq!(open(&receiver, &mut first), Ok(true));
    assert_eq!(open(&receiver, &mut packet_of(&again)), Err(DropReason::Replayed));

    let mut second = ipv4(100);
    seal(&sender, &mut second).expect("sealed");
    assert_eq!(open(&receiver, &mut second), Ok(false));
}

#[test]
fn a_packet_that_others_have_overtaken_is_told_from_the_newest() {
    let (sender, receiver) = (outbound(Encryption::AesGcm256), inbound(Encryption::AesGcm256));
    let mut packets: Vec<PacketBuf> = (0..5).map(|_| ipv4(60)).collect();
    packets.iter_mut().for_each(|packet| seal(&sender, packet).expect("sealed"));
    let newest = |number: usize| {
        let mut packet = packet_of(packets[number - 1].bytes());
        receiver.open(packet.bytes_mut()).expect("opened").newest
    };
    assert_eq!([1, 3, 2, 5, 4].map(newest), [true, true, false, true, false]);
    // A forged number ahead of all is not believed.
    let mut forged = packet_of(packets[0].bytes());
    forged.bytes_mut()[4..8].copy_from_slice(&[0xff; 4]);
    assert_eq!(open(&receiver, &mut forged), Err(DropReason::BadTag));
    let mut next = ipv4(60);
    seal(&sender, &mut next).expect("sealed");
    assert!(receiver.open(next.bytes_mut()).expect("opened").newest);
}

#[test]
fn another_spi_of_the_same_place_is_not_ours() {
    let mut packet = ipv4(60);
    seal(&outbound(Encryption::AesGcm256), &mut packet).expect("sealed");
    packet.bytes_mut()[3] ^= 1;
    assert_eq!(open(&inbound(Encryption::AesGcm256), &mut packet), Err(DropReason::UnknownSpi));
}

#[test]
fn sequence_number_zero_is_never_taken() {
    let body = [inner(0x45, 22), vec![0, 4]].concat();
    assert_eq!(open(&inbound(Encryption::AesGcm256), &mut forge(0, &body)), Err(DropReason::Replayed));
    assert!(open(&inbound(Encryption::AesGcm256), &mut forge(1, &body)).is_ok());
}

#[test]
fn what_is_authentic_but_wrong_inside_is_refused_and_still_counts_as_arrived() {
    let packet = |tail: &[u8]| [inner(0x45, 24), tail.to_vec()].concat();
    let wrong = [
        // Next Header that is not the inner version's, or no IP at all.
        packet(&[1, 2, 2, 41]),
        packet(&[1, 2, 2, 17]),
        [inner(0x65, 24), vec![1, 2, 2, 4]].concat(),
        [inner(0x00, 24), vec![1, 2, 2, 4]].concat(),
        // Padding that does not count up, or is longer than all there is.
        packet(&[0, 0, 2, 4]),
        packet(&[1, 3, 2, 4]),
        packet(&[1, 2, 30, 4]),
        packet(&[255, 4]),
        // Nothing at all inside.
        vec![0, 4],
        vec![1, 2, 2, 4],
    ];
    for body in wrong {
        let sa = inbound(Encryption::AesGcm256);
        assert_eq!(open(&sa, &mut forge(1, &body)), Err(DropReason::BadInner), "{body:x?}");
        assert_eq!(open(&sa, &mut forge(1, &packet(&[1, 2, 2, 4]))), Err(DropReason::Replayed));
        assert_eq!(open(&sa, &mut forge(2, &packet(&[1, 2, 2, 4]))), Ok(true));
    }
}

#[test]
fn a_dummy_packet_is_dropped_as_such() {
    let sa = inbound(Encryption::AesGcm256);
    for (sequence, body) in [(1, &[0xff, 0xee, 0, 59][..]), (2, &[1, 2, 2, 59]), (3, &[0, 59])] {
        assert_eq!(open(&sa, &mut forge(sequence, body)), Err(DropReason::Dummy));
    }
}

#[test]
fn longer_padding_than_needed_is_taken() {
    let body = [inner(0x45, 20), (1..=200).collect(), vec![200, 4]].concat();
    let mut packet = forge(1, &body);
    assert!(open(&inbound(Encryption::AesGcm256), &mut packet).is_ok());
    assert_eq!(packet.bytes(), inner(0x45, 20));
}

#[test]
fn truncated_packets_of_every_length_are_refused() {
    let (sender, receiver) = (outbound(Encryption::AesGcm256), inbound(Encryption::AesGcm256));
    let mut packet = ipv4(90);
    seal(&sender, &mut packet).expect("sealed");
    for length in 0..packet.len() {
        assert_eq!(open(&receiver, &mut packet_of(&packet.bytes()[..length])), Err(DropReason::BadTag));
    }
    assert!(open(&receiver, &mut packet).is_ok(), "none of them was marked");
}

#[test]
fn keys_are_never_printed() {
    let shown = format!("{:?} {:?}", outbound(Encryption::AesGcm128), inbound(Encryption::AesGcm128));
    assert!(shown.contains("key: SaltedKey(..)") && !shown.contains("64, 65"), "{shown}");
}

#[test]
fn cbc_is_refused_until_it_exists() {
    let encryption = Encryption::AesCbc256;
    assert!(OutboundSa::new(SPI, PATH, encryption, &keymat(encryption)).is_err());
}

#[test]
fn the_largest_inner_packet_fills_the_underlay_and_one_more_byte_overflows_it() {
    for encryption in [Encryption::AesGcm128, Encryption::AesGcm256] {
        for outer_mtu in 300..1600 {
            for (natt, around) in [(true, 28), (false, 20)] {
                let sealed = |inner: usize| around + inner + esp_overhead(encryption, inner);
                let inner = largest_inner(outer_mtu, natt);
                assert!(sealed(inner) <= outer_mtu && sealed(inner + 1) > outer_mtu, "{outer_mtu} {natt}");
            }
        }
    }
    assert_eq!(largest_inner(1500, true), 1438);
    assert_eq!(largest_inner(1500, false), 1446);
    assert_eq!(largest_inner(60, true), 0);
}

/// An ICMP echo request and an empty UDP datagram.
const ORACLE_INNER: [(Encryption, &str); 2] = [
    (Encryption::AesGcm256, "4500002900070000400166bd0a0100050a020009080003b4004d000161726520796f75207468657265"),
    (Encryption::AesGcm128, "4500001c00080000401166b90a0100050a0200090fa000350008dbf8"),
];

// Sealed by scapy 2.8.0 (over Python's cryptography 50) with sequence number 0x01020304 and an IV of
// its own choice.
#[test]
fn what_another_implementation_sealed_opens() {
    let sealed = [
        "0007beef01020304a1b2c3d4e5f60718b20a5ac7e988a7de220f4007e109ebf836a36e297c4d4fd0fe6bb409abea0821
         1d18436db93323990c450721187180ff81743fca6aeb5d13463063e8",
        "0007beef01020304a1b2c3d4e5f607180142363b5d8ed35f4b3fc9d2ca701e9387d01d1d01074de4b784fe36c2cf2f0d
         22bc8722c912ec407c95f70085e37b21",
    ];
    for ((encryption, plain), sealed) in ORACLE_INNER.into_iter().zip(sealed) {
        let mut packet = packet_of(&hex(sealed));
        assert_eq!(open(&inbound(encryption), &mut packet), Ok(true));
        assert_eq!(packet.bytes(), hex(plain));
    }
}

// scapy 2.8.0 opened these bytes to the same inner packets.
#[test]
fn what_we_seal_is_what_another_implementation_opened() {
    let sealed = [
        "0007beef0000000100000000000000011265f74fc198ec23c57a99da8282d2a702da6c1172ccde142204e3b041cbc05e
         0f8d791cdfc69cb258cc44edf588ce3f18b1171d271e68965b3f1a55",
        "0007beef000000010000000000000001c3aed13eb49e3c1d721b4cafbe74d1622ff78e0feb15fece8eabbdc1d7d4f7d0
         bd71bfabaf33d7090534c7613385e2aa",
    ];
    for ((encryption, plain), sealed) in ORACLE_INNER.into_iter().zip(sealed) {
        let mut packet = packet_of(&hex(plain));
        assert_eq!(seal(&outbound(encryption), &mut packet), Ok(()));
        assert_eq!(packet.bytes(), hex(sealed));
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same_bytes(
        wide: bool,
        six: bool,
        length in prop_oneof![20..200_usize, 1200..1600_usize, Just(65_535_usize)],
        repeats in 1..4_u32,
    ) {
        let encryption = if wide { Encryption::AesGcm256 } else { Encryption::AesGcm128 };
        let (sender, receiver) = (outbound(encryption), inbound(encryption));
        let plain = inner(if six { 0x60 } else { 0x45 }, length);
        for turn in 0..repeats {
            let mut packet = packet_of(&plain);
            prop_assert_eq!(seal(&sender, &mut packet), Ok(()));
            prop_assert_eq!(open(&receiver, &mut packet), Ok(turn == 0));
            prop_assert_eq!(packet.bytes(), plain.as_slice());
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_and_marks_nothing(
        length in 20..300_usize,
        at: proptest::sample::Index,
        bit in 0..8_u32,
    ) {
        let (sender, receiver) = (outbound(Encryption::AesGcm256), inbound(Encryption::AesGcm256));
        let mut packet = ipv4(length);
        seal(&sender, &mut packet).expect("sealed");
        let good = packet.bytes().to_vec();
        let at = at.index(packet.len());
        packet.bytes_mut()[at] ^= 1 << bit;
        let expected = match at {
            0..4 => DropReason::UnknownSpi,
            // The first packet is number 1: without its only bit it is number 0.
            7 if bit == 0 => DropReason::Replayed,
            _ => DropReason::BadTag,
        };
        prop_assert_eq!(open(&receiver, &mut packet), Err(expected));
        prop_assert!(open(&receiver, &mut packet_of(&good)).is_ok());
    }

    #[test]
    fn no_bytes_whatever_open_or_panic(
        header: bool,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = if header { [&SPI.0.to_be_bytes(), bytes.as_slice()].concat() } else { bytes };
        prop_assert!(open(&inbound(Encryption::AesGcm128), &mut packet_of(&bytes)).is_err());
    }

    // The sequence number, IV and body of an authentic packet are arbitrary to an honest opener.
    #[test]
    fn no_authentic_body_panics(
        sequence: u32,
        bytes in proptest::collection::vec(0..70_u8, 0..80),
    ) {
        let mut packet = forge(sequence, &bytes);
        if open(&inbound(Encryption::AesGcm256), &mut packet).is_ok() {
            prop_assert!(bytes.starts_with(packet.bytes()));
            prop_assert!(matches!(packet.bytes()[0] >> 4, 4 | 6));
        }
    }
}
