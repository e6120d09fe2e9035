use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::overhead::header_len;
use super::replay::ReplayWindow;
use super::{AAD_LEN, NEXT_NONE, TRAILER_LEN, next_header};
use crate::crypto::{Backend, CryptoError, Encryption, PacketCipher, PacketSuite};
use crate::model::{DropReason, PathId, Secret, Selectors, Spi};

/// Packets of one Child SA from the peer.
#[derive(Debug)]
pub struct InboundSa {
    spi: Spi,
    path: PathId,
    cipher: PacketCipher,
    selectors: Arc<Selectors>,
    /// Held while a packet is opened, so that check and mark are one step even should two
    /// workers meet here. One worker opens an SPI and control never looks inside, so the lock
    /// is never waited for and costs two uncontended atomic operations a packet.
    arrived: Mutex<Arrived>,
}

#[derive(Debug)]
struct Arrived {
    window: ReplayWindow,
    used: bool,
}

/// What is worth knowing of a packet that was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Where the inner packet is, within what was opened.
    pub inner: Range<usize>,
    /// It is the first one of this SA: the peer has the SA in use (RFC 7296 2.8).
    pub first_use: bool,
    /// Its sequence number is the highest so far: it was sent after all that came before it.
    pub newest: bool,
    /// It says that there is nothing in it (RFC 4303 2.6): to be thrown away, unless the peer is one that puts something
    /// there.
    pub is_nothing: bool,
}

impl InboundSa {
    /// With an AEAD by aws-lc. `spi` is ours. `key` is key and salt (RFC 4106 8.1).
    pub fn new(
        spi: Spi,
        path: PathId,
        encryption: Encryption,
        key: &Secret,
        selectors: Arc<Selectors>,
    ) -> Result<InboundSa, CryptoError> {
        let suite = PacketSuite::new(encryption, None)?;
        Ok(Self::with_cipher(spi, path, PacketCipher::new(Backend::AwsLc, suite, key.expose())?, selectors))
    }

    /// `spi` is ours.
    pub fn with_cipher(spi: Spi, path: PathId, cipher: PacketCipher, selectors: Arc<Selectors>) -> InboundSa {
        let arrived = Mutex::new(Arrived { window: ReplayWindow::new(), used: false });
        InboundSa { spi, path, cipher, selectors, arrived }
    }

    /// Turns an ESP packet into the inner packet, in place. What it returns is authentic and begins
    /// with an IP version that agrees with the Next Header, unless it `is_nothing`; its lengths, addresses and the
    /// selectors are still to be checked. A packet that is refused has no meaningful contents any
    /// more.
    pub fn open(&self, bytes: &mut [u8]) -> Result<Opened, DropReason> {
        // Whatever is too short to have a tag fails like any other truncated packet.
        let &[s0, s1, s2, s3, q0, q1, q2, q3] = bytes.first_chunk::<AAD_LEN>().ok_or(DropReason::BadTag)?;
        if Spi(u32::from_be_bytes([s0, s1, s2, s3])) != self.spi {
            return Err(DropReason::UnknownSpi);
        }
        let sequence = u32::from_be_bytes([q0, q1, q2, q3]);

        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if !arrived.window.is_new(sequence) {
            return Err(DropReason::Replayed);
        }
        let body = self.cipher.open(AAD_LEN, bytes).map_err(|_| DropReason::BadTag)?;
        // RFC 4303 3.4.3: mark only after the tag verifies, or a forger moves our window.
        let newest = arrived.window.mark(sequence);
        let (inner_len, next) = inner_len(body)?;
        let first_use = !std::mem::replace(&mut arrived.used, true);
        let start = header_len(self.cipher.suite());
        Ok(Opened { inner: start..start + inner_len, newest, first_use, is_nothing: next == NEXT_NONE })
    }

    pub fn spi(&self) -> Spi {
        self.spi
    }

    pub fn path(&self) -> PathId {
        self.path
    }

    pub fn selectors(&self) -> &Arc<Selectors> {
        &self.selectors
    }
}

/// Checks the end of the decrypted part and returns the length of the inner packet before it, and its Next Header.
fn inner_len(body: &[u8]) -> Result<(usize, u8), DropReason> {
    let (rest, &[pad_len, next]) = body.split_last_chunk::<TRAILER_LEN>().ok_or(DropReason::BadInner)?;
    let (inner, padding) = rest
        .len()
        .checked_sub(usize::from(pad_len))
        .and_then(|at| rest.split_at_checked(at))
        .ok_or(DropReason::BadInner)?;
    // RFC 4303 2.4: the padding is 1, 2, 3, ... and the receiver should look.
    if !padding.iter().copied().eq(1..=pad_len) {
        return Err(DropReason::BadInner);
    }
    if next != NEXT_NONE && next_header(inner) != Some(next) {
        return Err(DropReason::BadInner);
    }
    Ok((inner.len(), next))
}
