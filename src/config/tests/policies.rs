//! Policy files: names that must be there, rules that go against each other, hours, tests.

use std::path::{Path, PathBuf};

use super::super::{PolicyFiles, load_policy, load_policy_from};
use super::*;
use crate::steer::{Action, Links, OnFailback, PathStrategy};

fn findings(text: &str) -> Vec<String> {
    let files = Memory::default().with("p.toml", text);
    let told = match load_policy_from(&[PathBuf::from("p.toml")], None, &files) {
        Ok(policy) => policy.warnings,
        Err(found) => found,
    };
    told.iter().map(ToString::to_string).collect()
}

fn policy(text: &str) -> PolicyFiles {
    let files = Memory::default().with("p.toml", text);
    load_policy_from(&[PathBuf::from("p.toml")], None, &files).unwrap_or_else(|found| panic!("{found:#?}"))
}

#[test]
fn names_that_nothing_defines_are_told_with_those_that_are_known() {
    let text = r#"
[[rule]]
name = "a"
source = ["servers", "10.0.0.0/8"]
destination = "serverz"
application = "meeting"
sla = "voize"
strategy = "bests"
on_failback = "stay"
[[group]]
name = "servers"
prefixes = ["10.1.0.0/16"]
[[group]]
name = "servers"
prefixes = []
[[group]]
name = "9to5"
prefixes = ["10.0.0.1/8"]
[[application]]
name = "meetings"
[[application.service]]
[[sla]]
name = "mine"
"#;
    assert_eq!(
        findings(text),
        [
            "p.toml:5:15 unknown group \"serverz\" (known: servers)",
            "p.toml:6:15 unknown application \"meeting\" (known: meetings)",
            "p.toml:7:7 unknown SLA class \"voize\" (known: voice, video, interactive, bulk, mine)",
            "p.toml:8:12 unknown strategy \"bests\" (known: balance, prefer, best, cheapest, sticky)",
            "p.toml:9:15 unknown on_failback \"stay\" (known: move, keep)",
            "p.toml:14:8 group \"servers\" is already at p.toml:11 (a name of its own for each)",
            "p.toml:15:12 prefixes is empty (at least one network)",
            "p.toml:17:8 \"9to5\" begins with a digit (a letter first)",
            "p.toml:18:13 \"10.0.0.1/8\" is not a network address: bits are set behind the prefix (\"10.0.0.0/8\")",
            "p.toml:21:1 the service matches every flow (destination, protocol or destination_port)",
            "p.toml:22:1 the SLA class has no limit (loss_percent, rtt_ms or jitter_ms)",
        ]
    );
}

#[test]
fn a_site_file_among_policy_files_is_told_to_be_one_and_its_keys_are_not() {
    let told = [
        "p.toml:1:1 this is a site file, not one of rules (policy files, or --site SITE.toml for those that it names)",
    ];
    assert_eq!(findings("policy = [\"rules.toml\"]\n[site]\nname = \"lyon\"\n[wan.one]\n"), told);
}

#[test]
fn rules_that_contradict_each_other_or_themselves_are_told_with_both_places() {
    let text = r#"
[[rule]]
name = "web-fibre"
protocol = "tcp"
destination_port = [80, 443]
links = "fibre"
[[rule]]
name = "web-dsl"
destination = "203.0.113.0/24"
protocol = "tcp"
destination_port = 443
links = "dsl"
[[rule]]
name = "again"
protocol = "tcp"
destination_port = 80
links = "fibre"
[[rule]]
name = "nobody"
application = "web"
protocol = "udp"
mode = "drop"
[[application]]
name = "web"
service = [{ protocol = "tcp", destination_port = 443 }]
"#;
    assert_eq!(
        findings(text),
        [
            "p.toml:7:1 warning: this rule is never reached: \"web-fibre\" at p.toml:2 takes all its flows \
             (and does something else with them; put the narrower rule first)",
            "p.toml:13:1 warning: this rule is never reached: \"web-fibre\" at p.toml:2 takes all its flows (it can go)",
            "p.toml:18:1 warning: no flow can match this rule: its fields exclude each other \
             (fields that some flow can have together)",
        ]
    );
}

