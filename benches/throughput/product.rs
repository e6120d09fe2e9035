//! Who is measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;

use crate::bed::{B_ADDRESS, Bed, CLIENT_RANGE, INNER_MTU, SERVER_RANGE, a_address};
use crate::daemon;
use crate::process::Process;
use crate::settings::peers_directory;
use crate::strongswan::{Connection, StrongSwan};
use crate::trefoil_pair::TrefoilPair;
use crate::wireguard::{self, Program};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Kind {
    /// No tunnel: A and B forward.
    Veth,
    Strongswan,
    WireguardGo,
    Boringtun,
    Gotatun,
    Trefoil,
}

pub struct Product {
    pub kind: Kind,
    pub name: String,
    pub version: String,
    file: PathBuf,
}

/// Both ends of a product, up. They end with this.
pub enum Pair {
    Veth,
    StrongSwan([StrongSwan; 2]),
    WireGuard([Process; 2]),
    Trefoil(Box<TrefoilPair>),
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Veth, Kind::Strongswan, Kind::WireguardGo, Kind::Boringtun, Kind::Gotatun, Kind::Trefoil];
}

impl Product {
    /// The program of this kind on this machine, or what is missing.
    pub fn find(kind: Kind) -> Result<Product, String> {
        let (name, file, hint) = match kind {
            Kind::Veth => ("plain veth", Some("/".into()), ""),
            Kind::Strongswan => (
                "strongSwan",
                Some(PathBuf::from("/usr/sbin/charon-systemd")).filter(|file| {
                    file.exists() && Path::new("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so").exists()
                }),
                "Debian: charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins",
            ),
            Kind::WireguardGo => ("wireguard-go", installed("wireguard-go"), "Debian: wireguard-go"),
            Kind::Boringtun => ("boringtun", installed("boringtun-cli"), "--build-peers"),
            Kind::Gotatun => ("gotatun", installed("gotatun"), "--build-peers"),
            Kind::Trefoil => ("Trefoil", Some(daemon::binary()), ""),
        };
        let file = file.ok_or_else(|| format!("{name} is not installed ({hint})"))?;
        let version = match kind {
            Kind::Veth => kernel(),
            // The daemon itself takes no questions.
            Kind::Strongswan => version(Path::new("/usr/sbin/swanctl")),
            Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun | Kind::Trefoil => version(&file),
        };
        Ok(Product { kind, name: name.to_owned(), version, file })
    }

    pub fn other_trefoil(binary: &Path) -> Result<Product, String> {
        let file = binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()))?;
        let version = version(&file);
        Ok(Product { kind: Kind::Trefoil, name: "Trefoil (other)".to_owned(), version, file })
    }

    /// Of packets in its tunnel, in bytes.
    pub fn inner_mtu(&self) -> u16 {
        match self.kind {
            // Built in: its device takes another MTU, but what is larger than this is then lost.
            Kind::Strongswan => 1_400,
            Kind::Veth | Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun | Kind::Trefoil => INNER_MTU,
        }
    }

    pub fn start(&self, bed: &Bed, tunnels: u8) -> Pair {
        let program = |arguments| Program { file: &self.file, arguments };
        let pair = match self.kind {
            Kind::Veth => {
                bed.a.ip(&format!("route add {SERVER_RANGE} via {B_ADDRESS} dev wan0\n"));
                bed.b.ip(&format!("route add {CLIENT_RANGE} via {} dev wan0\n", a_address(0)));
                Pair::Veth
            }
            Kind::Strongswan => Pair::StrongSwan(strongswan(bed)),
            Kind::WireguardGo => Pair::WireGuard(wireguard::start(bed, &program(&[]))),
            Kind::Boringtun => {
                Pair::WireGuard(wireguard::start(bed, &program(&["--foreground", "--disable-drop-privileges"])))
            }
            Kind::Gotatun => {
                Pair::WireGuard(wireguard::start(bed, &program(&["--foreground", "--disable-drop-privileges"])))
            }
            Kind::Trefoil => Pair::Trefoil(Box::new(TrefoilPair::start(bed, &self.file, tunnels))),
        };
        bed.wait_until_joined();
        pair
    }
}

impl Pair {
    /// The processes at A and at B; a plain veth has none.
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Pair::Veth => Vec::new(),
            Pair::StrongSwan(ends) => ends.iter().map(StrongSwan::id).collect(),
            Pair::WireGuard(ends) => ends.iter().map(Process::id).collect(),
            Pair::Trefoil(pair) => vec![pair.branch.id(), pair.gateway.id()],
        }
    }

    /// Before each measurement.
    pub fn refresh(&mut self) {
        match self {
            Pair::Veth | Pair::StrongSwan(_) | Pair::WireGuard(_) => {}
            Pair::Trefoil(pair) => pair.flows.keep(),
        }
    }
}

fn strongswan(bed: &Bed) -> [StrongSwan; 2] {
    let connection = |name: &str, own: &str, other: &str, local: &str, remote: &str| {
        let mut connection = Connection::new(name, own, other, "a measurement has no secrets");
        connection.local_selectors = vec![local.to_owned()];
        connection.remote_selectors = vec![remote.to_owned()];
        connection
    };
    let responder = connection("site", "b.bench.test", "a.bench.test", SERVER_RANGE, CLIENT_RANGE);
    let mut initiator = connection("wan0", "a.bench.test", "b.bench.test", CLIENT_RANGE, SERVER_RANGE);
    initiator.initiate = Some((a_address(0), B_ADDRESS));
    let responder = StrongSwan::start("swan-b", &bed.b, bed.directory(), &[responder]);
    let initiator = StrongSwan::start("swan-a", &bed.a, bed.directory(), &[initiator]);
    assert!(initiator.initiate("wan0"), "{}{}", initiator.describe(), responder.describe());
    [initiator, responder]
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(peers_directory().join("bin")).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The first number that the program says of itself.
fn version(file: &Path) -> String {
    let output = Command::new("timeout").arg("5").arg(file).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let numbered = |word: &&str| word.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit());
    text.split_whitespace().find(numbered).unwrap_or("").trim_start_matches('v').trim_end_matches([',', '.']).to_owned()
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
