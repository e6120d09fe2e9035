use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::crypto::{Prf, PrfAlgorithm};
use crate::model::{Chance, Moment, Secret};

/// A cookie is good for one to two of these periods.
const SECRET_LIFETIME: Duration = Duration::from_secs(60);

/// Makes and checks the cookies of IKE_SA_INIT without remembering any (RFC 7296 2.6): a keyed
/// hash over nonce, address and SPI, and one byte that names the secret.
pub struct CookieJar {
    generation: u8,
    current: Secret,
    previous: Secret,
    rotated: Moment,
}

impl CookieJar {
    pub fn new(chance: &mut Chance) -> CookieJar {
        CookieJar { generation: 0, current: fresh(chance), previous: fresh(chance), rotated: Moment::ZERO }
    }

    pub fn make(&mut self, nonce: &[u8], remote: SocketAddr, spi: u64, chance: &mut Chance, now: Moment) -> Vec<u8> {
        self.rotate(chance, now);
        cookie(self.generation, &self.current, nonce, remote, spi)
    }

    pub fn verify(
        &mut self,
        found: &[u8],
        nonce: &[u8],
        remote: SocketAddr,
        spi: u64,
        chance: &mut Chance,
        now: Moment,
    ) -> bool {
        self.rotate(chance, now);
        let (generation, secret) = match found.first() {
            Some(first) if *first == self.generation => (self.generation, &self.current),
            Some(first) if *first == self.generation.wrapping_sub(1) => {
                (self.generation.wrapping_sub(1), &self.previous)
            }
            _ => return false,
        };
        cookie(generation, secret, nonce, remote, spi).as_slice().ct_eq(found).into()
    }

    fn rotate(&mut self, chance: &mut Chance, now: Moment) {
        if now.since(self.rotated) < SECRET_LIFETIME {
            return;
        }
        // After a long pause the secret that becomes the previous one is old too: no cookie of it is good.
        let stale = now.since(self.rotated) >= SECRET_LIFETIME * 2;
        let replaced = std::mem::replace(&mut self.current, fresh(chance));
        self.previous = if stale { fresh(chance) } else { replaced };
        self.generation = self.generation.wrapping_add(1);
        self.rotated = now;
    }
}

fn fresh(chance: &mut Chance) -> Secret {
    Secret::new(chance.bytes::<32>().to_vec())
}

fn cookie(generation: u8, secret: &Secret, nonce: &[u8], remote: SocketAddr, spi: u64) -> Vec<u8> {
    let ip = match remote.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let parts = [&ip[..], &remote.port().to_be_bytes(), &spi.to_be_bytes(), nonce];
    let mac = Prf::new(PrfAlgorithm::Sha256).compute(secret.expose(), &parts);
    let mut bytes = vec![generation];
    bytes.extend_from_slice(mac.expose());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_sender_and_for_a_while() {
        let mut chance = Chance::from_number(1);
        let mut jar = CookieJar::new(&mut chance);
        let remote: SocketAddr = "192.0.2.1:500".parse().unwrap();
        let other: SocketAddr = "192.0.2.2:500".parse().unwrap();
        let cookie = jar.make(b"nonce", remote, 7, &mut chance, Moment::from_millis(1));
        let mut good = |nonce: &[u8], remote, spi, millis| {
            jar.verify(&cookie, nonce, remote, spi, &mut chance, Moment::from_millis(millis))
        };
        assert!(good(b"nonce", remote, 7, 2));
        assert!(!good(b"other", remote, 7, 2));
        assert!(!good(b"nonce", other, 7, 2));
        assert!(!good(b"nonce", remote, 8, 2));
        assert!(good(b"nonce", remote, 7, 60_001));
        assert!(!good(b"nonce", remote, 7, 120_002));
        assert!(!jar.verify(&[], b"nonce", remote, 7, &mut chance, Moment::ZERO));
    }
}
