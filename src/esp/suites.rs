//! What must hold with every suite, and each of them against an independent implementation.

use std::sync::Arc;

use proptest::prelude::*;

use super::tests::{PATH, SPI, inner, open, packet_of, seal};
use super::*;
use crate::crypto::hex::hex;
use crate::crypto::{Backend, Encryption, Integrity, PacketCipher, PacketSuite};
use crate::model::{DropReason, Selectors, TrafficSelector};
use crate::packet::{HEADROOM, TAILROOM};

fn cipher(backend: Backend, suite: PacketSuite) -> PacketCipher {
    let keymat: Vec<u8> = (0x40..).take(suite.keymat_len()).collect();
    PacketCipher::new(backend, suite, &keymat).expect("the key fits")
}

fn outbound(suite: PacketSuite) -> OutboundSa {
    OutboundSa::with_cipher(SPI, PATH, cipher(Backend::AwsLc, suite))
}

fn inbound(suite: PacketSuite) -> InboundSa {
    let any = Box::new([TrafficSelector::ANY_IPV4, TrafficSelector::ANY_IPV6]);
    let selectors = Arc::new(Selectors { local: any.clone(), remote: any });
    InboundSa::with_cipher(SPI, PATH, cipher(Backend::RustCrypto, suite), selectors)
}

fn any_suite() -> impl Strategy<Value = PacketSuite> {
    proptest::sample::select(PacketSuite::ALL.to_vec())
}

#[test]
fn a_sealed_packet_is_as_long_as_foretold_and_aligned() {
    for suite in PacketSuite::ALL {
        let sa = outbound(suite);
        for length in 20..120 {
            let mut packet = packet_of(&inner(0x45, length));
            assert_eq!(seal(&sa, &mut packet), Ok(()));
            assert_eq!(packet.len(), length + esp_overhead(suite, length));
            assert_eq!(packet.len(), sa.sealed_len(length));
            let encrypted = packet.len() - sa.header_len() - suite.icv_len();
            assert!(encrypted.is_multiple_of(suite.alignment()), "{suite} {length}");
            assert!(
                encrypted - length < suite.alignment() + TRAILER_LEN,
                "{suite} {length}: padding of a block or more"
            );
        }
    }
}

#[test]
fn every_packet_buffer_has_room_around_it_for_every_suite() {
    for suite in PacketSuite::ALL {
        let most = (1..=suite.alignment()).map(|length| esp_overhead(suite, length)).max();
        let header = outbound(suite).header_len();
        assert!(header <= HEADROOM && most.is_some_and(|most| most - header <= TAILROOM), "{suite}");
    }
}

#[test]
fn too_little_room_takes_no_sequence_number() {
    for suite in PacketSuite::ALL {
        let sa = outbound(suite);
        let plain = inner(0x45, 60);
        let mut room = [vec![0; sa.header_len()], plain.clone(), vec![0; TAILROOM]].concat();
        let needed = sa.sealed_len(plain.len());
        for length in 0..needed {
            assert_eq!(sa.seal(&mut room[..length], plain.len()), Err(DropReason::TooBig));
        }
        assert_eq!(sa.seal(&mut room, plain.len()), Ok(needed));
        assert_eq!(room[..8], [0, 7, 0xbe, 0xef, 0, 0, 0, 1]);
    }
}

#[test]
fn truncated_packets_of_every_length_are_refused() {
    for suite in PacketSuite::ALL {
        let receiver = inbound(suite);
        let mut packet = packet_of(&inner(0x45, 90));
        seal(&outbound(suite), &mut packet).expect("sealed");
        for length in 0..packet.len() {
            assert_eq!(open(&receiver, &mut packet_of(&packet.bytes()[..length])), Err(DropReason::BadTag));
        }
        assert_eq!(open(&receiver, &mut packet), Ok(true), "none of them was marked");
    }
}

