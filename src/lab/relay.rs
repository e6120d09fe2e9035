use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};

/// Which way a packet travels over a WAN link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// From the edge to a PoP.
    Up,
    /// From a PoP to the edge.
    Down,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Up, Direction::Down];

    pub const fn index(self) -> usize {
        match self {
            Direction::Up => 0,
            Direction::Down => 1,
        }
    }
}

/// One port of one PoP over one WAN link, as a 1:1 NAT: what the edge sends to the relay's
/// address goes on to the PoP from the link's public address, and back.
pub struct Relay {
    /// Link and PoP.
    way: (usize, usize),
    /// Faces the edge.
    inside: UdpSocket,
    /// Faces the PoP.
    outside: UdpSocket,
    /// Where the edge last sent from; before that nothing can be delivered to it.
    edge: Option<SockaddrIn>,
    pop: SockaddrIn,
    storage: Box<[u8]>,
    control: Vec<u8>,
}

/// A datagram on its way through a relay. The TOS byte passes unchanged.
pub struct Parcel {
    pub direction: Direction,
    pub tos: u8,
    pub bytes: Box<[u8]>,
}

/// Larger than any datagram that an edge with an underlay MTU of 1,500 sends.
const DATAGRAM_LIMIT: usize = 2048;

/// Waiting room in the kernel: some 100 ms of all links together. The kernel may allow less.
const SOCKET_BUFFER: usize = 1 << 20;

impl Relay {
    /// All four ends use the same port, so that the way is transparent but for addresses.
    pub fn bind(
        way: (usize, usize),
        inside: Ipv4Addr,
        outside: Ipv4Addr,
        pop: Ipv4Addr,
        port: u16,
    ) -> io::Result<Relay> {
        Ok(Relay {
            way,
            inside: open(inside, port)?,
            outside: open(outside, port)?,
            edge: None,
            pop: SockaddrIn::from(SocketAddrV4::new(pop, port)),
            storage: vec![0; DATAGRAM_LIMIT].into_boxed_slice(),
            control: cmsg_space!(u8, i32),
        })
    }

    pub fn way(&self) -> (usize, usize) {
        self.way
    }

    /// What arrived at `direction`'s beginning; `None` when nothing waits.
    pub fn receive(&mut self, direction: Direction) -> Option<Parcel> {
        let socket = match direction {
            Direction::Up => &self.inside,
            Direction::Down => &self.outside,
        };
        let mut slices = [IoSliceMut::new(&mut self.storage)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut self.control), flags).ok()?;
        let mark = |control| match control {
            ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
            _ => None,
        };
        let tos = message.cmsgs().ok().and_then(|mut controls| controls.find_map(mark)).unwrap_or(0);
        let (length, from) = (message.bytes, message.address);
        if direction == Direction::Up {
            self.edge = from.or(self.edge);
        }
        Some(Parcel { direction, tos, bytes: self.storage.get(..length)?.into() })
    }

    /// Hands a parcel to the far end. A datagram that nobody takes is lost, as on any network.
    pub fn deliver(&self, parcel: &Parcel) {
        let (socket, to) = match parcel.direction {
            Direction::Up => (&self.outside, Some(self.pop)),
            Direction::Down => (&self.inside, self.edge),
        };
        let Some(to) = to else { return };
        let control = [ControlMessage::Ipv4Tos(&parcel.tos)];
        let slices = [IoSlice::new(&parcel.bytes)];
        let _lost = sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to));
    }

    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.inside.as_fd(), self.outside.as_fd()]
    }
}

fn open(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::IpRecvTos, &true)?;
    setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER)?;
    Ok(socket)
}
