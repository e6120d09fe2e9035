use std::path::PathBuf;
use std::process::ExitCode;

use super::explain::unix_ms_now;
use super::output;
use crate::recording::{Reader, Report, Step, WallTime, When, replay};

/// Decides everything in a recording again, compares, and tells what changed, when and why.
///
/// Ends with 1 when a decision comes out otherwise: a later version may decide otherwise, on purpose.
#[derive(clap::Args, Debug)]
pub struct ReplayArgs {
    /// A recording: the directory that `trefoil status` names, a copy of it, or one of its files
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// Stop at this moment: 2026-11-22T14:03:05Z, or -10m (ms, s, m, h, d)
    #[arg(long, value_parser = When::parse, allow_hyphen_values = true, value_name = "TIME")]
    until: Option<When>,
    /// Print the outcome as one JSON document (its shape: docs/recording.md)
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReplayArgs) -> ExitCode {
    let report = Reader::open(&args.recording)
        .map_err(|error| error.to_string())
        .and_then(|reader| replay(&reader, args.until, unix_ms_now()).map_err(|error| error.to_string()));
    let report = match report {
        Ok(report) => report,
        Err(reason) => return output::fail(&reason),
    };
    let code = if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !args.json {
        return output::finish(&render(&report), code);
    }
    match serde_json::to_string_pretty(&report) {
        Ok(text) => output::finish(&format!("{text}\n"), code),
        Err(error) => output::fail(&error.to_string()),
    }
}

fn render(report: &Report) -> String {
    let time = |at: Option<u64>| at.map_or_else(|| "?".to_owned(), |at| WallTime(at).to_string());
    // A recording may come from anywhere.
    let site = output::one_line(&report.site);
    let mut text = format!("site {site}, {} to {}\n\n", time(report.from_ms), time(report.to_ms));
    for step in &report.steps {
        text.push_str(&format!("{}  {}\n", WallTime(step.at_ms), output::one_line(&in_words(step))));
    }
    if report.more_steps > 0 {
        text.push_str(&format!("... and {} steps more\n", report.more_steps));
    }
    if !report.steps.is_empty() {
        text.push('\n');
    }
    for trouble in &report.troubles {
        text.push_str(&format!("passed over: {}\n", output::one_line(trouble)));
    }
    if report.more_troubles > 0 {
        text.push_str(&format!("passed over: {} times more\n", report.more_troubles));
    }
    if report.left_out > 0 {
        text.push_str(&format!(
            "{} decisions about flows are only counted: repeated refusals, and what comes beyond so many a second\n",
            report.left_out
        ));
    }
    if report.not_compared > 0 {
        text.push_str(&format!(
            "{} decisions cannot be made again: what they rest on is not in the recording\n",
            report.not_compared
        ));
    }
    for difference in &report.differences {
        text.push_str(&format!(
            "otherwise: {} {}\n  recorded: {}\n  now:      {}\n",
            WallTime(difference.at_ms),
            output::one_line(&difference.of),
            output::one_line(&difference.recorded),
            output::one_line(&difference.now)
        ));
    }
    text.push_str(&format!("{} decisions, {} equal\n", report.decisions, report.equal));
    text
}

fn in_words(step: &Step) -> String {
    let change = match (step.from.as_str(), step.to.as_str()) {
        ("", "") => String::new(),
        ("", to) => format!(" {to}"),
        (from, "") => format!(" {from}"),
        // It is as it was, for another reason.
        (from, to) if from == to => format!(" still {to}"),
        (from, to) => format!(" {from} -> {to}"),
    };
    let of = if step.of.is_empty() { String::new() } else { format!(" {}", step.of) };
    format!("{}{of}{change}: {}", step.what, step.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::DifferenceStatus;

    #[test]
    fn a_replay_reads_as_a_timeline_with_its_outcome_below() {
        let step = |what: &str, of: &str, from: &str, to: &str, reason: &str| Step {
            at_ms: 1_795_413_540_007,
            what: what.to_owned(),
            of: of.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            reason: reason.to_owned(),
        };
        let report = Report {
            site: "lisbon".to_owned(),
            from_ms: Some(1_795_413_540_000),
            to_ms: Some(1_795_413_600_000),
            decisions: 12,
            equal: 11,
            not_compared: 1,
            differences: vec![DifferenceStatus {
                at_ms: 1_795_413_541_000,
                of: "the active role of pops".to_owned(),
                recorded: "Primary".to_owned(),
                now: "Secondary".to_owned(),
            }],
            steps: vec![
                step("verdict", "pops/primary/dsl", "healthy", "down", "5 probes unanswered"),
                step("tunnel", "pops/primary/lte", "waiting", "waiting", "no such name"),
                step("clock", "", "", "", "the \u{1b}[2Jtime\nof day"),
            ],
            more_steps: 0,
            left_out: 7,
            troubles: vec!["0000000001.trefoil.gz at byte 12: cut off".to_owned()],
            more_troubles: 3,
        };
        let expected = "\
site lisbon, 2026-11-23T05:59:00.000Z to 2026-11-23T06:00:00.000Z

2026-11-23T05:59:00.007Z  verdict pops/primary/dsl healthy -> down: 5 probes unanswered
2026-11-23T05:59:00.007Z  tunnel pops/primary/lte still waiting: no such name
2026-11-23T05:59:00.007Z  clock: the \u{fffd}[2Jtime\u{fffd}of day

passed over: 0000000001.trefoil.gz at byte 12: cut off
passed over: 3 times more
7 decisions about flows are only counted: repeated refusals, and what comes beyond so many a second
1 decisions cannot be made again: what they rest on is not in the recording
otherwise: 2026-11-23T05:59:01.000Z the active role of pops
  recorded: Primary
  now:      Secondary
12 decisions, 11 equal
";
        assert_eq!(render(&report), expected);
    }
}
