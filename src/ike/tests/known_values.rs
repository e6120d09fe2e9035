//! Values that strongSwan 5.9.8 has logged of a set-up with AES-256-GCM, PRF HMAC-SHA-256 and group
//! 19, and of a Child SA rekey with a key exchange of its own.

use crate::crypto::{DhGroup, Encryption, PrfAlgorithm};
use crate::ike::Identity;
use crate::ike::auth::{METHOD_SHARED_KEY, Proof, Side};
use crate::ike::key_schedule::{Exchanged, IkeKeySet};
use crate::ike::proposal::IkeSuite;
use crate::ike::wire::IdBody;
use crate::model::Secret;

const INITIATOR_NONCE: &str = "0452ecc79f8dcd229fb2eaeaf33ef9971b4fc9ca4f7b3ecb8e81cfd1125a3522";
const RESPONDER_NONCE: &str = "b1a8534e0988f1c3d12e2a9eca29071929795067700401b0f0522d9f1dba0fbc";
const SHARED: &str = "f44eecc2d714fd1ce4a0f70fc1f88bc4f8d68d16f1c5a4ccb5e73f6677926e67";
const SK_EI: &str = "9b975a2418ba4aa59a23e8ee55df54166d87efd6907b5e4e8f34f088706b1e1158f31203";
const SK_ER: &str = "44e8fb7ecc71e34a4f78065ef0e41b88a0b4a569ed88d9a9d1c1fc5790539b3b706d7785";
const SK_PI: &str = "b32770706ec306566e8f2b38f5758cc9ae6f558bc3ad792e7afabedd141807aa";
const SK_PR: &str = "02af9732221cc250aa13f127004c6c61e55ede69efe60f77561c599a67f84344";
const INITIATOR_MESSAGE: &str = "f73b216d6a39c95a00000000000000002120220800000000000001142200005400000050010100080300000c01000014800e\
     01000300000c01000014800e0080030000080200000503000008020000060300000802000007030000080400001303000008\
     04000014000000080400000e280000480013000095514fd0d5466faedd6136f2af8f5ba15376d7c74f87a036179f79ae38b2\
     0d6ca50e533efa9f8056aeb2b1278cebb654d0c367c33a3773177a9cb70bb64b17e9290000240452ecc79f8dcd229fb2eaea\
     f33ef9971b4fc9ca4f7b3ecb8e81cfd1125a35222900001c000040046f7747524f8900d3ef7fad94e468b9a057acdc720000\
     001c00004005254a267309fb53e99fd114738d694c4ad988b9f4";
const RESPONDER_MESSAGE: &str = "f73b216d6a39c95a9825137a88a9ef082120222000000000000000f82200002800000024010100030300000c01000014800e\
     0100030000080200000500000008040000132800004800130000e15be72140662650919d57845efc49dd51792027e584b958\
     bfd1a08e35a3794362b2efd46a597b85e7b9596bd926debdee8c80090190b37850beb952c749cc4f29000024b1a8534e0988\
     f1c3d12e2a9eca29071929795067700401b0f0522d9f1dba0fbc2900001c00004004f07a2c31a7e4ce429ab13aa1759d6a55\
     b382f9f12900001c00004005d43c390d7b4dbd6d0108a964a4a30caa36183c7029000008000040220000000800004014";
