use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{output, workers};
use crate::control::{self, Request, Response};
use crate::edge::{
    ConnectorState, DropStatus, FailureStatus, LinkStatus, ProbeStatus, RecordingStatus, SiteStatus, TunnelStatus,
};
use crate::forward::Forgetting;
use crate::recording::WallTime;

/// Shows what the running daemon is doing.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// Print the answer as one JSON document (its shape: docs/status.md)
    #[arg(long)]
    json: bool,
    /// Show the threads that carry packets instead
    #[arg(long, conflicts_with = "json")]
    workers: bool,
    /// The daemon's control socket
    #[arg(long, default_value = "/run/trefoil/control.sock")]
    socket: PathBuf,
}

pub fn run(args: &StatusArgs) -> ExitCode {
    let status = match control::ask(&args.socket, Request::Status {}) {
        Ok(Response::Status(status)) => status,
        Ok(Response::Refused { reason }) => return output::fail(&reason),
        Ok(Response::Flows(_) | Response::Explanation(_) | Response::Rules { .. } | Response::Done { .. }) => {
            return output::fail("the daemon answered something else");
        }
        Err(error) => return output::fail(&error.to_string()),
    };
    if args.workers {
        return output::finish(&workers::render(&status), ExitCode::SUCCESS);
    }
    if !args.json {
        return output::finish(&render(&status), ExitCode::SUCCESS);
    }
    match serde_json::to_string_pretty(&status) {
        Ok(text) => output::finish(&format!("{text}\n"), ExitCode::SUCCESS),
        Err(error) => output::fail(&error.to_string()),
    }
}

const COLUMNS: usize = 16;
const HEADINGS: [&str; COLUMNS] = [
    "", "tunnel", "link", "remote", "state", "verdict", "loss", "rtt", "jitter", "share", "out", "packets", "drops",
    "in", "packets", "drops",
];

