use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::face::Published;
use super::plan_record::PlanRecord;
use crate::edge::{Destination, Fact, Plan, SiteEvent};
use crate::forward::FlowNote;
use crate::model::{Moment, PathId};

/// Of the lines. A reader refuses what is later than its own: it would misunderstand it.
pub const FORMAT: u16 = 1;

/// One line of a recording: `{"at":123,"flow":{...}}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// By the daemon's clock, which no time of day disturbs.
    pub at: Moment,
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line says. A reader passes over what it does not know, and says so.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first line of a file.
    Opened { format: u16, version: String },
    /// Milliseconds since the Unix epoch at moment zero: at the beginning of a file, and when the
    /// time of day was set.
    Clock { unix_ms_at_zero: u64 },
    /// The configuration in force.
    Plan(Box<PlanRecord>),
    /// What control decided, and by what.
    Fact(Fact),
    /// The steering inputs that workers decide by.
    Published(Published),
    /// A decision about a flow.
    Flow(Box<FlowNote>),
    /// What the operator was told.
    Told(Told),
    /// So many decisions about flows were not written down since the last such line.
    LeftOut { flows: u64 },
    /// So much that was told of control was lost here: nothing can be followed until the next
    /// whole state.
    Lost { entries: u64 },
}

impl Entry {
    /// It is worth more than the rest when the power fails: it is written at once.
    pub fn is_urgent(&self) -> bool {
        match self {
            Entry::Told(_) | Entry::Lost { .. } | Entry::Clock { .. } => true,
            Entry::Fact(Fact::Usable { .. } | Fact::RoleTimeout { .. } | Fact::FailedOver { .. }) => true,
            Entry::Fact(Fact::Followed { verdicts, .. }) => !verdicts.is_empty(),
            Entry::Fact(Fact::Surveyed { shifts, .. }) => !shifts.is_empty(),
            Entry::Flow(note) => note.outcome.moved.is_some(),
            Entry::Opened { .. }
            | Entry::Plan(_)
            | Entry::Published(_)
            | Entry::Fact(Fact::Whole(_) | Fact::Counted { .. } | Fact::Relieved { .. })
            | Entry::LeftOut { .. } => false,
        }
    }
}

/// An event, for people: `pops/primary/fibre`, `healthy`, `down`, `4 probes unanswered`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// `tunnel`, `verdict`, `role`, `address`, `resolution`, `roles_alike`, `path_mtu`, `duty` or `rekeyed`.
    pub what: String,
    /// A tunnel or a connector.
    pub of: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Told {
    pub fn of(event: &SiteEvent, plan: &Plan) -> Told {
        let tunnel = |path: crate::model::PathId| {
            let tunnel = plan.tunnels.get(usize::from(path.0));
            tunnel.map_or_else(|| "?".to_owned(), |tunnel| tunnel.full_name(&plan.connectors))
        };
        let connector = |id: crate::model::ConnectorId| {
            plan.connectors.get(usize::from(id.0)).map_or_else(|| "?".to_owned(), |connector| connector.name.clone())
        };
        let told = |what: &str, of: String, from: String, to: String, reason: &str| Told {
            what: what.to_owned(),
            of,
            from,
            to,
            reason: reason.to_owned(),
        };
        match event {
            SiteEvent::TunnelState { path, from, to, reason } => {
                let reason = discreet(reason, plan, *path);
                told("tunnel", tunnel(*path), from.to_string(), to.to_string(), &reason)
            }
            SiteEvent::Verdict { path, from, to, reason } => {
                let reason = discreet(reason, plan, *path);
                told("verdict", tunnel(*path), from.to_string(), to.to_string(), &reason)
            }
            SiteEvent::RoleSwitched { connector: id, from, to, reason } => {
                told("role", connector(*id), from.to_string(), to.to_string(), reason)
            }
            SiteEvent::AddressChanged { path, .. } => {
                told("address", tunnel(*path), String::new(), String::new(), "the PoP's name leads to another address")
            }
            SiteEvent::ResolutionFailed { path, fallback, .. } => {
                let reason = match fallback {
                    Some(_) => "the PoP's name could not be resolved; its last address is used",
                    None => "the PoP's name could not be resolved",
                };
                told("resolution", tunnel(*path), String::new(), String::new(), reason)
            }
            SiteEvent::RolesAlike { connector: id, .. } => {
                let reason = "both roles lead to one address";
                told("roles_alike", connector(*id), String::new(), String::new(), reason)
            }
            SiteEvent::PathMtu { path, from, to } => {
                told("path_mtu", tunnel(*path), from.to_string(), to.to_string(), "path MTU found")
            }
            SiteEvent::Duty { path, from, to } => {
                told("duty", tunnel(*path), from.name().to_owned(), to.name().to_owned(), "an operator asked for it")
            }
            SiteEvent::Rekeyed { path, what } => told("rekeyed", tunnel(*path), String::new(), String::new(), what),
        }
    }
}

/// A reason without addresses, and without names of peers and identities: a recording goes to other machines.
fn discreet(reason: &str, plan: &Plan, path: PathId) -> String {
    let mut text = reason.to_owned();
    if let Some(tunnel) = plan.tunnels.get(usize::from(path.0)) {
        let named = match &tunnel.destination {
            Some(Destination::Fqdn(name)) => Some(name.clone()),
            Some(Destination::Ipv4(_)) | None => None,
        };
        let identities = [&tunnel.local_id, &tunnel.remote_id].into_iter().flatten().map(ToString::to_string);
        let mut names: Vec<String> = named.into_iter().chain(identities).filter(|name| !name.is_empty()).collect();
        // One may be a part of another.
        names.sort_by_key(|name| Reverse(name.len()));
        for name in names {
            text = text.replace(&name, "(a name)");
        }
    }
    // Whom the peer has named, which is in no configuration; names that it chose may hold any words.
    for calls in ["the peer calls itself ", "the peer calls us "] {
        if let Some((before, rest)) = text.split_once(calls)
            && let Some((_, after)) = rest.rsplit_once(", but ")
        {
            text = format!("{before}{calls}(a name), but {after}");
        }
    }
    let words = text.split(' ').map(|word| {
        let bare = word.trim_matches(|letter: char| ",;:()\"".contains(letter));
        // A network or a range begins with an address.
        let first = bare.split(['/', '-']).next().unwrap_or_default();
        let is_address = first.parse::<IpAddr>().is_ok() || first.parse::<SocketAddr>().is_ok();
        if is_address && !bare.is_empty() { word.replace(bare, "(an address)") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}
