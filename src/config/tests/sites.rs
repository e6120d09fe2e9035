//! Policies that several sites share.

use std::path::PathBuf;

use super::super::{FlowWords, PolicyFiles, flow_line, load_policy_from};
use super::*;
use crate::steer::{Listed, NewFlow};

const SHARED: &str = r#"
[[rule]]
name = "iberia-updates"
site = ["madrid", "lisbon"]
fqdn = "*.updates.example"
interface = "lan9"
time = "22:00-06:00"
mode = "breakout"
links = ["adsl"]

[[rule]]
name = "voice"
dscp = "ef"
links = ["fibre", "dsl"]

[[rule]]
name = "web"
site = "lyon"
protocol = "tcp"
destination_port = 443
links = "dsl"

[[rule]]
name = "hq"
site = "madrid"
connector = "hq"
segment = "tills"
links = ["radio"]
strategy = "best"
sla = "voice"

[[test]]
name = "web of lyon"
site = "lyon"
flow = "tcp 10.20.0.1 10.0.0.1:443"
expect = "dsl"

[[test]]
name = "web of another"
site = "porto"
flow = "tcp 10.20.0.1 10.0.0.1:443"
rule = "none"
"#;

fn alone(text: &str) -> Result<PolicyFiles, Vec<String>> {
    let files = Memory::default().with("p.toml", text);
    let read = load_policy_from(&[PathBuf::from("p.toml")], None, &files);
    read.map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn with_policy(text: &str) -> Memory {
    changed("[site]", "policy = \"p.toml\"\n[site]").with("p.toml", text)
}

fn decided(policy: &PolicyFiles, line: &str) -> Option<String> {
    let flow: NewFlow = flow_line(line, &policy.flow_words()).unwrap_or_else(|wrong| panic!("{wrong:?}")).flow;
    policy.rules.first_match(&flow).map(|(_, rule)| rule.name.clone())
}

#[test]
fn a_site_has_the_rules_that_are_for_it_and_those_for_others_cost_it_nothing() {
    let loaded = with_policy(SHARED).load().unwrap_or_else(|found| panic!("{found:#?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let plan = loaded.plan;
    let names: Vec<&str> = plan.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["voice", "web"]);
    assert!(plan.rules.rules().iter().all(|rule| rule.matcher.sites.is_empty()), "no flow is asked for its site");
    let asks = (plan.rules.asks_for_quality(), plan.rules.names().is_empty(), plan.lan.interfaces.len());
    assert_eq!((asks, plan.breakouts().len()), ((false, true, 0), 0));
    assert_eq!(plan.rules.hours_at(23 * 3_600_000), plan.rules.hours_at(0));

    let listed = |before| -> Vec<String> {
        let told = |one| match one {
            Listed::Ours(id, rule) => format!("{} {}", id.0, rule.name),
            Listed::Elsewhere(rule) => format!("{}, {}", rule.name, rule.in_words()),
        };
        plan.rules.listed(before).map(told).collect()
    };
    let first = "iberia-updates, it is for other sites: madrid, lisbon";
    assert_eq!(listed(0), [first]);
    assert_eq!(listed(1), [first, "0 voice"]);
    assert_eq!(listed(2), [first, "0 voice", "1 web", "hq, it is for other sites: madrid"]);
}

#[test]
fn a_policy_by_itself_is_that_of_all_its_sites_at_once() {
    let policy = alone(SHARED).unwrap_or_else(|found| panic!("{found:#?}"));
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
    assert_eq!((policy.failures(), policy.sites.join(" ")), (vec![], "madrid lisbon lyon porto".to_owned()));
    let flow = "tcp 10.20.0.1 10.0.0.1:443";
    assert_eq!(decided(&policy, &format!("{flow} site=lyon")).as_deref(), Some("web"));
    assert_eq!((decided(&policy, &format!("{flow} site=madrid")), decided(&policy, flow)), (None, None));
    assert_eq!(
        policy.flow_text(&flow_line(&format!("{flow} site=lyon"), &policy.flow_words()).unwrap().flow),
        "tcp 10.20.0.1:0 -> 10.0.0.1:443 at site lyon"
    );
    let wrong = flow_line(&format!("{flow} site=lion"), &policy.flow_words()).unwrap_err();
    assert_eq!(wrong.what, "no rule or test names the site \"lion\"");
    let of_lyon = FlowWords { site: Some("lyon".to_owned()), ..FlowWords::default() };
    assert!(flow_line(&format!("{flow} site=lyon"), &of_lyon).is_ok());
    assert_eq!(
        flow_line(&format!("{flow} site=porto"), &of_lyon).unwrap_err().instead,
        "all flows are of one site, lyon"
    );
}

#[test]
fn tests_for_other_sites_are_left_out_where_one_site_is_meant() {
    let plan = with_policy(SHARED).load().unwrap().plan;
    let files = Memory::default().with("p.toml", SHARED);
    let policy = load_policy_from(&[PathBuf::from("p.toml")], Some(&plan), &files).unwrap();
    assert_eq!((policy.tests.len(), policy.tests_elsewhere, policy.failures()), (1, 1, vec![]));
}

#[test]
fn rules_for_different_sites_take_no_flows_from_each_other() {
    let text = r#"
[[rule]]
name = "a"
site = "lyon"
links = "fibre"
[[rule]]
name = "b"
site = "madrid"
links = "dsl"
[[rule]]
name = "c"
site = ["lyon", "madrid"]
protocol = "udp"
links = ["dsl", "fibre"]
[[rule]]
name = "d"
protocol = "udp"
links = ["dsl", "fibre"]
"#;
    let policy = alone(text).unwrap_or_else(|found| panic!("{found:#?}"));
    let told: Vec<String> = policy.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "p.toml:10:1 warning: this rule is never reached: \"a\" at p.toml:2, \"b\" at p.toml:6 together take all its flows \
         (and does something else with them; put the narrower rule first)"
        ]
    );
    // What another site's rule takes is its own.
    let told = with_policy(&text.replace("lyon", "porto")).findings();
    assert_eq!(told, [""; 0]);
}

