use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::model::Moment;

/// A host with one address and a TCP stack of its own. Packets come in by `handle_packet` and
/// go out by `poll_packet`.
pub struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    next_port: u16,
}

/// The lab's stacks do not discover a path's MTU, so theirs fits into any tunnel over an
/// underlay of 1,500 bytes.
const MTU: usize = 1360;

/// Packets that wait on a host's wire. A window of every connection fits; beyond it the wire
/// loses packets, as a switch does.
const WIRE_LIMIT: usize = 4096;

/// A connection whose peer answers nothing for this long is broken.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

const FIRST_LOCAL_PORT: u16 = 10_000;

impl Host {
    pub fn new(address: Ipv4Addr, seed: u64) -> Host {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // A new interface has room for its first address.
            let _fits = addresses.push(IpCidr::new(IpAddress::Ipv4(address), 24));
        });
        // Its table has room for its first route.
        let _fits = interface.routes_mut().add_default_ipv4_route(address);
        Host { interface, sockets: SocketSet::new(Vec::new()), wire, next_port: FIRST_LOCAL_PORT }
    }

    /// An IP packet for this host. It is looked at in the next `handle_timeout`.
    pub fn handle_packet(&mut self, packet: Vec<u8>) {
        if self.wire.inbound.len() < WIRE_LIMIT {
            self.wire.inbound.push_back(packet);
        }
    }

    /// Lets the stack work on what came in, what was written, and what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        let micros = i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX);
        self.interface.poll(Instant::from_micros(micros), &mut self.wire, &mut self.sockets);
    }

    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.wire.outbound.pop_front()
    }

    /// Opens a connection from a new local port, with `buffer` bytes of window each way.
    pub fn connect(&mut self, remote: (Ipv4Addr, u16), buffer: usize) -> SocketHandle {
        let mut socket = new_socket(buffer);
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_LOCAL_PORT);
        // The socket is new and no part of the address is zero: this cannot be refused, and if
        // it were, the socket would stay closed, which its user takes as a failure.
        let _accepted = socket.connect(self.interface.context(), remote, port);
        self.sockets.add(socket)
    }

    /// One socket that takes one connection at `port`.
    pub fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let mut socket = new_socket(buffer);
        // Refused only for port zero or an open socket.
        let _accepted = socket.listen(port);
        self.sockets.add(socket)
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket>(handle)
    }

    /// Forgets a socket without another packet.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }
}

fn new_socket(buffer: usize) -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; buffer]), SocketBuffer::new(vec![0; buffer]));
    socket.set_timeout(Some(USER_TIMEOUT));
    // Both ends of every conversation here write whole messages.
    socket.set_nagle_enabled(false);
    socket
}

/// The cable between the stack and its switch.
#[derive(Default)]
struct Wire {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outbound)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        (self.outbound.len() < WIRE_LIMIT).then_some(Outgoing(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
