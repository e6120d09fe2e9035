use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::flows::read_flows;
use super::{counted, load, refuse};
use crate::cli::output;
use crate::config::{self, Diagnostic, LinkState, Outcome, PolicyFiles};
use crate::model::{FlowKey, LinkId, Verdict};
use crate::steer::{Action, Comparison, Ends, NewFlow, Rule, Steering};

/// Flows that are looked at: beyond, nobody reads on.
const FLOWS_MAX: usize = 100_000;

#[derive(clap::Args, Debug)]
pub struct DiffArgs {
    /// The policy file as it is
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The policy file as it would be
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Flows to look at, one a line: `tcp 10.20.1.5:51000 203.0.113.9:443 dscp=ef interface=lan1 site=lyon
    /// fqdn=www.example.com`. Without it, a flow of each rule and each test of both files, and of each two
    /// rules that flows go from one to the other of
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    /// The site file: its links and connectors are the ones that rules may name, and rules for other sites are left out
    #[arg(long, value_name = "SITE.toml")]
    site: Option<PathBuf>,
}

pub fn run(args: &DiffArgs) -> ExitCode {
    let old = match load(std::slice::from_ref(&args.old), args.site.as_deref()) {
        Ok(policy) => policy,
        Err(diagnostics) => return refuse(&args.old.display().to_string(), &diagnostics),
    };
    let new = match load_beside(&args.new, &old) {
        Ok(policy) => policy,
        Err(diagnostics) => return refuse(&args.new.display().to_string(), &diagnostics),
    };
    let old = with_names_of(old, &new);
    let (flows, note) = match &args.flows {
        None => examples(&old, &new),
        Some(file) => match read_flows(file, &new.flow_words(), FLOWS_MAX) {
            Ok(lines) => (lines.into_iter().map(|line| line.flow).collect(), ""),
            Err(reason) => return output::fail(&reason),
        },
    };
    output::finish(&format!("{}{note}", compare(&old, &new, &flows)), ExitCode::SUCCESS)
}

/// Links, connectors and interfaces are compared by their numbers.
fn load_beside(file: &Path, old: &PolicyFiles) -> Result<PolicyFiles, Vec<Diagnostic>> {
    config::load_policy_beside(&[file.to_path_buf()], old)
}

/// What only the new file names is there for the old one too: a link that came with a rule is no other way for
/// the flows of all others.
fn with_names_of(old: PolicyFiles, new: &PolicyFiles) -> PolicyFiles {
    PolicyFiles { links: new.links.clone(), connectors: new.connectors.clone(), lan: new.lan.clone(), ..old }
}

/// A flow of each rule and each test, and one for each two rules that some flow goes from one to the other of; with
/// what is to be said of them.
fn examples(old: &PolicyFiles, new: &PolicyFiles) -> (Vec<NewFlow>, &'static str) {
    let mut seen: BTreeMap<(FlowKey, u8, u16, u16, Ends), NewFlow> = BTreeMap::new();
    let acts_otherwise = |one: Option<&Rule>, other: Option<&Rule>| match (one, other) {
        (Some(one), Some(other)) => !acts_alike((old, one), (new, other)),
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    };
    let traded = Comparison::new(&old.rules, &new.rules).witnesses(FLOWS_MAX, acts_otherwise);
    let policies = [old, new].into_iter();
    let of_rules =
        policies.clone().flat_map(|policy| policy.rules.rules()).filter_map(|rule| rule.matcher.samples().next());
    let of_tests = policies.flat_map(|policy| &policy.tests).map(|test| test.flow);
    for flow in traded.flows.into_iter().chain(of_rules).chain(of_tests) {
        let key = (flow.key, flow.dscp.value(), flow.connector.0, flow.minute.value(), flow.ends);
        if seen.len() < FLOWS_MAX {
            seen.insert(key, flow);
        }
    }
    let note = match traded.is_cut_short {
        true => "the rules overlap too much to compare each with each: other flows may go elsewhere, too\n",
        false => "",
    };
    (seen.into_values().collect(), note)
}

