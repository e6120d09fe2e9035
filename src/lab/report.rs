use super::summary::{EchoSummary, EventSummary, Summary};

/// The closing summary as text.
pub fn report(summary: &Summary) -> String {
    let mut lines = vec![String::new(), "Summary".to_owned()];
    match summary.tunnels_up_ms {
        Some(time) => lines.push(format!("All six tunnels were up {} after the start.", seconds(time))),
        None => lines.push("Not all six tunnels came up.".to_owned()),
    }
    if !summary.events.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<17} {:>6} {:>9} {:>9} {:>13} {:>7} {:>14} {:>13} {:>10} {:>12}",
            "event",
            "at",
            "detected",
            "restored",
            "voice lost",
            "gap",
            "light lost",
            "network lost",
            "TCP broken",
            "pages failed"
        ));
        let last = summary.events.len() - 1;
        // Of a run that was ended early, the last event may not have had its time.
        let judged = |number: usize| summary.complete || number != last;
        lines.extend(summary.events.iter().zip(0..).map(|(event, number)| row(event, judged(number))));
        lines.push(
            "(detected: when the branch's status first shows it, looked at 20 times a second; restored: from when on packets that are \
             sent arrive again, or traffic goes where it should; it may come just before the next look)"
                .to_owned(),
        );
        lines.push(
            "(lost: sent in this event and never answered; network lost: datagrams of any kind, both ways)".to_owned(),
        );
    }
    if summary.voice.sent > 0 {
        lines.push(String::new());
        lines.push(echo("voice", "calls", &summary.voice));
        lines.push(echo("light", "flows", &summary.light));
        let web = &summary.web;
        lines.push(format!(
            "web      {:>3} clients    {} pages, {} failed{}, median {}, 95 of 100 within {}",
            web.clients,
            web.completed,
            web.failed,
            before_events(summary),
            web.median_ms.map_or("-".to_owned(), |time| format!("{time} ms")),
            web.slow_ms.map_or("-".to_owned(), |time| format!("{time} ms")),
        ));
        let bulk = &summary.bulk;
        lines.push(format!(
            "bulk     {:>3} transfers  {:.1} Mbps up, {:.1} Mbps down, {} broken",
            bulk.transfers, bulk.uploaded_mbps, bulk.downloaded_mbps, bulk.broken
        ));
        let sessions = &summary.sessions;
        lines.push(format!("sessions {:>3} long ones  {} broken", sessions.sessions, sessions.broken));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<6} {:>11} {:>12} {:>10} {:>14} {:>12} {:>11} {:>9}",
        "link", "configured", "light flows", "all bytes", "delivered", "lost random", "lost queue", "lost cut"
    ));
    for link in &summary.links {
        lines.push(format!(
            "{:<6} {:>9.1} % {:>12} {:>10} {:>11.1} MB {:>12} {:>11} {:>9}",
            link.link,
            link.configured_percent,
            percent(link.light_percent),
            percent(link.all_percent),
            link.delivered_bytes as f64 / 1e6,
            link.lost_random,
            link.lost_queue,
            link.lost_cut,
        ));
    }
    lines.push("(shares are of bytes sent by the branch while all links were good; voice follows its rule)".to_owned());
    lines.push(String::new());
    lines.push(match (summary.passed, summary.complete) {
        (true, true) => "Everything that this demo shows was seen.".to_owned(),
        (true, false) => "Ended early; all was well so far.".to_owned(),
        (false, _) => format!("Missing:\n  {}", summary.failures.join("\n  ")),
    });
    lines.push(String::new());
    lines.join("\n")
}

fn row(event: &EventSummary, judged: bool) -> String {
    let lost = |lost: u64, sent: u64| format!("{lost} of {sent}");
    let never = if judged { "never" } else { "-" };
    format!(
        "{:<17} {:>6} {:>9} {:>9} {:>13} {:>7} {:>14} {:>13} {:>10} {:>12}",
        event.title,
        format!("{:.1} s", event.at_ms as f64 / 1000.0),
        event.detected_ms.map_or(never.to_owned(), seconds),
        event.restored_ms.map_or(never.to_owned(), seconds),
        lost(event.voice_lost, event.voice_sent),
        seconds(event.voice_gap_ms),
        lost(event.light_lost, event.light_sent),
        event.network_lost,
        event.tcp_broken,
        event.web_failed,
    )
}

fn echo(name: &str, of: &str, echo: &EchoSummary) -> String {
    format!(
        "{name:<8} {:>3} {of:<10} {} of {} packets lost ({:.2} %), round trip {}, longest gap {}",
        echo.streams,
        echo.lost,
        echo.sent,
        echo.lost as f64 * 100.0 / echo.sent.max(1) as f64,
        echo.round_trip_ms.map_or("-".to_owned(), |time| format!("{time:.0} ms")),
        seconds(echo.longest_gap_ms),
    )
}

/// The events' own rows tell the others.
fn before_events(summary: &Summary) -> String {
    let told: u64 = summary.events.iter().map(|event| event.web_failed).sum();
    match summary.web.failed.saturating_sub(told) {
        0 => String::new(),
        others => format!(" ({others} before the first event)"),
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1} %"))
}

fn seconds(millis: u64) -> String {
    format!("{:.2} s", millis as f64 / 1000.0)
}
