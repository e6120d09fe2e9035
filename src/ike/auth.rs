use subtle::ConstantTimeEq;

use super::key_schedule::IkeKeySet;
use super::wire::IdBody;
use crate::model::Secret;

/// Authentication method "shared key message integrity code" (RFC 7296 3.8).
pub const METHOD_SHARED_KEY: u8 = 2;

const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Whose authentication it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Initiator,
    Responder,
}

/// What one side proves: that it has sent its IKE_SA_INIT message, as `message`, to the one that
/// sent `other_nonce` (RFC 7296 2.15).
pub struct Proof<'a> {
    pub side: Side,
    pub message: &'a [u8],
    pub other_nonce: &'a [u8],
    pub identity: &'a IdBody,
}

impl Proof<'_> {
    /// AUTH = prf(prf(PSK, "Key Pad for IKEv2"), message | nonce | prf(SK_p, identity)).
    pub fn make(&self, keys: &IkeKeySet, psk: &Secret) -> Vec<u8> {
        let proof_key = match self.side {
            Side::Initiator => &keys.proof_initiator,
            Side::Responder => &keys.proof_responder,
        };
        let prf = keys.prf();
        let maced_identity = prf.compute(proof_key.expose(), &[&self.identity.encode()]);
        let padded = prf.compute(psk.expose(), &[KEY_PAD]);
        prf.compute(padded.expose(), &[self.message, self.other_nonce, maced_identity.expose()]).expose().to_vec()
    }

    /// Whether the other side's AUTH is the one that our key gives, in constant time.
    pub fn verify(&self, keys: &IkeKeySet, psk: &Secret, method: u8, data: &[u8]) -> bool {
        method == METHOD_SHARED_KEY && bool::from(self.make(keys, psk).as_slice().ct_eq(data))
    }
}