#[test]
fn the_largest_inner_packet_fills_the_underlay_and_one_more_byte_overflows_it() {
    for suite in PacketSuite::ALL {
        for outer_mtu in 300..1600 {
            for (natt, around) in [(true, 28), (false, 20)] {
                let sealed = |inner: usize| around + inner + esp_overhead(suite, inner);
                let inner = largest_inner_with(suite, outer_mtu, natt);
                assert!(sealed(inner) <= outer_mtu && sealed(inner + 1) > outer_mtu, "{suite} {outer_mtu} {natt}");
                let aead = suite.encryption().is_aead();
                assert!(inner == largest_inner(outer_mtu, natt) || !aead, "{suite} {outer_mtu} {natt}");
            }
        }
    }
    assert_eq!(largest_inner(1500, true), 1438);
    assert_eq!(largest_inner(1500, false), 1446);
    assert_eq!(largest_inner(60, true), 0);
    let sha1 = PacketSuite::new(Encryption::AesCbc128, Some(Integrity::Sha1)).expect("they go together");
    assert_eq!(largest_inner_with(sha1, 1500, true), 1422);
}

const ECHO: &str = "4500002900070000400166bd0a0100050a020009080003b4004d000161726520796f75207468657265";
const UDP: &str = "4500001c00080000401166b90a0100050a0200090fa000350008dbf8";

/// An ICMP echo request or an empty UDP datagram with each suite: as scapy 2.8.0 (over Python's
/// cryptography 50) sealed it with sequence number 0x01020304 and an IV of its own choice, and as
/// we seal it, which scapy opened to the same inner packet.
const ORACLE: [(Encryption, Option<Integrity>, &str, &str, &str); 8] = [
    (
        Encryption::AesGcm256,
        None,
        ECHO,
        "0007beef01020304a1b2c3d4e5f60718b20a5ac7e988a7de220f4007e109ebf836a36e297c4d4fd0fe6bb409abea0821
         1d18436db93323990c450721187180ff81743fca6aeb5d13463063e8",
        "0007beef0000000100000000000000011265f74fc198ec23c57a99da8282d2a702da6c1172ccde142204e3b041cbc05e
         0f8d791cdfc69cb258cc44edf588ce3f18b1171d271e68965b3f1a55",
    ),
    (
        Encryption::AesGcm128,
        None,
        UDP,
        "0007beef01020304a1b2c3d4e5f607180142363b5d8ed35f4b3fc9d2ca701e9387d01d1d01074de4b784fe36c2cf2f0d
         22bc8722c912ec407c95f70085e37b21",
        "0007beef000000010000000000000001c3aed13eb49e3c1d721b4cafbe74d1622ff78e0feb15fece8eabbdc1d7d4f7d0
         bd71bfabaf33d7090534c7613385e2aa",
    ),
    (
        Encryption::ChaCha20Poly1305,
        None,
        ECHO,
        "0007beef01020304a1b2c3d4e5f60718b93d4223cb417c185bf0b9d035af4b303eb457c03b05afb29688a9094ccdb962
         1305e4d82673ae87ade76454da9dfcf4a3f50c8e06ec4ab8d0f0319b",
        "0007beef0000000100000000000000012302c731cd51faf95025cc2081afc17e93e3d274723c09fa81121c6b658e3eda
         dd5d3dc068fa74468b31f886cde3fa77714a2948de82612468b0a8c6",
    ),
    (
        Encryption::AesCbc128,
        Some(Integrity::Sha1),
        UDP,
        "0007beef01020304a1b2c3d4e5f6071829384756657483925fb506eaeb974cc516b6f2a57516fa8ce01140fe1fde12c9
         9d5b729ca3fdc9aa13920bab911f1c4b76d01105",
        "0007beef00000001450e115197d569c7056b7c977de563271f71b8476deecf4e930a87a602cfdf73a13f116a2d513667
         5ede0061955c8167d1ef4e230fae4d86babee898",
    ),
    (
        Encryption::AesCbc256,
        Some(Integrity::Sha1),
        ECHO,
        "0007beef01020304a1b2c3d4e5f607182938475665748392a037191fb81a9d70358efc8bae56bc8650a74c1b255a4a43
         a18a71b589330c6357c8aad253f49ae340452e27b4ce45ea0762359362706210c47fcea7",
        "0007beef0000000127a37479bf975513417be2d3425a7f531f47c12ecb069199bb61a990bcfd7d8fadb11210d3873192
         14f152977d2acdb761c725b7d8d4fc13a51f9ceb90093c9e6edaa7a3a443eb0767c60c77",
    ),
    (
        Encryption::AesCbc256,
        Some(Integrity::Sha256),
        ECHO,
        "0007beef01020304a1b2c3d4e5f607182938475665748392a037191fb81a9d70358efc8bae56bc8650a74c1b255a4a43
         a18a71b589330c6357c8aad253f49ae340452e27b4ce45eaf210925af5284dbd90d1398c4cb7d7d3",
        "0007beef0000000127a37479bf975513417be2d3425a7f531f47c12ecb069199bb61a990bcfd7d8fadb11210d3873192
         14f152977d2acdb761c725b7d8d4fc13a51f9ceb90093c9e92b43ba6fd11ec2a0ce5557db1dcf12f",
    ),
    (
        Encryption::AesCbc128,
        Some(Integrity::Sha384),
        UDP,
        "0007beef01020304a1b2c3d4e5f6071829384756657483925fb506eaeb974cc516b6f2a57516fa8ce01140fe1fde12c9
         9d5b729ca3fdc9aa52d558c2b0b295eb03286b9bd998e5e6629c42d5ea1b6638",
        "0007beef00000001450e115197d569c7056b7c977de563271f71b8476deecf4e930a87a602cfdf73a13f116a2d513667
         5ede0061955c816702f4b80eb4eb676df08925ca0cef5e0163a75a5caca059b1",
    ),
    (
        Encryption::AesCbc256,
        Some(Integrity::Sha512),
        ECHO,
        "0007beef01020304a1b2c3d4e5f607182938475665748392a037191fb81a9d70358efc8bae56bc8650a74c1b255a4a43
         a18a71b589330c6357c8aad253f49ae340452e27b4ce45ea2452b644a11b8f2aeb48dac74a73ec7db463e0f025501ba2
         7a80b5006e1511ee",
        "0007beef0000000127a37479bf975513417be2d3425a7f531f47c12ecb069199bb61a990bcfd7d8fadb11210d3873192
         14f152977d2acdb761c725b7d8d4fc13a51f9ceb90093c9e0c65cafcf8f4164350674eb107d8a901609411860bd2546b
         1e3e3df247295767",
    ),
];

