use std::io;
use std::num::NonZero;

use super::Tun;
use crate::model::LinkId;
use crate::packet::SitePacket;

/// The devices by which flows leave outside of the tunnels, one for each link that a rule names: what a
/// worker writes there the kernel routes, translates and sends by the link. Nothing is read from them.
#[derive(Debug, Default)]
pub struct Breakouts {
    devices: Vec<(LinkId, Tun)>,
}

impl Breakouts {
    /// Creates the devices, down. Needs CAP_NET_ADMIN.
    pub fn open(links: &[LinkId], device: &str, mtu: u16, workers: NonZero<u16>) -> io::Result<Breakouts> {
        let open = |link: &LinkId| Ok((*link, Tun::open(&device_name(device, *link), mtu, workers)?));
        Ok(Breakouts { devices: links.iter().map(open).collect::<io::Result<_>>()? })
    }

    /// Hands a packet to the kernel; `false` when it refuses, or there is no such device.
    pub fn send(&self, link: LinkId, packet: &mut SitePacket) -> bool {
        let device = self.devices.iter().find(|(of, _)| *of == link);
        device.is_some_and(|(_, device)| device.send_packet(packet))
    }
}

/// `trefoil0b2`: the tunnels' device, and the place of the link in the site file.
pub fn device_name(device: &str, link: LinkId) -> String {
    // An interface name has 15 characters at most.
    let suffix = format!("b{}", link.0);
    let kept: String = device.chars().take(15usize.saturating_sub(suffix.len())).collect();
    format!("{kept}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_after_that_of_the_tunnels_and_fits() {
        assert_eq!(device_name("trefoil0", LinkId(2)), "trefoil0b2");
        assert_eq!(device_name("a-long-name-too", LinkId(255)), "a-long-nameb255");
    }
}
