use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::icmp::{ICMP_HEADER, Icmp};
use super::{Echo, IPV4_HEADER, IPV6_HEADER, PacketBuf, Parsed};
use crate::model::{Moment, PathId, Secret, protocol};

/// Makes and recognises probes: ICMP echo requests whose data says, under a key of ours, which
/// probe it is, by which path it left and when. The answer brings the data back, so that
/// nothing about a probe in flight is remembered, and nobody who has not seen a probe can make
/// an answer.
#[derive(Clone, Debug)]
pub struct ProbeKey(Secret);

/// What a probe says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    pub id: u64,
    pub path: PathId,
    pub sent: Moment,
    pub source: IpAddr,
    pub target: IpAddr,
}

/// Id, send time and path, each as big-endian bytes, and an authentication tag.
const CLAIM: usize = 18;
/// 64 bits: a guess a microsecond would need 290,000 years on average.
const TAG: usize = 8;

/// Behind the data of a probe that asks whether a size fits, up to that of the largest usual frame.
static PADDING: [u8; 9_000] = [0; 9_000];

impl ProbeKey {
    /// Drawn at random at each start; all workers of a site share it.
    pub fn new(key: [u8; 32]) -> ProbeKey {
        ProbeKey(Secret::new(key.to_vec()))
    }

    /// Writes the echo request, with zeroes behind its data to make a packet of `length` bytes, at
    /// most 9,000. `false`, with `out` empty, when source and target are of different families.
    pub fn write_request(&self, probe: &Probe, length: usize, out: &mut PacketBuf) -> bool {
        let claim = claim(probe);
        let tag = self.tag(probe, &claim);
        // One identifier a path: whatever tracks flows on the way sees one flow a path.
        let (identifier, sequence) = (probe.path.0.to_be_bytes(), (probe.id as u16).to_be_bytes());
        let request = Icmp {
            source: probe.source,
            destination: probe.target,
            kind: if probe.source.is_ipv4() { 8 } else { 128 },
            code: 0,
            rest: [identifier[0], identifier[1], sequence[0], sequence[1]],
        };
        let header = if probe.source.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        let padding = length.saturating_sub(header + ICMP_HEADER + CLAIM + TAG);
        request.write(0, &[&claim, &tag, PADDING.get(..padding).unwrap_or(&PADDING)], out)
    }

    /// The probe that this echo reply answers; `None` when we did not send it to its source.
    pub fn read_answer(&self, echo: &Echo, parsed: &Parsed) -> Option<Probe> {
        let (claimed, rest) = echo.data.split_first_chunk::<CLAIM>()?;
        let tag = rest.first_chunk::<TAG>().filter(|_| !echo.request)?;
        let (id, rest) = claimed.split_first_chunk::<8>()?;
        let (sent, path) = rest.split_first_chunk::<8>()?;
        let probe = Probe {
            id: u64::from_be_bytes(*id),
            path: PathId(u16::from_be_bytes(path.try_into().ok()?)),
            sent: Moment::from_nanos(u64::from_be_bytes(*sent)),
            source: parsed.key.destination,
            target: parsed.key.source,
        };
        self.mac(&probe, claimed).verify_truncated_left(tag).ok()?;
        Some(probe)
    }

    fn tag(&self, probe: &Probe, claim: &[u8; CLAIM]) -> [u8; TAG] {
        let full: [u8; 32] = self.mac(probe, claim).finalize().into_bytes().into();
        std::array::from_fn(|index| full[index])
    }

    fn mac(&self, probe: &Probe, claim: &[u8; CLAIM]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).expect("HMAC takes a key of any length");
        mac.update(claim);
        for address in [probe.source, probe.target] {
            match address {
                IpAddr::V4(address) => mac.update(&address.octets()),
                IpAddr::V6(address) => mac.update(&address.octets()),
            }
        }
        mac
    }
}

impl Probe {
    /// The protocol number of its packets.
    pub const fn protocol(&self) -> u8 {
        if self.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }
    }
}

fn claim(probe: &Probe) -> [u8; CLAIM] {
    let mut claim = [0; CLAIM];
    claim[..8].copy_from_slice(&probe.id.to_be_bytes());
    claim[8..16].copy_from_slice(&probe.sent.as_nanos().to_be_bytes());
    claim[16..].copy_from_slice(&probe.path.0.to_be_bytes());
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;

    fn probe(source: [u8; 4], target: [u8; 4]) -> Probe {
        Probe {
            id: 0x0102_0304_0506_0708,
            path: PathId(9),
            sent: Moment::from_nanos(123_456_789),
            source: source.into(),
            target: target.into(),
        }
    }

    fn request(key: &ProbeKey, probe: &Probe) -> PacketBuf {
        let mut out = PacketBuf::with_capacity(256);
        assert!(key.write_request(probe, 0, &mut out));
        out
    }

    fn answer(request: &PacketBuf) -> PacketBuf {
        let mut out = PacketBuf::with_capacity(256);
        let parsed = parse(request.bytes()).unwrap();
        assert!(Echo::read(request.bytes(), &parsed).unwrap().write_reply(&parsed, &mut out));
        out
    }

    fn read(key: &ProbeKey, packet: &[u8]) -> Option<Probe> {
        let parsed = parse(packet).unwrap();
        key.read_answer(&Echo::read(packet, &parsed).unwrap(), &parsed)
    }

    #[test]
    fn an_answer_tells_all_about_its_probe() {
        let key = ProbeKey::new([7; 32]);
        for probe in [
            probe([10, 1, 0, 1], [10, 9, 0, 1]),
            Probe { source: [1_u16; 8].into(), target: [2_u16; 8].into(), ..probe([0; 4], [0; 4]) },
        ] {
            let request = request(&key, &probe);
            assert_eq!(parse(request.bytes()).unwrap().key.protocol, probe.protocol());
            assert_eq!(read(&key, answer(&request).bytes()), Some(probe));
        }
    }

    #[test]
    fn our_own_request_is_not_an_answer() {
        let key = ProbeKey::new([7; 32]);
        assert_eq!(read(&key, request(&key, &probe([10, 1, 0, 1], [10, 1, 0, 1])).bytes()), None);
    }

    #[test]
    fn an_answer_under_another_key_or_from_another_target_is_not_ours() {
        let (ours, theirs) = (ProbeKey::new([7; 32]), ProbeKey::new([8; 32]));
        let reply = answer(&request(&theirs, &probe([10, 1, 0, 1], [10, 9, 0, 1])));
        assert_eq!(read(&ours, reply.bytes()), None);

        let mut elsewhere = request(&ours, &probe([10, 1, 0, 1], [10, 9, 0, 1]));
        elsewhere.bytes_mut()[19] = 2;
        assert_eq!(read(&ours, answer(&elsewhere).bytes()), None);
    }

    #[test]
    fn source_and_target_of_different_families_make_no_probe() {
        let mixed = Probe { target: [2_u16; 8].into(), ..probe([10, 1, 0, 1], [0; 4]) };
        let mut out = PacketBuf::with_capacity(256);
        assert!(!ProbeKey::new([7; 32]).write_request(&mixed, 0, &mut out));
        assert!(out.is_empty());
    }
}
