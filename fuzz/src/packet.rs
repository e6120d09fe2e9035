use trefoil::packet::{Echo, PacketBuf, ProbeKey, Refusal, clamp_mss, fragment, parse, refuse};

/// An IP packet, from the site or out of a tunnel: the first two bytes are an MTU, the rest is
/// the packet.
pub fn packet(bytes: &[u8]) {
    let Some((mtu, bytes)) = bytes.split_first_chunk() else { return };
    let mtu = u16::from_be_bytes(*mtu);
    let mut data_len = 0;
    let whole = fragment(bytes, usize::from(mtu), |header, data| {
        assert!(header.len() + data.len() <= usize::from(mtu));
        data_len += data.len();
        true
    });
    assert!(data_len <= bytes.len() && (whole || data_len == 0));
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
    assert!(parsed.is_ipv4() || !whole, "only IPv4 is cut on the way");

    let mut clamped = bytes.to_vec();
    clamp_mss(&mut clamped, &parsed, mtu);
    assert_eq!(parse(&clamped), Some(parsed), "clamping changes the option and nothing else");
}
