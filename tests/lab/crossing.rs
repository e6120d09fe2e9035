//! Six tunnels, and ordinary traffic over them.

use std::time::{Duration, Instant};

use super::bench::Bench;
use super::capture::{Capture, dissect};
use super::daemon::{active_role, tunnels};
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::strongswan::Connection;
use super::topology::{LAN_HOST, SERVER};
use super::traffic::{IperfServer, Load, ping};

#[test]
fn six_tunnels_are_up_within_five_seconds_and_traffic_crosses_in_both_directions() {
    if !lab_is_possible() {
        return;
    }
    let start = Instant::now();
    let bench = Bench::start(Site::new());
    let status = bench.trefoil.wait_for_tunnels(bench.site.tunnels(), Duration::from_secs(20));
    let took = Duration::from_millis(status.at_ms - status.started_ms);
    say(&format!("six tunnels up {:.1} s after `trefoil run`", took.as_secs_f64()));
    assert!(took <= Duration::from_secs(5), "{took:?} (the lab itself was built in {:?})", start.elapsed());
    assert_eq!(active_role(&status), "primary");

    let lab = &bench.lab;
    let (out, back) = (ping(&lab.lan, SERVER, 50), ping(&lab.server, LAN_HOST, 50));
    say(&format!("ping answered: LAN to server {out} of 50, server to LAN {back} of 50"));
    assert_eq!((out, back), (50, 50));
    let far = IperfServer::start(&lab.server, SERVER, bench.directory());
    let near = IperfServer::start(&lab.lan, LAN_HOST, bench.directory());
    for (name, from, to) in [("LAN to server", &lab.lan, &far), ("server to LAN", &lab.server, &near)] {
        let tcp = to.measure(from, Load::Tcp, false, 3).expect("TCP crosses");
        let udp = to.measure(from, Load::Udp(20_000, 1200), false, 3).expect("UDP crosses");
        say(&format!(
            "iperf3 {name}: TCP {:.0} Mbit/s, UDP {:.1} of 20 Mbit/s, lost {:.2} %",
            tcp.mbps, udp.mbps, udp.lost_percent
        ));
        assert!(tcp.mbps > 5.0 && udp.mbps > 18.0, "{name}: {tcp:?} {udp:?}");
    }
    say(&format!("status of the lab with six tunnels up:\n{}", bench.trefoil.table()));
}

#[test]
fn tshark_opens_our_ike_and_esp_with_the_debug_key_log_and_has_no_complaint() {
    if !lab_is_possible() {
        return;
    }
    let lab_keys = tempfile::tempdir().expect("a folder for keys");
    let keys = lab_keys.path().join("keys");
    let flags = ["--debug-key-log", &keys.display().to_string(), "--expose-traffic-keys"].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let lab = super::topology::Topology::new();
    let captures =
        ["pop1", "pop2"].map(|pop| Capture::start(&lab.internet, pop, lab.directory().join(format!("{pop}.pcapng"))));
    // Lifetimes of a few seconds: rekeyed SAs must be as readable as the first.
    let site = Site { ike_lifetime: Duration::from_secs(8), child_lifetime: Duration::from_secs(5), ..Site::new() };
    let bench = Bench::start_in(lab, site, |_: &mut Connection| {}, &flags);
    bench.wait_for_all();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(12) {
        ping(&bench.lab.lan, SERVER, 20);
        ping(&bench.lab.server, LAN_HOST, 20);
    }
    let rekeys: u64 = tunnels(&bench.trefoil.status().expect("status")).map(|tunnel| tunnel.rekeys).sum();
    for (pop, capture) in ["pop1", "pop2"].into_iter().zip(captures) {
        let seen = dissect(&capture.finish(), &keys);
        say(&format!(
            "tshark on the wire of {pop}: {} IKE messages and {} ESP packets opened, {} complaints ({rekeys} rekeys in all)",
            seen.ike_decrypted,
            seen.esp_decrypted,
            seen.complaints.len()
        ));
        assert!(seen.complaints.is_empty(), "{:#?}", &seen.complaints[..seen.complaints.len().min(20)]);
        assert!(seen.ike_decrypted >= 6 && seen.esp_decrypted >= 10, "{seen:?}");
    }
    assert!(rekeys > 0, "nothing was rekeyed");
}

#[test]
fn keys_are_not_logged_without_the_explicit_flag() {
    if !lab_is_possible() {
        return;
    }
    let lab = super::topology::Topology::new();
    let keys = lab.directory().join("keys");
    let mut bench =
        Bench::start_in(lab, Site::new(), |_: &mut Connection| {}, &["--debug-key-log", &keys.display().to_string()]);
    wait_for("the daemon refuses", PATIENCE, || (!bench.trefoil.is_running()).then_some(()));
    assert!(!keys.exists(), "keys were written");
    assert!(bench.trefoil.log().contains("expose-traffic-keys"), "{}", bench.trefoil.log());
}
