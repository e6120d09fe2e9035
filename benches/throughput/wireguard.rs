//! Two ends of a user-space WireGuard. They are told their keys over the interface that all of
//! them share: https://www.wireguard.com/xplatform/

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::agreement::{PrivateKey, X25519};

use crate::bed::{B_ADDRESS, Bed, CLIENT_RANGE, INNER_MTU, SERVER_RANGE, a_address};
use crate::namespace::Namespace;
use crate::process::{Process, tail, wait_for};

const DEVICE: &str = "wg0";
const PORT: u16 = 51_820;

/// A program with its arguments; the last one is the name of the device.
pub struct Program<'a> {
    pub file: &'a Path,
    pub arguments: &'a [&'a str],
}

pub fn start(bed: &Bed, program: &Program) -> [Process; 2] {
    let keys = [1, 2].map(|number| [number; 32]);
    let ends = [(&bed.a, "a"), (&bed.b, "b")].map(|(namespace, name)| spawn(bed, namespace, name, program));
    let peers = [(B_ADDRESS, SERVER_RANGE), (a_address(0), CLIENT_RANGE)];
    for (index, namespace) in [&bed.a, &bed.b].into_iter().enumerate() {
        let (address, range) = peers[index];
        tell(&ends[index], &settings(&keys[index], &keys[1 - index], address));
        namespace.ip(&format!("link set {DEVICE} mtu {INNER_MTU} up\nroute add {range} dev {DEVICE}\n"));
    }
    ends
}

/// With a /run of its own, where its control socket is nobody else's.
fn spawn(bed: &Bed, namespace: &Namespace, name: &str, program: &Program) -> Process {
    let mut command = namespace.command("sh");
    command.args(["-c", "mount -t tmpfs tmpfs /run && mkdir /run/wireguard && exec \"$@\"", "sh"]);
    command.arg(program.file).args(program.arguments).arg(DEVICE).env("WG_PROCESS_FOREGROUND", "1");
    Process::start(&mut command, &bed.directory().join(format!("wireguard-{name}.log")))
}

fn tell(end: &Process, settings: &str) {
    let socket = format!("/proc/{}/root/run/wireguard/{DEVICE}.sock", end.id());
    let mut stream = wait_for(&format!("WireGuard listens\n{}", tail(&end.log(), 10)), Duration::from_secs(10), || {
        UnixStream::connect(&socket).ok()
    });
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.write_all(settings.as_bytes()).expect("WireGuard reads");
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).expect("WireGuard answers");
    let _ = stream.shutdown(Shutdown::Both);
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("errno=0"), "WireGuard says {answer:?}\n{}", end.log());
}

fn settings(own: &[u8; 32], peer: &[u8; 32], address: Ipv4Addr) -> String {
    let peer = PrivateKey::from_private_key(&X25519, peer).expect("32 bytes");
    let public = peer.compute_public_key().expect("a public key");
    let (own, public) = (hex(own), hex(public.as_ref()));
    format!(
        "set=1\nprivate_key={own}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={public}\n\
         endpoint={address}:{PORT}\nallowed_ip=0.0.0.0/0\n\n"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
