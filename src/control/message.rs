use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::edge::SiteStatus;

/// A question to the running daemon, e.g. `{"request":"status"}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    // With braces: serde denies unknown fields to structures only.
    Status {},
}

/// Its answer, e.g. `{"answer":"status",...}` or `{"answer":"refused","reason":"..."}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    Status(Box<SiteStatus>),
    Refused { reason: String },
}

/// A question on its way to the control loop, with where the answer goes.
#[derive(Debug)]
pub struct Call {
    pub request: Request,
    pub reply: oneshot::Sender<Response>,
}
