//! Where flows come from: segments and interfaces.

use std::path::PathBuf;

use super::super::{PolicyFiles, load_policy_from};
use super::*;
use crate::model::InterfaceId;

const SEGMENTS: &str = "wan = \"dsl\"\n[segments]\nguests = [\"lan1\", \"vlan20\"]\nall = [\"vlan20\", \"lan0\"]\n";

fn with_policy(policy: &str) -> Memory {
    changed(LAST, SEGMENTS).with_change("[site]", "policy = \"policy/*.toml\"\n[site]").with("policy/p.toml", policy)
}

#[test]
fn segments_are_sets_of_interfaces_and_rules_name_either() {
    let plan = with_policy(
        "[[rule]]\nname = \"a\"\nsegment = \"guests\"\nmode = \"drop\"\n\
         [[rule]]\nname = \"b\"\ninterface = [\"lan9\", \"lan0\"]\nmode = \"drop\"\n\
         [[rule]]\nname = \"c\"\nsegment = [\"guests\", \"all\"]\ninterface = \"vlan20\"\nmode = \"drop\"\n\
         [[rule]]\nname = \"d\"\nmode = \"drop\"\n",
    );
    let plan = plan.load().unwrap_or_else(|found| panic!("{found:#?}")).plan;
    assert_eq!(plan.lan.interfaces, ["lan1", "vlan20", "lan0", "lan9"]);
    let asked: Vec<Vec<u8>> =
        plan.rules.rules().iter().map(|rule| rule.matcher.interfaces.iter().map(|id| id.0).collect()).collect();
    assert_eq!(asked, [vec![1, 2], vec![4, 3], vec![2], vec![]]);
    let words = |id| plan.lan.in_words(InterfaceId(id));
    assert_eq!(words(2).as_deref(), Some("vlan20 (segments guests, all)"));
    assert_eq!((words(4).as_deref(), words(0), words(9)), (Some("lan9"), None, None));
}

#[test]
fn names_that_no_segment_has_and_sets_with_nothing_in_common_are_errors() {
    let found = with_policy(
        "[[rule]]\nname = \"a\"\nsegment = \"guest\"\nmode = \"drop\"\n\
         [[rule]]\nname = \"b\"\nsegment = \"guests\"\ninterface = \"lan0\"\nmode = \"drop\"\n\
         [[rule]]\nname = \"c\"\nsegment = []\ninterface = \"a/b\"\nmode = \"drop\"\n\
         [[test]]\nname = \"t\"\nflow = \"tcp 10.20.0.1 10.0.0.1:80\"\nsegment = \"all\"\ninterface = \"lan0\"\nrule = \"a\"\n",
    );
    assert_eq!(
        found.findings(),
        [
            "policy/p.toml:3:11 unknown segment \"guest\" (known: guests, all)",
            "policy/p.toml:7:11 the rule's interface and segment have nothing in common (one of them alone)",
            "policy/p.toml:12:11 segment is empty (at least one value, or no segment for any)",
            "policy/p.toml:13:13 \"a/b\" is not an interface name (1 to 15 characters, such as eth1)",
            "policy/p.toml:18:11 segment beside interface (only one of them)",
        ]
    );
    let table = |text: &str| said(LAST, &format!("{LAST}\n[segments]\n{text}"));
    assert_eq!(table("guests = []"), ["site.toml:29:10 segment \"guests\" is empty (at least one interface)"]);
    assert_eq!(
        table("guests = [\"lan1\", \"lan1\", \"lan/2\"]"),
        [
            "site.toml:29:19 \"lan1\" is listed twice",
            "site.toml:29:27 \"lan/2\" is not an interface name (1 to 15 characters, such as eth1)",
        ]
    );
    let many: Vec<String> = (0..256).map(|number| format!("\"lan{number}\"")).collect();
    assert_eq!(
        table(&format!("a = [{}]\nb = [\"more\"]", many[..255].join(","))),
        ["site.toml:30:6 one interface too many (at most 255 different ones in segments and rules)"]
    );
}

#[test]
fn a_policy_by_itself_may_name_any_segment_and_its_tests_tell_where_flows_come_from() {
    let policy = r#"
[[rule]]
name = "guests"
segment = "guests"
links = "lte"
[[rule]]
name = "lan2"
interface = "lan2"
links = "dsl"
[[test]]
name = "a guest"
flow = "tcp 10.20.0.1 10.0.0.1:80"
segment = "guests"
rule = "guests"
[[test]]
name = "another"
flow = "tcp 10.20.0.1 10.0.0.1:80"
interface = "lan2"
rule = "lan2"
[[test]]
name = "from elsewhere"
flow = "tcp 10.20.0.1 10.0.0.1:80"
rule = "guests"
"#;
    let files = Memory::default().with("p.toml", policy);
    let policy: PolicyFiles = load_policy_from(&[PathBuf::from("p.toml")], None, &files).unwrap();
    let failed = policy.failures();
    assert_eq!(failed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["from elsewhere"]);
    assert_eq!(policy.flow_text(&policy.tests[1].flow), "tcp 10.20.0.1:0 -> 10.0.0.1:80 from lan2");
}