#[test]
fn what_a_rule_does_must_go_together() {
    let text = r#"
[[rule]]
name = "a"
mode = "drop"
sla = "voice"
set_dscp = "ef"
[[rule]]
name = "b"
protocol = "tcp"
mode = "balance"
strategy = "best"
[[rule]]
name = "c"
protocol = "udp"
strategy = "prefer"
[[rule]]
name = "d"
time = "08:00-8:30"
links = "fibre"
"#;
    assert_eq!(
        findings(text),
        [
            "p.toml:5:7 sla in a rule that drops its flows (no sla, or another mode)",
            "p.toml:6:12 set_dscp in a rule that drops its flows (no set_dscp, or another mode)",
            "p.toml:11:12 strategy beside mode = \"balance\", which is one (only one of them)",
            "p.toml:15:12 strategy prefer without links (links = [...], or another strategy)",
            "p.toml:18:8 \"08:00-8:30\" is not a time (such as \"Mon-Fri 08:00-18:00\", \"Sat,Sun\" or \"22:00-06:00\")",
            "p.toml:7:1 warning: this rule is never reached: the one at p.toml:2 matches every flow (the rule that matches every flow comes last)",
            "p.toml:12:1 warning: this rule is never reached: the one at p.toml:2 matches every flow (the rule that matches every flow comes last)",
            "p.toml:16:1 warning: this rule is never reached: the one at p.toml:2 matches every flow (the rule that matches every flow comes last)",
        ]
    );
}

#[test]
fn every_field_of_a_rule_arrives_and_definitions_may_follow_their_use() {
    let policy = policy(
        "[[rule]]\nname = \"a\"\nsource = [\"servers\", \"10.9.0.0/16\"]\nconnector = \"hq\"\ntime = \"Sat\"\n\
         links = [\"dsl\", \"lte\"]\nmode = \"strict\"\nstrategy = \"cheapest\"\nsla = \"mine\"\non_failback = \"keep\"\n\
         set_dscp = \"af41\"\n[[group]]\nname = \"servers\"\nprefixes = [\"10.1.0.0/16\"]\n\
         [[sla]]\nname = \"mine\"\nrtt_ms = 50\n",
    );
    let rule = &policy.rules.rules()[0];
    assert_eq!(rule.place, "p.toml:1");
    assert_eq!((rule.matcher.sources.len(), rule.matcher.connectors.len(), rule.matcher.minutes.len()), (2, 1, 1));
    let Action::Steer(steering) = &rule.action else { panic!("{rule:?}") };
    assert!(matches!(&steering.links, Links::Strict(links) if links.len() == 2));
    assert_eq!((steering.strategy, steering.on_failback), (PathStrategy::Cheapest, OnFailback::Keep));
    assert_eq!(policy.rules.sla_class(steering.sla.unwrap()).unwrap().name, "mine");
    assert_eq!(steering.set_dscp.unwrap().value(), 34);
}

#[test]
fn a_site_has_its_own_time() {
    let files = changed("[site]", "policy = \"p.toml\"\n[site]\nutc_offset = \"+05:30\"");
    let files = files.with("p.toml", "[[rule]]\nname = \"a\"\ntime = \"Thu 05:00-06:00\"\nlinks = \"dsl\"\n");
    let rules = files.load().unwrap_or_else(|found| panic!("{found:#?}")).plan.rules;
    // The Unix epoch began on a Thursday, at 05:30 over there.
    assert_eq!(rules.hours_at(0).to_string(), "Thu 05:00");
    assert_eq!(rules.hours_at(30 * 60_000).to_string(), "Thu 06:00");
    assert_eq!(
        said("[site]", "[site]\nutc_offset = \"CET\""),
        ["site.toml:3:14 \"CET\" is not an offset from UTC (\"-14:00\" to \"+14:00\", such as \"+01:00\")"]
    );
}

