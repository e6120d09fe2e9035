use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::diagnostic::Report;
use super::probes::Probes;
use super::psk::PskFiles;
use super::source::{At, Spot, Written};
use super::table::Table;
use super::wan::{SourceAddress, Wan};
use super::wording::{self, Complaint};
use super::words;
use crate::edge::{Destination, Mode};
use crate::ike::Identity;
use crate::model::{LinkId, Mbps, Role, Secret};

/// Seed: "You can configure up to 3 active tunnels for each HA role".
pub const TUNNELS_MAX: usize = 3;
/// Tunnels that are read, and so checked, beyond the limit that is then reported.
const TUNNELS_READ_MAX: usize = 64;

/// A `[connector.*.primary]` or `[connector.*.secondary]` table as written.
pub struct RoleDraft {
    pub role: Role,
    pub spot: Spot,
    pub pop_location: Option<At<String>>,
    pub destination_type: Option<At<DestinationType>>,
    /// The IPv4 destinations differ but lead to one PoP, as AWS's two endpoints do.
    pub same_pop: bool,
    /// `None` when they are not written as tables.
    pub tunnels: Option<Vec<TunnelDraft>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DestinationType {
    Fqdn,
    Ipv4,
}

impl DestinationType {
    pub fn of(destination: &Destination) -> DestinationType {
        match destination {
            Destination::Fqdn(_) => DestinationType::Fqdn,
            Destination::Ipv4(_) => DestinationType::Ipv4,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            DestinationType::Fqdn => "fqdn",
            DestinationType::Ipv4 => "ipv4",
        }
    }
}

/// A `[[connector.*.*.tunnel]]` table as written, completed with what its role says for all.
pub struct TunnelDraft {
    /// Its own, or that of its WAN link.
    pub name: Option<At<String>>,
    pub spot: Spot,
    pub link: Option<At<LinkId>>,
    pub destination: Written<Destination>,
    pub local_id: Written<Identity>,
    pub remote_id: Written<Identity>,
    pub public_ip: Written<Ipv4Addr>,
    pub psk: Option<Secret>,
    pub private_local: Written<IpNet>,
    pub private_remote: Written<IpNet>,
    pub downstream: Option<At<Mbps>>,
    pub upstream: Option<At<Mbps>>,
    /// With those of its role and its connector.
    pub probes: Probes,
    /// Its targets are written in the tunnel itself.
    pub has_own_targets: bool,
}

/// What roles and tunnels refer to.
pub struct RoleContext<'a, 'b> {
    pub connector: &'a str,
    pub mode: Mode,
    pub wan: &'a Wan,
    pub probes: &'a Probes,
    pub keys: &'a mut PskFiles<'b>,
    pub report: &'a Report,
}

impl RoleDraft {
    pub fn read(role: Role, mut table: Table<'_>, context: &mut RoleContext<'_, '_>) -> RoleDraft {
        let spot = table.spot().clone();
        let pop_location = table.value("pop_location").and_then(|value| value.parse_at(words::free_text));
        let destination_type = table.value("destination_type").and_then(|value| value.parse_at(destination_type));
        let same_pop = table.value("same_pop").and_then(|value| value.boolean()).unwrap_or(false);
        let shared = Shared {
            destination: table.written("destination", words::destination),
            remote_id: table.written("remote_id", words::identity),
            psk: table.value("psk_file").map(|value| context.keys.read(&value)),
            probes: Probes::read(&mut table).or(context.probes),
        };
        let tables = table.tables("tunnel");
        table.finish();
        let tunnels = tables.map(|tables| {
            let tables = tables.into_iter().take(TUNNELS_READ_MAX);
            tables.map(|table| TunnelDraft::read(table, &shared, context)).collect()
        });
        RoleDraft { role, spot, pop_location, destination_type, same_pop, tunnels }
    }

