use std::fmt;

use serde::{Deserialize, Serialize};

/// The answer to `trefoil status --json`. Fields are only ever added. Times are milliseconds
/// since the Unix epoch; what was not measured is `null`, never zero.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SiteStatus {
    pub site: String,
    /// `branch` or `cloud-vpc`.
    pub kind: String,
    pub at_ms: u64,
    pub started_ms: u64,
    /// Counts the published forwarding states.
    pub generation: u64,
    pub connectors: Vec<ConnectorStatus>,
    /// Packets dropped before a path was known, by reason; only reasons that occurred.
    pub drops: Vec<DropStatus>,
    pub flows: u64,
    /// So many of them at most.
    #[serde(default)]
    pub flow_limit: u64,
    /// Flows that were forgotten, by reason; only reasons that occurred.
    #[serde(default)]
    pub forgotten: Vec<ForgottenStatus>,
    /// The WAN links, in the order of the site file.
    #[serde(default)]
    pub links: Vec<LinkStatus>,
    /// What the license holds all links together to: what is sent, and what arrives.
    #[serde(default)]
    pub shaped_mbps: Option<u32>,
    #[serde(default)]
    pub policed_mbps: Option<u32>,
    /// What came of the DNS answers that passed, where rules ask for names.
    #[serde(default)]
    pub names: Option<NamesStatus>,
    /// The links by which rules let flows out of the tunnels.
    #[serde(default)]
    pub breakouts: Vec<BreakoutStatus>,
    /// The threads that carry packets.
    #[serde(default)]
    pub workers: Vec<WorkerStatus>,
    /// The flight recorder; `null` where there is none.
    #[serde(default)]
    pub recording: Option<RecordingStatus>,
}

/// What is recorded, and where.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RecordingStatus {
    pub directory: String,
    /// Of all its files.
    pub bytes: u64,
    /// The oldest and the latest that is on disk; `null` while nothing is.
    pub first_ms: Option<u64>,
    pub last_ms: Option<u64>,
    /// Of memory that what control has told takes until it is written.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Entries that were lost: of control, since the queue or the disk was full.
    pub lost: u64,
    /// Decisions about flows that were left out: more than are recorded of each kind.
    pub left_out: u64,
    /// Why nothing is recorded at present.
    pub fault: Option<String>,
}

/// What one worker has done since the daemon started.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub worker: u16,
    pub turns: u64,
    /// How often its thread waited for something to do; one thread may serve several workers.
    pub waits: u64,
    /// Inner packets that it sent to the WAN, and their bytes.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Inner packets that it let through from the WAN, and their bytes.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// Packets, perhaps super-packets, that it left for the worker that sends on their tunnel.
    pub handed_over: u64,
    /// Packets that other workers left for it.
    pub taken_over: u64,
    /// All packets that it dropped, by reason; only reasons that occurred.
    pub drops: Vec<DropStatus>,
}

/// A WAN link and its caps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    pub name: String,
    /// As configured.
    pub downstream_mbps: u32,
    pub upstream_mbps: u32,
    /// What is sent over it is shaped to so much, what arrives is policed to so much; `null`: it is not.
    pub shaped_mbps: Option<u32>,
    pub policed_mbps: Option<u32>,
    /// What waits for it, and how long what left lately has waited; `null` where nothing is shaped.
    pub queued_packets: Option<u64>,
    pub queued_bytes: Option<u64>,
    pub queue_ms: Option<f64>,
    /// Packets since the daemon started: dropped, and marked as having met congestion instead.
    pub shaper_drops: u64,
    pub shaper_marks: u64,
    pub policer_drops: u64,
    pub policer_marks: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConnectorStatus {
    pub name: String,
    pub state: ConnectorState,
    /// `primary` or `secondary`: the role that carries the traffic.
    pub active_role: String,
    pub last_switch: Option<ChangeStatus>,
    /// An operator has sent the traffic to the secondary role, and it stays there.
    #[serde(default)]
    pub held: bool,
    /// Every configured tunnel, up or not, in the order of the site file.
    pub tunnels: Vec<TunnelStatus>,
}