#[test]
fn ten_thousand_rules_are_read_and_checked_and_too_many_are_refused() {
    let rule = |number: usize| {
        let (third, last) = (number / 256, number % 256);
        format!(
            "[[rule]]\nname = \"r{number}\"\ndestination = \"10.0.{third}.{last}\"\nprotocol = \"tcp\"\nlinks = \"dsl\"\n"
        )
    };
    let text: String = (0..10_000).map(rule).collect();
    let policy = policy(&text);
    assert_eq!((policy.rules.rules().len(), policy.warnings.len()), (10_000, 0));
    assert!(policy.rules.compiled_size().is_some());
    let text: String = (0..16_385).map(rule).collect();
    assert!(findings(&text)[0].ends_with("one rule too many (at most 16384 in all policy files)"));
}

#[test]
fn a_policy_file_that_is_not_there_is_told() {
    let told = load_policy(&[Path::new("/nowhere.toml").to_path_buf()], None).unwrap_err();
    assert!(told.len() == 1 && told[0].to_string().contains("/nowhere.toml"), "{told:?}");
}

#[test]
fn flows_break_out_by_links_in_order_and_tests_say_so() {
    let text = r#"
[[rule]]
name = "out"
destination = "203.0.113.0/24"
mode = "breakout"
links = ["dsl", "lte"]
set_dscp = "cs1"
[[test]]
name = "by the first"
flow = "tcp 10.20.0.1 203.0.113.9:443"
breakout = "dsl"
[[test]]
name = "by the next"
flow = "tcp 10.20.0.1 203.0.113.9:443"
state = { dsl = "down" }
breakout = "lte"
rule = "out"
[[test]]
name = "by none"
flow = "tcp 10.20.0.1 203.0.113.9:443"
state = { dsl = "down", lte = "down" }
expect = "refused"
[[test]]
name = "ipv6 is not translated"
flow = "tcp 2001:db8::1 [2001:db8::2]:443"
rule = "none"
[[test]]
name = "not by a tunnel"
flow = "tcp 10.20.0.1 203.0.113.9:443"
expect = "dsl"
"#;
    let policy = policy(text);
    let failed = policy.failures();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert_eq!((failed[0].expected.as_str(), failed[0].name.as_str()), ("dsl", "not by a tunnel"));
    assert!(failed[0].got.starts_with("dsl outside of the tunnels, marked cs1 by rule \"out\""), "{}", failed[0].got);
    assert_eq!(
        findings("[[rule]]\nname = \"a\"\nmode = \"breakout\"\n"),
        ["p.toml:1:1 nothing says by which link the flows break out (links = [\"dsl\"])"]
    );
    assert_eq!(
        findings(
            "[[rule]]\nname = \"a\"\nmode = \"breakout\"\nlinks = \"dsl\"\nsla = \"voice\"\nstrategy = \"best\"\nset_dscp = \"ef\"\n"
        ),
        [
            "p.toml:5:7 sla in a rule that lets its flows out of the tunnels (no sla, or another mode)",
            "p.toml:6:12 strategy in a rule that lets its flows out of the tunnels (no strategy, or another mode)",
        ]
    );
}

#[test]
fn names_are_patterns_and_tests_tell_what_was_learned() {
    let text = r#"
[[rule]]
name = "one"
fqdn = "mail.example.com"
links = "lte"
[[rule]]
name = "below"
fqdn = ["*.example.com", "example.org"]
links = "dsl"
[[test]]
name = "itself"
flow = "tcp 10.20.0.1 203.0.113.9:443"
fqdn = "Mail.example.com"
rule = "one"
[[test]]
name = "below"
flow = "tcp 10.20.0.1 203.0.113.9:443"
fqdn = "a.b.example.com"
rule = "below"
[[test]]
name = "not the name that the star stands below"
flow = "tcp 10.20.0.1 203.0.113.9:443"
fqdn = "example.com"
rule = "none"
[[test]]
name = "nothing was learned"
flow = "tcp 10.20.0.1 203.0.113.9:443"
rule = "none"
"#;
    let policy = policy(text);
    assert_eq!(policy.failures(), []);
    assert_eq!(policy.rules.names().all(), ["mail.example.com", "*.example.com", "example.org"]);
    assert_eq!(
        policy.flow_text(&policy.tests[0].flow),
        "tcp 10.20.0.1:0 -> 203.0.113.9:443 (mail.example.com, *.example.com)"
    );
    assert_eq!(
        findings("[[rule]]\nname = \"a\"\nfqdn = [\"*.*.com\", \"a..b\", \"ok.example\"]\nmode = \"drop\"\n"),
        [
            "p.toml:3:9 \"*.*.com\" is not a name (such as \"www.example.com\", or \"*.example.com\" for all below)",
            "p.toml:3:20 \"a..b\" is not a name (such as \"www.example.com\", or \"*.example.com\" for all below)",
        ]
    );
}

