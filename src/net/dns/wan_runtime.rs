use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Asker;
use crate::net::Interface;

/// The resolver's sockets: they leave over the asker's WAN link, whatever other links have
/// default routes too.
#[derive(Clone)]
pub(super) struct WanRuntime {
    tokio: TokioRuntimeProvider,
    asker: Arc<Asker>,
}

impl WanRuntime {
    pub fn new(asker: Asker) -> WanRuntime {
        WanRuntime { tokio: TokioRuntimeProvider::new(), asker: Arc::new(asker) }
    }
}

impl RuntimeProvider for WanRuntime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Outcome<UdpSocket> {
        let socket = self.asker.socket(Type::DGRAM, Some(local), server);
        Box::pin(async move { UdpSocket::from_std(socket?.into()) })
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        patience: Option<Duration>,
    ) -> Outcome<Self::Tcp> {
        let socket = self.asker.socket(Type::STREAM, local, server);
        Box::pin(async move {
            let connecting = TcpSocket::from_std_stream(socket?.into()).connect(server);
            let stream = tokio::time::timeout(patience.unwrap_or(super::QUERY_TIMEOUT), connecting).await??;
            stream.set_nodelay(true)?;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }
}

type Outcome<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl Asker {
    fn socket(&self, kind: Type, local: Option<SocketAddr>, server: SocketAddr) -> io::Result<Socket> {
        let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
        let socket = Socket::new(Domain::for_address(server), kind.nonblocking().cloexec(), Some(protocol))?;
        let mut local = local;
        if self.is_behind_wan(server.ip())? {
            if let Some(interface) = &self.interface {
                unless_forbidden(socket.bind_device(Some(interface.as_bytes())))?;
            }
            if let Some(mark) = self.fwmark {
                unless_forbidden(socket.set_mark(mark))?;
            }
            if let (Some(source), IpAddr::V4(_)) = (self.source, server.ip()) {
                local = Some(SocketAddr::new(source.into(), local.map_or(0, |local| local.port())));
            }
        }
        if let Some(local) = local {
            socket.bind(&local.into())?;
        }
        Ok(socket)
    }

    /// A name server on this host, in the LAN or in a tunnel is asked as routing says.
    fn is_behind_wan(&self, server: IpAddr) -> io::Result<bool> {
        if server.is_loopback() || self.inside.iter().any(|network| network.contains(&server)) {
            return Ok(false);
        }
        self.interface.as_deref().map_or(Ok(true), |interface| Interface::may_lead(interface, server))
    }
}

/// Without privilege the source address alone must do.
fn unless_forbidden(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}
