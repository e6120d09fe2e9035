//! Floor 2: ESP (RFC 4303) in tunnel mode: outbound and inbound SAs and the replay window.

#[derive(Debug)]
pub struct InboundSa {}
#[derive(Debug)]
pub struct OutboundSa {}