/// The status as text for a terminal of some 140 columns.
pub fn render(status: &SiteStatus) -> String {
    let mut text = format!("site {} ({}), {} flows\n", status.site, status.kind, status.flows);
    text.push_str(&caps(status));
    for connector in &status.connectors {
        let state = match connector.state {
            ConnectorState::Up => "Up",
            ConnectorState::PartiallyUp => "Partially Up",
            ConnectorState::Down => "Down",
        };
        text.push_str(&format!(
            "\nconnector {}: {state}, traffic on the {} role{}{}\n",
            connector.name,
            connector.active_role,
            connector.last_switch.as_ref().map_or_else(String::new, |switch| format!(
                " since {} ago ({})",
                age(switch.at_ms, status),
                switch.reason
            )),
            if connector.held { ", held there by the operator" } else { "" },
        ));
        let rows: Vec<[String; COLUMNS]> = std::iter::once(HEADINGS.map(str::to_owned))
            .chain(connector.tunnels.iter().map(|tunnel| row(tunnel, &connector.active_role)))
            .collect();
        text.push_str(&align(&rows, 6));
        for tunnel in &connector.tunnels {
            if let Some(since) = tunnel.duty_since_ms {
                text.push_str(&format!(
                    "  {}/{}: {} by the operator for {}\n",
                    tunnel.role,
                    tunnel.name,
                    tunnel.duty,
                    age(since, status)
                ));
            }
            if let Some(change) = &tunnel.last_change {
                // A tunnel may wait on for another reason.
                let from = if change.from == change.to { "still".to_owned() } else { format!("{} ->", change.from) };
                text.push_str(&format!(
                    "  {}/{}: {from} {} {} ago: {}\n",
                    tunnel.role,
                    tunnel.name,
                    change.to,
                    age(change.at_ms, status),
                    change.reason
                ));
            }
            let is_last = |down: &&FailureStatus| {
                tunnel.last_change.as_ref().is_some_and(|last| (last.at_ms, &last.reason) == (down.at_ms, &down.reason))
            };
            if let Some(down) = tunnel.went_down.as_ref().filter(|down| !is_last(down)) {
                text.push_str(&format!(
                    "  {}/{}: went down {} ago: {}\n",
                    tunnel.role,
                    tunnel.name,
                    age(down.at_ms, status),
                    down.reason
                ));
            }
            if let Some(failure) = &tunnel.last_failure {
                text.push_str(&format!(
                    "  {}/{}: last failure {} ago: {}\n",
                    tunnel.role,
                    tunnel.name,
                    age(failure.at_ms, status),
                    failure.reason
                ));
            }
            for (drops, way) in [(&tunnel.drops_out, "out"), (&tunnel.drops_in, "in")] {
                if !drops.is_empty() {
                    text.push_str(&format!("  {}/{}: dropped {way}: {}\n", tunnel.role, tunnel.name, list(drops)));
                }
            }
            if let Some(size) = tunnel.path_mtu {
                text.push_str(&format!("  {}/{}: packets of up to {size} bytes fit\n", tunnel.role, tunnel.name));
            }
            // One ICMP target is what the table itself shows.
            for probe in tunnel.probes.iter().filter(|probe| tunnel.probes.len() > 1 || probe.target.contains(' ')) {
                text.push_str(&format!("  {}/{}: {}\n", tunnel.role, tunnel.name, probe_line(probe)));
            }
            if let Some(one_way) = &tunnel.one_way {
                text.push_str(&format!("  {}/{}: {one_way}\n", tunnel.role, tunnel.name));
            }
            if let Some(note) = &tunnel.note {
                text.push_str(&format!("  {}/{}: {note}\n", tunnel.role, tunnel.name));
            }
        }
    }
    if !status.drops.is_empty() {
        text.push_str(&format!("\ndropped before a tunnel was chosen: {}\n", list(&status.drops)));
    }
    for one in &status.breakouts {
        let state = if one.usable { "" } else { "not usable, " };
        let (out, packets) = (bytes(one.bytes), one.packets);
        text.push_str(&format!("\nbreakout by {}: {state}{out} in {packets} packets\n", one.link));
    }
    // That flows end is worth no line.
    if status.forgotten.iter().any(|one| one.reason != Forgetting::Idle.name()) {
        let each = status.forgotten.iter().map(|one| format!("{} {}", one.flows, one.reason));
        let each = each.collect::<Vec<_>>().join(", ");
        text.push_str(&format!("\nflows forgotten: {each} (at most {} at a time)\n", status.flow_limit));
    }
    if let Some(recording) = &status.recording {
        text.push_str(&format!("\n{}\n", recorded(recording)));
    }
    text
}

/// `recording in DIR: 2026-11-22T14:03:05.123Z to ..., 1.5 MB`
fn recorded(recording: &RecordingStatus) -> String {
    let mut line = format!("recording in {}", recording.directory);
    match (recording.first_ms, recording.last_ms) {
        (Some(first), Some(last)) => {
            line.push_str(&format!(": {} to {}, {}", WallTime(first), WallTime(last), bytes(recording.bytes)));
        }
        // What is there could not be looked at.
        _ if recording.fault.is_some() => {}
        _ => line.push_str(": nothing yet"),
    }
    if recording.lost > 0 {
        line.push_str(&format!(", {} entries lost", recording.lost));
    }
    if let Some(fault) = &recording.fault {
        line.push_str(&format!("; NOT RECORDING: {fault}"));
    }
    line
}

/// What the bandwidths are held to, where any is.
fn caps(status: &SiteStatus) -> String {
    let held = |verb: &str, mbps: Option<u32>| mbps.map(|mbps| format!("{verb} to {mbps} Mbps"));
    let license = [held("sending shaped", status.shaped_mbps), held("arriving policed", status.policed_mbps)];
    let license: Vec<String> = license.into_iter().flatten().collect();
    let mut text = String::new();
    if !license.is_empty() {
        text.push_str(&format!("license, all links together: {}\n", license.join(", ")));
    }
    status.links.iter().filter_map(link_line).for_each(|line| text.push_str(&line));
    text
}

