use std::process::ExitCode;

use super::{Named, counted, lines, refuse};
use crate::cli::output;
use crate::config::PolicyFiles;

pub fn run(named: &Named) -> ExitCode {
    match named.load() {
        Ok(policy) => {
            let (text, passed) = report(&policy, &named.title());
            output::finish(&text, if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(diagnostics) => refuse(&named.title(), &diagnostics),
    }
}

fn report(policy: &PolicyFiles, title: &str) -> (String, bool) {
    let failures = policy.failures();
    let mut text = lines(&policy.warnings);
    for failure in &failures {
        text.push_str(&format!("{failure}\n"));
    }
    let tests = policy.tests.len();
    let verdict = match failures.len() {
        0 if tests == 0 => format!("{title}: no tests\n"),
        0 => format!("{title}: {} passed\n", counted(tests, "test")),
        failed => format!("{title}: {failed} of {} failed\n", counted(tests, "test")),
    };
    text.push_str(&verdict);
    if policy.tests_elsewhere > 0 {
        text.push_str(&format!("{} more for other sites left out\n", counted(policy.tests_elsewhere, "test")));
    }
    (text, failures.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_tests_of_the_shipped_policies_pass_by_themselves_and_with_their_sites() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["branch.toml", "cloud-vpc.toml"] {
            let alone = Named { files: vec![root.join("policy").join(name)], site: None };
            let with_site = Named { files: Vec::new(), site: Some(root.join("examples").join(name)) };
            for named in [alone, with_site] {
                let policy = named.load().unwrap_or_else(|found| panic!("{}", lines(&found)));
                let (text, passed) = report(&policy, name);
                assert!(passed && policy.tests.len() >= 4, "{text}");
            }
        }
    }

    #[test]
    fn a_failing_test_says_where_what_was_expected_what_came_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        std::fs::write(
            &file,
            r#"
[[rule]]
name = "voice"
dscp = "ef"
links = ["fibre", "dsl"]

[[test]]
name = "calls stay on fibre"
flow = "udp 10.20.1.5:40000 203.0.113.9:16400"
dscp = "ef"
state = { fibre = "degraded" }
expect = "fibre"
"#,
        )
        .unwrap();
        let policy = Named { files: vec![file.clone()], site: None }.load().unwrap();
        let (text, passed) = report(&policy, "p");
        assert!(!passed);
        assert_eq!(
            text.replace(&format!("{}/", folder.path().display()), ""),
            "p.toml:7 test \"calls stay on fibre\" fails: udp 10.20.1.5:40000 -> 203.0.113.9:16400 dscp ef\n  \
             expected: fibre\n  \
             got:      dsl by rule \"voice\" (p.toml:2)\n  \
             why:      link 2 of the rule, healthy: the healthiest that the rule names, then the first\n\
             p: 1 of 1 test failed\n"
        );
    }
}
