use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::flows::read_flows;
use super::{counted, lines, refuse};
use crate::cli::output;
use crate::cli::status::bytes;
use crate::config::{self, Diagnostic, FlowWords, Scenario};
use crate::edge::Plan;
use crate::lab::score::{FlowStory, REHEARSAL_FLOWS_MAX, Rehearsal, Step, open_plan, rehearse};
use crate::model::Dscp;

/// Plays flows of a file through the daemon's own steering, in simulated time, while a scenario happens to
/// the links. Nothing is sent.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "trefoil policy simulate [OPTIONS] --flows <FILE> --scenario <FILE> <FILE...|--site <SITE.toml>>"
)]
pub struct SimulateArgs {
    /// Policy files, in the order in which they apply; without any, those of the site
    #[arg(value_name = "FILE", required_unless_present = "site")]
    files: Vec<PathBuf>,
    /// The flows, one a line: `tcp 10.20.1.5:51000 203.0.113.9:443 dscp=af21 from=10s until=2m kilobytes=500`
    #[arg(long, value_name = "FILE")]
    flows: PathBuf,
    /// What happens to the links (docs/scoreboard.md); its own traffic is not played
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// The site file: its links, connectors and settings. Without it a branch with the links of the
    /// scenario and two PoPs, to which everything goes
    #[arg(long, value_name = "SITE.toml")]
    site: Option<PathBuf>,
    /// Without a site file: as the site of this name, for rules that are for some sites only
    #[arg(long = "as", value_name = "NAME", conflicts_with = "site")]
    as_site: Option<String>,
    /// Instead of the seed of the scenario
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// One JSON document (its shape: docs/policy.md)
    #[arg(long)]
    json: bool,
}

pub fn run(args: &SimulateArgs) -> ExitCode {
    let mut scenario = match config::load_scenario(&args.scenario) {
        Ok(scenario) => scenario,
        Err(found) => return refuse(&args.scenario.display().to_string(), &found),
    };
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    let (plan, warnings) = match load(args, &scenario) {
        Ok(loaded) => loaded,
        Err(found) => return refuse(&judged_by(args), &found),
    };
    let left_out = left_out(&plan);
    let flows = match read_flows(&args.flows, &FlowWords::of_plan(&plan), REHEARSAL_FLOWS_MAX) {
        Ok(flows) => flows,
        Err(reason) => return output::fail(&reason),
    };
    let told = match rehearse(plan, &scenario, &flows) {
        Ok(told) => told,
        Err(unplayable) => return output::fail(&unplayable.0),
    };
    if !args.json {
        return output::finish(&format!("{}{left_out}{}", lines(&warnings), render(&told)), ExitCode::SUCCESS);
    }
    match serde_json::to_string_pretty(&told) {
        Ok(text) => output::finish(&format!("{text}\n"), ExitCode::SUCCESS),
        Err(error) => output::fail(&error.to_string()),
    }
}

/// The site with the rules that are meant.
fn load(args: &SimulateArgs, scenario: &Scenario) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (plan, of_site) = match &args.site {
        Some(site) => config::policy_files_of(site)?,
        None => {
            let mut plan = open_plan(scenario)?;
            plan.site.name = args.as_site.clone().unwrap_or_default();
            // The segments that the rules name, whatever belongs to them.
            plan.lan = config::load_policy(&args.files, None)?.lan;
            (plan, Vec::new())
        }
    };
    let files = if args.files.is_empty() { &of_site } else { &args.files };
    let policy = config::load_policy(files, Some(&plan))?;
    Ok((Plan { rules: Arc::new(policy.rules), lan: policy.lan, ..plan }, policy.warnings))
}

/// The policy, and whose links are the ones that it may name.
fn judged_by(args: &SimulateArgs) -> String {
    match &args.site {
        Some(site) => format!("the policy, with the links of the site {}", site.display()),
        None => format!("the policy, with the links of the scenario {}", args.scenario.display()),
    }
}

