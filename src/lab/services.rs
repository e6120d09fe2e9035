use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};

use super::datagram::turn_around;
use super::host::Host;
use super::network::{self, BULK_RATE, SERVICES};
use super::sessions::SESSION_BUFFER;
use super::transfers::{Pace, TRANSFER_BUFFER, write};
use super::web::WEB_BUFFER;
use crate::model::{Moment, protocol};
use crate::packet::{Echo, PacketBuf, parse};

/// The network of servers behind both PoPs. A router between it and the PoPs follows the branch:
/// what goes there leaves through the PoP by which the branch last came, as a routing protocol
/// between PoPs and services would have it.
pub struct Services {
    web: TcpServer,
    uploads: TcpServer,
    downloads: TcpServer,
    sessions: TcpServer,
    branch_behind: usize,
    leaving: VecDeque<(usize, Vec<u8>)>,
}

/// Packets of one turn that wait to leave.
const LEAVING_LIMIT: usize = 8192;

impl Services {
    pub fn new(seed: u64) -> Services {
        let server =
            |(address, port), sockets, buffer, kind| TcpServer::new(address, port, sockets, buffer, kind, seed);
        Services {
            web: server(network::WEB, 48, WEB_BUFFER, Service::Page),
            uploads: server(network::UPLOAD, 8, TRANSFER_BUFFER, Service::Sink),
            downloads: server(network::DOWNLOAD, 8, TRANSFER_BUFFER, Service::Source),
            sessions: server(network::SESSION, 64, SESSION_BUFFER, Service::Echo),
            branch_behind: 0,
            leaving: VecDeque::new(),
        }
    }

    /// A packet that came out of a PoP.
    pub fn handle_packet(&mut self, pop: usize, mut packet: Vec<u8>) {
        let Some(parsed) = parse(&packet) else { return };
        if !SERVICES.contains(&parsed.key.destination) {
            return;
        }
        if network::LAN.contains(&parsed.key.source) {
            self.branch_behind = pop;
        }
        match parsed.key.protocol {
            protocol::UDP => {
                turn_around(&mut packet, &parsed);
                self.leave(pop, packet);
            }
            protocol::ICMP => {
                let mut reply = PacketBuf::with_capacity(packet.len());
                let request = Echo::read(&packet, &parsed).filter(|echo| echo.request);
                if request.is_some_and(|request| request.write_reply(&parsed, &mut reply)) {
                    self.leave(pop, reply.bytes().to_vec());
                }
            }
            _ => {
                let (address, port) = (parsed.key.destination, parsed.key.destination_port);
                let mut servers = self.servers().into_iter();
                if let Some(server) = servers.find(|server| server.port == port && address == server.address) {
                    server.host.handle_packet(packet);
                }
            }
        }
    }

    /// The next packet to leave, with the PoP that it goes to.
    pub fn poll_packet(&mut self) -> Option<(usize, Vec<u8>)> {
        self.leaving.pop_front()
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        let mut packets = Vec::new();
        for server in self.servers() {
            server.handle_timeout(now);
            while let Some(packet) = server.host.poll_packet() {
                packets.push(packet);
            }
        }
        for mut packet in packets {
            let Some(parsed) = parse(&packet) else { continue };
            network::mark(&mut packet, parsed.key.source_port);
            self.leave(self.branch_behind, packet);
        }
    }

    fn leave(&mut self, pop: usize, packet: Vec<u8>) {
        if self.leaving.len() < LEAVING_LIMIT {
            self.leaving.push_back((pop, packet));
        }
    }

    fn servers(&mut self) -> [&mut TcpServer; 4] {
        [&mut self.web, &mut self.uploads, &mut self.downloads, &mut self.sessions]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Service {
    /// Reads how many bytes are wanted and sends them.
    Page,
    /// Reads and forgets.
    Sink,
    /// Sends at a steady pace.
    Source,
    /// Sends back what it reads.
    Echo,
}

/// One server address with sockets that each take one connection after the other.
struct TcpServer {
    host: Host,
    address: Ipv4Addr,
    port: u16,
    buffer: usize,
    service: Service,
    connections: Vec<Connection>,
}

struct Connection {
    socket: SocketHandle,
    /// `Page`: bytes still to be sent, once the request has been read.
    missing: Option<usize>,
    /// `Source`.
    pace: Option<Pace>,
}

impl TcpServer {
    fn new(address: Ipv4Addr, port: u16, sockets: usize, buffer: usize, service: Service, seed: u64) -> TcpServer {
        let mut host = Host::new(address, seed ^ u64::from(port));
        let listen = |_| Connection { socket: host.listen(port, buffer), missing: None, pace: None };
        let connections = (0..sockets).map(listen).collect();
        TcpServer { host, address, port, buffer, service, connections }
    }

    fn handle_timeout(&mut self, now: Moment) {
        self.host.handle_timeout(now);
        for connection in &mut self.connections {
            let socket = self.host.socket(connection.socket);
            match self.service {
                Service::Page => connection.serve_page(socket),
                Service::Sink => while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {},
                Service::Source => {
                    if socket.can_send() {
                        let pace = connection.pace.get_or_insert_with(|| Pace::new(BULK_RATE, now));
                        let due = pace.due(now);
                        write(socket, due, pace);
                    }
                }
                Service::Echo => echo(socket),
            }
            match socket.state() {
                State::CloseWait => socket.close(),
                State::Closed | State::TimeWait => {
                    self.host.remove(connection.socket);
                    let socket = self.host.listen(self.port, self.buffer);
                    *connection = Connection { socket, missing: None, pace: None };
                }
                State::Listen
                | State::SynSent
                | State::SynReceived
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::Closing
                | State::LastAck => {}
            }
        }
        self.host.handle_timeout(now);
    }
}

impl Connection {
    fn serve_page(&mut self, socket: &mut Socket) {
        while socket.can_recv() {
            let read = socket.recv(|bytes| (bytes.len(), bytes.first_chunk::<4>().copied()));
            if let (None, Ok(Some(size))) = (self.missing, read) {
                self.missing = Some(u32::from_be_bytes(size) as usize);
            }
        }
        if let Some(missing) = self.missing.filter(|missing| *missing > 0 && socket.can_send()) {
            let written = socket.send(|room| (room.len().min(missing), room.len().min(missing))).unwrap_or(0);
            self.missing = Some(missing - written);
        }
    }
}

/// What does not fit into the answer is dropped: nobody here waits for every byte.
fn echo(socket: &mut Socket) {
    while socket.can_recv() && socket.can_send() {
        let mut heard = Vec::new();
        let read = socket.recv(|bytes| {
            heard.extend_from_slice(bytes);
            (bytes.len(), ())
        });
        if read.is_err() || socket.send_slice(&heard).is_err() {
            return;
        }
    }
}
