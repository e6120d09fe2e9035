//! Both directions against each other, and what is authentic against what is right.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::crypto::{Backend, Encryption, PacketSuite, SaltedKey};
use crate::model::{DropReason, PathId, Secret, Selectors, Spi, TrafficSelector};
use crate::packet::{PacketBuf, TAILROOM};

pub(super) const SPI: Spi = Spi(0x0007_beef);
pub(super) const PATH: PathId = PathId(3);

pub(super) fn keymat(encryption: Encryption) -> Secret {
    Secret::new((0x40..).take(encryption.keymat_len()).collect())
}

pub(super) fn packet_of(bytes: &[u8]) -> PacketBuf {
    let mut packet = PacketBuf::with_capacity(70_000);
    assert!(packet.fill(bytes));
    packet
}

/// An inner packet of `length` bytes as far as ESP looks into it.
pub(super) fn ipv4(length: usize) -> PacketBuf {
    packet_of(&inner(0x45, length))
}

pub(super) fn inner(first: u8, length: usize) -> Vec<u8> {
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
pub(super) fn open(sa: &InboundSa, packet: &mut PacketBuf) -> Result<bool, DropReason> {
    let opened = sa.open(packet.bytes_mut())?;
    packet.trim_front(opened.inner.start);
    packet.truncate(opened.inner.len());
    Ok(opened.first_use)
}

fn aead(encryption: Encryption) -> PacketSuite {
    PacketSuite::new(encryption, None).expect("an AEAD")
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
        assert_eq!(packet.len(), length + esp_overhead(aead(Encryption::AesGcm256), length));
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
fn a_dummy_packet_is_told_from_all_others_with_what_is_in_it() {
    let sa = inbound(Encryption::AesGcm256);
    for (sequence, body, content) in
        [(1, &[0xff, 0xee, 0, 59][..], &[0xff, 0xee][..]), (2, &[1, 2, 2, 59], &[]), (3, &[0, 59], &[])]
    {
        let mut packet = forge(sequence, body);
        let opened = sa.open(packet.bytes_mut()).unwrap();
        assert!(opened.is_nothing);
        assert_eq!(&packet.bytes()[opened.inner], content);
    }
    let outbound = outbound(Encryption::AesGcm256);
    let mut room = vec![7; outbound.sealed_len(5)];
    assert_eq!(outbound.seal_nothing(&mut room, 5), Ok(room.len()));
}

#[test]
fn longer_padding_than_needed_is_taken() {
    let body = [inner(0x45, 20), (1..=200).collect(), vec![200, 4]].concat();
    let mut packet = forge(1, &body);
    assert!(open(&inbound(Encryption::AesGcm256), &mut packet).is_ok());
    assert_eq!(packet.bytes(), inner(0x45, 20));
}

#[test]
fn keys_are_never_printed() {
    let shown = format!("{:?} {:?}", outbound(Encryption::AesGcm128), inbound(Encryption::AesGcm128));
    assert!(shown.contains("cipher: PacketCipher(aes-gcm-128)") && !shown.contains("64, 65"), "{shown}");
}

#[test]
fn cbc_without_an_integrity_algorithm_is_refused() {
    let encryption = Encryption::AesCbc256;
    assert!(OutboundSa::new(SPI, PATH, encryption, &keymat(encryption)).is_err());
}

proptest! {
    // The sequence number, IV and body of an authentic packet are arbitrary to an honest opener.
    #[test]
    fn no_authentic_body_panics(
        sequence: u32,
        bytes in proptest::collection::vec(0..70_u8, 0..80),
    ) {
        let mut packet = forge(sequence, &bytes);
        if let Ok(opened) = inbound(Encryption::AesGcm256).open(packet.bytes_mut()) {
            let inner = &packet.bytes()[opened.inner];
            prop_assert!(bytes.starts_with(inner));
            prop_assert!(opened.is_nothing || matches!(inner[0] >> 4, 4 | 6));
        }
    }
}
