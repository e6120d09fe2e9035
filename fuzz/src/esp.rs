use std::sync::Arc;

use trefoil::crypto::{Backend, Encryption, SaltedKey};
use trefoil::esp::{InboundSa, OutboundSa};
use trefoil::model::{DropReason, PathId, Secret, Selectors, Spi, TrafficSelector};

/// An ESP packet, as it is; then the same bytes as what an authentic one has inside; then as an
/// inner packet that goes through both directions.
pub fn esp(bytes: &[u8]) {
    let encryption = Encryption::AesGcm128;
    let (spi, path, keymat) = (Spi(0x0001_0001), PathId(0), Secret::new(vec![7; encryption.keymat_len()]));
    let any: Box<[TrafficSelector]> = Box::new([TrafficSelector::ANY_IPV4]);
    let selectors = Arc::new(Selectors { local: any.clone(), remote: any });
    let inbound = InboundSa::new(spi, path, encryption, &keymat, selectors).expect("the key fits");
    let outbound = OutboundSa::new(spi, path, encryption, &keymat).expect("the key fits");

    assert!(inbound.open(&mut bytes.to_vec()).is_err(), "a tag was guessed");

    let key = SaltedKey::new(Backend::RustCrypto, encryption, keymat.expose()).expect("the key fits");
    let aad = [spi.0.to_be_bytes(), 9_u32.to_be_bytes()].concat();
    let mut body = bytes.to_vec();
    let tag = key.seal([1; 8], &aad, &mut body).expect("short");
    let mut packet = [aad.as_slice(), &[1; 8], &body, &tag].concat();
    match inbound.open(&mut packet) {
        Ok(opened) => assert!(opened.first_use && opened.newest && bytes.starts_with(&packet[opened.inner])),
        Err(reason) => {
            assert!(matches!(reason, DropReason::BadInner | DropReason::Dummy | DropReason::BadTag), "{reason:?}");
        }
    }

    let mut packet = vec![0; outbound.sealed_len(bytes.len())];
    packet[outbound.header_len()..][..bytes.len()].copy_from_slice(bytes);
    if let Ok(length) = outbound.seal(&mut packet, bytes.len()) {
        let inner = inbound.open(&mut packet[..length]).expect("just sealed").inner;
        assert_eq!(&packet[inner], bytes);
    }
}
