use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::overhead::{esp_overhead, header_len, pad_len};
use super::{AAD_LEN, NEXT_NONE, next_header};
use crate::crypto::{Backend, CryptoError, Encryption, PacketCipher, PacketSuite};
use crate::model::{DropReason, PathId, Secret, Spi};

/// Without extended sequence numbers an SA ends at 2^32 - 1 packets (RFC 4303 3.3.3). That also
/// keeps AES well within its bounds, in GCM as in CBC: even of 64 KiB packets it is 2^44 blocks, an
/// advantage of 2^-41 for who would tell them from noise.
const LAST_SEQUENCE: u64 = u32::MAX as u64;
/// 90 % of the sequence numbers. The rest lasts seven minutes at a million packets a second.
const SOFT_LIMIT: u64 = LAST_SEQUENCE / 10 * 9;

/// Packets of one Child SA to the peer. It cannot be cloned: a second counter under the same key
/// would use nonces twice.
#[derive(Debug)]
pub struct OutboundSa {
    spi: Spi,
    path: PathId,
    cipher: PacketCipher,
    /// Sequence numbers given out.
    sealed: AtomicU64,
    soft_limit_told: AtomicBool,
}

impl OutboundSa {
    /// With an AEAD by aws-lc. `spi` is the peer's. `key` is key and salt (RFC 4106 8.1).
    pub fn new(spi: Spi, path: PathId, encryption: Encryption, key: &Secret) -> Result<OutboundSa, CryptoError> {
        let suite = PacketSuite::new(encryption, None)?;
        Ok(Self::with_cipher(spi, path, PacketCipher::new(Backend::AwsLc, suite, key.expose())?))
    }

    /// `spi` is the peer's. The cipher's key has not sealed anything yet.
    pub fn with_cipher(spi: Spi, path: PathId, cipher: PacketCipher) -> OutboundSa {
        OutboundSa { spi, path, cipher, sealed: AtomicU64::new(0), soft_limit_told: AtomicBool::new(false) }
    }

    /// Bytes that `seal` needs free in front of the inner packet.
    pub const fn header_len(&self) -> usize {
        header_len(self.cipher.suite())
    }

    /// Length of the ESP packet for an inner packet of `inner_len` bytes.
    pub const fn sealed_len(&self, inner_len: usize) -> usize {
        inner_len + esp_overhead(self.cipher.suite(), inner_len)
    }

    /// Turns an inner IPv4 or IPv6 packet into an ESP packet, in place: `room` is `header_len`
    /// free bytes, the inner packet of `inner_len`, and free bytes behind it for the trailer.
    /// Returns the length of the ESP packet, from the beginning of `room`. What is refused has no
    /// meaningful contents any more.
    pub fn seal(&self, room: &mut [u8], inner_len: usize) -> Result<usize, DropReason> {
        let whole = room.get(..self.sealed_len(inner_len)).ok_or(DropReason::TooBig)?;
        let inner = whole.get(self.header_len()..).ok_or(DropReason::TooBig)?;
        let next_header = next_header(inner).ok_or(DropReason::Malformed)?;
        self.seal_as(next_header, room, inner_len)
    }

    /// The same with content that every receiver throws away, unless it knows what it is (RFC 4303 2.6).
    pub fn seal_nothing(&self, room: &mut [u8], content_len: usize) -> Result<usize, DropReason> {
        self.seal_as(NEXT_NONE, room, content_len)
    }

    fn seal_as(&self, next_header: u8, room: &mut [u8], inner_len: usize) -> Result<usize, DropReason> {
        let suite = self.cipher.suite();
        let packet = room.get_mut(..self.sealed_len(inner_len)).ok_or(DropReason::TooBig)?;
        let (header, rest) = packet.split_at_mut_checked(header_len(suite)).ok_or(DropReason::TooBig)?;
        let (_, tail) = rest.split_at_mut_checked(inner_len).ok_or(DropReason::TooBig)?;
        let pad_len = pad_len(inner_len, suite.alignment()) as u8;
        // RFC 4303 2.4: the padding is 1, 2, 3, ...
        for (place, byte) in tail.iter_mut().zip((1..=pad_len).chain([pad_len, next_header])) {
            *place = byte;
        }

        let sequence = self.sealed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if sequence > LAST_SEQUENCE {
            return Err(DropReason::Exhausted);
        }
        let aad = header.first_chunk_mut::<AAD_LEN>().ok_or(DropReason::TooBig)?;
        let [s0, s1, s2, s3] = self.spi.0.to_be_bytes();
        let [q0, q1, q2, q3] = (sequence as u32).to_be_bytes();
        *aad = [s0, s1, s2, s3, q0, q1, q2, q3];
        self.cipher.seal(sequence, AAD_LEN, packet).ok_or(DropReason::TooBig)?;
        Ok(packet.len())
    }

    /// Is it time for a rekey? `true` once in the life of the SA.
    pub fn soft_limit_reached(&self) -> bool {
        self.sealed.load(Ordering::Relaxed) >= SOFT_LIMIT && !self.soft_limit_told.swap(true, Ordering::Relaxed)
    }

    /// As if so many packets had been sealed: nobody waits for them.
    #[cfg(test)]
    pub fn skip_to(&self, sealed: u64) {
        self.sealed.store(sealed, Ordering::Relaxed);
    }

    pub fn spi(&self) -> Spi {
        self.spi
    }

    pub fn path(&self) -> PathId {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::tests::{ipv4, keymat, seal};

    fn sa_after(sealed: u64) -> OutboundSa {
        let sa = OutboundSa::new(Spi(0x1_0001), PathId(0), Encryption::AesGcm128, &keymat(Encryption::AesGcm128));
        let sa = sa.expect("the key fits");
        sa.skip_to(sealed);
        sa
    }

    #[test]
    fn the_last_sequence_number_is_used_and_none_after_it() {
        let sa = sa_after(LAST_SEQUENCE - 1);
        let mut packet = ipv4(40);
        assert_eq!(seal(&sa, &mut packet), Ok(()));
        assert_eq!(packet.bytes()[4..8], [0xff; 4]);
        for _ in 0..3 {
            assert_eq!(seal(&sa, &mut ipv4(40)), Err(DropReason::Exhausted));
        }
    }

    #[test]
    fn the_soft_limit_is_told_once() {
        let sa = sa_after(SOFT_LIMIT - 2);
        let mut told = Vec::new();
        for _ in 0..5 {
            assert_eq!(seal(&sa, &mut ipv4(40)), Ok(()));
            told.push(sa.soft_limit_reached());
        }
        assert_eq!(told, [false, true, false, false, false]);
    }
}