#[test]
fn where_the_sites_are_listed_a_wrong_name_is_an_error() {
    let text = "sites = [\"madrid\", \"lisbon\"]\n[[rule]]\nname = \"a\"\nsite = [\"mardid\", \"lisbon\"]\nlinks = \"dsl\"\n\
                [[test]]\nname = \"t\"\nsite = \"porto\"\nflow = \"tcp 10.0.0.1 10.0.0.2:1\"\nrule = \"a\"\n";
    let wrong = [
        "p.toml:4:9 unknown site \"mardid\" (known: lisbon, madrid)",
        "p.toml:8:8 unknown site \"porto\" (known: lisbon, madrid)",
    ];
    assert_eq!(alone(text).unwrap_err(), wrong);
    let told = with_policy(&text.replace("mardid", "madrid").replace("porto", "madrid")).findings();
    assert_eq!(
        told,
        ["p.toml:1:20 warning: this site, \"lyon\", is not among the sites that the policy lists \
         (its name, as in [site], so that rules can be for it)"]
    );
    let told = alone(
        "[[rule]]\nname = \"a\"\nsite = []\nmode = \"drop\"\n[[test]]\nname = \"t\"\nsite = [\"a\", \"b\"]\nflow = \"tcp 10.0.0.1 10.0.0.2:1\"\nrule = \"a\"\n",
    );
    assert_eq!(
        told.unwrap_err(),
        [
            "p.toml:3:8 site is empty (at least one value, or no site for any)",
            "p.toml:7:14 a test for several sites (one site for each test)",
        ]
    );
}

#[test]
fn what_is_wrong_in_a_rule_for_another_site_is_wrong_here_too() {
    let text = "[[rule]]\nname = \"a\"\nsite = \"madrid\"\nprotocol = \"tpc\"\nsla = \"voize\"\nlinks = []\n\
                [[rule]]\nname = \"a\"\nmode = \"drop\"\n";
    let told = with_policy(text).findings();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[3].contains("rule \"a\" is already at p.toml:2 "), "{told:#?}");
}
