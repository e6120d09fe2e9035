use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

use super::virtio::HEADER;
use crate::net::interface::{name_in, request_for};

pub const SEGMENT_TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
pub const SEGMENT_UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What is asked of the kernel, from the best on; the first that it agrees to is used.
pub const WISHES: [libc::c_uint; 5] = [
    SEGMENT_TCP | libc::TUN_F_TSO_ECN | SEGMENT_UDP,
    // Linux 6.1 and older.
    SEGMENT_TCP | libc::TUN_F_TSO_ECN,
    SEGMENT_TCP,
    libc::TUN_F_CSUM,
    0,
];

/// A new device as the kernel has made it.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    /// At least one.
    pub queues: Vec<File>,
    /// Before each packet stands a virtio-net header.
    pub header: bool,
    /// The wish that was granted; 0 without header.
    granted: libc::c_uint,
}

/// What is wanted of a device.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub queues: usize,
    /// Of `IFF_VNET_HDR` and `IFF_MULTI_QUEUE`.
    pub flags: libc::c_int,
    pub wishes: &'a [libc::c_uint],
}

impl Device {
    /// Creates the device. What the kernel cannot do is left out.
    pub fn create(wanted: &Wanted) -> io::Result<Device> {
        let name = wanted.name;
        let flags = features()? & wanted.flags;
        let multi_queue = if wanted.queues > 1 { flags & libc::IFF_MULTI_QUEUE } else { 0 };
        let mut device = Device { name: name.to_owned(), queues: Vec::new(), header: false, granted: 0 };
        let mut flags = flags & libc::IFF_VNET_HDR | multi_queue;
        let first = match queue(name, flags | libc::IFF_TUN_EXCL) {
            // It was made before for us to take over, as `ip tuntap add` does, or another program
            // holds it. A single queue cannot be held twice.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                flags &= !libc::IFF_MULTI_QUEUE;
                queue(name, flags).map_err(|_| error)
            }
            outcome => outcome,
        };
        let (first, name) = first.map_err(|error| explain(&error, name))?;
        (device.name, device.header) = (name, flags & libc::IFF_VNET_HDR != 0);
        device.queues.push(first);
        if flags & libc::IFF_MULTI_QUEUE != 0 {
            device.add_queues(wanted.queues, flags);
        }
        if device.header {
            device.set_header_size()?;
            device.granted = wanted.wishes.iter().copied().find(|wish| device.grants(*wish)).unwrap_or(0);
        }
        Ok(device)
    }

    pub fn segments_tcp(&self) -> bool {
        self.granted & SEGMENT_TCP == SEGMENT_TCP
    }

    pub fn segments_udp(&self) -> bool {
        self.granted & SEGMENT_UDP == SEGMENT_UDP
    }

    fn add_queues(&mut self, wanted: usize, flags: libc::c_int) {
        while self.queues.len() < wanted {
            match queue(&self.name, flags) {
                Ok((queue, _)) => self.queues.push(queue),
                Err(error) => {
                    let queues = self.queues.len();
                    tracing::warn!(device = self.name, wanted, queues, %error, "the device takes no more queues");
                    return;
                }
            }
        }
    }

    /// A device that was there before may have another.
    fn set_header_size(&self) -> io::Result<()> {
        let size = HEADER as libc::c_int;
        for queue in &self.queues {
            // SAFETY: TUNSETVNETHDRSZ reads one integer, which lives until the call is over.
            let outcome = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) };
            Errno::result(outcome).map_err(|errno| explain(&errno.into(), &self.name))?;
        }
        Ok(())
    }

    fn grants(&self, wish: libc::c_uint) -> bool {
        self.queues.iter().all(|queue| {
            // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours.
            let outcome = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(wish)) };
            outcome == 0
        })
    }
}

/// The flags that the kernel's driver knows.
fn features() -> io::Result<libc::c_int> {
    let file = open().map_err(|error| explain(&error, "/dev/net/tun"))?;
    let mut features: libc::c_int = 0;
    // SAFETY: TUNGETFEATURES writes one integer, which lives until the call is over.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETFEATURES, &raw mut features) })?;
    Ok(features)
}

/// A queue of the device of this name, which is created with the first one, and its real name.
fn queue(name: &str, flags: libc::c_int) -> io::Result<(File, String)> {
    let mut request = request_for(name)?;
    let file = open()?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call is over.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok((file, name_in(&request)))
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/net/tun")
}

/// What an operator can do about it.
fn explain(error: &io::Error, name: &str) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; it needs root or CAP_NET_ADMIN",
        Some(libc::EBUSY) => "; a device of this name exists, or another program holds it: does another trefoil run?",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "; is the kernel module tun loaded?",
        Some(libc::EINVAL) => "; the name is not allowed",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot create the TUN device {name}: {error}{hint}"))
}
