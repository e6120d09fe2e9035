use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::output;
use super::status::{age_ms, table};
use crate::config;
use crate::control::{self, Request, Response};
use crate::edge::{CandidateStatus, Explanation, PastFlow, RefusalStatus};
use crate::model::protocol;
use crate::recording::{Reader, WallTime, When, explain_at};

/// Explains where a flow goes and why: the rule, the tunnels, the choice, and its moves so far.
#[derive(clap::Args, Debug)]
pub struct ExplainArgs {
    /// A name that rules know, such as tcp, udp, icmp or gre, or a protocol number
    #[arg(value_parser = protocol_number)]
    protocol: u8,
    /// Where the flow comes from: ADDRESS:PORT, or ADDRESS where the protocol has no ports
    #[arg(value_parser = end)]
    source: (IpAddr, Option<u16>),
    /// Where it goes
    #[arg(value_parser = end)]
    destination: (IpAddr, Option<u16>),
    /// The flow's code point, such as ef, af41 or 46; else that of the live flow, or default
    #[arg(long, value_parser = code_point)]
    dscp: Option<u8>,
    /// A past moment instead of the present: 2026-11-22T14:03:05Z, or -10m (ms, s, m, h, d)
    #[arg(long, value_parser = When::parse, allow_hyphen_values = true, value_name = "TIME")]
    at: Option<When>,
    /// The recording to look in: a directory, or one file; else that of the running daemon
    #[arg(long, requires = "at", value_name = "DIR|FILE")]
    recording: Option<PathBuf>,
    /// Print the answer as one JSON document (its shape: docs/explain.md)
    #[arg(long)]
    json: bool,
    /// The daemon's control socket
    #[arg(long, default_value = "/run/trefoil/control.sock")]
    socket: PathBuf,
}

pub fn run(args: &ExplainArgs) -> ExitCode {
    let (source, destination) = (args.source.0, args.destination.0);
    if source.is_ipv4() != destination.is_ipv4() {
        return output::fail("one address is IPv4 and the other IPv6");
    }
    let (source_port, destination_port) = match ports(args.protocol, args.source, args.destination) {
        Ok(ports) => ports,
        Err(reason) => return output::fail(&reason),
    };
    let (protocol, dscp) = (args.protocol, args.dscp);
    let request = Request::Explain { protocol, source, source_port, destination, destination_port, dscp };
    let told = match args.at {
        None => at_present(&args.socket, request),
        Some(when) => at_a_past_moment(args, when, request),
    };
    let told = match told {
        Ok(told) => told,
        Err(reason) => return output::fail(&reason),
    };
    if !args.json {
        // Its names may be those of a recording from anywhere.
        let text: String = render(&told).lines().map(|line| output::one_line(line) + "\n").collect();
        return output::finish(&text, ExitCode::SUCCESS);
    }
    match serde_json::to_string_pretty(&told) {
        Ok(text) => output::finish(&format!("{text}\n"), ExitCode::SUCCESS),
        Err(error) => output::fail(&error.to_string()),
    }
}

