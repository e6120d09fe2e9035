use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::WireError;
use super::reader::Reader;
use crate::model::TrafficSelector;

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// The selectors of a TSi or TSr payload (RFC 7296 3.13). Left out are those of unknown types
/// and those whose ranges are reversed ("opaque" ports among them): they match no packet of ours.
pub(super) fn decode(body: &[u8]) -> Result<Vec<TrafficSelector>, WireError> {
    let mut reader = Reader::new(body);
    let count = reader.u8()?;
    reader.take(3)?;
    let mut selectors = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let kind = reader.u8()?;
        let protocol = reader.u8()?;
        let length = reader.u16()?;
        let mut inner = reader.sub(length, 4)?;
        let decoded = match kind {
            TS_IPV4_ADDR_RANGE => {
                let ports = (inner.u16()?, inner.u16()?);
                let first = IpAddr::V4(Ipv4Addr::from(inner.array::<4>()?));
                let last = IpAddr::V4(Ipv4Addr::from(inner.array::<4>()?));
                TrafficSelector::new(protocol, ports, first, last)
            }
            TS_IPV6_ADDR_RANGE => {
                let ports = (inner.u16()?, inner.u16()?);
                let first = IpAddr::V6(Ipv6Addr::from(inner.array::<16>()?));
                let last = IpAddr::V6(Ipv6Addr::from(inner.array::<16>()?));
                TrafficSelector::new(protocol, ports, first, last)
            }
            _ => {
                inner.rest();
                None
            }
        };
        if !inner.is_empty() {
            return Err(WireError::BadLength);
        }
        selectors.extend(decoded);
    }
    if !reader.is_empty() {
        return Err(WireError::BadLength);
    }
    Ok(selectors)
}

/// At most 255 selectors go into a payload; the caller keeps to that.
pub(super) fn encode(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    out.extend_from_slice(&[selectors.len() as u8, 0, 0, 0]);
    for selector in selectors {
        let (kind, length) = match selector.first {
            IpAddr::V4(_) => (TS_IPV4_ADDR_RANGE, 16u16),
            IpAddr::V6(_) => (TS_IPV6_ADDR_RANGE, 40u16),
        };
        out.extend_from_slice(&[kind, selector.protocol]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&selector.ports.0.to_be_bytes());
        out.extend_from_slice(&selector.ports.1.to_be_bytes());
        for address in [selector.first, selector.last] {
            match address {
                IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
            }
        }
    }
}