#[test]
fn what_another_implementation_sealed_opens() {
    for (encryption, integrity, plain, sealed, _) in ORACLE {
        let suite = PacketSuite::new(encryption, integrity).expect("they go together");
        let mut packet = packet_of(&hex(sealed));
        assert_eq!(open(&inbound(suite), &mut packet), Ok(true), "{suite}");
        assert_eq!(packet.bytes(), hex(plain));
    }
}

#[test]
fn what_we_seal_is_what_another_implementation_opened() {
    for (encryption, integrity, plain, _, sealed) in ORACLE {
        let suite = PacketSuite::new(encryption, integrity).expect("they go together");
        let mut packet = packet_of(&hex(plain));
        assert_eq!(seal(&outbound(suite), &mut packet), Ok(()));
        assert_eq!(packet.bytes(), hex(sealed), "{suite}");
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same_bytes(
        suite in any_suite(),
        six: bool,
        length in prop_oneof![20..200_usize, 1200..1600_usize, Just(65_535_usize)],
        repeats in 1..4_u32,
    ) {
        let (sender, receiver) = (outbound(suite), inbound(suite));
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
        suite in any_suite(),
        length in 20..300_usize,
        at: proptest::sample::Index,
        bit in 0..8_u32,
    ) {
        let receiver = inbound(suite);
        let mut packet = packet_of(&inner(0x45, length));
        seal(&outbound(suite), &mut packet).expect("sealed");
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
        suite in any_suite(),
        header: bool,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = if header { [&SPI.0.to_be_bytes(), bytes.as_slice()].concat() } else { bytes };
        prop_assert!(open(&inbound(suite), &mut packet_of(&bytes)).is_err());
    }
}
