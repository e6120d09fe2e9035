//! The TUN device: whole IP packets from and to the kernel, super-packets among them.

mod device;
#[cfg(test)]
mod tests;
mod virtio;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::uio::{readv, writev};

use self::device::{Device, WISHES, Wanted};
use self::virtio::HEADER;
use super::interface::{set_mtu, set_queue_length};
use crate::model::WorkerId;
use crate::packet::{Batch, SegmentKind, SiteOffloads, SitePacket, Splitter, UNLIMITED, parse};

/// A turn takes no further packet once it has read so many bytes: with what they become they
/// stay in a core's second-level cache, and the other direction never waits for more than some
/// hundred microseconds.
const TURN_BYTES: usize = 160 << 10;

/// Packets that may wait in each queue. The kernel drops what comes while it is full, and a worker
/// that has to wait some milliseconds for its core finds so many small packets; super-packets
/// are held back before that by the windows of their connections.
const QUEUE_LENGTH: u16 = 1_000;

/// A TUN device with one or several queues, which workers share: each reads its own and writes to
/// any. It disappears when it is dropped.
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
    queues: Box<[File]>,
    /// Before each packet stands a virtio-net header.
    header: bool,
    /// Super-packets that may be written; a kind that the kernel refuses is not tried again.
    tcp: AtomicBool,
    udp: AtomicBool,
}

impl Tun {
    /// Creates the device, down; `mtu` is its largest IP packet. `%d` in the name stands for the
    /// first free number. It has fewer `queues` where the kernel does not allow so many, and at
    /// least one. Needs CAP_NET_ADMIN.
    pub fn open(name: &str, mtu: u16, queues: NonZero<u16>) -> io::Result<Tun> {
        let queues = usize::from(queues.get());
        let flags = libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        Tun::wanted(&Wanted { name, queues, flags, wishes: &WISHES }, mtu)
    }

    fn wanted(wanted: &Wanted, mtu: u16) -> io::Result<Tun> {
        let device = Device::create(wanted)?;
        set_mtu(&device.name, mtu)?;
        if let Err(error) = set_queue_length(&device.name, QUEUE_LENGTH) {
            tracing::warn!(device = device.name, %error, "the device keeps its short queue");
        }
        let index = if_nametoindex(device.name.as_str())?;
        let (tcp, udp) = (device.segments_tcp(), device.segments_udp());
        let Device { name, queues, header, .. } = device;
        if tcp && udp {
            tracing::info!(device = name, queues = queues.len(), "super-packets of TCP and UDP cross the site device");
        } else {
            let queues = queues.len();
            tracing::warn!(device = name, queues, header, tcp, udp, "the kernel lacks offloads of the site device");
        }
        let (tcp, udp) = (AtomicBool::new(tcp), AtomicBool::new(udp));
        Ok(Tun { name, index, queues: queues.into(), header, tcp, udp })
    }

