//! The WAN side: the UDP sockets of each underlay, and runs of datagrams by them.

mod port;
mod run_limits;
mod runs;
mod sending;
#[cfg(test)]
mod tests;
mod underlays;

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;

use self::port::{Fragment, Port, PortWish};
use self::runs::Run;
use super::{Interface, MultiMessage};
use crate::dataplane::Unsent;
use crate::edge::{PortPlan, UnderlayFact};
use crate::model::{Leg, UnderlayId, WorkerId};
use crate::packet::{Batch, Train};

pub use self::run_limits::RunLimits;
pub use self::underlays::Underlays;

/// What stands before an IKE message on the NAT-traversal port, where ESP has its SPI, which is
/// never 0 (RFC 3948 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The UDP sockets of one underlay: one on the IKE port, and one for each worker on the
/// NAT-traversal port with ESP and IKE. All methods take `&self`: control sends IKE while workers
/// receive and send ESP.
#[derive(Debug)]
pub struct UnderlaySockets {
    id: UnderlayId,
    interface: Option<String>,
    address: Ipv4Addr,
    ike: Port,
    natt: Port,
    /// One send may carry a run of datagrams, until the interface refuses that.
    segmentation: AtomicBool,
}

impl UnderlaySockets {
    /// Opens the sockets, non-blocking, bound to the address (`None`: the interface's present
    /// IPv4 address) and, where one is given, to the interface, so that packets leave and arrive
    /// there whatever the routes say. Port 0 lets the system choose. `fwmark` needs CAP_NET_ADMIN.
    pub fn open(
        id: UnderlayId,
        interface: Option<&str>,
        address: Option<Ipv4Addr>,
        ports: PortPlan,
        workers: usize,
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
        let open = |port, fragment, sockets| {
            let address = SocketAddrV4::new(address, port);
            Port::open(&PortWish { interface, address, fwmark, fragment, sockets })
                .map_err(|error| explain(error, interface, address))
        };
        // An IKE message may be larger than the path's MTU and must arrive; an ESP packet is made
        // to fit.
        let ike = open(ports.ike, Fragment::Allowed, 1)?;
        let natt = open(ports.natt, Fragment::Never, workers.max(1))?;
        let segmentation = AtomicBool::new(natt.segmentation);
        Ok(UnderlaySockets { id, interface: interface.map(str::to_owned), address, ike, natt, segmentation })
    }

    pub fn id(&self) -> UnderlayId {
        self.id
    }

    /// The real address and port of IKE or NAT traversal.
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

    /// Fills free slots from the worker's socket on one of the two ports, while datagrams wait
    /// and until about `bytes` were taken, which are counted down. Tells whether more may wait.
    pub fn receive(
        &self,
        natt: bool,
        worker: WorkerId,
        calls: &mut MultiMessage,
        batch: &mut Batch<Train>,
        bytes: &mut usize,
    ) -> Result<bool, Errno> {
        let port = self.port(natt);
        let leg = Leg { underlay: self.id, natt, local: port.local, remote: port.local };
        let socket = port.descriptor(usize::from(worker.0));
        while !batch.is_full() && *bytes > 0 {
            match calls.receive(socket, leg, batch.free(), bytes) {
                Ok((count, more)) => {
                    batch.claim(count);
                    if !more {
                        return Ok(false);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends trains by the worker's socket on one of the two ports, in order. `refused` hears of
    /// datagrams that the socket did not take; the rest is sent all the same.
    pub fn send(
        &self,
        natt: bool,
        worker: WorkerId,
        calls: &mut MultiMessage,
        limits: &mut RunLimits,
        trains: &[Train],
        refused: &mut dyn FnMut(Unsent),
    ) {
        let port = self.port(natt);
        let socket = port.descriptor(usize::from(worker.0));
        sending::send(trains, limits, &self.segmentation, port.local, refused, |runs| {
            calls.send(socket, runs.map(Run::message))
        });
    }

    /// Sends one IKE message, without marker, from any thread; the marker is put before it where
    /// the leg needs one.
    pub fn send_ike(&self, leg: Leg, bytes: &[u8]) -> io::Result<()> {
        let marker: &[u8] = if leg.natt { &NON_ESP_MARKER } else { &[] };
        let parts = [IoSlice::new(marker), IoSlice::new(bytes)];
        let sent = self.port(leg.natt).socket(0).send_to_vectored(&parts, &leg.remote.into())?;
        if sent == marker.len() + bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// For the poller: readable while datagrams wait for this worker on one of the two ports;
    /// `None` where it receives nothing.
    pub fn descriptor(&self, natt: bool, worker: WorkerId) -> Option<BorrowedFd<'_>> {
        let (port, worker) = (self.port(natt), usize::from(worker.0));
        port.serves(worker).then(|| port.descriptor(worker))
    }

    fn port(&self, natt: bool) -> &Port {
        if natt { &self.natt } else { &self.ike }
    }
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
