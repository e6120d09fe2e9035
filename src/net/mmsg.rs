use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::model::Leg;
use crate::packet::Datagram;

/// Datagrams in one system call at most: enough that the call costs little per datagram, few
/// enough that the headers (200 bytes each) stay in the first-level cache.
const CALL_LIMIT: usize = 64;

/// Room for ancillary data: one IPv4 TOS, with its header and alignment 24 bytes.
const CONTROL_ROOM: usize = 32;

/// What `recvmmsg` and `sendmmsg` want to see, allocated once. A worker has one.
pub struct MultiMessage {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
}

/// Aligned as `cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_ROOM]);

// SAFETY: the raw pointers in `headers` and `vectors` are written anew before each system call
// and never followed outside it, so it does not matter which thread holds them in between.
unsafe impl Send for MultiMessage {}

impl Default for MultiMessage {
    fn default() -> MultiMessage {
        // SAFETY: all three are plain C structures of integers and pointers, for which all
        // zeroes is a valid value.
        let (header, vector, address): (libc::mmsghdr, libc::iovec, libc::sockaddr_in) =
            unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        MultiMessage {
            headers: vec![header; CALL_LIMIT].into_boxed_slice(),
            vectors: vec![vector; CALL_LIMIT].into_boxed_slice(),
            addresses: vec![address; CALL_LIMIT].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_ROOM]); CALL_LIMIT].into_boxed_slice(),
        }
    }
}

impl MultiMessage {
    /// Fills slots from the front with datagrams that wait and returns how many; `EAGAIN` when
    /// none does. `leg` is written into each, with the sender as its remote. A datagram that is
    /// larger than its slot arrives cut, and fails where it is read.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, leg: Leg, slots: &mut [Datagram]) -> Result<usize, Errno> {
        let count = slots.len().min(CALL_LIMIT);
        for (index, slot) in slots[..count].iter_mut().enumerate() {
            let room = slot.packet.reset();
            self.vectors[index] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            self.point(index, CONTROL_ROOM);
        }
        // SAFETY: the first `count` headers point at vectors, addresses and controls of their
        // own, and the vectors at the slots' rooms, which are borrowed mutably for this call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(Errno::result(received)?).unwrap_or(0).min(count);
        for (index, slot) in slots[..received].iter_mut().enumerate() {
            slot.packet.set_len(self.headers[index].msg_len as usize);
            slot.tos = self.received_tos(index);
            slot.leg = Leg { remote: from_c(&self.addresses[index]), ..leg };
        }
        Ok(received)
    }

    /// Sends datagrams from the front, in order, and returns how many the socket took, at least
    /// one; the error is that of the first.
    pub fn send(&mut self, socket: BorrowedFd<'_>, datagrams: &[Datagram]) -> Result<usize, Errno> {
        let mut count = 0;
        for datagram in datagrams.iter().take(CALL_LIMIT) {
            let SocketAddr::V4(remote) = datagram.leg.remote else { break };
            let bytes = datagram.packet.bytes();
            self.addresses[count] = to_c(remote);
            self.vectors[count] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let control = if datagram.tos == 0 { 0 } else { self.write_tos(count, datagram.tos) };
            self.point(count, control);
            count += 1;
        }
        if count == 0 {
            return Err(Errno::EAFNOSUPPORT);
        }
        // SAFETY: the first `count` headers point at vectors, addresses and controls of their
        // own, and the vectors at the datagrams' bytes, which are borrowed for this call and
        // which sending only reads.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        Ok(usize::try_from(Errno::result(sent)?).unwrap_or(0))
    }

    /// Points header `index` at everything of the same index, with `control` bytes of
    /// ancillary data (0 is none).
    fn point(&mut self, index: usize, control: usize) {
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = (&raw mut self.addresses[index]).cast();
        header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut self.vectors[index];
        header.msg_iovlen = 1;
        header.msg_control = match control {
            0 => std::ptr::null_mut(),
            _ => (&raw mut self.controls[index]).cast(),
        };
        header.msg_controllen = control as _;
        header.msg_flags = 0;
    }

    /// Writes one `IP_TOS` and returns its length.
    fn write_tos(&mut self, index: usize, tos: u8) -> usize {
        let length = mem::size_of::<libc::c_int>() as libc::c_uint;
        self.point(index, CONTROL_ROOM);
        let header = &raw const self.headers[index].msg_hdr;
        // SAFETY: `point` has just given the header `CONTROL_ROOM` aligned bytes, which hold one
        // control message with an integer (24 bytes), so `CMSG_FIRSTHDR` is not null and all
        // writes stay inside.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = libc::IPPROTO_IP;
            (*message).cmsg_type = libc::IP_TOS;
            (*message).cmsg_len = libc::CMSG_LEN(length) as _;
            libc::CMSG_DATA(message).cast::<libc::c_int>().write_unaligned(libc::c_int::from(tos));
            libc::CMSG_SPACE(length) as usize
        }
    }

    /// The TOS byte that came with message `index`; 0 when none did.
    fn received_tos(&self, index: usize) -> u8 {
        let header = &raw const self.headers[index].msg_hdr;
        // SAFETY: the kernel has filled the control bytes that the header points at and has set
        // their length, within which `CMSG_FIRSTHDR` and `CMSG_NXTHDR` stay; an `IP_TOS` that it
        // delivers has at least one byte of data.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                if (*message).cmsg_level == libc::IPPROTO_IP && (*message).cmsg_type == libc::IP_TOS {
                    return libc::CMSG_DATA(message).read();
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        0
    }
}

fn to_c(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn from_c(address: &libc::sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
    SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
}