fn at_present(socket: &Path, request: Request) -> Result<Explanation, String> {
    match control::ask(socket, request) {
        Ok(Response::Explanation(told)) => Ok(*told),
        Ok(Response::Refused { reason }) => Err(reason),
        Ok(Response::Status(_) | Response::Flows(_) | Response::Rules { .. } | Response::Done { .. }) => {
            Err("the daemon answered something else".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn at_a_past_moment(args: &ExplainArgs, when: When, request: Request) -> Result<Explanation, String> {
    let Some((key, dscp)) = request.flow() else { return Err("a DSCP is 0 to 63".to_owned()) };
    let directory = match &args.recording {
        Some(path) => path.clone(),
        None => recording_of(&args.socket)?,
    };
    let reader = Reader::open(&directory).map_err(|error| error.to_string())?;
    explain_at(&reader, when, unix_ms_now(), key, dscp).map_err(|error| error.to_string())
}

/// Where the running daemon records.
fn recording_of(socket: &Path) -> Result<PathBuf, String> {
    let known = match control::ask(socket, Request::Status {}) {
        Ok(Response::Status(status)) => status.recording.map(|recording| PathBuf::from(recording.directory)),
        Ok(Response::Refused { reason }) => return Err(reason),
        Ok(Response::Explanation(_) | Response::Flows(_) | Response::Rules { .. } | Response::Done { .. }) => None,
        Err(error) => return Err(format!("{error}; a recording can be named with --recording DIR")),
    };
    known.ok_or_else(|| {
        "the daemon records nothing ([recording] enabled = false); name a recording with --recording".to_owned()
    })
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn protocol_number(text: &str) -> Result<u8, String> {
    config::ip_protocol(text).map_err(|complaint| complaint.instead)
}

/// Of the source and of the destination; 0 where there are none.
fn ports(number: u8, source: (IpAddr, Option<u16>), destination: (IpAddr, Option<u16>)) -> Result<(u16, u16), String> {
    let ((source, source_port), (destination, destination_port)) = (source, destination);
    match (number, source_port, destination_port) {
        (protocol::TCP | protocol::UDP, Some(source), Some(destination)) => Ok((source, destination)),
        (protocol::TCP | protocol::UDP, _, _) => {
            let source = SocketAddr::new(source, source_port.unwrap_or(51_000));
            let destination = SocketAddr::new(destination, destination_port.unwrap_or(443));
            Err(format!("a TCP or UDP flow has ports at both ends, such as {source} {destination}"))
        }
        (_, None, None) => Ok((0, 0)),
        (_, _, _) => Err(format!("this protocol has no ports: {source} {destination}")),
    }
}

fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let with_port = text.parse::<SocketAddr>().map(|end| (end.ip(), Some(end.port())));
    with_port.or_else(|_| text.parse().map(|address| (address, None))).map_err(|_| {
        "an address with a port, such as 10.20.1.5:51000 or [2001:db8::5]:51000, or an address alone".to_owned()
    })
}

fn code_point(text: &str) -> Result<u8, String> {
    config::dscp(text).map(|dscp| dscp.value()).ok_or_else(|| "a name such as ef, af41 or cs3, or 0 to 63".to_owned())
}

fn render(told: &Explanation) -> String {
    let mut text = format!("{} {} -> {}, DSCP {}\n", told.protocol, told.source, told.destination, told.dscp);
    if let Some(interface) = &told.interface {
        text.push_str(&format!("its source is reached by {interface}\n"));
    }
    for one in &told.names {
        let rest = age_ms(one.until_ms.saturating_sub(told.at_ms));
        let late = if one.too_late { "; the flow was there before, and goes by what was known then" } else { "" };
        text.push_str(&format!("its destination was answered for {}, which is kept for {rest}{late}\n", one.name));
    }
    if told.past.is_some() {
        text.push_str(&format!("as it was at {}\n", WallTime(told.at_ms)));
    }
    if let (Some(connector), Some(role)) = (&told.connector, &told.active_role) {
        text.push_str(&format!("connector {connector}, traffic on the {role} role\n"));
        text.push_str("\nrules\n");
        if told.more_passed_over > 0 {
            let (ones, do_not) = if told.more_passed_over == 1 { ("one", "does") } else { ("ones", "do") };
            text.push_str(&format!("  {} earlier {ones} {do_not} not match\n", told.more_passed_over));
        }
        for passed in &told.passed_over {
            text.push_str(&format!("  {}{}: no, {}\n", passed.rule, place(&passed.place), passed.because));
        }
        match &told.rule {
            Some(rule) => text.push_str(&format!("  {}{}: matches; {}\n", rule.rule, place(&rule.place), rule.asks)),
            None => text.push_str("  none matches\n"),
        }
        text.push_str("\ntunnels\n");
        text.push_str(&candidates(told));
    }
    text.push('\n');
    let is_best = told.candidates.iter().any(|one| one.best && Some(&one.tunnel) == told.tunnel.as_ref());
    match (&told.tunnel, &told.stays, &told.breakout) {
        // What is told of the best paths is not told of this one.
        (Some(tunnel), Some(stays), _) if !is_best => {
            let kept = kept_since(told).map(|since| age_ms(told.at_ms.saturating_sub(since)));
            let kept = kept.map_or_else(String::new, |age| format!(", where it has been for {age}"));
            text.push_str(&format!("stays on {tunnel}{kept}: {stays}\na new flow: {}\n", told.why));
        }
        (Some(tunnel), stays, _) => {
            let stays = stays.as_ref().map_or_else(String::new, |stays| format!("{stays}\n"));
            text.push_str(&format!("goes to {tunnel}: {}\n{stays}", told.why));
        }
        (None, _, Some(link)) => text.push_str(&format!("breaks out by {link}: {}\n", told.why)),
        (None, _, None) => text.push_str(&format!("{}\n", told.why)),
    }
    if let Some(past) = &told.past {
        text.push_str(&history(past, told.at_ms));
        return text;
    }
    match &told.live {
        None => text.push_str("no such flow is known now: this is what its first packet would get\n"),
        Some(live) => {
            let now = |at: u64| age_ms(told.at_ms.saturating_sub(at));
            let place = match live.tunnel.as_deref().or(live.link.as_deref()) {
                Some(place) => format!("the flow is on {place}"),
                None if live.refused => format!("the flow's latest packet was {}", live.why),
                None => "the flow is on no tunnel yet".to_owned(),
            };
            let sent = match live.refused {
                // The last that is known of it did not leave.
                true => format!("had {} packets let through", live.packets),
                false => format!("sent {} packets, the last {} ago", live.packets, now(live.last_ms)),
            };
            let (began, moves) = (now(live.first_ms), live.moves);
            text.push_str(&format!("{place}; it began {began} ago, {sent}, and moved {moves} times\n"));
            for moved in &live.history {
                let at = now(moved.at_ms);
                text.push_str(&format!("  {at} ago: {} -> {}: {}\n", moved.from, moved.to, moved.reason));
            }
            if let Some(RefusalStatus { from_ms, until_ms, why }) = &live.last_refusal {
                let until = until_ms.map_or_else(|| "now".to_owned(), |until| format!("{} ago", now(until)));
                text.push_str(&format!("  from {} ago until {until}: {why}\n", now(*from_ms)));
            }
        }
    }
    text
}

/// Since when a flow has been where its rule keeps it, as far as is known.
fn kept_since(told: &Explanation) -> Option<u64> {
    let of_live = told.live.as_ref().map(|live| live.history.last().map_or(live.first_ms, |moved| moved.at_ms));
    let before = |past: &PastFlow| past.decisions.iter().rfind(|one| one.at_ms <= told.at_ms).map(|one| one.at_ms);
    of_live.or_else(|| before(told.past.as_ref()?)).filter(|_| told.kept)
}

const NOWHERE: &str = "nowhere";

/// What was recorded of the flow, with the moment that was asked for in its place.
fn history(past: &PastFlow, asked_ms: u64) -> String {
    let mut text = String::new();
    for note in &past.notes {
        text.push_str(&format!("{note}\n"));
    }
    if past.decisions.is_empty() {
        text.push_str("no decision about this flow is recorded: this is what its first packet would have got\n");
        return text;
    }
    text.push_str("\nwhat was recorded of the flow\n");
    let (mut marked, mut was_nowhere) = (false, false);
    for one in &past.decisions {
        if one.at_ms > asked_ms && !marked {
            marked = true;
            text.push_str(&format!("  {}  -- the moment that was asked for\n", WallTime(asked_ms)));
        }
        let rule = one.rule.as_ref().map_or_else(String::new, |rule| format!(" by rule {rule}"));
        let out = one.breakout.as_ref().map(|link| format!("{link}, outside of the tunnels"));
        let to = one.tunnel.as_ref().or(out.as_ref()).map_or(NOWHERE, String::as_str);
        let at = WallTime(one.at_ms);
        let from = one.from.as_deref().or(was_nowhere.then_some(NOWHERE)).filter(|from| *from != to);
        let from = from.map_or_else(String::new, |from| format!("{from} -> "));
        let why = one.reason.as_ref().unwrap_or(&one.why);
        text.push_str(&format!("  {at}  {from}{to}{rule}: {why}\n"));
        was_nowhere = to == NOWHERE;
    }
    text
}

fn place(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" ({place})") }
}

const HEADINGS: [&str; 12] =
    ["", "tunnel", "link", "verdict", "loss", "rtt", "jitter", "score", "weight", "load", "SLA", "standing"];

fn candidates(told: &Explanation) -> String {
    let row = |one: &CandidateStatus| {
        let number =
            |value: Option<f64>, unit: &str| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"));
        let sla = one.meets_sla.map_or("-", |meets| if meets { "meets" } else { "misses" });
        [
            if told.tunnel.as_ref() == Some(&one.tunnel) { "*" } else { "" }.to_owned(),
            one.tunnel.clone(),
            one.link.clone(),
            one.verdict.clone(),
            number(one.loss_percent, "%"),
            number(one.rtt_ms, "ms"),
            number(one.jitter_ms, "ms"),
            number(one.score_ms, "ms"),
            one.weight.to_string(),
            format!("{:.1}Mbps", one.load_mbps),
            sla.to_owned(),
            one.standing.clone(),
        ]
    };
    let rows: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned)).chain(told.candidates.iter().map(row)).collect();
    let mut text = table(&rows, 4..10);
    for (tunnel, note) in told.candidates.iter().filter_map(|one| Some((&one.tunnel, one.note.as_ref()?))) {
        text.push_str(&format!("  {tunnel}: {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::FlowStatus;
    use crate::edge::{LearnedName, PassedOver, RuleMatch};
    use crate::model::Dscp;
    use crate::steer::Stay;

    fn candidate(link: &str, best: bool) -> CandidateStatus {
        CandidateStatus {
            tunnel: format!("pop/primary/{link}"),
            link: link.to_owned(),
            verdict: if best { "healthy" } else { "degraded" }.to_owned(),
            standing: if best { "among the best" } else { "another path is in better health" }.to_owned(),
            best,
            preference: 1,
            weight: 50,
            metered: false,
            last_resort: false,
            loss_percent: Some(0.0),
            rtt_ms: best.then_some(20.0),
            jitter_ms: None,
            score_ms: None,
            meets_sla: best.then_some(true),
            load_mbps: 1.25,
            note: (!best).then(|| "IKE answers, inner probes to 10.9.0.1 do not".to_owned()),
        }
    }

    #[test]
    fn an_explanation_reads_from_the_rules_over_the_tunnels_to_the_reason() {
        let told = Explanation {
            at_ms: 100_000,
            protocol: "tcp".to_owned(),
            source: "10.20.1.5:51000".to_owned(),
            destination: "203.0.113.9:443".to_owned(),
            dscp: Dscp::DEFAULT,
            interface: Some("lan1 (segment guests)".to_owned()),
            names: vec![LearnedName { name: "www.example.com".to_owned(), until_ms: 160_000, too_late: false }],
            connector: Some("pop".to_owned()),
            active_role: Some("primary".to_owned()),
            passed_over: vec![PassedOver {
                rule: "voice".to_owned(),
                place: "branch.toml:4".to_owned(),
                because: "the DSCP is default, not ef".to_owned(),
            }],
            more_passed_over: 3,
            rule: Some(RuleMatch {
                rule: "web".to_owned(),
                place: "branch.toml:9".to_owned(),
                asks: "prefer, links fibre, dsl, SLA class interactive".to_owned(),
            }),
            candidates: vec![candidate("fibre", false), candidate("dsl", true)],
            tunnel: Some("pop/primary/dsl".to_owned()),
            breakout: None,
            by_host: false,
            why: "link 2 of the rule, healthy".to_owned(),
            stays: Some("it is there, and no path is better".to_owned()),
            kept: false,
            live: Some(crate::cli::flows::tests::flow()),
            past: None,
        };
        let expected = "\
tcp 10.20.1.5:51000 -> 203.0.113.9:443, DSCP default
its source is reached by lan1 (segment guests)
its destination was answered for www.example.com, which is kept for 60 s
connector pop, traffic on the primary role

rules
  3 earlier ones do not match
  voice (branch.toml:4): no, the DSCP is default, not ef
  web (branch.toml:9): matches; prefer, links fibre, dsl, SLA class interactive

tunnels
   tunnel             link   verdict   loss     rtt  jitter  score  weight     load  SLA    standing
   pop/primary/fibre  fibre  degraded  0.0%       -       -      -      50  1.2Mbps  -      another path is in better health
*  pop/primary/dsl    dsl    healthy   0.0%  20.0ms       -      -      50  1.2Mbps  meets  among the best
  pop/primary/fibre: IKE answers, inner probes to 10.9.0.1 do not

goes to pop/primary/dsl: link 2 of the rule, healthy
it is there, and no path is better
the flow is on pop/primary/dsl; it began 60 s ago, sent 9000 packets, the last 0 s ago, and moved 1 times
  30 s ago: pop/primary/fibre -> pop/primary/dsl: another path was in better health
";
        assert_eq!(render(&told), expected);
        let one_more = render(&Explanation { more_passed_over: 1, ..told.clone() });
        assert!(one_more.contains("  1 earlier one does not match\n"), "{one_more}");
        let why = "refused: the rule says drop".to_owned();
        let live = FlowStatus { tunnel: None, link: None, refused: true, why, ..crate::cli::flows::tests::flow() };
        let latest = RefusalStatus { from_ms: 90_000, until_ms: None, why: "refused: the rule says drop".to_owned() };
        let told_of = |until_ms| {
            let last_refusal = Some(RefusalStatus { until_ms, ..latest.clone() });
            render(&Explanation { live: Some(FlowStatus { last_refusal, ..live.clone() }), ..told.clone() })
        };
        let nowhere = told_of(None);
        assert!(
            nowhere.contains(
                "the flow's latest packet was refused: the rule says drop; it began 60 s ago, had 9000 packets let through, and"
            ),
            "{nowhere}"
        );
        assert!(nowhere.ends_with("\n  from 10 s ago until now: refused: the rule says drop\n"), "{nowhere}");
        let back = told_of(Some(95_000));
        assert!(back.ends_with("\n  from 10 s ago until 5 s ago: refused: the rule says drop\n"), "{back}");
        let mut waits = told;
        waits.candidates[1].best = false;
        waits.stays = Some(Stay::HoldDown.to_string());
        let waiting = "stays on pop/primary/dsl: it is there, and the better path has not been well for the hold-down time\n\
                       a new flow: link 2 of the rule, healthy\n";
        assert!(render(&waits).contains(waiting), "{}", render(&waits));
        waits.kept = true;
        let kept = "stays on pop/primary/dsl, where it has been for 30 s: it is there, and";
        assert!(render(&waits).contains(kept), "{}", render(&waits));
    }

    #[test]
    fn ports_are_asked_for_where_there_are_some_and_refused_where_there_are_none() {
        let asked = |number: u8, source: &str, destination: &str| {
            ports(number, end(source).unwrap(), end(destination).unwrap())
        };
        assert_eq!(asked(protocol::TCP, "10.20.1.5:51000", "203.0.113.9:443"), Ok((51_000, 443)));
        assert_eq!(asked(protocol::ICMP, "10.20.1.5", "203.0.113.9"), Ok((0, 0)));
        for (source, destination) in [("10.20.1.5", "203.0.113.9:80"), ("10.20.1.5:5", "203.0.113.9")] {
            assert!(asked(protocol::UDP, source, destination).is_err());
        }
        let told = "a TCP or UDP flow has ports at both ends, such as [2001:db8::5]:51000 [2001:db8::9]:443";
        assert_eq!(asked(protocol::TCP, "2001:db8::5", "2001:db8::9"), Err(told.to_owned()));
        let told = "this protocol has no ports: 10.20.1.5 203.0.113.9";
        assert_eq!(asked(protocol::ICMP, "10.20.1.5:5", "203.0.113.9:5"), Err(told.to_owned()));
    }

    #[test]
    fn a_flow_is_named_as_one_would_write_it() {
        assert_eq!(end("10.20.1.5:51000"), Ok(([10, 20, 1, 5].into(), Some(51_000))));
        assert_eq!(end("[2001:db8::5]:443").map(|(_, port)| port), Ok(Some(443)));
        assert_eq!(end("10.20.1.5"), Ok(([10, 20, 1, 5].into(), None)));
        assert!(end("10.20.1:7").is_err());
        assert_eq!((protocol_number("udp"), protocol_number("gre"), protocol_number("47")), (Ok(17), Ok(47), Ok(47)));
        assert_eq!(protocol_number("quic"), Err("tcp, udp, icmp, icmpv6, gre, esp, ah, sctp or 0 to 255".to_owned()));
        assert_eq!((code_point("ef"), code_point("63")), (Ok(46), Ok(63)));
        assert!(code_point("64").is_err() && code_point("gold").is_err());
    }
}
