use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes that a socket may hold each way: 4 MiB are 30 ms of 1 Gbit/s, as long as a worker may
/// be kept from running on a small busy machine.
const SOCKET_BUFFER: usize = 4 << 20;

/// One UDP port of ours: a socket, or one for each worker on the same port.
#[derive(Debug)]
pub struct Port {
    /// At least one.
    sockets: Vec<Socket>,
    pub local: SocketAddr,
    /// One send may carry a run of datagrams.
    pub segmentation: bool,
}

/// How its sockets are to be opened.
pub struct PortWish<'a> {
    pub interface: Option<&'a str>,
    pub address: SocketAddrV4,
    pub fwmark: Option<u32>,
    pub fragment: Fragment,
    /// At least one.
    pub sockets: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// By us and on the way.
    Allowed,
    /// Packets carry DF; the path's MTU is learned, and what exceeds it refused with EMSGSIZE.
    Never,
}

impl Port {
    pub fn open(wish: &PortWish) -> io::Result<Port> {
        // The first binds alone: two that share a port would do so with any third program's too,
        // and two daemons would each get a part of the packets.
        let (first, segmentation) = socket(wish)?;
        first.bind(&wish.address.into())?;
        let local = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut port = Port { sockets: vec![first], local, segmentation };
        if wish.sockets > 1 {
            port.share(wish)?;
        }
        Ok(port)
    }

    /// The socket of a worker.
    pub fn socket(&self, worker: usize) -> &Socket {
        self.sockets.get(worker).unwrap_or(&self.sockets[0])
    }

    pub fn descriptor(&self, worker: usize) -> BorrowedFd<'_> {
        self.socket(worker).as_fd()
    }

    /// Has this worker a socket of its own here?
    pub fn serves(&self, worker: usize) -> bool {
        worker < self.sockets.len()
    }

    /// Adds the other workers' sockets. The kernel numbers them in the order of their binding.
    fn share(&mut self, wish: &PortWish) -> io::Result<()> {
        setsockopt(&self.sockets[0], sockopt::ReusePort, &true)?;
        for _ in 1..wish.sockets {
            let (socket, _) = socket(wish)?;
            setsockopt(&socket, sockopt::ReusePort, &true)?;
            socket.bind(&self.local.into())?;
            self.sockets.push(socket);
        }
        if let Err(error) = steer_by_spi(&self.sockets[0], wish.sockets) {
            tracing::warn!(local = %self.local, %error, "packets are spread over the workers by their addresses");
        }
        Ok(())
    }
}

fn socket(wish: &PortWish) -> io::Result<(Socket, bool)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.bind_device(wish.interface.map(str::as_bytes))?;
    if let Some(mark) = wish.fwmark {
        socket.set_mark(mark)?;
    }
    socket.set_recv_tos_v4(true)?;
    set_mtu_discovery(&socket, wish.fragment)?;
    // Only CAP_NET_ADMIN may go beyond the system's limit; as much as that allows is fine.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    // Linux before 5.0 gives each datagram by itself, and before 4.18 takes each so.
    if let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
        tracing::warn!(address = %wish.address, %error, "the kernel gives datagrams one by one");
    }
    // 0 changes nothing: whoever sends says how long its datagrams are.
    let segmentation = setsockopt(&socket, sockopt::UdpGsoSegment, &0);
    if let Err(error) = &segmentation {
        tracing::warn!(address = %wish.address, %error, "the kernel takes datagrams one by one");
    }
    Ok((socket, segmentation.is_ok()))
}

/// Gives each datagram that arrives on a shared port to the socket of the worker that opens its
/// SPI: by the SPI's slot (see `Spi`), over all workers in turn. IKE messages begin with zeroes,
/// and come to the first like whatever is too short for an SPI.
fn steer_by_spi(socket: &Socket, sockets: usize) -> io::Result<()> {
    let instruction = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The program sees the datagram from behind its UDP header on; what it loads from there is in
    // the host's byte order, and a load beyond the end ends it with 0.
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        instruction(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, SLOT_SHIFT),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets as u32),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // The kernel copies the program, which lives until the call is over.
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &program)?)
}

/// An SPI's slot is in its upper 16 bits.
const SLOT_SHIFT: u32 = 16;

fn set_mtu_discovery(socket: &Socket, fragment: Fragment) -> io::Result<()> {
    let value: libc::c_int = match fragment {
        Fragment::Allowed => libc::IP_PMTUDISC_DONT,
        Fragment::Never => libc::IP_PMTUDISC_DO,
    };
    // SAFETY: the option takes an integer, whose address and size are given and which lives
    // until the call is over.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(outcome).map(drop).map_err(io::Error::from)
}