#[test]
fn name_servers_whose_answers_count_can_be_named() {
    let with = |text: &str| changed(LAST, &format!("{LAST}\n[names]\nresolvers = {text}"));
    let loaded = with("[\"10.0.0.53\", \"10.1.0.0/24\"]").load().unwrap_or_else(|found| panic!("{found:#?}"));
    let resolvers: Vec<String> = loaded.plan.resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(resolvers, ["10.0.0.53/32", "10.1.0.0/24"]);
    assert!(changed("[site]", "[site]").load().unwrap().plan.resolvers.is_empty(), "whoever is asked");
    let wrong = ["[]", "\"dns.example\""].map(|text| with(text).findings().join("\n"));
    assert_eq!(
        wrong,
        [
            "site.toml:29:13 resolvers is empty (at least one address or network, or no resolvers for any)",
            "site.toml:29:13 \"dns.example\" is not a network (such as \"10.20.0.0/16\")",
        ]
    );
}

#[test]
fn a_link_that_only_the_state_of_a_test_names_is_warned_of() {
    let test = |name: &str, state: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\nflow = \"tcp 10.20.0.1 203.0.113.9:443\"\nstate = {{ {state} }}\nexpect = \"dsl\"\n"
        )
    };
    let rules = "[[rule]]\nname = \"a\"\nlinks = [\"fibre\", \"lte\"]\n";
    let told = findings(&format!("{rules}{}", test("typo", "fibr = \"down\", lte = \"down\"")));
    assert_eq!(
        told,
        ["p.toml:7:11 warning: no rule and no expectation names the link \"fibr\" (known: fibre, lte, dsl)"]
    );
    // What a later expectation names is no typo.
    let two = format!("{rules}{}{}", test("one", "dsl = \"down\""), test("two", "lte = \"down\""));
    assert_eq!(findings(&two), [""; 0]);
}

#[test]
fn two_tests_of_one_name_are_warned_of_unless_they_are_for_two_sites() {
    let test = |more: &str| {
        format!("[[test]]\nname = \"a\"\n{more}flow = \"tcp 10.20.0.1 203.0.113.9:443\"\nrule = \"none\"\n")
    };
    let told = findings(&format!("{}{}", test(""), test("")));
    assert_eq!(told, ["p.toml:5:1 warning: test \"a\" is already at p.toml:1 (a name of its own for each test)"]);
    assert_eq!(findings(&format!("{}{}", test("site = \"lyon\"\n"), test("site = \"porto\"\n"))), [""; 0]);
}

#[test]
fn what_can_never_break_out_is_warned_of() {
    let rule = |matched: &str| format!("[[rule]]\nname = \"out\"\n{matched}\nmode = \"breakout\"\nlinks = \"dsl\"\n");
    let at_site = |policy: &str| changed("\n[site]", "policy = \"p.toml\"\n[site]").with("p.toml", policy).findings();
    let never = |networks: &str| {
        [format!(
            "p.toml:1:1 warning: no flow to {networks} comes to this rule: no network range of the connectors is there \
             (network_ranges that cover what is to break out; what none covers leaves as the host routes it)"
        )]
    };
    let outside = rule("destination = [\"203.0.113.0/24\", \"10.9.0.0/16\"]");
    assert_eq!(at_site(&outside), never("203.0.113.0/24"));
    assert_eq!(findings(&outside), [""; 0], "without a site nobody knows");
    let application = "[[application]]\nname = \"meetings\"\nservice = [{ destination = \"198.51.100.0/24\" }]\n";
    assert_eq!(at_site(&format!("{}{application}", rule("application = \"meetings\""))), never("198.51.100.0/24"));
    // What is wider than a range is reached in part; a connector without ranges carries everything.
    assert_eq!(at_site(&rule("destination = \"0.0.0.0/0\"")), [""; 0]);
    let everything = changed("\n[site]", "policy = \"p.toml\"\n[site]").with("p.toml", &outside);
    assert_eq!(everything.with_change("network_ranges = [\"hq:10.0.0.0/8\"]\n", "").findings(), [""; 0]);
    let ipv6 = "p.toml:1:1 warning: IPv6 never breaks out: all flows of this rule are refused \
                (IPv4 networks; to refuse them, mode = \"drop\")";
    for matched in ["source = \"2001:db8::/32\"", "destination = \"2001:db8::/32\"", "protocol = \"icmpv6\""] {
        assert_eq!(findings(&rule(matched)), [ipv6], "{matched}");
        assert_eq!(at_site(&rule(matched)), [ipv6], "{matched}");
    }
    assert_eq!(findings(&rule("source = [\"2001:db8::/32\", \"10.0.0.0/8\"]")), [""; 0]);
}

