//! Packet ciphers: all backends against each other, against damage, and against published packets.

use proptest::prelude::*;

use super::hex::hex;
use super::*;

/// SPI and sequence number.
const CLEAR_LEN: usize = 8;

fn suite(encryption: Encryption, integrity: Option<Integrity>) -> PacketSuite {
    PacketSuite::new(encryption, integrity).expect("they go together")
}

fn keymat(suite: PacketSuite) -> Vec<u8> {
    (0x40..).take(suite.keymat_len()).collect()
}

fn ciphers(suite: PacketSuite, keymat: &[u8]) -> [PacketCipher; 2] {
    Backend::ALL.map(|backend| PacketCipher::new(backend, suite, keymat).expect("the key fits"))
}

/// A packet with room for everything: 8 bytes of clear part, `body` filled up to whole blocks.
fn packet(suite: PacketSuite, body: &[u8]) -> Vec<u8> {
    let least = if suite.encryption().is_aead() { 0 } else { 1 };
    let padded = body.len().max(least).next_multiple_of(suite.alignment());
    let mut packet: Vec<u8> = (1..=CLEAR_LEN as u8).collect();
    packet.resize(CLEAR_LEN + suite.iv_len(), 0);
    packet.extend_from_slice(body);
    packet.resize(CLEAR_LEN + suite.iv_len() + padded + suite.icv_len(), 0);
    packet
}

/// What is inside, before it is sealed.
fn body_of(suite: PacketSuite, packet: &[u8]) -> &[u8] {
    &packet[CLEAR_LEN + suite.iv_len()..packet.len() - suite.icv_len()]
}

