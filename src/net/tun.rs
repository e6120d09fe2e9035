use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::unistd::{read, write};

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

fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
    // The request is about the named device; any socket will do.
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // SAFETY: SIOCSIFMTU reads one `ifreq`, which lives until the call is over.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &raw mut request) })
        .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), format!("{name}: MTU {mtu}: {errno}")))?;
    Ok(())
}

/// An `ifreq` for this device, otherwise empty.
fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is a plain C structure of integers, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    let limit = request.ifr_name.len() - 1;
    if name.is_empty() || name.len() > limit || name.contains('\0') {
        let reason = format!("\"{name}\" cannot name a device: 1 to {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(request)
}

fn name_in(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
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
