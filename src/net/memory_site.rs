use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::Bell;
use crate::packet::{Batch, Offload, SitePacket};

/// The TUN device's twin in memory, for the demo and for tests: whole IP packets go to a
/// `HostSide` and come from it.
pub struct MemorySite {
    from_hosts: Arc<Lane>,
    to_hosts: Arc<Lane>,
}

/// Where the hosts behind a `MemorySite` sit. Clones share it, so that one thread may send and
/// another receive.
#[derive(Clone)]
pub struct HostSide {
    from_hosts: Arc<Lane>,
    to_hosts: Arc<Lane>,
}

/// A site device in memory that holds at most `capacity` packets each way, at least one.
pub fn memory_site(capacity: usize) -> io::Result<(MemorySite, HostSide)> {
    let from_hosts = Arc::new(Lane::new(capacity)?);
    let to_hosts = Arc::new(Lane::new(capacity)?);
    let hosts = HostSide { from_hosts: from_hosts.clone(), to_hosts: to_hosts.clone() };
    Ok((MemorySite { from_hosts, to_hosts }, hosts))
}

impl MemorySite {
    /// Fills free slots with packets that the hosts sent, while some wait. One that is larger
    /// than a slot arrives cut, as a TUN device cuts it.
    pub fn receive(&self, batch: &mut Batch<SitePacket>) {
        while let Some(slot) = batch.next_free() {
            let Some(packet) = self.from_hosts.pop() else { return };
            let room = slot.packet.reset();
            let length = packet.len().min(room.len());
            room[..length].copy_from_slice(&packet[..length]);
            slot.packet.set_len(length);
            slot.offload = Offload::default();
            batch.claim(1);
        }
    }

    /// Hands all filled slots to the hosts and returns how many did not fit. It takes no
    /// super-packets.
    pub fn send(&self, batch: &mut Batch<SitePacket>) -> usize {
        let fits = |packet: &mut SitePacket| {
            packet.complete_checksum();
            self.to_hosts.push(packet.packet.bytes())
        };
        let refused = batch.filled_mut().iter_mut().filter_map(|packet| (!fits(packet)).then_some(())).count();
        batch.clear();
        refused
    }
}

/// Readable while packets of the hosts may wait.
impl AsFd for MemorySite {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from_hosts.bell.as_fd()
    }
}

impl HostSide {
    /// Hands one IP packet to the site; `false` when it holds too many already.
    pub fn send(&self, packet: &[u8]) -> bool {
        self.from_hosts.push(packet)
    }

    /// The next IP packet from the site, if one waits.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.to_hosts.pop()
    }

    /// Waits until packets from the site may wait; `false` when `timeout` passed first. It may
    /// return early once more after a packet that `receive` has taken already.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.to_hosts.bell.wait(timeout)
    }
}

/// Readable while packets from the site may wait.
impl AsFd for HostSide {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.to_hosts.bell.as_fd()
    }
}

/// One direction: a bounded queue whose bell rings after each packet until it is seen empty.
struct Lane {
    queue: ArrayQueue<Vec<u8>>,
    bell: Bell,
}

impl Lane {
    fn new(capacity: usize) -> io::Result<Lane> {
        Ok(Lane { queue: ArrayQueue::new(capacity.max(1)), bell: Bell::new()? })
    }

    fn push(&self, packet: &[u8]) -> bool {
        let fitted = self.queue.push(packet.to_vec()).is_ok();
        if fitted {
            self.bell.ring();
        }
        fitted
    }

    fn pop(&self) -> Option<Vec<u8>> {
        self.queue.pop().or_else(|| {
            // A packet that comes between the look and the clearing would lie there unheard, so
            // look again.
            self.bell.clear();
            self.queue.pop()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch<SitePacket> {
        Batch::new(2, || SitePacket::with_capacity(8))
    }

    #[test]
    fn packets_cross_in_order_in_both_directions() {
        let (site, hosts) = memory_site(8).unwrap();
        for byte in 1..=3 {
            assert!(hosts.send(&[byte; 4]));
        }
        let mut arrived = batch();
        site.receive(&mut arrived);
        assert_eq!(arrived.filled().iter().map(|packet| packet.packet.bytes()[0]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(site.send(&mut arrived), 0);
        assert!(arrived.is_empty());
        site.receive(&mut arrived);
        assert_eq!(arrived.filled().len(), 1);
        assert_eq!(hosts.receive(), Some(vec![1; 4]));
        assert_eq!(hosts.receive(), Some(vec![2; 4]));
        assert_eq!(hosts.receive(), None);
    }

    #[test]
    fn a_full_device_refuses_and_counts() {
        let (site, hosts) = memory_site(1).unwrap();
        assert!(hosts.send(b"a"));
        assert!(!hosts.send(b"b"));
        let mut two = batch();
        for _ in 0..2 {
            two.next_free().unwrap().packet.fill(b"c");
            two.claim(1);
        }
        assert_eq!(site.send(&mut two), 1);
    }

    #[test]
    fn a_packet_larger_than_a_slot_is_cut() {
        let (site, hosts) = memory_site(1).unwrap();
        assert!(hosts.send(&[7; 9]));
        let mut arrived = batch();
        site.receive(&mut arrived);
        assert_eq!(arrived.filled()[0].packet.bytes(), [7; 8]);
    }

    #[test]
    fn waiting_ends_when_a_packet_comes_and_lasts_after_it_was_taken() {
        let (site, hosts) = memory_site(8).unwrap();
        assert!(!hosts.wait(Duration::ZERO));
        let mut one = batch();
        one.next_free().unwrap().packet.fill(b"x");
        one.claim(1);
        let waiting = std::thread::spawn({
            let hosts = hosts.clone();
            move || hosts.wait(Duration::from_secs(10))
        });
        assert_eq!(site.send(&mut one), 0);
        assert!(waiting.join().unwrap());
        assert!(hosts.receive().is_some());
        assert!(hosts.receive().is_none());
        assert!(!hosts.wait(Duration::ZERO));
    }
}
