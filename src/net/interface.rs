use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// What the system says at present of a network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    pub name: String,
    /// Its first IPv4 address, or the one that was asked for.
    pub address: Ipv4Addr,
    /// Largest IP packet, in bytes; 65,535 where it is larger.
    pub mtu: u16,
}

impl Interface {
    pub fn named(name: &str) -> io::Result<Interface> {
        let mut exists = false;
        for entry in getifaddrs()?.filter(|entry| entry.interface_name == name) {
            exists = true;
            if let Some(address) = address_of(&entry) {
                return Ok(Interface { name: name.to_owned(), address, mtu: mtu(name)? });
            }
        }
        Err(if exists {
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("interface {name} has no IPv4 address yet"))
        } else {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}"))
        })
    }

    /// The interface that has this address. All of 127.0.0.0/8 is on the loopback interface.
    pub fn with_address(address: Ipv4Addr) -> io::Result<Interface> {
        for entry in getifaddrs()? {
            let loopback = address.is_loopback() && entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            if loopback || address_of(&entry) == Some(address) {
                let mtu = mtu(&entry.interface_name)?;
                return Ok(Interface { name: entry.interface_name, address, mtu });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no interface has the address {address}")))
    }

    /// Whether the way to an address may begin at this interface, as far as the interfaces' own
    /// networks tell: not if it is this host's own address, or lies beside another one.
    pub fn may_lead(name: &str, address: IpAddr) -> io::Result<bool> {
        let (mut here, mut elsewhere) = (false, false);
        for entry in getifaddrs()? {
            let Some(network) = network_of(&entry).filter(|network| network.contains(&address)) else { continue };
            if network.addr() == address {
                return Ok(false);
            }
            here |= entry.interface_name == name;
            elsewhere |= entry.interface_name != name;
        }
        Ok(here || !elsewhere)
    }
}

/// The address of the interface, with the prefix length of its network.
fn network_of(entry: &InterfaceAddress) -> Option<IpNet> {
    fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
        let v4 = || address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4().or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    }
    IpNet::with_netmask(ip(entry.address.as_ref()?)?, ip(entry.netmask.as_ref()?)?).ok()
}

fn address_of(entry: &InterfaceAddress) -> Option<Ipv4Addr> {
    Some(entry.address.as_ref()?.as_sockaddr_in()?.ip())
}

fn mtu(name: &str) -> io::Result<u16> {
    let mut request = request_for(name)?;
    let socket = any_socket()?;
    // SAFETY: SIOCGIFMTU reads the name in one `ifreq`, which lives until the call is over, and
    // writes its `ifru_mtu`, which is read after the call has succeeded.
    let mtu = unsafe {
        Errno::result(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request))?;
        request.ifr_ifru.ifru_mtu
    };
    Ok(u16::try_from(mtu.max(0)).unwrap_or(u16::MAX))
}

pub(super) fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
    set(libc::SIOCSIFMTU, &mut request)
        .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), format!("{name}: MTU {mtu}: {errno}")))
}

/// How many packets may wait in each queue of a device.
pub(super) fn set_queue_length(name: &str, packets: u16) -> io::Result<()> {
    let mut request = request_for(name)?;
    // The kernel calls this member `ifr_qlen`; it has the place and the type of this one.
    request.ifr_ifru.ifru_metric = libc::c_int::from(packets);
    Ok(set(libc::SIOCSIFTXQLEN, &mut request)?)
}

/// One of the requests that change a number of a device.
fn set(request: libc::c_ulong, device: &mut libc::ifreq) -> Result<(), Errno> {
    let socket = any_socket().map_err(|_| Errno::ENFILE)?;
    // SAFETY: each of these requests reads one `ifreq`, which lives until the call is over.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut *device) }).map(drop)
}

/// A request names its device; the socket only leads into the kernel's network code.
fn any_socket() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
}

/// An `ifreq` for this device, otherwise empty.
pub(super) fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is a plain C structure of integers, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    let limit = request.ifr_name.len() - 1;
    if name.is_empty() || name.len() > limit || name.contains('\0') {
        let reason = format!("\"{name}\" cannot name a device: 1 to {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(request)
}

pub(super) fn name_in(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_any_of_its_addresses() {
        let lo = Interface::named("lo").unwrap();
        assert!(lo.address.is_loopback());
        assert!(lo.mtu >= 1_280);
        let other = Ipv4Addr::new(127, 9, 9, 9);
        assert_eq!(Interface::with_address(other).unwrap(), Interface { address: other, ..lo });
    }

    #[test]
    fn what_is_not_there_is_a_plain_error() {
        let error = Interface::named("nt-none").unwrap_err();
        assert_eq!(error.to_string(), "there is no interface nt-none");
        let error = Interface::with_address(Ipv4Addr::new(192, 0, 2, 200)).unwrap_err();
        assert_eq!(error.to_string(), "no interface has the address 192.0.2.200");
    }

    #[test]
    fn a_name_that_no_device_can_have_is_refused() {
        for name in ["", "sixteen-bytes-it", "a\0b"] {
            assert!(request_for(name).is_err(), "{name:?}");
        }
        assert_eq!(name_in(&request_for("fifteen-bytes-i").unwrap()), "fifteen-bytes-i");
    }
}
