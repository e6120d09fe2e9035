use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::explain::{named_link, refusal};
use super::report::{StatusFacts, unix_ms};
use crate::forward::FlowReport;
use crate::model::{FlowKey, PathId, protocol};

/// The answer to `trefoil flows --json`. Fields are only ever added. Times are milliseconds since
/// the Unix epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowList {
    pub at_ms: u64,
    /// How many flows there are of those asked for; `flows` has the ones that sent most.
    pub matching: u64,
    pub flows: Vec<FlowStatus>,
}

/// A flow as the data plane knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowStatus {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the number.
    pub protocol: String,
    pub source: String,
    pub destination: String,
    /// 0 to 63, of the packet that its path was chosen for.
    pub dscp: u8,
    /// As `connector/role/tunnel`; `null` when it has only arrived so far, leaves outside of the tunnels, or is refused.
    pub tunnel: Option<String>,
    pub link: Option<String>,
    pub arrived_on: Option<String>,
    /// No way was found for its latest packet from the site.
    #[serde(default)]
    pub refused: bool,
    /// The latest time in which its packets were refused, if they ever were.
    #[serde(default)]
    pub last_refusal: Option<RefusalStatus>,
    /// The name of the rule that decided.
    pub rule: Option<String>,
    /// In plain words.
    pub why: String,
    /// Inner bytes and packets that left.
    pub bytes: u64,
    pub packets: u64,
    pub first_ms: u64,
    pub last_ms: u64,
    /// Moves in all; `history` has the latest.
    pub moves: u32,
    pub history: Vec<MoveStatus>,
}

/// A flow's packets went nowhere for a while.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RefusalStatus {
    pub from_ms: u64,
    /// When one left again; `null` while none has.
    pub until_ms: Option<u64>,
    /// In plain words.
    pub why: String,
}

/// A flow went over to another tunnel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MoveStatus {
    pub at_ms: u64,
    pub from: String,
    pub to: String,
    /// `path_lost`, `health`, `role`, `rule`, `preferred`, `shares`, `arrival` or `drained`.
    pub cause: String,
    /// The same in plain words.
    pub reason: String,
}

pub(super) fn flow_status(flow: &FlowReport, plan: &Plan, facts: &StatusFacts) -> FlowStatus {
    let tunnel = |path: PathId| tunnel_name(plan, path);
    let moves = flow.history.iter().map(|moved| MoveStatus {
        at_ms: unix_ms(facts, moved.at),
        from: tunnel(moved.from),
        to: tunnel(moved.to),
        cause: moved.cause.name().to_owned(),
        reason: moved.cause.to_string(),
    });
    let (path, breakout) = match flow.refused() {
        Some(_) => (None, None),
        None => (flow.path, flow.breakout),
    };
    let rule = flow.refused().map_or(flow.rule, |refused| refused.rule);
    FlowStatus {
        protocol: protocol_name(flow.key.protocol),
        source: end(&flow.key, true),
        destination: end(&flow.key, false),
        dscp: flow.dscp.value(),
        tunnel: path.map(tunnel),
        link: path.map(|path| link_name(plan, path)).or(breakout.map(|link| named_link(plan, link))),
        arrived_on: flow.arrived_on.map(tunnel),
        refused: flow.refused().is_some(),
        last_refusal: flow.refusal.map(|latest| RefusalStatus {
            from_ms: unix_ms(facts, latest.since),
            until_ms: latest.until.map(|until| unix_ms(facts, until)),
            why: refusal(latest.refused.reason, latest.refused.why),
        }),
        rule: rule.and_then(|id| plan.rules.rule(id)).map(|rule| rule.name.clone()),
        why: match flow.refused() {
            Some(refused) => refusal(refused.reason, refused.why),
            None if path.is_some() || breakout.is_some() => flow.why.to_string(),
            None => "has only arrived so far".to_owned(),
        },
        bytes: flow.bytes,
        packets: flow.packets,
        first_ms: unix_ms(facts, flow.first),
        last_ms: unix_ms(facts, flow.last),
        moves: flow.moves,
        history: moves.collect(),
    }
}

pub(super) fn tunnel_name(plan: &Plan, path: PathId) -> String {
    plan.tunnels.get(usize::from(path.0)).map_or_else(|| "?".to_owned(), |tunnel| tunnel.full_name(&plan.connectors))
}

pub(super) fn link_name(plan: &Plan, path: PathId) -> String {
    let tunnel = plan.tunnels.get(usize::from(path.0));
    let link = tunnel.and_then(|tunnel| plan.links.get(usize::from(tunnel.link.0)));
    link.map_or_else(|| "?".to_owned(), |link| link.name.clone())
}

pub(super) fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// With the port, where the protocol has ports.
pub(super) fn end(key: &FlowKey, source: bool) -> String {
    let (address, port) = if source { (key.source, key.source_port) } else { (key.destination, key.destination_port) };
    match key.protocol {
        protocol::TCP | protocol::UDP => SocketAddr::new(address, port).to_string(),
        _ => address.to_string(),
    }
}
