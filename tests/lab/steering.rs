//! Rules that override links, and what the daemon says of flows.

use std::time::Duration;

use trefoil::edge::{Explanation, FlowList};

use super::bench::Bench;
use super::daemon::tunnel;
use super::process::wait_for;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{LAN_HOST, SERVER};
use super::traffic::{IperfServer, Load};

const POLICY: &str = r#"[[rule]]
name = "voice"
dscp = "ef"
links = ["dsl", "fibre"]
sla = "voice"

[[rule]]
name = "backup"
protocol = "udp"
destination_port = 5202
links = ["lte"]
mode = "strict"
"#;

#[test]
fn a_rule_overrides_the_links_and_every_flow_explains_itself() {
    if !lab_is_possible() {
        return;
    }
    let bench = Bench::ready(Site { policy: POLICY, ..Site::new() });
    let (lab, trefoil) = (&bench.lab, &bench.trefoil);
    let server = IperfServer::start_on(5_202, &lab.server, SERVER, bench.directory());
    let sent = || {
        let status = trefoil.status().expect("status");
        ["fibre", "dsl", "lte"].map(|link| tunnel(&status, "primary", link).bytes_out)
    };
    let before = sent();
    let rate = server.measure(&lab.lan, Load::Udp(4_000, 1_000), false, 3).expect("UDP crosses");
    let after = sent();
    let [fibre, dsl, lte] = [0, 1, 2].map(|link| after[link] - before[link]);
    say(&format!("4 Mbit/s of the rule's UDP for 3 s: {lte} bytes by lte, {dsl} by dsl, {fibre} by fibre"));
    assert!(rate.mbps > 3.0, "{rate:?}");
    // TCP of iperf3's control connection goes where it likes.
    assert!(lte > 1_300_000 && fibre + dsl < 100_000, "{fibre} {dsl} {lte}");

    let list = wait_for("the flow is listed", Duration::from_secs(5), || {
        let list: FlowList = serde_json::from_str(&trefoil.verb(&["flows", "--json"])).expect("JSON");
        list.flows.iter().any(|flow| flow.rule.as_deref() == Some("backup")).then_some(list)
    });
    let flow = list.flows.iter().find(|flow| flow.rule.as_deref() == Some("backup")).expect("listed");
    assert_eq!((flow.link.as_deref(), flow.moves), (Some("lte"), 0), "{flow:?}");
    say(&format!("trefoil flows\n{}", trefoil.verb(&["flows"])));

    let arguments = ["explain", &flow.protocol, &flow.source, &flow.destination];
    say(&format!("trefoil {}\n{}", arguments.join(" "), trefoil.verb(&arguments)));
    let json = trefoil.verb(&[&arguments[..], &["--json"]].concat());
    let told: Explanation = serde_json::from_str(&json).expect("JSON");
    assert_eq!(told.rule.map(|rule| rule.rule).as_deref(), Some("backup"));
    assert_eq!(told.passed_over.len(), 1);
    assert_eq!(told.tunnel, told.live.and_then(|live| live.tunnel));

    let (source, destination) = (format!("{LAN_HOST}:16384"), format!("{SERVER}:16384"));
    let call = ["explain", "udp", &source, &destination, "--dscp", "ef"];
    say(&format!("trefoil {}\n{}", call.join(" "), trefoil.verb(&call)));
    let told: Explanation = serde_json::from_str(&trefoil.verb(&[&call[..], &["--json"]].concat())).expect("JSON");
    assert_eq!((told.tunnel.as_deref(), told.live), (Some("pops/primary/dsl"), None));
}
