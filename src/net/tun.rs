use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::unistd::{read, write};

use super::interface::{name_in, request_for, set_mtu};
use crate::packet::{Batch, PacketBuf};

/// A TUN device: whole IP packets from and to the kernel, without a header of their own. It
/// disappears when it is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    index: u32,
}

impl Tun {
    /// Creates the device, down; `mtu` is its largest IP packet. `%d` in the name stands for the
    /// first free number. Needs CAP_NET_ADMIN.
    pub fn open(name: &str, mtu: u16) -> io::Result<Tun> {
        let mut request = request_for(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|error| explain(&error, name))?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call is over.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
            .map_err(|errno| explain(&errno.into(), name))?;
        let name = name_in(&request);
        set_mtu(&name, mtu)?;
        let index = if_nametoindex(name.as_str())?;
        Ok(Tun { file, name, index })
    }

    /// The real name, where a number was chosen.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    /// Fills free slots with packets that the kernel sent, while some wait. One that is larger
    /// than its slot arrives cut, and is dropped as malformed where it is read.
    pub fn receive(&mut self, batch: &mut Batch<PacketBuf>) -> Result<(), Errno> {
        while let Some(slot) = batch.next_free() {
            match read(&self.file, slot.reset()) {
                Ok(length) => {
                    slot.set_len(length);
                    batch.claim(1);
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hands all filled slots to the kernel, in order, and returns how many it refused.
    pub fn send(&mut self, batch: &mut Batch<PacketBuf>) -> usize {
        let refused = batch.filled().iter().filter(|packet| !self.send_one(packet.bytes())).count();
        batch.clear();
        refused
    }

    fn send_one(&self, packet: &[u8]) -> bool {
        loop {
            match write(&self.file, packet) {
                Ok(_) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Readable while packets of the kernel wait.
impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What an operator can do about it.
fn explain(error: &io::Error, name: &str) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; it needs root or CAP_NET_ADMIN",
        Some(libc::EBUSY) => "; another program holds it: does another trefoil run?",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "; is the kernel module tun loaded?",
        Some(libc::EINVAL) => "; a device of this name and another kind exists, or the name is not allowed",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot create the TUN device {name}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    fn ip(arguments: &str) {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// In a network namespace of its own, which ends with the thread.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root to make a network namespace");
            return;
        }
        let outcome = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            test();
        })
        .join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    fn packets() -> Batch<PacketBuf> {
        Batch::new(16, || PacketBuf::with_capacity(1_400))
    }

    #[test]
    fn a_packet_goes_out_through_the_device_and_its_answer_comes_back() {
        in_namespace(|| {
            let mut tun = Tun::open("nt-%d", 1_400).unwrap();
            assert_eq!(tun.name(), "nt-0");
            let facts = |tun: &Tun| super::super::Interface::named(tun.name());
            ip("addr add 10.7.0.1/24 dev nt-0");
            ip("link set nt-0 up");
            assert_eq!(facts(&tun).unwrap().mtu, 1_400);
            let host = UdpSocket::bind("10.7.0.1:4000").unwrap();
            host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            host.send_to(b"question", "10.7.0.2:5000").unwrap();
            let mut batch = packets();
            tun.receive(&mut batch).unwrap();
            // The kernel also announces itself over IPv6.
            let question = batch.filled().iter().find(|packet| packet.bytes()[0] == 0x45).unwrap();
            assert!(question.bytes().ends_with(b"question"));
            let mut answer = question.bytes().to_vec();
            // Swapping addresses and ports changes neither checksum.
            answer[12..20].rotate_left(4);
            answer[20..24].rotate_left(2);
            let mut back = packets();
            assert!(back.next_free().unwrap().fill(&answer));
            back.claim(1);
            // Not IP at all: the kernel refuses it, and the other one still arrives.
            assert!(back.next_free().unwrap().fill(&[0xff; 40]));
            back.claim(1);
            assert_eq!(tun.send(&mut back), 1);
            let mut room = [0; 64];
            let (length, from) = host.recv_from(&mut room).unwrap();
            assert_eq!((&room[..length], from.to_string().as_str()), (&b"question"[..], "10.7.0.2:5000"));
        });
    }

    #[test]
    fn a_device_that_another_holds_is_refused_with_a_hint() {
        in_namespace(|| {
            let _first = Tun::open("nt-held", 1_400).unwrap();
            let error = Tun::open("nt-held", 1_400).unwrap_err();
            assert!(error.to_string().ends_with("does another trefoil run?"), "{error}");
        });
    }

    #[test]
    fn a_dropped_device_disappears() {
        in_namespace(|| {
            drop(Tun::open("nt-gone", 1_400).unwrap());
            assert!(if_nametoindex("nt-gone").is_err());
        });
    }

    #[test]
    fn a_worker_whose_device_is_deleted_sees_it_and_does_not_spin() {
        use std::sync::Arc;
        use std::time::Instant;

        use crate::net::{Road, SiteDevice, Underlays};

        in_namespace(|| {
            let tun = Tun::open("nt-lost", 1_400).unwrap();
            let (to_control, _inbox) = tokio::sync::mpsc::channel(1);
            let (mut road, _handle) =
                Road::new(SiteDevice::Tun(tun), Arc::new(Underlays::default()), to_control).unwrap();
            assert!(road.site_lives());
            ip("link del nt-lost");
            road.wait(Duration::from_millis(10));
            assert!(!road.site_lives());
            let started = Instant::now();
            road.wait(Duration::from_millis(30));
            assert!(started.elapsed() >= Duration::from_millis(30));
        });
    }
}
