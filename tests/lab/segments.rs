//! Rules by where a flow comes from.

use std::net::Ipv4Addr;
use std::time::Duration;

use trefoil::edge::Explanation;

use super::bench::Bench;
use super::daemon::tunnel;
use super::namespace::{Namespace, join};
use super::process::wait_for;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{SERVER, Topology};
use super::traffic::ping;

const POLICY: &str = r#"[[rule]]
name = "tills"
site = ["madrid", "lisbon"]
segment = "tills"
links = ["radio"]
mode = "strict"

[[rule]]
name = "guests"
segment = "guests"
links = ["lte"]
mode = "strict"

[[rule]]
name = "lan"
interface = "lan"
links = ["dsl"]
mode = "strict"
"#;

const SEGMENTS: &str = r#"
[segments]
guests = ["guest", "guest-wifi"]
"#;

/// Sooner than the 30 s after which the daemon looks for itself at what it has not been told.
const FOLLOWED: Duration = Duration::from_secs(20);

/// Within the LAN's own range: the longer prefix tells them apart.
const GUEST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 130);

#[test]
fn guests_leave_by_their_link_and_a_cable_that_is_moved_is_followed() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let guest = Namespace::new("guest");
    join(&guest, "lan", "198.18.1.130/25", &lab.edge, "guest", "198.18.1.129/25");
    guest.ip("route add default via 198.18.1.129\n");
    let site = Site { policy: POLICY, tables: SEGMENTS, ..Site::new() };
    let bench = Bench::start_in(lab, site, |_| {}, &[]);
    bench.wait_for_all();
    let (lab, trefoil) = (&bench.lab, &bench.trefoil);
    let sent = || {
        let status = trefoil.status().expect("status");
        ["fibre", "dsl", "lte"].map(|link| tunnel(&status, "primary", link).packets_out)
    };
    let during = |act: &dyn Fn()| {
        let before = sent();
        act();
        let after = sent();
        [0, 1, 2].map(|link| after[link] - before[link])
    };
    let by_guest = during(&|| assert_eq!(ping(&guest, SERVER, 20), 20));
    let by_lan = during(&|| assert_eq!(ping(&lab.lan, SERVER, 20), 20));
    say(&format!("20 pings of a guest: {by_guest:?} packets by fibre, dsl and lte; of the LAN: {by_lan:?}"));
    assert!(by_guest[2] >= 20 && by_guest[..2] == [0, 0], "{by_guest:?}");
    assert!(by_lan[1] >= 20 && (by_lan[0], by_lan[2]) == (0, 0), "{by_lan:?}");

    let explain = || -> Explanation {
        let arguments = ["explain", "icmp", &GUEST.to_string(), &SERVER.to_string(), "--json"];
        serde_json::from_str(&trefoil.verb(&arguments)).expect("JSON")
    };
    let told = explain();
    assert_eq!(told.interface.as_deref(), Some("guest (segment guests)"));
    assert_eq!(told.rule.map(|rule| rule.rule).as_deref(), Some("guests"));
    let passed: Vec<(&str, &str)> =
        told.passed_over.iter().map(|one| (one.rule.as_str(), one.because.as_str())).collect();
    assert_eq!(passed, [("tills", "it is for other sites: madrid, lisbon")]);
    let (table, all) = (trefoil.verb(&["rules"]), trefoil.verb(&["rules", "--all"]));
    say(&format!("trefoil rules --all\n{all}"));
    assert!(!table.contains("tills") && table.contains("1 rule is for other sites (--all shows it)"), "{table}");
    assert!(all.contains("it is for other sites: madrid, lisbon") && all.contains("guests"), "{all}");
    assert!(trefoil.log().contains("interface that does not exist"), "{}", trefoil.log());

    // Without the interface of the longer prefix, its addresses are those of the LAN.
    lab.edge.ip("link set guest down\n");
    let told = wait_for("the routes are followed", FOLLOWED, || {
        let told = explain();
        (told.interface.as_deref() == Some("lan")).then_some(told)
    });
    assert_eq!(told.tunnel.as_deref(), Some("pops/primary/dsl"));
}