#[test]
fn what_a_few_lines_multiply_is_refused_before_it_takes_memory() {
    let networks: Vec<String> =
        (0..8_192).map(|number| format!("\"10.{}.{}.0/24\"", number / 256, number % 256)).collect();
    let group = format!("[[group]]\nname = \"g\"\nprefixes = [{}]\n", networks.join(","));
    let times = |count: usize| vec!["\"g\""; count].join(",");
    let told = |text: &str| findings(&format!("{group}{text}"));
    let field = told(&format!("[[rule]]\nname = \"a\"\nlinks = \"dsl\"\nsource = [{}]\n", times(256)));
    assert!(field.len() == 1 && field[0].contains("too many networks in one field"), "{field:?}");
    let service = format!("[[application.service]]\ndestination = [{}]\n", times(8));
    let sla = "[[sla]]\nname = \"s\"\nrtt_ms = 5\n";
    let application = told(&format!("[[application]]\nname = \"m\"\n{}{sla}", service.repeat(64)));
    assert!(
        application.len() == 1 && application[0].contains("the applications so far have too many"),
        "{application:?}"
    );
    let rule = told(&format!(
        "[[application]]\nname = \"m\"\n{}[[rule]]\nname = \"a\"\nlinks = \"dsl\"\napplication = [{}]\n",
        service.repeat(2),
        vec!["\"m\""; 256].join(",")
    ));
    assert!(rule.len() == 1 && rule[0].contains("the rules so far have too many"), "{rule:?}");
}

#[test]
fn a_segment_or_a_site_too_many_is_refused_and_not_taken_for_any() {
    let rules = |key: &str, count: usize| -> String {
        (0..count)
            .map(|number| format!("[[rule]]\nname = \"r{number}\"\nlinks = \"dsl\"\n{key} = \"n{number}\"\n"))
            .collect()
    };
    let found = findings(&rules("segment", 256));
    assert!(found.iter().any(|one| one.contains("one interface too many")), "{found:?}");
    let names: Vec<String> = (0..16_385).map(|number| format!("\"n{number}\"")).collect();
    let sites: String = (0u32..)
        .zip(names.chunks(256))
        .map(|(number, names)| {
            format!("[[rule]]\nname = \"r{number}\"\nlinks = \"dsl\"\nsite = [{}]\n", names.join(","))
        })
        .collect();
    let found = findings(&sites);
    assert!(found.len() == 1 && found[0].contains("one site too many"), "{found:?}");
}

#[test]
fn a_test_that_expects_a_rule_which_is_not_there_is_told_with_its_name_and_those_that_are() {
    let text = |rule: &str| {
        format!(
            "[[rule]]\nname = \"voice\"\ndscp = \"ef\"\nlinks = \"dsl\"\n\
             [[rule]]\nname = \"web\"\nsite = \"lyon\"\nlinks = \"dsl\"\n\
             [[test]]\nname = \"calls\"\nflow = \"udp 10.20.0.1:1 203.0.113.9:2\"\nrule = \"{rule}\"\n"
        )
    };
    assert_eq!(
        findings(&text("vioce")),
        [
            "p.toml:12:8 warning: test \"calls\" expects the rule \"vioce\", and there is none of that name (known: voice, web)"
        ]
    );
    for known in ["voice", "web", "none"] {
        assert_eq!(findings(&text(known)), Vec::<String>::new());
    }
}