/// `Up` when all tunnels are, `Partially Up` when some are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConnectorState {
    Up,
    #[serde(rename = "Partially Up")]
    PartiallyUp,
    Down,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TunnelStatus {
    pub name: String,
    pub role: String,
    pub link: String,
    /// The address in use, with its port; before the tunnel is up, the one that it calls, when it is known.
    pub remote: Option<String>,
    /// `waiting`, `listening`, `resolving`, `connecting`, `up` or `down` (by an operator).
    pub state: String,
    /// It has a live Child SA and its verdict is not `down`.
    pub usable: bool,
    /// What an operator wants of it: `in service`, `drained` or `down`.
    #[serde(default)]
    pub duty: String,
    /// Since when it is drained or down.
    #[serde(default)]
    pub duty_since_ms: Option<u64>,
    /// `healthy`, `unknown`, `degraded` or `down`.
    pub verdict: String,
    /// Per cent over the window.
    pub loss_percent: Option<f64>,
    pub rtt_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    /// Its part of new flows without a rule, in per cent; 0 while its role is not active.
    pub share_percent: f64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub packets_in: u64,
    pub drops_out: Vec<DropStatus>,
    pub drops_in: Vec<DropStatus>,
    /// The largest inner packet in use, in bytes; `null` while the tunnel is not up.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// What path-MTU discovery has proven to fit; `null` while it searches, and without it.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Packets that arrived on this tunnel while their flow leaves by another.
    pub asymmetric_in: u64,
    pub child_sas: u32,
    pub rekeys: u64,
    /// Who is asked inside the tunnel.
    #[serde(default)]
    pub probes: Vec<ProbeStatus>,
    /// Packets to the ports from which we ask, from whom nothing was asked.
    #[serde(default)]
    pub stray_answers: u64,
    /// Each direction by itself; `null` where the peer is no Trefoil.
    #[serde(default)]
    pub one_way: Option<OneWayStatus>,
    /// What health suspects, and why steering keeps flows off it, in plain words, or that a peer which is called has not
    /// answered yet.
    pub note: Option<String>,
    pub last_change: Option<ChangeStatus>,
    /// When it ceased to carry traffic, and why, until it does again.
    #[serde(default)]
    pub went_down: Option<FailureStatus>,
    /// Why it last ended or did not come up; `null` while it is up.
    #[serde(default)]
    pub last_failure: Option<FailureStatus>,
}

/// What a Trefoil at each end has measured of each direction; `null` where it is not known.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OneWayStatus {
    pub loss_up_percent: Option<f64>,
    pub loss_down_percent: Option<f64>,
    pub jitter_up_ms: Option<f64>,
    pub jitter_down_ms: Option<f64>,
    /// By how much delays of late exceed the least.
    pub rise_up_ms: Option<f64>,
    pub rise_down_ms: Option<f64>,
}

impl fmt::Display for OneWayStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"));
        write!(
            f,
            "loss up {}, down {}; jitter up {}, down {}; delay above the least up {}, down {}",
            number(self.loss_up_percent, " %"),
            number(self.loss_down_percent, " %"),
            number(self.jitter_up_ms, " ms"),
            number(self.jitter_down_ms, " ms"),
            number(self.rise_up_ms, " ms"),
            number(self.rise_down_ms, " ms")
        )
    }
}

/// One inner target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProbeStatus {
    pub target: String,
    /// `answers`, `silent` (it answered, and does not any more, or says no), `elsewhere` (over another tunnel, which
    /// says nothing) or `never` (not once, or it has said no every time).
    pub state: String,
    pub loss_percent: Option<f64>,
    pub rtt_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    /// What it said last instead of an answer.
    pub refusal: Option<String>,
    /// Probes since the daemon started, and what came of them.
    pub sent: u64,
    pub answered: u64,
    pub refused: u64,
    /// Answers that change nothing: too late, over another tunnel, unasked or twice, and not to be read.
    pub late: u64,
    pub elsewhere: u64,
    pub unexpected: u64,
    pub malformed: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FailureStatus {
    pub at_ms: u64,
    /// In plain words.
    pub reason: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChangeStatus {
    pub at_ms: u64,
    pub from: String,
    pub to: String,
    /// In plain words.
    pub reason: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NamesStatus {
    /// Names of addresses that are known at present.
    pub kept: u64,
    /// Names of addresses that were new.
    pub learned: u64,
    /// Answers to no question that was seen, or too late.
    pub unasked: u64,
    /// Questions to others than the site's `names.resolvers`: what they answer is not believed.
    #[serde(default)]
    pub untrusted: u64,
    /// DNS messages that cannot be read.
    pub malformed: u64,
    /// Names that were forgotten before their time, since there were too many.
    pub pushed_out: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BreakoutStatus {
    pub link: String,
    /// It is up, and the host is ready to translate addresses.
    pub usable: bool,
    /// Packets, super-packets among them, that left by it outside of the tunnels, and their bytes.
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ForgottenStatus {
    pub reason: String,
    pub flows: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DropStatus {
    pub reason: String,
    pub packets: u64,
}
