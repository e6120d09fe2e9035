use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use super::status::{age_ms, bytes, table};
use crate::control::{self, Request, Response};
use crate::edge::{FlowList, FlowStatus};

/// Lists the flows that the running daemon carries: those that sent most, with their tunnel, and why.
#[derive(clap::Args, Debug)]
pub struct FlowsArgs {
    /// Only flows that are not where they would be if every tunnel were well
    #[arg(long)]
    off_preferred: bool,
    /// List so many flows at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print the answer as one JSON document (its shape: docs/explain.md)
    #[arg(long)]
    json: bool,
    /// The daemon's control socket
    #[arg(long, default_value = "/run/trefoil/control.sock")]
    socket: PathBuf,
}

pub fn run(args: &FlowsArgs) -> ExitCode {
    let request = Request::Flows { off_preferred: args.off_preferred, limit: args.limit };
    let list = match control::ask(&args.socket, request) {
        Ok(Response::Flows(list)) => list,
        Ok(Response::Refused { reason }) => return output::fail(&reason),
        Ok(Response::Status(_) | Response::Explanation(_) | Response::Rules { .. } | Response::Done { .. }) => {
            return output::fail("the daemon answered something else");
        }
        Err(error) => return output::fail(&error.to_string()),
    };
    if !args.json {
        return output::finish(&render(&list, args.off_preferred), ExitCode::SUCCESS);
    }
    match serde_json::to_string_pretty(&list) {
        Ok(text) => output::finish(&format!("{text}\n"), ExitCode::SUCCESS),
        Err(error) => output::fail(&error.to_string()),
    }
}

const HEADINGS: [&str; 9] = ["flow", "tunnel", "link", "rule", "out", "age", "idle", "moves", "why"];

fn render(list: &FlowList, off_preferred: bool) -> String {
    let what = if off_preferred { "flows off their preferred tunnel" } else { "flows" };
    let mut text = format!("{} {what}", list.matching);
    if list.matching > list.flows.len() as u64 {
        text.push_str(&format!(", of which the {} that sent most", list.flows.len()));
    }
    text.push('\n');
    if !list.flows.is_empty() {
        let rows = std::iter::once(HEADINGS.map(str::to_owned)).chain(list.flows.iter().map(|flow| row(flow, list)));
        text.push_str(&table(&rows.collect::<Vec<_>>(), 4..8));
    }
    text
}

fn row(flow: &FlowStatus, list: &FlowList) -> [String; 9] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        format!("{} {} -> {}", flow.protocol, flow.source, flow.destination),
        or_dash(&flow.tunnel),
        or_dash(&flow.link),
        or_dash(&flow.rule),
        bytes(flow.bytes),
        age_ms(list.at_ms.saturating_sub(flow.first_ms)),
        age_ms(list.at_ms.saturating_sub(flow.last_ms)),
        flow.moves.to_string(),
        flow.why.clone(),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::edge::MoveStatus;

    pub fn flow() -> FlowStatus {
        FlowStatus {
            protocol: "tcp".to_owned(),
            source: "10.20.1.5:51000".to_owned(),
            destination: "203.0.113.9:443".to_owned(),
            dscp: 0,
            tunnel: Some("pop/primary/dsl".to_owned()),
            link: Some("dsl".to_owned()),
            arrived_on: None,
            refused: false,
            last_refusal: None,
            rule: Some("web".to_owned()),
            why: "link 2 of the rule".to_owned(),
            bytes: 12_345_678,
            packets: 9_000,
            first_ms: 40_000,
            last_ms: 99_500,
            moves: 1,
            history: vec![MoveStatus {
                at_ms: 70_000,
                from: "pop/primary/fibre".to_owned(),
                to: "pop/primary/dsl".to_owned(),
                cause: "health".to_owned(),
                reason: "another path was in better health".to_owned(),
            }],
        }
    }

    #[test]
    fn flows_read_as_a_table_and_say_how_many_are_not_shown() {
        let list = FlowList { at_ms: 100_000, matching: 7, flows: vec![flow()] };
        let expected = "\
7 flows, of which the 1 that sent most
flow                                    tunnel           link  rule      out   age  idle  moves  why
tcp 10.20.1.5:51000 -> 203.0.113.9:443  pop/primary/dsl  dsl   web   12.3 MB  60 s   0 s      1  link 2 of the rule
";
        assert_eq!(render(&list, false), expected);
        let none = FlowList { at_ms: 1, matching: 0, flows: Vec::new() };
        assert_eq!(render(&none, true), "0 flows off their preferred tunnel\n");
    }
}
