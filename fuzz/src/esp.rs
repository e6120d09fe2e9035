use std::sync::Arc;

use trefoil::crypto::{Backend, Encryption, SaltedKey};
use trefoil::esp::{InboundSa, OutboundSa};
use trefoil::model::{DropReason, PathId, Secret, Selectors, Spi, TrafficSelector};
use trefoil::packet::PacketBuf;

/// An ESP packet, as it is; then the same bytes as what an authentic one has inside; then as an
/// inner packet that goes through both directions.
pub fn esp(bytes: &[u8]) {
    let encryption = Encryption::AesGcm128;
    let (spi, path, keymat) = (Spi(0x0001_0001), PathId(0), Secret::new(vec![7; encryption.keymat_len()]));
    let any: Box<[TrafficSelector]> = Box::new([TrafficSelector::ANY_IPV4]);
    let selectors = Arc::new(Selectors { local: any.clone(), remote: any });
    let inbound = InboundSa::new(spi, path, encryption, &keymat, selectors).expect("the key fits");
    let outbound = OutboundSa::new(spi, path, encryption, &keymat).expect("the key fits");
    let mut packet = PacketBuf::with_capacity(bytes.len() + 64);

    assert!(packet.fill(bytes));
    assert!(inbound.open(&mut packet).is_err(), "a tag was guessed");

    let key = SaltedKey::new(Backend::RustCrypto, encryption, keymat.expose()).expect("the key fits");
    let aad = [spi.0.to_be_bytes(), 9_u32.to_be_bytes()].concat();
    let mut body = bytes.to_vec();
    let tag = key.seal([1; 8], &aad, &mut body).expect("short");
    assert!(packet.fill(&[aad.as_slice(), &[1; 8], &body, &tag].concat()));
    match inbound.open(&mut packet) {
        Ok(opened) => assert!(opened.first_use && opened.newest && bytes.starts_with(packet.bytes())),
        Err(reason) => {
            assert!(matches!(reason, DropReason::BadInner | DropReason::Dummy | DropReason::BadTag), "{reason:?}");
        }
    }

    assert!(packet.fill(bytes));
    if outbound.seal(&mut packet).is_ok() {
        assert!(inbound.open(&mut packet).is_ok());
        assert_eq!(packet.bytes(), bytes);
    }
}
