//! What is fuzzed: every decoder of bytes from outside, with what must hold for any input.
//! `cargo fuzz run TARGET` explores; `tests/corpus.rs` of the crate replays the corpus.

use std::sync::Arc;

use trefoil::crypto::{Backend, Encryption, SaltedKey};
use trefoil::esp::{InboundSa, OutboundSa};
use trefoil::model::{DropReason, PathId, Secret, Selectors, Spi, TrafficSelector};
use trefoil::packet::{Echo, PacketBuf, ProbeKey, Refusal, clamp_mss, fragment, parse, refuse};

/// An IP packet, from the site or out of a tunnel: the first two bytes are an MTU, the rest is
/// the packet.
pub fn packet(bytes: &[u8]) {
    let Some((mtu, bytes)) = bytes.split_first_chunk() else { return };
    let mtu = u16::from_be_bytes(*mtu);
    let Some(parsed) = parse(bytes) else { return };
    assert!(parsed.transport <= parsed.total_len && parsed.total_len <= bytes.len());

    let mut out = PacketBuf::with_capacity(2000);
    if refuse(Refusal::TooBig { mtu }, bytes, &parsed, &mut out) {
        let error = parse(out.bytes()).expect("our own error is a packet");
        assert_eq!(error.total_len, out.len());
        assert_eq!(error.key.destination, parsed.key.source);
    }
    if let Some(echo) = Echo::read(bytes, &parsed) {
        assert!(ProbeKey::new([7; 32]).read_answer(&echo, &parsed).is_none(), "a tag was guessed");
        if echo.request && echo.write_reply(&parsed, &mut out) {
            let reply = parse(out.bytes()).expect("our own reply is a packet");
            let answer = Echo::read(out.bytes(), &reply).expect("our own reply is an echo");
            assert_eq!((answer.request, answer.data), (false, echo.data));
        }
    }
    let mut data_len = 0;
    let whole = fragment(bytes, usize::from(mtu), |header, data| {
        assert!(header.len() + data.len() <= usize::from(mtu));
        data_len += data.len();
        true
    });
    assert!(data_len <= parsed.total_len && (whole || data_len == 0));

    let mut clamped = bytes.to_vec();
    clamp_mss(&mut clamped, &parsed, mtu);
    assert_eq!(parse(&clamped), Some(parsed), "clamping changes the option and nothing else");
}

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

    let key = SaltedKey::new(Backend::Portable, encryption, keymat.expose()).expect("the key fits");
    let aad = [spi.0.to_be_bytes(), 9_u32.to_be_bytes()].concat();
    let mut body = bytes.to_vec();
    let tag = key.seal([1; 8], &aad, &mut body).expect("short");
    assert!(packet.fill(&[aad.as_slice(), &[1; 8], &body, &tag].concat()));
    match inbound.open(&mut packet) {
        Ok(opened) => assert!(opened.first_use && bytes.starts_with(packet.bytes())),
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