fn link_line(link: &LinkStatus) -> Option<String> {
    let rate = |mbps: Option<u32>| mbps.map_or_else(String::new, |mbps| format!(" to {mbps} Mbps"));
    let shaped = link.queued_packets.zip(link.queued_bytes).zip(link.queue_ms);
    let shaped = shaped.map(|((packets, waiting), ms)| {
        format!(
            "shaped{}: {packets} packets ({}) wait, the last {ms:.1} ms; {} dropped, {} marked",
            rate(link.shaped_mbps),
            bytes(waiting),
            link.shaper_drops,
            link.shaper_marks
        )
    });
    let is_policed = link.policed_mbps.is_some() || link.policer_drops + link.policer_marks > 0;
    let policed = is_policed.then(|| {
        let (rate, drops, marks) = (rate(link.policed_mbps), link.policer_drops, link.policer_marks);
        format!("policed{rate}: {drops} dropped, {marks} marked")
    });
    let parts: Vec<String> = shaped.into_iter().chain(policed).collect();
    (!parts.is_empty()).then(|| format!("link {}: {}\n", link.name, parts.join("; ")))
}

/// Rows as lines with columns one below the other: the first so many are words, which stand to the
/// left, and the others numbers, which stand to the right.
pub(super) fn align<const COLUMNS: usize>(rows: &[[String; COLUMNS]], words: usize) -> String {
    table(rows, words..COLUMNS)
}

/// The same with numbers in these columns only.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], numbers: Range<usize>) -> String {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells =
            cells.map(
                |(column, (cell, width))| {
                    if numbers.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
                },
            );
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(tunnel: &TunnelStatus, active: &str) -> [String; COLUMNS] {
    let number =
        |value: Option<f64>, unit: &str| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"));
    let sum = |drops: &[DropStatus]| drops.iter().map(|drop| drop.packets).sum::<u64>().to_string();
    [
        if tunnel.role == active && tunnel.usable && tunnel.duty_since_ms.is_none() { "*" } else { "" }.to_owned(),
        format!("{}/{}", tunnel.role, tunnel.name),
        tunnel.link.clone(),
        tunnel.remote.clone().unwrap_or_else(|| "-".to_owned()),
        tunnel.state.clone(),
        tunnel.verdict.clone(),
        number(tunnel.loss_percent, "%"),
        number(tunnel.rtt_ms, "ms"),
        number(tunnel.jitter_ms, "ms"),
        format!("{:.1}%", tunnel.share_percent),
        bytes(tunnel.bytes_out),
        tunnel.packets_out.to_string(),
        sum(&tunnel.drops_out),
        bytes(tunnel.bytes_in),
        tunnel.packets_in.to_string(),
        sum(&tunnel.drops_in),
    ]
}

fn probe_line(probe: &ProbeStatus) -> String {
    let measured = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"));
    let refusal = probe.refusal.as_ref().map_or_else(String::new, |refusal| format!(" ({refusal})"));
    let state = if probe.state == "never" { "has never answered" } else { &probe.state };
    format!(
        "probe {} {state}{refusal}: loss {}, rtt {}, jitter {}, {} of {} answered",
        probe.target,
        measured(probe.loss_percent, "%"),
        measured(probe.rtt_ms, "ms"),
        measured(probe.jitter_ms, "ms"),
        probe.answered,
        probe.sent
    )
}

fn age(at_ms: u64, status: &SiteStatus) -> String {
    age_ms(status.at_ms.saturating_sub(at_ms))
}

