use std::process::ExitCode;

use super::{Named, counted, lines, refuse};
use crate::cli::output;
use crate::config::PolicyFiles;
use crate::steer::Coverage;

/// More would not be read.
const OVERLAPS_SHOWN: usize = 50;

#[derive(clap::Args, Debug)]
#[command(override_usage = "trefoil policy check [OPTIONS] <FILE...|--site <SITE.toml>>")]
pub struct CheckArgs {
    #[command(flatten)]
    named: Named,
    /// Also names rules that some flows match both and that do different things, so that the order decides; not a narrower
    /// rule before a wider one
    #[arg(long)]
    overlaps: bool,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    match args.named.load() {
        Ok(policy) => output::finish(&report(&policy, args.overlaps, &args.named.title()), ExitCode::SUCCESS),
        Err(diagnostics) => refuse(&args.named.title(), &diagnostics),
    }
}

fn report(policy: &PolicyFiles, overlaps: bool, title: &str) -> String {
    let mut text = lines(&policy.warnings);
    if overlaps {
        text.push_str(&overlapping(policy));
    }
    let rules = counted(policy.rules.rules().len(), "rule");
    let tests = counted(policy.tests.len(), "test");
    let (more_rules, more_tests) = (policy.rules.elsewhere().len(), policy.tests_elsewhere);
    let elsewhere = match (more_rules, more_tests) {
        (0, 0) => String::new(),
        _ => format!("; {} and {} more are for other sites", counted(more_rules, "rule"), counted(more_tests, "test")),
    };
    let warnings = match policy.warnings.iter().map(|one| one.count).sum() {
        0 => String::new(),
        some => format!(", with {}", counted(some, "warning")),
    };
    let slow = match policy.rules.compiled_size() {
        Some(_) => "",
        None => "; the rules are too entangled to compile, and are tried one after another for each new flow",
    };
    format!("{text}{title}: good{warnings}: {rules}, {tests}{elsewhere}{slow}\n")
}

fn overlapping(policy: &PolicyFiles) -> String {
    let rules = policy.rules.rules();
    let mut text = String::new();
    for overlap in Coverage::new(rules).overlaps(OVERLAPS_SHOWN) {
        if let Some((earlier, later)) = rules.get(overlap.earlier).zip(rules.get(overlap.later)) {
            let site = policy.site_name(overlap.site).map_or_else(String::new, |name| format!(" at site {name}"));
            text.push_str(&format!(
                "{} note: rule \"{}\" overlaps rule \"{}\" at {}, which comes first: {}{site}\n",
                later.place, later.name, earlier.name, earlier.place, overlap.example
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_shipped_branch_policy_is_good_and_its_overlaps_are_named_with_both_places() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy/branch.toml");
        let named = Named { files: vec![file], site: None };
        let text = report(&named.load().unwrap(), true, "branch");
        assert!(text.lines().last().unwrap().starts_with("branch: good: "), "{text}");
        let overlap = text.lines().find(|line| line.contains("rule \"card-terminals\" overlaps rule \"voice\" at "));
        assert!(overlap.is_some_and(|line| line.contains("tcp 10.20.30.0 -> any:443 dscp cs5")), "{text}");
    }

    #[test]
    fn rules_overlap_only_at_sites_that_they_have_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        let rule = |name: &str, sites: &str, matched: &str, link: &str| {
            format!("[[rule]]\nname = \"{name}\"\nsite = {sites}\n{matched}\nlinks = \"{link}\"\n")
        };
        let text = rule("voice", "[\"lyon\", \"madrid\"]", "dscp = \"ef\"", "dsl")
            + &rule("web", "\"porto\"", "protocol = \"tcp\"", "lte")
            + &rule("tills", "[\"porto\", \"madrid\"]", "destination = \"10.1.0.0/16\"", "fibre");
        std::fs::write(&file, text).unwrap();
        let text = report(&Named { files: vec![file], site: None }.load().unwrap(), true, "p");
        let notes: Vec<&str> = text.lines().filter(|line| line.contains("note:")).collect();
        assert_eq!(notes.len(), 2, "{text}");
        assert!(
            notes[0].contains("\"tills\" overlaps rule \"voice\"") && notes[0].ends_with("at site madrid"),
            "{text}"
        );
        assert!(notes[1].contains("\"tills\" overlaps rule \"web\"") && notes[1].ends_with("at site porto"), "{text}");
    }
}
