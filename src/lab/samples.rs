//! Values for the tests of this folder.

use super::scenery::LINKS;
use crate::edge::{ChangeStatus, ConnectorState, ConnectorStatus, SiteStatus, TunnelStatus};
use crate::model::Role;

/// The branch's status with these verdicts on its primary tunnels, and healthy secondary ones.
pub fn status(active: Role, primary: [&str; 3]) -> SiteStatus {
    let tunnels = LINKS.iter().zip(primary).map(|(line, verdict)| tunnel(Role::Primary, line.name, verdict));
    let others = LINKS.iter().map(|line| tunnel(Role::Secondary, line.name, "healthy"));
    let connector = ConnectorStatus {
        name: "cloud".into(),
        state: ConnectorState::Up,
        active_role: active.name().into(),
        last_switch: None,
        held: false,
        tunnels: tunnels.chain(others).collect(),
    };
    SiteStatus {
        site: "branch".into(),
        kind: "branch".into(),
        at_ms: 0,
        started_ms: 0,
        generation: 1,
        connectors: vec![connector],
        drops: Vec::new(),
        flows: 0,
        flow_limit: 65_536,
        forgotten: Vec::new(),
        links: Vec::new(),
        shaped_mbps: None,
        policed_mbps: None,
        breakouts: Vec::new(),
        names: None,
        workers: Vec::new(),
        recording: None,
    }
}

fn tunnel(role: Role, line: &str, verdict: &str) -> TunnelStatus {
    TunnelStatus {
        name: line.into(),
        role: role.name().into(),
        link: line.into(),
        remote: None,
        state: "up".into(),
        usable: verdict != "down",
        duty: "in service".into(),
        duty_since_ms: None,
        verdict: verdict.into(),
        loss_percent: None,
        rtt_ms: None,
        jitter_ms: None,
        share_percent: 0.0,
        bytes_out: 0,
        bytes_in: 0,
        packets_out: 0,
        packets_in: 0,
        drops_out: Vec::new(),
        drops_in: Vec::new(),
        mtu: None,
        path_mtu: None,
        asymmetric_in: 0,
        probes: Vec::new(),
        stray_answers: 0,
        child_sas: 1,
        rekeys: 0,
        one_way: None,
        note: None,
        last_change: Some(ChangeStatus { at_ms: 0, from: "a".into(), to: verdict.into(), reason: "so it is".into() }),
        went_down: None,
        last_failure: None,
    }
}