/// Do both rules treat flows the same? Classes are compared themselves, since their numbers may differ.
fn acts_alike((old_policy, old): (&PolicyFiles, &Rule), (new_policy, new): (&PolicyFiles, &Rule)) -> bool {
    let sla = |policy: &PolicyFiles, rule: &Rule| {
        rule.action.steering().and_then(|steering| policy.rules.sla_class(steering.sla?).cloned())
    };
    let without_sla = |rule: &Rule| match &rule.action {
        Action::Steer(steering) => Action::Steer(Steering { sla: None, ..steering.clone() }),
        other @ (Action::BreakOut(_) | Action::Drop) => other.clone(),
    };
    without_sla(old) == without_sla(new) && sla(old_policy, old) == sla(new_policy, new)
}

fn compare(old: &PolicyFiles, new: &PolicyFiles, flows: &[NewFlow]) -> String {
    let mut text = rules_that_changed(old, new);
    let mut moved = 0;
    for flow in flows {
        if let Some(line) = difference(old, new, flow) {
            moved += 1;
            text.push_str(&line);
        }
    }
    let _ = writeln!(text, "{moved} of {} would go elsewhere", counted(flows.len(), "flow"));
    text
}

fn rules_that_changed(old_policy: &PolicyFiles, new_policy: &PolicyFiles) -> String {
    let (old, new) = (old_policy.rules.rules(), new_policy.rules.rules());
    let by_name = |rules: &[Rule]| -> BTreeMap<String, usize> {
        rules.iter().enumerate().map(|(index, rule)| (rule.name.clone(), index)).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let mut text = String::new();
    let elsewhere = |policy: &PolicyFiles, name: &str| policy.rules.elsewhere().iter().any(|rule| rule.name == name);
    for rule in old.iter().filter(|rule| !after.contains_key(&rule.name)) {
        let still = if elsewhere(new_policy, &rule.name) { ": it is for other sites now" } else { "" };
        let _ = writeln!(text, "- rule \"{}\" ({}){still}", rule.name, rule.place);
    }
    for rule in new {
        let earlier = before.get(&rule.name).and_then(|index| old.get(*index));
        match earlier {
            None => {
                let was = if elsewhere(old_policy, &rule.name) { ": it was for other sites" } else { "" };
                let _ = writeln!(text, "+ rule \"{}\" ({}){was}", rule.name, rule.place);
            }
            Some(earlier) => {
                let acts_alike = acts_alike((old_policy, earlier), (new_policy, rule));
                let changed = match (earlier.matcher != rule.matcher, !acts_alike) {
                    (true, true) => "what it matches and what it does",
                    (true, false) => "what it matches",
                    (false, true) => "what it does",
                    (false, false) => continue,
                };
                let _ = writeln!(text, "~ rule \"{}\" ({} -> {}): {changed}", rule.name, earlier.place, rule.place);
            }
        }
    }
    for (before, after) in Comparison::new(&old_policy.rules, &new_policy.rules).moved() {
        if let Some((before, after)) = old.get(before).zip(new.get(after)) {
            let _ = writeln!(
                text,
                "~ rule \"{}\" ({} -> {}): its place in the order",
                after.name, before.place, after.place
            );
        }
    }
    text
}

/// Whether the flow goes elsewhere while all links are well, or while one of them is down.
fn difference(old: &PolicyFiles, new: &PolicyFiles, flow: &NewFlow) -> Option<String> {
    let states = std::iter::once(None).chain(new.links.iter().map(|link| Some(link.name.as_str())));
    for down in states {
        let (before, after) = (decide(old, flow, down), decide(new, flow, down));
        let way = |policy: &PolicyFiles, outcome: &Outcome| {
            let mut links: Vec<String> = outcome.links.iter().map(|link| policy.link_name(*link).to_string()).collect();
            links.sort();
            (links, outcome.breaks_out, outcome.set_dscp)
        };
        if way(old, &before) != way(new, &after) {
            let while_down = down.map_or_else(String::new, |link| format!(" while {link} is down"));
            return Some(format!(
                "{}{while_down}\n  before: {}\n  after:  {}\n  why:    {}\n",
                new.flow_text(flow),
                old.outcome_text(&before),
                new.outcome_text(&after),
                after.why
            ));
        }
    }
    None
}

fn decide(policy: &PolicyFiles, flow: &NewFlow, down: Option<&str>) -> Outcome {
    let link = down.and_then(|name| policy.links.iter().position(|link| link.name == name));
    let link = link.and_then(|index| u16::try_from(index).ok()).map(LinkId);
    let state = link.map(|link| (link, LinkState { verdict: Verdict::Down, ..LinkState::HEALTHY }));
    policy.decide(flow, state.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_rule_is_named_with_the_flows_that_it_moves() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let web = "[[rule]]\nname = \"web\"\nprotocol = \"tcp\"\ndestination_port = 443\n";
        let old = file(
            "old.toml",
            &format!("{web}links = [\"fibre\", \"dsl\"]\n[[rule]]\nname = \"rest\"\nlinks = [\"dsl\", \"lte\"]\n"),
        );
        let new = file(
            "new.toml",
            &format!("{web}links = [\"fibre\", \"lte\"]\n[[rule]]\nname = \"all\"\nlinks = [\"dsl\", \"lte\"]\n"),
        );
        let old = load(&[old], None).unwrap();
        let new = load_beside(&new, &old).unwrap();
        let old = with_names_of(old, &new);
        let text = compare(&old, &new, &examples(&old, &new).0).replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(
            text,
            "- rule \"rest\" (old.toml:6)\n\
             ~ rule \"web\" (old.toml:1 -> new.toml:1): what it does\n\
             + rule \"all\" (new.toml:6)\n\
             tcp 10.0.0.1:50000 -> 203.0.113.9:443 while fibre is down\n  \
             before: dsl by rule \"web\" (old.toml:1)\n  \
             after:  lte by rule \"web\" (new.toml:1)\n  \
             why:    link 2 of the rule, healthy: the healthiest that the rule names, then the first\n\
             1 of 1 flow would go elsewhere\n"
        );
    }

    #[test]
    fn what_a_wider_rule_and_another_order_take_is_found_without_a_list_of_flows() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let rule = |name: &str, rest: &str| format!("[[rule]]\nname = \"{name}\"\n{rest}\n");
        let low =
            |last: u32| rule("low", &format!("protocol = \"tcp\"\ndestination_port = \"1-{last}\"\nmode = \"drop\""));
        let (voice, telnet) = (
            rule("voice", "dscp = \"ef\"\nlinks = [\"fibre\"]"),
            rule("telnet", "protocol = \"tcp\"\ndestination_port = 2300\nmode = \"drop\""),
        );
        let old = load(&[file("old.toml", &format!("{voice}{telnet}{}", low(1_000)))], None).unwrap();
        let new = load_beside(&file("new.toml", &format!("{telnet}{voice}{}", low(2_000))), &old).unwrap();
        let old = with_names_of(old, &new);
        let text = compare(&old, &new, &examples(&old, &new).0);
        assert!(text.contains("its place in the order"), "{text}");
        assert!(text.contains("tcp 10.0.0.1:50000 -> 203.0.113.9:1001\n"), "{text}");
        assert!(text.contains("203.0.113.9:2300 dscp ef\n"), "{text}");
        assert!(text.ends_with("2 of 5 flows would go elsewhere\n"), "{text}");
    }

    #[test]
    fn a_link_that_comes_with_one_rule_changes_nothing_for_the_flows_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, out: &str| {
            let path = folder.path().join(name);
            let text = format!(
                "[[rule]]\nname = \"out\"\nfqdn = \"*.meet.example\"\nsite = \"lyon\"\nmode = \"breakout\"\nlinks = {out}\n\
                 [[rule]]\nname = \"web\"\nprotocol = \"tcp\"\nlinks = [\"dsl\"]\n"
            );
            std::fs::write(&path, text).unwrap();
            path
        };
        let old = load(&[file("old.toml", "[\"dsl\"]")], None).unwrap();
        let new = load_beside(&file("new.toml", "[\"cable\", \"dsl\"]"), &old).unwrap();
        let old = with_names_of(old, &new);
        let text = compare(&old, &new, &examples(&old, &new).0).replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(
            text,
            "~ rule \"out\" (old.toml:1 -> new.toml:1): what it does\n\
             tcp 10.0.0.1:50000 -> 203.0.113.9:443 (*.meet.example) at site lyon\n  \
             before: dsl outside of the tunnels by rule \"out\" (old.toml:1)\n  \
             after:  cable outside of the tunnels by rule \"out\" (new.toml:1)\n  \
             why:    outside of the tunnels by WAN link 1 of the rule, the first that is up or where it is\n\
             1 of 2 flows would go elsewhere\n"
        );
    }
}
