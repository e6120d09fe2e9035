use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Of `linux/icmp.h`: an option of raw ICMP sockets, at the level `SOL_RAW`.
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
/// RFC 792.
const DESTINATION_UNREACHABLE: u8 = 3;
/// "Fragmentation needed" speaks of a packet, not of the way.
const FRAGMENTATION_NEEDED: u8 = 4;
const UDP: u8 = 17;
/// The message quotes an IP header and 8 bytes at least; with options and all, no more is read.
const ROOM: usize = 256;

/// Hears of ICMP messages that say that a UDP packet of this host could not reach its peer. A
/// socket of its own: an error queue on the sockets of the packet road would make sends fail
/// that have nothing to do with it. Anybody may send such messages, so they prove nothing.
pub struct UnreachableWatch(
    /// A raw socket, which is read like one of UDP.
    UdpSocket,
);

/// A packet from `local` did not reach `remote`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreachable {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl UnreachableWatch {
    /// Needs a tokio runtime and CAP_NET_RAW.
    pub fn open() -> io::Result<UnreachableWatch> {
        let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV4))?;
        // The bits are the types that are not wanted.
        let filter: u32 = !(1 << DESTINATION_UNREACHABLE);
        // SAFETY: the option takes 32 bits, whose address and size are given and which live until
        // the call is over.
        let outcome = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                SOL_RAW,
                ICMP_FILTER,
                (&raw const filter).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        Errno::result(outcome).map_err(io::Error::from)?;
        Ok(UnreachableWatch(UdpSocket::from_std(socket.into())?))
    }

    pub async fn next(&mut self) -> io::Result<Unreachable> {
        loop {
            let mut room = [0; ROOM];
            let length = self.0.recv(&mut room).await?;
            if let Some(found) = room.get(..length).and_then(read) {
                return Ok(found);
            }
        }
    }
}

/// An IPv4 packet with an ICMP message in which a UDP packet is quoted.
fn read(packet: &[u8]) -> Option<Unreachable> {
    let icmp = packet.get(header_len(packet)?..)?;
    let [DESTINATION_UNREACHABLE, code, ..] = icmp else { return None };
    let quoted = icmp.get(8..)?;
    if *code == FRAGMENTATION_NEEDED || *quoted.get(9)? != UDP {
        return None;
    }
    let address = |at: usize| quoted.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    let udp = quoted.get(header_len(quoted)?..)?;
    let port = |at: usize| udp.get(at..)?.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    Some(Unreachable {
        local: SocketAddrV4::new(address(12)?, port(0)?).into(),
        remote: SocketAddrV4::new(address(16)?, port(2)?).into(),
    })
}

fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    (first >> 4 == 4).then_some(usize::from(first & 0x0f) * 4)
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{Namespace, ip};
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_port_that_nobody_listens_on_is_told_of() {
        let Some(namespace) = Namespace::new() else { return };
        namespace.run(|| {
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut watch = UnreachableWatch::open().unwrap();
                let sender = std::net::UdpSocket::bind("127.0.0.1:4500").unwrap();
                sender.send_to(b"anybody there?", "127.0.0.9:4500").unwrap();
                let told = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
                let expected =
                    Unreachable { local: "127.0.0.1:4500".parse().unwrap(), remote: "127.0.0.9:4500".parse().unwrap() };
                assert_eq!(told, expected);
            });
        });
    }

    #[test]
    fn only_whole_messages_about_udp_are_read() {
        let mut packet = [[0x45].as_slice(), &[0; 19], &[3, 1], &[0; 6]].concat();
        packet.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
        packet.extend([0x11, 0x94, 0x01, 0xf4, 0, 8, 0, 0]);
        let found = read(&packet).unwrap();
        assert_eq!(
            (found.local.to_string(), found.remote.to_string()),
            ("192.0.2.1:4500".into(), "198.51.100.1:500".into())
        );
        for length in 0..packet.len() - 4 {
            assert_eq!(read(&packet[..length]), None);
        }
        for (place, value) in [(0, 0x65), (20, 0), (21, FRAGMENTATION_NEEDED), (28, 0x60), (37, 6)] {
            let mut other = packet.clone();
            other[place] = value;
            assert_eq!(read(&other), None, "byte {place}");
        }
    }
}
