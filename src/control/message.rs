use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::edge::{Explanation, FlowList, RuleStatus, SiteStatus, TunnelOrder};
use crate::model::{Dscp, FlowKey, Role};

/// A question to the running daemon, e.g. `{"request":"status"}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    // With braces: serde denies unknown fields to structures only.
    Status {},
    Rules {},
    Flows {
        /// Only those that are not where they would be if every tunnel were well.
        #[serde(default)]
        off_preferred: bool,
        /// Flows in the answer, at most: those that sent most.
        limit: u32,
    },
    Explain {
        /// The IP protocol's number.
        protocol: u8,
        source: IpAddr,
        /// 0 for a protocol without ports.
        #[serde(default)]
        source_port: u16,
        destination: IpAddr,
        #[serde(default)]
        destination_port: u16,
        /// 0 to 63; without it, that of the live flow, or 0.
        #[serde(default)]
        dscp: Option<u8>,
    },
    /// Sends a connector's traffic to a role.
    Failover {
        /// Without it, the only connector with two roles.
        #[serde(default)]
        connector: Option<String>,
        /// Without it, the role that does not carry the traffic now.
        #[serde(default)]
        to: Option<RoleName>,
    },
    /// Drains a tunnel, takes it down or takes it up.
    Tunnel {
        /// `connector/role/tunnel`, or the end of it where that is enough.
        name: String,
        order: TunnelOrder,
        /// Even if no other tunnel of a role that carries traffic is left.
        #[serde(default)]
        force: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    Primary,
    Secondary,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Role {
        match name {
            RoleName::Primary => Role::Primary,
            RoleName::Secondary => Role::Secondary,
        }
    }
}

impl Request {
    /// The flow that is to be explained, and its code point; `None` of another request, or with one
    /// beyond 63.
    pub fn flow(&self) -> Option<(FlowKey, Option<Dscp>)> {
        let &Request::Explain { protocol, source, source_port, destination, destination_port, dscp } = self else {
            return None;
        };
        let dscp = match dscp {
            Some(value) => Some(Dscp::new(value)?),
            None => None,
        };
        Some((FlowKey { segment: 0, protocol, source, destination, source_port, destination_port }, dscp))
    }
}

/// Its answer, e.g. `{"answer":"status",...}` or `{"answer":"refused","reason":"..."}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    Status(Box<SiteStatus>),
    Rules {
        at_ms: u64,
        rules: Vec<RuleStatus>,
    },
    Flows(Box<FlowList>),
    Explanation(Box<Explanation>),
    /// An order was obeyed; what has happened and what will, in plain words.
    Done {
        says: String,
    },
    Refused {
        reason: String,
    },
}

/// A question on its way to the control loop, with where the answer goes.
#[derive(Debug)]
pub struct Call {
    pub request: Request,
    pub reply: oneshot::Sender<Response>,
}
