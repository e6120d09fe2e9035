use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use super::status::align;
use crate::control::{self, Request, Response};
use crate::edge::RuleStatus;

/// Shows the running daemon's rules: what each has decided, and when last.
#[derive(clap::Args, Debug)]
pub struct RulesArgs {
    /// Also the rules of the site's policy files that are for other sites
    #[arg(long)]
    all: bool,
    /// Print the answer as one JSON document (its shape: docs/status.md)
    #[arg(long)]
    json: bool,
    /// The daemon's control socket
    #[arg(long, default_value = "/run/trefoil/control.sock")]
    socket: PathBuf,
}

pub fn run(args: &RulesArgs) -> ExitCode {
    let (at_ms, rules) = match control::ask(&args.socket, Request::Rules {}) {
        Ok(Response::Rules { at_ms, rules }) => (at_ms, rules),
        Ok(Response::Refused { reason }) => return output::fail(&reason),
        Ok(Response::Status(_) | Response::Flows(_) | Response::Explanation(_) | Response::Done { .. }) => {
            return output::fail("the daemon answered something else");
        }
        Err(error) => return output::fail(&error.to_string()),
    };
    if !args.json {
        return output::finish(&render(&rules, args.all, at_ms), ExitCode::SUCCESS);
    }
    match serde_json::to_string_pretty(&rules) {
        Ok(text) => output::finish(&format!("{text}\n"), ExitCode::SUCCESS),
        Err(error) => output::fail(&error.to_string()),
    }
}

const COLUMNS: usize = 5;
const HEADINGS: [&str; COLUMNS] = ["rule", "at", "action", "hits", "last hit"];

fn render(rules: &[RuleStatus], all: bool, at_ms: u64) -> String {
    let others = rules.iter().filter(|rule| !rule.elsewhere.is_empty()).count();
    let left_out = match others {
        _ if all => String::new(),
        0 => String::new(),
        1 => "1 rule is for other sites (--all shows it)\n".to_owned(),
        more => format!("{more} rules are for other sites (--all shows them)\n"),
    };
    if rules.len() == others && !all || rules.is_empty() {
        return format!("no rules: every flow is shared by health, preference and bandwidth\n{left_out}");
    }
    let row = |rule: &RuleStatus| {
        if !rule.elsewhere.is_empty() {
            return [rule.name.clone(), rule.place.clone(), rule.action.clone(), "-".to_owned(), "-".to_owned()];
        }
        let last = rule.last_hit_ms.map_or_else(|| "never".to_owned(), |at| age(at_ms.saturating_sub(at)));
        let action = if rule.resting { format!("{} (not at this hour)", rule.action) } else { rule.action.clone() };
        [rule.name.clone(), rule.place.clone(), action, rule.hits.to_string(), last]
    };
    let shown = rules.iter().filter(|rule| all || rule.elsewhere.is_empty());
    let rows: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned)).chain(shown.map(row)).collect();
    format!("{}{left_out}", align(&rows, 3))
}

fn age(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..=119 => format!("{seconds} s ago"),
        seconds @ 120..=7_199 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_a_table_with_never_for_those_without_a_flow() {
        let rule = |name: &str, hits, last_hit_ms| RuleStatus {
            name: name.to_owned(),
            place: "p.toml:1".to_owned(),
            action: "drop".to_owned(),
            resting: hits == 0,
            hits,
            last_hit_ms,
            elsewhere: Vec::new(),
        };
        let text = render(&[rule("no-telnet", 1_204, Some(70_000)), rule("night", 0, None)], false, 100_000);
        assert_eq!(
            text,
            "rule       at        action                   hits  last hit\n\
             no-telnet  p.toml:1  drop                     1204  30 s ago\n\
             night      p.toml:1  drop (not at this hour)     0     never\n"
        );
        let other = RuleStatus {
            action: "it is for other sites: madrid".to_owned(),
            elsewhere: vec!["madrid".to_owned()],
            ..rule("es", 0, None)
        };
        let rules = [rule("no-telnet", 1, Some(70_000)), other];
        let text = render(&rules, false, 100_000);
        assert!(text.ends_with("30 s ago\n1 rule is for other sites (--all shows it)\n"), "{text}");
        let text = render(&rules, true, 100_000);
        assert!(text.ends_with("\nes         p.toml:1  it is for other sites: madrid     -         -\n"), "{text}");
    }
}