    /// The real name, where a number was chosen.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    /// For the poller: readable while packets of the kernel wait for this worker.
    pub fn queue(&self, worker: WorkerId) -> Option<BorrowedFd<'_>> {
        self.queues.get(usize::from(worker.0)).map(File::as_fd)
    }

    /// Super-packets that `send` takes.
    pub fn offloads(&self) -> SiteOffloads {
        SiteOffloads { tcp: self.tcp.load(Ordering::Relaxed), udp: self.udp.load(Ordering::Relaxed) }
    }

    /// Fills free slots with packets that the kernel sent to this worker's queue, while some
    /// wait, and tells whether more may. One that is larger than its slot arrives cut, and is
    /// dropped as malformed where it is read.
    pub fn receive(&self, worker: WorkerId, batch: &mut Batch<SitePacket>) -> Result<bool, Errno> {
        let Some(queue) = self.queues.get(usize::from(worker.0)) else { return Ok(false) };
        let mut taken = 0;
        while taken < TURN_BYTES
            && let Some(slot) = batch.next_free()
        {
            match self.read(queue, slot) {
                Ok(true) => {
                    slot.queue = worker;
                    taken += slot.packet.len();
                    batch.claim(1);
                }
                Ok(false) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// `false` for something that the kernel was not asked for.
    fn read(&self, queue: &File, slot: &mut SitePacket) -> Result<bool, Errno> {
        let mut header = [0; HEADER];
        let before = if self.header { HEADER } else { 0 };
        let mut parts = [IoSliceMut::new(&mut header[..before]), IoSliceMut::new(slot.packet.reset())];
        let length = readv(queue, &mut parts)?;
        slot.packet.set_len(length.saturating_sub(before));
        match virtio::read(&header) {
            Some(offload) => slot.offload = offload,
            None => return Ok(false),
        }
        Ok(length > before)
    }

    /// Hands all filled slots to the kernel, in order, each by the queue that it names, and
    /// returns how many packets it refused.
    pub fn send(&self, batch: &mut Batch<SitePacket>) -> usize {
        let refused = batch.filled_mut().iter_mut().map(|packet| self.send_one(packet)).sum();
        batch.clear();
        refused
    }

    /// Hands one packet to the kernel; `false` when it refuses it, or a part of it.
    pub fn send_packet(&self, packet: &mut SitePacket) -> bool {
        self.send_one(packet) == 0
    }

    fn send_one(&self, packet: &mut SitePacket) -> usize {
        let queue = self.queues.get(usize::from(packet.queue.0)).unwrap_or(&self.queues[0]);
        let kind = packet.offload.segments.map(|segments| segments.kind);
        match kind {
            Some(kind) if !self.takes(kind).load(Ordering::Relaxed) => return self.send_in_pieces(queue, packet).1,
            None if !self.header => packet.complete_checksum(),
            _ => {}
        }
        let bytes = packet.packet.bytes();
        match (self.write(queue, &virtio::write(packet.offload, bytes), bytes), kind) {
            (Ok(()), _) => 0,
            (Err(Errno::EINVAL), Some(kind)) => {
                let (written, refused) = self.send_in_pieces(queue, packet);
                // Otherwise it is not the size that the kernel dislikes.
                if written > 0 && self.takes(kind).swap(false, Ordering::Relaxed) {
                    tracing::warn!(device = self.name, ?kind, "the kernel refuses super-packets; not offering more");
                }
                refused
            }
            (Err(_), _) => 1,
        }
    }

    /// Writes a super-packet as the packets that it stands for, and returns how many were
    /// written and how many refused.
    #[cold]
    fn send_in_pieces(&self, queue: &File, packet: &SitePacket) -> (usize, usize) {
        let bytes = packet.packet.bytes();
        let Some(parsed) = parse(bytes) else { return (0, 1) };
        let Ok(mut splitter) = Splitter::new(bytes, &parsed, &packet.offload, UNLIMITED) else { return (0, 1) };
        let (mut written, mut refused) = (0, 0);
        let mut room = vec![0; bytes.len()];
        while let Some(piece) = splitter.next_len().and_then(|length| room.get_mut(..length)) {
            let cut = splitter.write_next(piece).is_some();
            if cut && self.write(queue, &[0; HEADER], piece).is_ok() {
                written += 1;
            } else {
                refused += 1;
            }
            if !cut {
                break;
            }
        }
        (written, refused)
    }

    fn write(&self, queue: &File, header: &[u8; HEADER], packet: &[u8]) -> Result<(), Errno> {
        let header = if self.header { &header[..] } else { &[] };
        loop {
            match writev(queue, &[IoSlice::new(header), IoSlice::new(packet)]) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map(drop),
            }
        }
    }

    fn takes(&self, kind: SegmentKind) -> &AtomicBool {
        match kind {
            SegmentKind::Tcp | SegmentKind::TcpEcn => &self.tcp,
            SegmentKind::Udp => &self.udp,
        }
    }
}
