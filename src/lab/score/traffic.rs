use std::net::Ipv4Addr;
use std::time::Duration;

use super::contender::VOICE;
use crate::config::{FlowLine, Scenario, TrafficKind};
use crate::model::{Chance, Dscp, FlowKey, protocol};

/// What the traffic of a scenario comes to: the same for every contender.
pub struct Program {
    pub calls: Vec<PlannedCall>,
    /// In the order in which they begin.
    pub transfers: Vec<PlannedTransfer>,
}

pub struct PlannedCall {
    pub key: FlowKey,
    pub dscp: Dscp,
    pub from: Duration,
    pub until: Duration,
}

/// A transfer that begins at its time.
pub struct PlannedTransfer {
    pub at: Duration,
    pub key: FlowKey,
    pub dscp: Dscp,
    /// `None`: as much as it can until `until`.
    pub bytes: Option<u64>,
    pub until: Option<Duration>,
    pub upload: bool,
}

/// Sizes have a Pareto distribution with this exponent (Crovella and Bestavros 1997 found 1.0 to 1.3
/// for the sizes of files), and end at so many times their mean.
const EXPONENT: f64 = 1.2;
const LARGEST: f64 = 50.0;

/// Hosts of the site, by what they do, and whom they talk to.
const CALLERS: (Ipv4Addr, Ipv4Addr, u16) = (Ipv4Addr::new(10, 20, 1, 1), Ipv4Addr::new(10, 90, 0, 9), 16_400);
const COPIERS: (Ipv4Addr, Ipv4Addr, u16) = (Ipv4Addr::new(10, 20, 2, 1), Ipv4Addr::new(10, 90, 0, 20), 5_001);
const BROWSERS: (Ipv4Addr, Ipv4Addr, u16) = (Ipv4Addr::new(10, 20, 3, 1), Ipv4Addr::new(10, 90, 0, 30), 443);

impl Program {
    pub fn new(scenario: &Scenario) -> Program {
        let mut chance = Chance::from_number(scenario.seed ^ 0x7261_6666_6963);
        let mut program = Program { calls: Vec::new(), transfers: Vec::new() };
        for traffic in &scenario.traffic {
            let (from, until) = (traffic.from, traffic.until);
            match traffic.kind {
                TrafficKind::Voice { calls } => {
                    for _ in 0..calls {
                        let key = key(protocol::UDP, CALLERS, program.calls.len(), &mut chance);
                        program.calls.push(PlannedCall { key, dscp: VOICE, from, until });
                    }
                }
                TrafficKind::Bulk { flows, upload } => {
                    for _ in 0..flows {
                        let key = key(protocol::TCP, COPIERS, program.transfers.len(), &mut chance);
                        program.transfers.push(PlannedTransfer {
                            at: from,
                            key,
                            dscp: Dscp::DEFAULT,
                            bytes: None,
                            until: Some(until),
                            upload,
                        });
                    }
                }
                TrafficKind::Mice { per_second, bytes, upload } => {
                    let mut at = from;
                    loop {
                        // Poisson arrivals.
                        at += Duration::from_secs_f64(-uniform(&mut chance).ln() / per_second);
                        if at >= until {
                            break;
                        }
                        let key = key(protocol::TCP, BROWSERS, program.transfers.len(), &mut chance);
                        let least = bytes as f64 * (EXPONENT - 1.0) / EXPONENT;
                        let size = (least * uniform(&mut chance).powf(-1.0 / EXPONENT)).min(bytes as f64 * LARGEST);
                        program.transfers.push(PlannedTransfer {
                            at,
                            key,
                            dscp: Dscp::DEFAULT,
                            bytes: Some(size as u64),
                            until: None,
                            upload,
                        });
                    }
                }
            }
        }
        program.transfers.sort_by_key(|transfer| transfer.at);
        program
    }
}

impl Program {
    /// Of single flows: TCP is a transfer from the site, all else 50 packets a second each way.
    pub fn of_flows(flows: &[FlowLine], whole: Duration) -> Program {
        let mut program = Program { calls: Vec::new(), transfers: Vec::new() };
        for line in flows {
            let (key, dscp) = (line.flow.key, line.flow.dscp);
            let (from, until) = (line.from.unwrap_or_default(), line.until.unwrap_or(whole).min(whole));
            if key.protocol == protocol::TCP {
                let bytes = line.kilobytes.map(|kilobytes| kilobytes.saturating_mul(1_000));
                let until = Some(until);
                program.transfers.push(PlannedTransfer { at: from, key, dscp, bytes, until, upload: true });
            } else {
                program.calls.push(PlannedCall { key, dscp, from, until });
            }
        }
        program.transfers.sort_by_key(|transfer| transfer.at);
        program
    }
}

/// Above 0 and below 1.
fn uniform(chance: &mut Chance) -> f64 {
    (f64::from(chance.next_u32()) + 0.5) / 4_294_967_296.0
}

fn key(protocol: u8, ends: (Ipv4Addr, Ipv4Addr, u16), number: usize, chance: &mut Chance) -> FlowKey {
    let (first, destination, destination_port) = ends;
    let host = u32::from(first) + (number % 200) as u32;
    FlowKey {
        segment: 0,
        protocol,
        source: Ipv4Addr::from(host).into(),
        destination: destination.into(),
        source_port: 20_000 + chance.below(40_000) as u16,
        destination_port,
    }
}
