use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::model::Leg;
use crate::packet::{TRAIN_CAPACITY, Train};

/// Messages in one system call at most: enough that the call costs little per message, few
/// enough that the headers (200 bytes each) stay in the first-level cache.
const CALL_LIMIT: usize = 64;

/// Room for ancillary data: a TOS byte and the length of each datagram, with their headers and
/// alignment 24 bytes each.
const CONTROL_ROOM: usize = 48;

/// What `recvmmsg` and `sendmmsg` want to see, allocated once. A worker has one.
pub struct MultiMessage {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
    /// Length of a received message of late, for a guess how many fit into what may be taken.
    usual_len: usize,
}

/// Aligned as `cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_ROOM]);

/// What one entry of `sendmmsg` carries.
pub(super) struct Message<'a> {
    pub remote: SocketAddr,
    pub tos: u8,
    pub bytes: &'a [u8],
    /// The kernel cuts `bytes` into datagrams of this length.
    pub segment: Option<usize>,
}

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
            usual_len: TRAIN_CAPACITY,
        }
    }
}

impl MultiMessage {
    /// Fills slots from the front with what waits, about as much as `bytes` allows, which is
    /// counted down, and at least one. Returns how many it filled and whether more may wait;
    /// `EAGAIN` when nothing does. `leg` is written into each, with the sender as its remote. What
    /// is larger than its slot arrives cut, and fails where it is read.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        leg: Leg,
        slots: &mut [Train],
        bytes: &mut usize,
    ) -> Result<(usize, bool), Errno> {
        let wanted = (*bytes / self.usual_len.max(1)).max(1);
        let count = slots.len().min(CALL_LIMIT).min(wanted);
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
        let mut taken = 0;
        for (index, slot) in slots[..received].iter_mut().enumerate() {
            let length = self.headers[index].msg_len as usize;
            taken += length;
            slot.packet.set_len(length);
            let (tos, segment) = self.received_facts(index);
            slot.tos = tos;
            slot.segment = segment.filter(|segment| *segment > 0).unwrap_or(length);
            slot.leg = Leg { remote: from_c(&self.addresses[index]), ..leg };
        }
        *bytes = bytes.saturating_sub(taken);
        self.usual_len = taken.checked_div(received).unwrap_or(self.usual_len);
        Ok((received, received == count))
    }

    /// Sends messages from the front, in order, and returns how many the socket took, at least
    /// one; the error is that of the first.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = Message<'a>>,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        for message in messages.take(CALL_LIMIT) {
            let SocketAddr::V4(remote) = message.remote else { break };
            let bytes = message.bytes;
            self.addresses[count] = to_c(remote);
            self.vectors[count] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            self.write_facts(count, message.tos, message.segment);
            count += 1;
        }
        if count == 0 {
            return Err(Errno::EAFNOSUPPORT);
        }
        // SAFETY: the first `count` headers point at vectors, addresses and controls of their
        // own, and the vectors at the messages' bytes, which are borrowed for longer than this
        // call and which sending only reads.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        Ok(usize::try_from(Errno::result(sent)?).unwrap_or(0).max(1))
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

    /// Writes what the kernel has to know of message `index`, if anything.
    fn write_facts(&mut self, index: usize, tos: u8, segment: Option<usize>) {
        self.point(index, CONTROL_ROOM);
        let header = &raw const self.headers[index].msg_hdr;
        let mut used = 0;
        // SAFETY: `point` has just given the header `CONTROL_ROOM` aligned bytes, which hold two
        // control messages with an integer each (24 bytes). So `CMSG_FIRSTHDR` is not null, and
        // the second message, where the first one ends, and all writes stay inside.
        unsafe {
            let mut place = libc::CMSG_FIRSTHDR(header);
            if tos != 0 {
                let length = mem::size_of::<libc::c_int>() as libc::c_uint;
                (*place).cmsg_level = libc::IPPROTO_IP;
                (*place).cmsg_type = libc::IP_TOS;
                (*place).cmsg_len = libc::CMSG_LEN(length) as _;
                libc::CMSG_DATA(place).cast::<libc::c_int>().write_unaligned(libc::c_int::from(tos));
                used += libc::CMSG_SPACE(length) as usize;
                place = place.byte_add(libc::CMSG_SPACE(length) as usize);
            }
            if let Some(segment) = segment {
                let length = mem::size_of::<u16>() as libc::c_uint;
                (*place).cmsg_level = libc::SOL_UDP;
                (*place).cmsg_type = libc::UDP_SEGMENT;
                (*place).cmsg_len = libc::CMSG_LEN(length) as _;
                // A datagram has at most 65,507 bytes.
                libc::CMSG_DATA(place).cast::<u16>().write_unaligned(segment as u16);
                used += libc::CMSG_SPACE(length) as usize;
            }
        }
        self.point(index, used);
    }

    /// What came with message `index`: the TOS byte, 0 when none did, and the length of each
    /// datagram where there are several.
    fn received_facts(&self, index: usize) -> (u8, Option<usize>) {
        let header = &raw const self.headers[index].msg_hdr;
        let (mut tos, mut segment) = (0, None);
        // SAFETY: the kernel has filled the control bytes that the header points at and has set
        // their length, within which `CMSG_FIRSTHDR` and `CMSG_NXTHDR` stay; an `IP_TOS` that it
        // delivers has at least one byte of data, and a `UDP_GRO` an integer.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_TOS) => tos = libc::CMSG_DATA(message).read(),
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let length = libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned();
                        segment = usize::try_from(length).ok();
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        (tos, segment)
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