const INITIATOR_AUTH: &str = "6ca5becb9766b185252246b48265985d004f573eba87da56a85b5bba69f3a2cb";
const RESPONDER_AUTH: &str = "5fbff896f8966564e34e52ac07a76af6449c54ae69b3f0054cac85aaa6e7636c";
const FIRST_FROM_INITIATOR: &str = "8e2f823207b93af6048e84f03b5776c8bd22854658fc3d658ae4bdce57df62aefa9218ec";
const FIRST_FROM_RESPONDER: &str = "d2f898243cbd97e342504f495803aa2eea27e02da7ae6729e71db19a3da5495a6d85a3b8";
const REKEY_SHARED: &str = "341c86ab03d1a468506f035c0f3a46ea149180c19e9d32e36e824301aa626388";
const REKEY_INITIATOR_NONCE: &str = "635e5b080663fd3680c05fdce40618eb93564ec74372b48101e89e012daa3fee";
const REKEY_RESPONDER_NONCE: &str = "dd74e4d3338c38c1ee1c720b5bcbb4b16db9f14cc814dbf15498082cfe961f08";
const SECOND_FROM_INITIATOR: &str = "0db2d9459de1e850abde4d00bf8973a166931d1bc9c13bb3a5a81288d2a2d7b14baae6a4";
const SECOND_FROM_RESPONDER: &str = "6f4b2dabf4f9150e849dbe8402a091efd5b853987009f7ef6a061ccc0e78fdb595024a18";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn keys() -> IkeKeySet {
    let suite = IkeSuite { encryption: Encryption::AesGcm256, prf: PrfAlgorithm::Sha256, group: DhGroup::Ecp256 };
    let exchanged = Exchanged {
        initiator_nonce: &bytes(INITIATOR_NONCE),
        responder_nonce: &bytes(RESPONDER_NONCE),
        initiator_spi: 0xf73b_216d_6a39_c95a,
        responder_spi: 0x9825_137a_88a9_ef08,
    };
    IkeKeySet::initial(&suite, &Secret::new(bytes(SHARED)), &exchanged)
}

#[test]
fn the_keys_of_an_ike_sa_are_those_of_strongswan() {
    let keys = keys();
    assert_eq!(keys.encryption_initiator.expose(), bytes(SK_EI));
    assert_eq!(keys.encryption_responder.expose(), bytes(SK_ER));
    assert_eq!(keys.proof_initiator.expose(), bytes(SK_PI));
    assert_eq!(keys.proof_responder.expose(), bytes(SK_PR));
}

#[test]
fn the_authentication_of_both_ends_is_that_of_strongswan() {
    let (keys, psk) = (keys(), Secret::new(b"the shared key".to_vec()));
    let initiator = IdBody::new(&Identity::Fqdn("edge.example".into()));
    let responder = IdBody::new(&Identity::Fqdn("pop.example".into()));
    let ours = Proof {
        side: Side::Initiator,
        message: &bytes(INITIATOR_MESSAGE),
        other_nonce: &bytes(RESPONDER_NONCE),
        identity: &initiator,
    };
    assert_eq!(ours.make(&keys, &psk), bytes(INITIATOR_AUTH));
    let theirs = Proof {
        side: Side::Responder,
        message: &bytes(RESPONDER_MESSAGE),
        other_nonce: &bytes(INITIATOR_NONCE),
        identity: &responder,
    };
    assert!(theirs.verify(&keys, &psk, METHOD_SHARED_KEY, &bytes(RESPONDER_AUTH)));
    assert!(!theirs.verify(&keys, &psk, 1, &bytes(RESPONDER_AUTH)));
    assert!(!theirs.verify(&keys, &Secret::new(Vec::new()), METHOD_SHARED_KEY, &bytes(RESPONDER_AUTH)));
}

#[test]
fn the_keys_of_child_sas_are_those_of_strongswan() {
    let keys = keys();
    let (from_initiator, from_responder) =
        keys.child(Encryption::AesGcm256, None, &bytes(INITIATOR_NONCE), &bytes(RESPONDER_NONCE));
    assert_eq!(from_initiator.expose(), bytes(FIRST_FROM_INITIATOR));
    assert_eq!(from_responder.expose(), bytes(FIRST_FROM_RESPONDER));
    let shared = Secret::new(bytes(REKEY_SHARED));
    let (from_initiator, from_responder) =
        keys.child(Encryption::AesGcm256, Some(&shared), &bytes(REKEY_INITIATOR_NONCE), &bytes(REKEY_RESPONDER_NONCE));
    assert_eq!(from_initiator.expose(), bytes(SECOND_FROM_INITIATOR));
    assert_eq!(from_responder.expose(), bytes(SECOND_FROM_RESPONDER));
}
