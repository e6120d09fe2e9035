use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::host::Host;
use crate::model::Moment;

/// A handful of long TCP connections, half of them uploads and half downloads, each at a steady
/// pace as far as congestion control lets it: backups, replication, video.
pub struct Transfers {
    host: Host,
    transfers: Vec<Transfer>,
    /// Connections that broke and had to be opened anew.
    pub broken: u64,
    /// Bytes that the other end has acknowledged, or that came from it.
    pub uploaded: u64,
    pub downloaded: u64,
}

struct Transfer {
    server: (Ipv4Addr, u16),
    socket: SocketHandle,
    /// `None`: the server sends.
    pace: Option<Pace>,
    /// Of the present connection, in bytes.
    written: u64,
    counted: u64,
}

/// A steady stream of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    last: Moment,
    /// Bytes that may be written now, in billionths.
    credit: u128,
}

/// Bytes are written in pieces that fill a packet, as programs do that read from a disk.
const PIECE: u128 = 1_300;

/// What is not sent within this time is not made up for later.
const CREDIT: Duration = Duration::from_millis(250);

/// A second of a 1.5 Mbps stream, and many times its window.
pub const TRANSFER_BUFFER: usize = 64 * 1024;

impl Transfers {
    /// `count` transfers of `bytes_per_second`, by turns to the upload and the download server.
    pub fn new(
        mut host: Host,
        servers: [(Ipv4Addr, u16); 2],
        count: u16,
        bytes_per_second: u64,
        start: Moment,
    ) -> Transfers {
        let [upload, download] = servers;
        let transfers = (0..count).map(|number| {
            let up = number % 2 == 0;
            let server = if up { upload } else { download };
            let socket = host.connect(server, TRANSFER_BUFFER);
            let pace = up.then(|| Pace::new(bytes_per_second, start));
            Transfer { server, socket, pace, written: 0, counted: 0 }
        });
        let transfers = transfers.collect();
        Transfers { host, transfers, broken: 0, uploaded: 0, downloaded: 0 }
    }

    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    pub fn handle_timeout(&mut self, now: Moment) {
        self.host.handle_timeout(now);
        for transfer in &mut self.transfers {
            let connection = self.host.socket(transfer.socket);
            match &mut transfer.pace {
                Some(pace) => {
                    let wanted = pace.due(now);
                    if connection.can_send() {
                        transfer.written += write(connection, wanted, pace);
                    }
                    let acknowledged = transfer.written.saturating_sub(connection.send_queue() as u64);
                    self.uploaded += acknowledged.saturating_sub(transfer.counted);
                    transfer.counted = transfer.counted.max(acknowledged);
                }
                None => {
                    while connection.can_recv() {
                        self.downloaded += connection.recv(|bytes| (bytes.len(), bytes.len())).unwrap_or(0) as u64;
                    }
                }
            }
            if matches!(connection.state(), State::Closed | State::CloseWait | State::TimeWait) {
                self.broken += 1;
                self.host.remove(transfer.socket);
                transfer.socket = self.host.connect(transfer.server, TRANSFER_BUFFER);
                (transfer.written, transfer.counted) = (0, 0);
            }
        }
        self.host.handle_timeout(now);
    }

    pub fn count(&self) -> usize {
        self.transfers.len()
    }
}

/// Writes at most `wanted` zeros and takes what was accepted from the pace.
pub fn write(connection: &mut smoltcp::socket::tcp::Socket, wanted: usize, pace: &mut Pace) -> u64 {
    let fill = |room: &mut [u8]| {
        let length = room.len().min(wanted);
        (length, length)
    };
    let written = connection.send(fill).unwrap_or(0);
    pace.spend(written);
    written as u64
}

impl Pace {
    pub fn new(bytes_per_second: u64, now: Moment) -> Pace {
        Pace { bytes_per_second, last: now, credit: 0 }
    }

    /// How many bytes may be written now: none, or enough to fill a packet.
    pub fn due(&mut self, now: Moment) -> usize {
        let earned = now.since(self.last).as_nanos() * u128::from(self.bytes_per_second);
        let limit = CREDIT.as_nanos() * u128::from(self.bytes_per_second);
        self.last = now;
        self.credit = (self.credit + earned).min(limit);
        let due = self.credit / NANOS;
        if due < PIECE { 0 } else { usize::try_from(due).unwrap_or(usize::MAX) }
    }

    fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u128 * NANOS);
    }
}

const NANOS: u128 = 1_000_000_000;