/// Rules that the simulation does not have.
fn left_out(plan: &Plan) -> String {
    let others = plan.rules.elsewhere();
    let mut sites: Vec<&str> = others.iter().flat_map(|rule| &rule.sites).map(String::as_str).collect();
    sites.sort_unstable();
    sites.dedup();
    match others.len() {
        0 => String::new(),
        more => format!("{} for other sites left out ({})\n\n", counted(more, "rule"), sites.join(", ")),
    }
}

fn render(told: &Rehearsal) -> String {
    let described = told.description.as_ref().map_or_else(String::new, |words| format!(" ({words})"));
    let mut text = format!(
        "{} under {}{described}, {} s\n",
        counted(told.flows.len(), "flow"),
        told.scenario,
        told.lasts_ms / 1_000
    );
    for flow in &told.flows {
        text.push_str(&story(flow));
    }
    // Writing into a text cannot fail.
    let _ = writeln!(text, "\n{:<12} {:>10} {:>10}", "link", "out", "in");
    for link in &told.links {
        let _ = writeln!(text, "{:<12} {:>10} {:>10}", link.link, bytes(link.out), bytes(link.received));
    }
    let telling: Vec<_> =
        told.happenings.iter().filter(|one| matches!(one.what.as_str(), "verdict" | "role")).collect();
    text.push_str(if telling.is_empty() { "\nno verdict and no role changed\n" } else { "\nwhat changed\n" });
    for one in telling {
        let _ = writeln!(text, "{} {} {} -> {}: {}", seconds(one.at_ms), one.of, one.from, one.to, one.reason);
    }
    text
}

fn story(flow: &FlowStory) -> String {
    let mark = if flow.dscp == Dscp::DEFAULT { String::new() } else { format!(" dscp {}", flow.dscp) };
    let mut text = format!("\n{}{mark}\n", flow.flow);
    for step in &flow.steps {
        text.push_str(&in_words(step));
    }
    if flow.more_steps > 0 {
        let _ = writeln!(text, "  ... and {} steps more", flow.more_steps);
    }
    let by_link: Vec<String> = flow.bytes.iter().map(|link| format!("{} by {}", bytes(link.out), link.link)).collect();
    let out = if by_link.is_empty() { "nothing".to_owned() } else { by_link.join(", ") };
    let _ = writeln!(text, "  sent {out}; outage {:.2} s", flow.outage_ms as f64 / 1e3);
    text
}

fn in_words(step: &Step) -> String {
    let rule = step.rule.as_ref().map_or_else(|| "no rule".to_owned(), |rule| format!("rule \"{rule}\""));
    let reason = step.reason.as_ref().map_or_else(String::new, |reason| format!("{reason}; "));
    // That it is outside of the tunnels, the reason says.
    let to = step.tunnel.clone().or(step.link.clone().filter(|_| step.breakout));
    let way = match (&step.from, to) {
        (_, None) => return format!("{} by {rule} {}\n", seconds(step.at_ms), step.why),
        (None, Some(to)) => to,
        (Some(from), Some(to)) => format!("{from} -> {to}"),
    };
    format!("{} {way} by {rule}: {reason}{}\n", seconds(step.at_ms), step.why)
}

fn seconds(ms: u64) -> String {
    format!("{:>10.3} s", ms as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_policy_is_told_with_the_scenario_or_the_site_whose_links_it_may_name() {
        let mut args = SimulateArgs {
            files: vec!["policy.toml".into()],
            flows: "flows".into(),
            scenario: "cut.toml".into(),
            site: None,
            as_site: None,
            seed: None,
            json: false,
        };
        assert_eq!(judged_by(&args), "the policy, with the links of the scenario cut.toml");
        args.site = Some("lyon.toml".into());
        assert_eq!(judged_by(&args), "the policy, with the links of the site lyon.toml");
    }
}