// RFC 7634, appendix A.
#[test]
fn the_esp_example_of_chacha20_poly1305_opens_and_seals() {
    let keymat = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3");
    let plain = hex("45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
         0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
         2425262728292a2b2c2d2e2f3031323334353637 01020204");
    let sealed = hex("0102030400000005 1011121314151617
         24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
         14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
         cbec163fac469b502773f6fb94e664da9165b82829f641e0
         76aaa8266b7fb0f7b11b369907e1ad43");
    let suite = suite(Encryption::ChaCha20Poly1305, None);
    for cipher in ciphers(suite, &keymat) {
        let mut packet = sealed.clone();
        assert_eq!(cipher.open(CLEAR_LEN, &mut packet).expect("authentic"), plain);
        assert_eq!(cipher.seal(0x1011_1213_1415_1617, CLEAR_LEN, &mut packet), Some(()));
        assert_eq!(packet, sealed);
    }
}

// RFC 3602 4, cases 5 to 8: the packets there have no check value, so it is put on here.
#[test]
fn the_esp_packets_of_rfc_3602_open() {
    let icmp = "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637";
    let packets = [
        (
            "90d382b410eeba7ad938c46cec1a82bf",
            "0000432100000001e96e8c08ab465763fd098d45dd3ff893f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4
             898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6",
            format!("08000ebda70a00008e9c083db95b0700 {icmp} 0102030405060708090a0b0c0d0e0e01"),
        ),
        (
            "90d382b410eeba7ad938c46cec1a82bf",
            "000043210000000869d08df7d203329db093fc4924e5bd80f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca3
             46a89f75",
            "0800b5e8a80a0500a69c083d0b660e00777777777777777777777777 01020201".to_string(),
        ),
        (
            "0123456789abcdef0123456789abcdef",
            "0000876500000002f4e765244f6407adf13dc1380f673f37773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1
             a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a
             109e0ca1e4dfe9d5a100b842f1c22f0d",
            format!(
                "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a20400 {icmp} \
                 0102030405060708090a0a04"
            ),
        ),
        (
            "0123456789abcdef0123456789abcdef",
            "000087650000000585d47224b5f3dd5d2101d4ea8dffab2215b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc
             61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc6d17a0decbb13892",
            format!(
                "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300 {} 0102030405060708090a0a04",
                "ff".repeat(32)
            ),
        ),
    ];
    let integrity = Integrity::Sha256;
    let suite = suite(Encryption::AesCbc128, Some(integrity));
    for (key, sealed, plain) in packets {
        let keymat = [hex(key), vec![9; integrity.key_len()]].concat();
        let mut packet = hex(sealed);
        let mut icv = [0; 16];
        let signing = integrity_key::IntegrityKey::new(Backend::RustCrypto, integrity, &[9; 32]).expect("fits");
        signing.sign(&packet, &mut icv).expect("fits");
        packet.extend_from_slice(&icv);
        for cipher in ciphers(suite, &keymat) {
            assert_eq!(cipher.open(CLEAR_LEN, &mut packet.clone()).expect("authentic"), hex(&plain));
        }
    }
}

// AES of the number under the same key, by Python's cryptography package.
#[test]
fn the_iv_of_cbc_is_the_encrypted_sequence_number() {
    let suite = suite(Encryption::AesCbc256, Some(Integrity::Sha256));
    for cipher in ciphers(suite, &keymat(suite)) {
        let iv = |sequence| {
            let mut packet = packet(suite, &[0; 64]);
            cipher.seal(sequence, CLEAR_LEN, &mut packet).expect("it fits");
            packet[CLEAR_LEN..][..CBC_BLOCK].to_vec()
        };
        assert_eq!(iv(1), hex("27a37479bf975513417be2d3425a7f53"));
        assert_eq!(iv(2), hex("5a3430789468d2abd88b98f33ffd6246"));
    }
}

#[test]
fn keymat_of_any_other_length_is_refused() {
    for backend in Backend::ALL {
        for suite in PacketSuite::ALL {
            let expected = suite.keymat_len();
            for found in [0, expected - 1, expected + 1] {
                let refused = PacketCipher::new(backend, suite, &vec![1; found]);
                assert_eq!(refused.err(), Some(CryptoError::KeyLength { expected, found }));
            }
        }
    }
}

#[test]
fn a_packet_without_room_or_alignment_is_not_sealed() {
    for suite in PacketSuite::ALL {
        for cipher in ciphers(suite, &keymat(suite)) {
            let least = packet(suite, &[]).len();
            for length in 0..least {
                assert_eq!(cipher.seal(1, CLEAR_LEN, &mut vec![0; length]), None, "{suite} {length}");
            }
            assert_eq!(cipher.seal(1, CLEAR_LEN, &mut vec![0; least]), Some(()), "{suite}");
            let whole = suite.encryption().is_aead();
            assert_eq!(cipher.seal(1, CLEAR_LEN, &mut vec![0; least + 1]).is_some(), whole, "{suite}");
        }
    }
}

// As CBC stops at whole blocks: a check value over anything else is a mistake of an honest peer.
#[test]
fn an_authentic_packet_that_is_not_of_whole_blocks_is_refused() {
    let suite = suite(Encryption::AesCbc128, Some(Integrity::Sha256));
    let keymat = keymat(suite);
    let signing =
        integrity_key::IntegrityKey::new(Backend::RustCrypto, Integrity::Sha256, &keymat[16..]).expect("fits");
    for length in 0..64 {
        let mut packet = vec![5; length];
        let mut icv = [0; 16];
        signing.sign(&packet, &mut icv).expect("fits");
        packet.extend_from_slice(&icv);
        let whole = length >= CLEAR_LEN + CBC_BLOCK && (length - CLEAR_LEN).is_multiple_of(CBC_BLOCK);
        for cipher in ciphers(suite, &keymat) {
            assert_eq!(cipher.open(CLEAR_LEN, &mut packet.clone()).is_ok(), whole, "{length}");
        }
    }
}

#[test]
fn keys_are_never_printed() {
    for suite in PacketSuite::ALL {
        for cipher in ciphers(suite, &keymat(suite)) {
            assert_eq!(format!("{cipher:?}"), format!("PacketCipher({suite})"));
        }
    }
}

proptest! {
    #[test]
    fn all_backends_give_the_same_bytes_and_open_each_others(
        suite in proptest::sample::select(PacketSuite::ALL.to_vec()),
        keymat: [[u8; 32]; 3],
        sequence: u64,
        body in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let [one, two] = ciphers(suite, &keymat.concat()[..suite.keymat_len()]);
        let plain = packet(suite, &body);
        let (mut first, mut second) = (plain.clone(), plain.clone());
        prop_assert_eq!(one.seal(sequence, CLEAR_LEN, &mut first), Some(()));
        prop_assert_eq!(two.seal(sequence, CLEAR_LEN, &mut second), Some(()));
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(&first[..CLEAR_LEN], &plain[..CLEAR_LEN]);

        prop_assert_eq!(one.open(CLEAR_LEN, &mut second).map(|body| &*body), Ok(body_of(suite, &plain)));
        prop_assert_eq!(two.open(CLEAR_LEN, &mut first).map(|body| &*body), Ok(body_of(suite, &plain)));
    }

    #[test]
    fn all_backends_refuse_a_flipped_bit_anywhere(
        suite in proptest::sample::select(PacketSuite::ALL.to_vec()),
        sequence: u64,
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        at: proptest::sample::Index,
        bit in 0..8_u32,
    ) {
        let ciphers = ciphers(suite, &keymat(suite));
        let mut packet = packet(suite, &body);
        prop_assert_eq!(ciphers[0].seal(sequence, CLEAR_LEN, &mut packet), Some(()));
        let at = at.index(packet.len());
        packet[at] ^= 1 << bit;
        for cipher in &ciphers {
            prop_assert!(cipher.open(CLEAR_LEN, &mut packet.clone()).is_err());
        }
    }

    #[test]
    fn all_backends_refuse_what_was_cut_or_is_anything_else(
        suite in proptest::sample::select(PacketSuite::ALL.to_vec()),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        cut: proptest::sample::Index,
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let ciphers = ciphers(suite, &keymat(suite));
        let mut packet = packet(suite, &body);
        prop_assert_eq!(ciphers[0].seal(7, CLEAR_LEN, &mut packet), Some(()));
        packet.truncate(cut.index(packet.len()));
        for cipher in &ciphers {
            prop_assert!(cipher.open(CLEAR_LEN, &mut packet.clone()).is_err());
            prop_assert!(cipher.open(CLEAR_LEN, &mut noise.clone()).is_err());
        }
    }
}
