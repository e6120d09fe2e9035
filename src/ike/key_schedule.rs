use super::proposal::IkeSuite;
use crate::crypto::{Encryption, Prf};
use crate::model::Secret;

/// Nonces and SPIs of the exchange that makes an IKE SA.
#[derive(Clone, Copy)]
pub struct Exchanged<'a> {
    pub initiator_nonce: &'a [u8],
    pub responder_nonce: &'a [u8],
    pub initiator_spi: u64,
    pub responder_spi: u64,
}

/// The keys of one IKE SA (RFC 7296 2.14). With an AEAD there are no SK_ai and SK_ar, and
/// SK_ei and SK_er end in the salt (RFC 5282 7.1).
pub struct IkeKeySet {
    prf: Prf,
    derive: Secret,
    pub encryption_initiator: Secret,
    pub encryption_responder: Secret,
    pub proof_initiator: Secret,
    pub proof_responder: Secret,
}

impl IkeKeySet {
    /// After IKE_SA_INIT: SKEYSEED = prf(Ni | Nr, g^ir).
    pub fn initial(suite: &IkeSuite, shared: &Secret, exchanged: &Exchanged<'_>) -> IkeKeySet {
        let nonces = [exchanged.initiator_nonce, exchanged.responder_nonce].concat();
        let seed = Prf::new(suite.prf).compute(&nonces, &[shared.expose()]);
        IkeKeySet::expand(suite, &seed, exchanged)
    }

    /// After an IKE SA rekey: SKEYSEED = prf(SK_d (old), g^ir | Ni | Nr) with the old PRF; what
    /// follows uses the new one (RFC 7296 2.18).
    pub fn rekeyed(&self, suite: &IkeSuite, shared: &Secret, exchanged: &Exchanged<'_>) -> IkeKeySet {
        let parts = [shared.expose(), exchanged.initiator_nonce, exchanged.responder_nonce];
        let seed = self.prf.compute(self.derive.expose(), &parts);
        IkeKeySet::expand(suite, &seed, exchanged)
    }

    /// The keys of a Child SA, for packets from the exchange's initiator and from its responder
    /// (RFC 7296 2.17). `shared` is there when the exchange had a key exchange of its own.
    pub fn child(
        &self,
        encryption: Encryption,
        shared: Option<&Secret>,
        initiator_nonce: &[u8],
        responder_nonce: &[u8],
    ) -> (Secret, Secret) {
        let shared = shared.map_or(&[][..], Secret::expose);
        let length = encryption.keymat_len();
        let material = expand(self.prf, &self.derive, &[shared, initiator_nonce, responder_nonce], 2 * length);
        let mut parts = Cutter(material.expose());
        (parts.cut(length), parts.cut(length))
    }

    pub fn prf(&self) -> Prf {
        self.prf
    }

    fn expand(suite: &IkeSuite, seed: &Secret, exchanged: &Exchanged<'_>) -> IkeKeySet {
        let prf = Prf::new(suite.prf);
        let (key, encryption) = (prf.output_len(), suite.encryption.keymat_len());
        let spis = (exchanged.initiator_spi.to_be_bytes(), exchanged.responder_spi.to_be_bytes());
        let parts = [exchanged.initiator_nonce, exchanged.responder_nonce, &spis.0, &spis.1];
        let material = expand(prf, seed, &parts, 3 * key + 2 * encryption);
        let mut parts = Cutter(material.expose());
        IkeKeySet {
            prf,
            derive: parts.cut(key),
            encryption_initiator: parts.cut(encryption),
            encryption_responder: parts.cut(encryption),
            proof_initiator: parts.cut(key),
            proof_responder: parts.cut(key),
        }
    }
}

fn expand(prf: Prf, key: &Secret, seed: &[&[u8]], length: usize) -> Secret {
    let Some(material) = prf.expand(key.expose(), seed, length) else {
        unreachable!("all suites need less than 255 blocks of any PRF")
    };
    material
}

struct Cutter<'a>(&'a [u8]);

impl Cutter<'_> {
    fn cut(&mut self, length: usize) -> Secret {
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        Secret::new(head.to_vec())
    }
}
