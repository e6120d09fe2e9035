use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Interface, MultiMessage};
use crate::edge::{PortPlan, UnderlayFact};
use crate::model::{Leg, UnderlayId};
use crate::packet::{Batch, Datagram};

/// Bytes that a socket may hold each way: 4 MiB are 30 ms of 1 Gbit/s, as long as a worker may
/// be kept from running on a small busy machine.
const SOCKET_BUFFER: usize = 4 << 20;

/// What stands before an IKE message on the NAT-traversal port, where ESP has its SPI, which is
/// never 0 (RFC 3948 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The two UDP sockets of one underlay: the IKE port, and the NAT-traversal port with ESP and
/// IKE. All methods take `&self`: control sends IKE while a worker receives and sends ESP.
#[derive(Debug)]
pub struct UnderlaySockets {
    id: UnderlayId,
    interface: Option<String>,
    address: Ipv4Addr,
    ike: Port,
    natt: Port,
}

#[derive(Debug)]
struct Port {
    socket: Socket,
    local: SocketAddr,
}

impl UnderlaySockets {
    /// Opens both sockets, non-blocking, bound to the address (`None`: the interface's present
    /// IPv4 address) and, where one is given, to the interface, so that packets leave and arrive
    /// there whatever the routes say. Port 0 lets the system choose. `fwmark` needs CAP_NET_ADMIN.
    pub fn open(
        id: UnderlayId,
        interface: Option<&str>,
        address: Option<Ipv4Addr>,
        ports: PortPlan,
        fwmark: Option<u32>,
    ) -> io::Result<UnderlaySockets> {
        let address = match (address, interface) {
            (Some(address), _) => address,
            (None, Some(interface)) => Interface::named(interface)?.address,
            (None, None) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a WAN link needs an interface or a source address",
                ));
            }
        };
        let open = |port, fragment| {
            let wanted = SocketAddrV4::new(address, port);
            Port::open(interface, wanted, fwmark, fragment).map_err(|error| explain(error, interface, wanted))
        };
        // An IKE message may be larger than the path's MTU and must arrive; an ESP packet is made
        // to fit.
        Ok(UnderlaySockets {
            id,
            interface: interface.map(str::to_owned),
            address,
            ike: open(ports.ike, Fragment::Allowed)?,
            natt: open(ports.natt, Fragment::Never)?,
        })
    }

    pub fn id(&self) -> UnderlayId {
        self.id
    }

    /// The real address and port of one of the two sockets.
    pub fn local(&self, natt: bool) -> SocketAddr {
        self.port(natt).local
    }

    /// The real ports, where the plan may have said 0.
    pub fn ports(&self) -> PortPlan {
        PortPlan { ike: self.ike.local.port(), natt: self.natt.local.port() }
    }

    /// What control must know of this underlay; the MTU is the interface's present one.
    pub fn fact(&self) -> io::Result<UnderlayFact> {
        let interface = match &self.interface {
            Some(name) => Interface::named(name)?,
            None => Interface::with_address(self.address)?,
        };
        let PortPlan { ike, natt } = self.ports();
        Ok(UnderlayFact { address: self.address, ike_port: ike, natt_port: natt, mtu: interface.mtu })
    }

    /// Fills free slots from one of the two sockets, while datagrams wait.
    pub fn receive(&self, natt: bool, calls: &mut MultiMessage, batch: &mut Batch<Datagram>) -> Result<(), Errno> {
        let port = self.port(natt);
        let leg = Leg { underlay: self.id, natt, local: port.local, remote: port.local };
        while !batch.is_full() {
            match calls.receive(port.socket.as_fd(), leg, batch.free()) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(count) => batch.claim(count),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends datagrams by one of the two sockets, in order. `refused` hears the index of each
    /// that the socket did not take; the rest is sent all the same.
    pub fn send(
        &self,
        natt: bool,
        calls: &mut MultiMessage,
        datagrams: &[Datagram],
        refused: &mut dyn FnMut(usize, i32),
    ) {
        let socket = self.port(natt).socket.as_fd();
        let mut next = 0;
        while let Some(rest) = datagrams.get(next..).filter(|rest| !rest.is_empty()) {
            match calls.send(socket, rest) {
                Ok(sent) => next += sent.max(1),
                Err(Errno::EINTR) => {}
                // The socket is full; asking for each of the others would only cost more time.
                Err(Errno::EAGAIN) => {
                    (next..datagrams.len()).for_each(|index| refused(index, Errno::EAGAIN as i32));
                    return;
                }
                Err(error) => {
                    refused(next, error as i32);
                    next += 1;
                }
            }
        }
    }

    /// Sends one IKE message, without marker, from any thread; the marker is put before it where
    /// the leg needs one.
    pub fn send_ike(&self, leg: Leg, bytes: &[u8]) -> io::Result<()> {
        let marker: &[u8] = if leg.natt { &NON_ESP_MARKER } else { &[] };
        let parts = [IoSlice::new(marker), IoSlice::new(bytes)];
        let sent = self.port(leg.natt).socket.send_to_vectored(&parts, &leg.remote.into())?;
        if sent == marker.len() + bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// For the poller: readable while datagrams wait on one of the two sockets.
    pub fn descriptor(&self, natt: bool) -> BorrowedFd<'_> {
        self.port(natt).socket.as_fd()
    }

    fn port(&self, natt: bool) -> &Port {
        if natt { &self.natt } else { &self.ike }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragment {
    /// By us and on the way.
    Allowed,
    /// Packets carry DF; the path's MTU is learned, and what exceeds it refused with EMSGSIZE.
    Never,
}

impl Port {
    fn open(
        interface: Option<&str>,
        wanted: SocketAddrV4,
        fwmark: Option<u32>,
        fragment: Fragment,
    ) -> io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        socket.bind_device(interface.map(str::as_bytes))?;
        if let Some(mark) = fwmark {
            socket.set_mark(mark)?;
        }
        socket.set_recv_tos_v4(true)?;
        set_mtu_discovery(&socket, fragment)?;
        // Only CAP_NET_ADMIN may go beyond the system's limit; as much as that allows is fine.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
            socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
            socket.set_send_buffer_size(SOCKET_BUFFER)?;
        }
        socket.bind(&wanted.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Port { socket, local })
    }
}

fn set_mtu_discovery(socket: &Socket, fragment: Fragment) -> io::Result<()> {
    use std::os::fd::AsRawFd;
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

/// What an operator can do about it.
fn explain(error: io::Error, interface: Option<&str>, wanted: SocketAddrV4) -> io::Error {
    let on = interface.map_or(String::new(), |interface| format!(" on {interface}"));
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; does another IKE daemon run?",
        io::ErrorKind::AddrNotAvailable => "; the machine does not have this address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 and marks need root or capabilities",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot open UDP {wanted}{on}: {error}{hint}"))
}

/// The sockets of all underlays, shared by control and workers and replaceable while both use
/// them. A worker takes up a change at its next turn, so wake it; a replaced pair closes when
/// the last worker has let go of it.
#[derive(Debug, Default)]
pub struct Underlays(ArcSwap<Vec<Arc<UnderlaySockets>>>);

impl Underlays {
    pub fn new(sockets: Vec<UnderlaySockets>) -> Underlays {
        Underlays(ArcSwap::from_pointee(sockets.into_iter().map(Arc::new).collect()))
    }

    /// Adds a pair, or puts it in the place of the one with the same id.
    pub fn put(&self, sockets: UnderlaySockets) {
        let sockets = Arc::new(sockets);
        self.0.rcu(|list| {
            let others = list.iter().filter(|other| other.id != sockets.id).cloned();
            others.chain([sockets.clone()]).collect::<Vec<_>>()
        });
    }

    pub fn remove(&self, id: UnderlayId) {
        self.0.rcu(|list| list.iter().filter(|other| other.id != id).cloned().collect::<Vec<_>>());
    }

    pub fn get(&self, id: UnderlayId) -> Option<Arc<UnderlaySockets>> {
        self.0.load().iter().find(|sockets| sockets.id == id).cloned()
    }

    pub fn all(&self) -> Arc<Vec<Arc<UnderlaySockets>>> {
        self.0.load_full()
    }

    /// Sends one IKE message by the leg's underlay; see `UnderlaySockets::send_ike`.
    pub fn send_ike(&self, leg: Leg, bytes: &[u8]) -> io::Result<()> {
        let sockets = self.get(leg.underlay).ok_or(io::ErrorKind::NotConnected)?;
        sockets.send_ike(leg, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketBuf;

    const ANY_PORTS: PortPlan = PortPlan { ike: 0, natt: 0 };

    fn open(id: u16, last: u8) -> UnderlaySockets {
        let address = Ipv4Addr::new(127, 0, 0, last);
        UnderlaySockets::open(UnderlayId(id), None, Some(address), ANY_PORTS, None).unwrap()
    }

    fn datagram(leg: Leg, tos: u8, bytes: &[u8]) -> Datagram {
        let mut packet = PacketBuf::with_capacity(2_048);
        assert!(packet.fill(bytes));
        Datagram { leg, tos, packet }
    }

    fn leg(from: &UnderlaySockets, to: &UnderlaySockets, natt: bool) -> Leg {
        Leg { underlay: from.id(), natt, local: from.local(natt), remote: to.local(natt) }
    }

    fn received(sockets: &UnderlaySockets, natt: bool, capacity: usize) -> Batch<Datagram> {
        let blank = leg(sockets, sockets, natt);
        let mut batch =
            Batch::new(capacity, || Datagram { leg: blank, tos: 0, packet: PacketBuf::with_capacity(2_048) });
        sockets.receive(natt, &mut MultiMessage::default(), &mut batch).unwrap();
        batch
    }

    #[test]
    fn a_batch_crosses_in_order_with_its_tos_and_its_legs() {
        let (ours, theirs) = (open(0, 1), open(7, 2));
        let datagrams: Vec<Datagram> =
            (0..150u8).map(|index| datagram(leg(&ours, &theirs, true), (index % 4) << 2, &[index; 100])).collect();
        ours.send(true, &mut MultiMessage::default(), &datagrams, &mut |index, errno| panic!("{index}: {errno}"));
        let batch = received(&theirs, true, 200);
        assert_eq!(batch.filled().len(), 150);
        for (index, got) in (0u8..).zip(batch.filled()) {
            assert_eq!(got.packet.bytes(), [index; 100]);
            assert_eq!(got.tos, (index % 4) << 2);
            assert_eq!(got.leg, leg(&theirs, &ours, true));
        }
        assert!(received(&theirs, false, 10).is_empty());
    }

    #[test]
    fn the_system_chooses_ports_and_they_are_reported() {
        let sockets = open(0, 1);
        let PortPlan { ike, natt } = sockets.ports();
        assert!(ike != 0 && natt != 0 && ike != natt);
        assert_eq!(sockets.local(false).port(), ike);
    }

    #[test]
    fn an_ike_message_has_the_marker_on_the_nat_traversal_port_only() {
        let (ours, theirs) = (open(0, 1), open(1, 2));
        for natt in [false, true] {
            ours.send_ike(leg(&ours, &theirs, natt), b"ike").unwrap();
        }
        assert_eq!(received(&theirs, false, 2).filled()[0].packet.bytes(), b"ike");
        assert_eq!(received(&theirs, true, 2).filled()[0].packet.bytes(), b"\0\0\0\0ike");
    }

    #[test]
    fn what_the_socket_refuses_is_told_and_the_rest_is_sent() {
        let (ours, theirs) = (open(0, 1), open(1, 2));
        let good = leg(&ours, &theirs, true);
        let six = Leg { remote: "[::1]:4500".parse().unwrap(), ..good };
        let nowhere = Leg { remote: "255.255.255.255:9".parse().unwrap(), ..good };
        let batch: Vec<Datagram> = [good, six, good, nowhere, good].map(|leg| datagram(leg, 0, b"x")).into();
        let mut refused = Vec::new();
        ours.send(true, &mut MultiMessage::default(), &batch, &mut |index, errno| refused.push((index, errno)));
        assert_eq!(refused, [(1, libc::EAFNOSUPPORT), (3, libc::EACCES)]);
        assert_eq!(received(&theirs, true, 8).filled().len(), 3);
    }

    #[test]
    fn a_datagram_larger_than_its_slot_is_cut_and_does_not_hurt_the_next() {
        let (ours, theirs) = (open(0, 1), open(1, 2));
        let way = leg(&ours, &theirs, true);
        let mut large = PacketBuf::with_capacity(5_000);
        assert!(large.fill(&[9; 5_000]));
        let batch = [Datagram { leg: way, tos: 0, packet: large }, datagram(way, 0, b"small")];
        ours.send(true, &mut MultiMessage::default(), &batch, &mut |index, errno| panic!("{index}: {errno}"));
        let got = received(&theirs, true, 4);
        assert_eq!(got.filled().iter().map(|datagram| datagram.packet.len()).collect::<Vec<_>>(), [2_048, 5]);
    }

    #[test]
    fn an_interface_gives_the_address_and_an_unknown_one_is_a_plain_error() {
        let sockets = UnderlaySockets::open(UnderlayId(0), Some("lo"), None, ANY_PORTS, None).unwrap();
        let fact = sockets.fact().unwrap();
        assert!(fact.address.is_loopback() && fact.mtu >= 1_280);
        assert_eq!(PortPlan { ike: fact.ike_port, natt: fact.natt_port }, sockets.ports());
        let error = UnderlaySockets::open(UnderlayId(0), Some("nt-none"), None, ANY_PORTS, None).unwrap_err();
        assert_eq!(error.to_string(), "there is no interface nt-none");
    }

    #[test]
    fn a_port_in_use_is_told_with_a_hint() {
        let first = open(0, 1);
        let error =
            UnderlaySockets::open(UnderlayId(0), None, Some(Ipv4Addr::LOCALHOST), first.ports(), None).unwrap_err();
        assert!(error.to_string().ends_with("does another IKE daemon run?"), "{error}");
    }

    #[test]
    fn a_pair_is_replaced_while_others_stay() {
        let underlays = Underlays::new(vec![open(0, 1), open(1, 2)]);
        let kept = underlays.get(UnderlayId(1)).unwrap();
        let old = underlays.get(UnderlayId(0)).unwrap().local(true);
        underlays.put(open(0, 3));
        assert_ne!(underlays.get(UnderlayId(0)).unwrap().local(true), old);
        assert!(Arc::ptr_eq(&kept, &underlays.get(UnderlayId(1)).unwrap()));
        underlays.remove(UnderlayId(0));
        assert_eq!(underlays.all().len(), 1);
        assert!(underlays.send_ike(leg(&kept, &kept, false), b"x").is_ok());
        let gone = Leg { underlay: UnderlayId(0), ..leg(&kept, &kept, false) };
        assert!(underlays.send_ike(gone, b"x").is_err());
    }
}
