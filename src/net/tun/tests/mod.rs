mod against_kernel;
mod carrying;
mod device;

use super::*;
use crate::net::namespace::{Namespace, ip};

const ONE: NonZero<u16> = NonZero::<u16>::MIN;

/// The kernel that refuses nothing, asked for a part of what it can do.
fn open_plain(name: &str, queues: usize, flags: libc::c_int, wishes: &[libc::c_uint]) -> Tun {
    Tun::wanted(&Wanted { name, queues, flags, wishes }, 1_400).unwrap()
}

fn packets() -> Batch<SitePacket> {
    Batch::new(64, || SitePacket::with_capacity(65_536))
}