/// A span of time, in milliseconds, as one reads it.
pub(super) fn age_ms(span: u64) -> String {
    let seconds = span / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

pub(super) fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{:.1} kB", count as f64 / 1e3),
        10_000_000..=9_999_999_999 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

pub(super) fn list(drops: &[DropStatus]) -> String {
    drops.iter().map(|drop| format!("{} {}", drop.packets, drop.reason)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::{BreakoutStatus, ChangeStatus, ConnectorStatus, FailureStatus, ForgottenStatus};

    fn tunnel(name: &str, role: &str, usable: bool) -> TunnelStatus {
        TunnelStatus {
            name: name.to_owned(),
            role: role.to_owned(),
            link: name.to_owned(),
            remote: usable.then(|| "192.0.2.1:4500".to_owned()),
            state: if usable { "up" } else { "waiting" }.to_owned(),
            usable,
            duty: if usable { "in service" } else { "drained" }.to_owned(),
            duty_since_ms: (!usable).then_some(50_000),
            verdict: if usable { "healthy" } else { "down" }.to_owned(),
            loss_percent: usable.then_some(0.0),
            rtt_ms: usable.then_some(20.25),
            jitter_ms: None,
            share_percent: if usable { 100.0 } else { 0.0 },
            bytes_out: 1_234_567,
            bytes_in: 0,
            packets_out: 1_000,
            packets_in: 0,
            drops_out: vec![DropStatus { reason: "too_big".to_owned(), packets: 2 }],
            drops_in: Vec::new(),
            mtu: usable.then_some(1_438),
            path_mtu: usable.then_some(1_338),
            asymmetric_in: 0,
            child_sas: 1,
            rekeys: 0,
            probes: vec![ProbeStatus {
                target: "http 10.9.0.1:80/health".to_owned(),
                state: "silent".to_owned(),
                loss_percent: Some(0.0),
                rtt_ms: Some(20.25),
                jitter_ms: None,
                refusal: Some("HTTP status 503".to_owned()),
                sent: 30,
                answered: 20,
                refused: 10,
                late: 0,
                elsewhere: 0,
                unexpected: 0,
                malformed: 0,
            }],
            stray_answers: 0,
            one_way: None,
            note: None,
            last_change: Some(ChangeStatus {
                at_ms: 40_000,
                from: if usable { "connecting" } else { "waiting" }.to_owned(),
                to: if usable { "up" } else { "waiting" }.to_owned(),
                reason: if usable { "Child SA established" } else { "no such name" }.to_owned(),
            }),
            went_down: (!usable).then(|| FailureStatus {
                at_ms: 80_000,
                reason: "5 probes within 120 ms were not answered".to_owned(),
            }),
            last_failure: (!usable)
                .then(|| FailureStatus { at_ms: 90_000, reason: "no answer to IKE_SA_INIT".to_owned() }),
        }
    }

    fn link(name: &str, cap: Option<u32>) -> LinkStatus {
        LinkStatus {
            name: name.to_owned(),
            downstream_mbps: 100,
            upstream_mbps: 20,
            shaped_mbps: cap,
            policed_mbps: cap,
            queued_packets: Some(3),
            queued_bytes: Some(4_200),
            queue_ms: Some(2.25),
            shaper_drops: 7,
            shaper_marks: 1,
            policer_drops: cap.map_or(0, |_| 5),
            policer_marks: cap.map_or(0, |_| 2),
        }
    }

    #[test]
    fn a_status_reads_as_a_table_with_reasons_and_dashes_for_what_was_not_measured() {
        let status = SiteStatus {
            site: "lisbon".to_owned(),
            kind: "branch".to_owned(),
            at_ms: 100_000,
            started_ms: 0,
            generation: 3,
            connectors: vec![ConnectorStatus {
                name: "pop".to_owned(),
                state: ConnectorState::PartiallyUp,
                active_role: "primary".to_owned(),
                last_switch: None,
                held: false,
                tunnels: vec![tunnel("fibre", "primary", true), tunnel("dsl", "primary", false)],
            }],
            drops: vec![DropStatus { reason: "not_native".to_owned(), packets: 7 }],
            flows: 12,
            flow_limit: 1_024,
            forgotten: vec![
                ForgottenStatus { reason: "idle".to_owned(), flows: 50 },
                ForgottenStatus { reason: "full".to_owned(), flows: 3 },
            ],
            links: vec![link("fibre", Some(20)), link("dsl", None)],
            shaped_mbps: Some(50),
            policed_mbps: None,
            breakouts: vec![BreakoutStatus { link: "dsl".to_owned(), usable: false, packets: 9, bytes: 2_500 }],
            names: None,
            workers: Vec::new(),
            recording: None,
        };
        let expected = "\
site lisbon (branch), 12 flows
license, all links together: sending shaped to 50 Mbps
link fibre: shaped to 20 Mbps: 3 packets (4200 B) wait, the last 2.2 ms; 7 dropped, 1 marked; policed to 20 Mbps: 5 dropped, 2 marked
link dsl: shaped: 3 packets (4200 B) wait, the last 2.2 ms; 7 dropped, 1 marked

connector pop: Partially Up, traffic on the primary role
   tunnel         link   remote          state    verdict  loss     rtt  jitter   share        out  packets  drops   in  packets  drops
*  primary/fibre  fibre  192.0.2.1:4500  up       healthy  0.0%  20.2ms       -  100.0%  1234.6 kB     1000      2  0 B        0      0
   primary/dsl    dsl    -               waiting  down        -       -       -    0.0%  1234.6 kB     1000      2  0 B        0      0
  primary/fibre: connecting -> up 60 s ago: Child SA established
  primary/fibre: dropped out: 2 too_big
  primary/fibre: packets of up to 1338 bytes fit
  primary/fibre: probe http 10.9.0.1:80/health silent (HTTP status 503): loss 0.0%, rtt 20.2ms, jitter -, 20 of 30 answered
  primary/dsl: drained by the operator for 50 s
  primary/dsl: still waiting 60 s ago: no such name
  primary/dsl: went down 20 s ago: 5 probes within 120 ms were not answered
  primary/dsl: last failure 10 s ago: no answer to IKE_SA_INIT
  primary/dsl: dropped out: 2 too_big
  primary/dsl: probe http 10.9.0.1:80/health silent (HTTP status 503): loss 0.0%, rtt 20.2ms, jitter -, 20 of 30 answered

dropped before a tunnel was chosen: 7 not_native

breakout by dsl: not usable, 2500 B in 9 packets

flows forgotten: 50 idle, 3 full (at most 1024 at a time)
";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn of_a_recorder_that_cannot_write_it_is_told_what_is_there_all_the_same() {
        let full = RecordingStatus {
            directory: "/var/lib/trefoil".to_owned(),
            bytes: 1_500_000,
            first_ms: Some(1_795_413_540_000),
            last_ms: Some(1_795_413_600_000),
            lost: 15,
            fault: Some("no storage space".to_owned()),
            ..RecordingStatus::default()
        };
        let unknown = RecordingStatus { first_ms: None, last_ms: None, ..full.clone() };
        assert_eq!(
            [recorded(&full), recorded(&unknown)],
            [
                "recording in /var/lib/trefoil: 2026-11-23T05:59:00.000Z to 2026-11-23T06:00:00.000Z, 1500.0 kB, 15 entries lost; \
                 NOT RECORDING: no storage space",
                "recording in /var/lib/trefoil, 15 entries lost; NOT RECORDING: no storage space"
            ]
        );
    }

    #[test]
    fn the_json_shape_survives_a_round_trip() {
        let status = SiteStatus {
            site: String::new(),
            kind: String::new(),
            at_ms: 1,
            started_ms: 0,
            generation: 0,
            connectors: Vec::new(),
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
        };
        let response = Response::Status(Box::new(status));
        let text = serde_json::to_string(&response).unwrap();
        assert!(text.starts_with(r#"{"answer":"status","site":"""#), "{text}");
        assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), response);
    }
}
