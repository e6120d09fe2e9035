use serde::{Deserialize, Serialize};

use super::face::Published;
use super::plan_record::PlanRecord;
use crate::edge::{Fact, Plan, SiteEvent};
use crate::forward::FlowNote;
use crate::model::Moment;

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
            | Entry::Fact(Fact::Whole(_) | Fact::Counted { .. })
            | Entry::LeftOut { .. } => false,
        }
    }
}

/// An event, for people: `pops/primary/fibre`, `healthy`, `down`, `4 probes unanswered`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// `tunnel`, `verdict`, `role`, `address`, `resolution`, `roles_alike`, `path_mtu` or `rekeyed`.
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
                told("tunnel", tunnel(*path), from.to_string(), to.to_string(), reason)
            }
            SiteEvent::Verdict { path, from, to, reason } => {
                told("verdict", tunnel(*path), from.to_string(), to.to_string(), reason)
            }
            SiteEvent::RoleSwitched { connector: id, from, to, reason } => {
                told("role", connector(*id), from.to_string(), to.to_string(), reason)
            }
            SiteEvent::AddressChanged { path, name, from, to } => {
                told("address", tunnel(*path), from.to_string(), to.to_string(), name)
            }
            SiteEvent::ResolutionFailed { path, name, reason, fallback } => {
                let to = fallback.map_or_else(String::new, |address| address.to_string());
                told("resolution", tunnel(*path), name.clone(), to, reason)
            }
            SiteEvent::RolesAlike { connector: id, address } => told(
                "roles_alike",
                connector(*id),
                String::new(),
                address.to_string(),
                "both roles lead to one address",
            ),
            SiteEvent::PathMtu { path, from, to } => {
                told("path_mtu", tunnel(*path), from.to_string(), to.to_string(), "path MTU found")
            }
            SiteEvent::Duty { path, from, to } => {
                told("duty", tunnel(*path), format!("{from:?}"), format!("{to:?}"), "an operator asked for it")
            }
            SiteEvent::Rekeyed { path, what } => told("rekeyed", tunnel(*path), String::new(), String::new(), what),
        }
    }
}