    pub fn tunnels(&self) -> &[TunnelDraft] {
        self.tunnels.as_deref().unwrap_or_default()
    }
}

/// What a role says for those of its tunnels that do not say it themselves.
struct Shared {
    destination: Written<Destination>,
    remote_id: Written<Identity>,
    /// Written, and read or not.
    psk: Option<Option<Secret>>,
    probes: Probes,
}

impl TunnelDraft {
    fn read(mut table: Table<'_>, shared: &Shared, context: &mut RoleContext<'_, '_>) -> TunnelDraft {
        let spot = table.spot().clone();
        let name = table.written("name", words::name);
        let link = table.required("wan", "wan = \"fibre\"").and_then(|value| {
            let text = value.text()?;
            let link = context.wan.link(text);
            if link.is_none() {
                value.error(format!("unknown WAN link {}", wording::quoted(text)), context.wan.known());
            }
            link.map(|link| value.at(link))
        });
        let destination = table.written("destination", words::destination).or(shared.destination.clone());
        let local_id = table.written("local_id", words::identity);
        let remote_id = table.written("remote_id", words::identity).or(shared.remote_id.clone());
        let public_ip = table.written("public_ip", words::ipv4_host);
        let psk = table.value("psk_file").map(|value| context.keys.read(&value)).or(shared.psk.clone());
        if psk.is_none() {
            context.report.missing(&spot, "the tunnel has no pre-shared key", "such as psk_file = \"keys/pop.psk\"");
        }
        let private_local = table.written("private_local", words::address_with_prefix);
        let private_remote = table.written("private_remote", words::address_with_prefix);
        let mut mbps = |key| table.value(key).and_then(|value| Some(value.at(value.mbps()?)));
        let (downstream, upstream) = (mbps("downstream_mbps"), mbps("upstream_mbps"));
        let probes = Probes::read(&mut table);
        let has_own_targets = probes.targets.is_some();
        table.finish();
        let name = match (name, &link) {
            (Written::Yes(name), _) => Some(name),
            (Written::No, Some(link)) => {
                Some(At { value: context.wan.name(link.value).to_string(), spot: spot.clone() })
            }
            (Written::No, None) | (Written::Wrong, _) => None,
        };
        let tunnel = TunnelDraft {
            name,
            spot,
            link,
            destination,
            local_id,
            remote_id,
            public_ip,
            psk: psk.flatten(),
            private_local,
            private_remote,
            downstream,
            upstream,
            probes: probes.or(&shared.probes),
            has_own_targets,
        };
        tunnel.check_peer(context);
        tunnel
    }

    /// What our local ID will be, as far as it is known before the daemon runs.
    pub fn effective_local_id(&self, wan: &Wan) -> Option<EffectiveId> {
        match (&self.local_id, &self.public_ip) {
            (Written::Yes(id), _) => Some(EffectiveId::known(&id.value)),
            (Written::Wrong, _) | (Written::No, Written::Wrong) => None,
            (Written::No, Written::Yes(address)) => Some(EffectiveId::known(&Identity::Ipv4(address.value))),
            (Written::No, Written::No) => match wan.source(self.link.as_ref()?.value)? {
                SourceAddress::Known(address) => Some(EffectiveId::known(&Identity::Ipv4(address))),
                SourceAddress::OfInterface(interface) => Some(EffectiveId::OfInterface(interface)),
            },
        }
    }

    /// What the peer's ID shall be, as far as it is known before its name is resolved.
    pub fn effective_remote_id(&self) -> Option<EffectiveId> {
        match (&self.remote_id, &self.destination) {
            (Written::Yes(id), _) => Some(EffectiveId::known(&id.value)),
            (Written::Wrong, _) | (Written::No, Written::Wrong | Written::No) => None,
            (Written::No, Written::Yes(destination)) => Some(match &destination.value {
                Destination::Ipv4(address) => EffectiveId::known(&Identity::Ipv4(*address)),
                Destination::Fqdn(name) => EffectiveId::OfName(name.clone()),
            }),
        }
    }

    fn check_peer(&self, context: &RoleContext<'_, '_>) {
        if !self.destination.is_left_out() {
            return;
        }
        match context.mode {
            Mode::Initiator | Mode::Bidirectional => context.report.missing(
                &self.spot,
                "the tunnel has no destination",
                format!(
                    "such as destination = \"pop.example.net\", here or in the role; or mode = \"responder\" in \
                     [connector.{}]",
                    wording::plain(context.connector)
                ),
            ),
            Mode::Responder if self.remote_id.is_left_out() => context.report.missing(
                &self.spot,
                "nothing tells who the peer is",
                "remote_id, or a destination whose address is its identity",
            ),
            Mode::Responder => {}
        }
    }
}

/// An identity, or whose address will be the identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectiveId {
    Known(Identity),
    OfInterface(String),
    OfName(String),
}

impl EffectiveId {
    /// Peers compare names without case, so two that differ in nothing else are one.
    fn known(identity: &Identity) -> EffectiveId {
        EffectiveId::Known(match identity {
            Identity::Fqdn(name) => Identity::Fqdn(name.to_ascii_lowercase()),
            Identity::Email(name) => Identity::Email(name.to_ascii_lowercase()),
            Identity::Ipv4(_) | Identity::KeyId(_) => identity.clone(),
        })
    }
}

impl std::fmt::Display for EffectiveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EffectiveId::Known(identity) => write!(f, "{identity}"),
            EffectiveId::OfInterface(interface) => write!(f, "the address of {interface}"),
            EffectiveId::OfName(name) => write!(f, "the address of {name}"),
        }
    }
}

fn destination_type(text: &str) -> Result<DestinationType, Complaint> {
    match text {
        "fqdn" => Ok(DestinationType::Fqdn),
        "ipv4" => Ok(DestinationType::Ipv4),
        _ => Err(Complaint {
            what: format!("unknown destination type {}", wording::quoted(text)),
            instead: wording::known(["fqdn", "ipv4"]),
        }),
    }
}
