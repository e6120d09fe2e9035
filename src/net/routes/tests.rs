use super::*;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// In a network namespace of its own, which ends with the thread.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make a network namespace");
        return;
    }
    let outcome = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn plan(on_stop: OnStop) -> RoutePlan {
    RoutePlan { device: "tf0".to_owned(), table: 7_117, rule_priority: 7_100, on_stop }
}

fn index_of(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn install_and_remove(on_stop: OnStop, ranges: &[&str], look: impl FnOnce()) {
    ip("link add tf0 type veth peer name tf1");
    let ranges = networks(ranges);
    run(async {
        let routes = Routes::open(&plan(on_stop)).unwrap();
        let needs = RouteNeeds {
            device_index: index_of("tf0"),
            mtu: 1_400,
            ranges: &ranges,
            narrow: &[],
            native: &networks(&["10.20.0.0/16"]),
            underlay_addresses: &[Ipv4Addr::new(192, 0, 2, 7)],
        };
        routes.install(&needs).await.unwrap();
        // Taking over what is there already changes nothing.
        routes.install(&needs).await.unwrap();
        look();
        ip("link del tf0");
        routes.remove().await.unwrap();
    });
}

#[test]
fn ranges_lead_into_the_device_and_own_traffic_stays_out() {
    in_namespace(|| {
        install_and_remove(OnStop::Block, &["10.90.0.0/16", "10.0.0.0/8", "10.20.90.0/24"], || {
            let rules = ip("rule show");
            for expected in [
                "7100:\tfrom all fwmark 0x1bcd lookup main",
                "7101:\tfrom 192.0.2.7 lookup main",
                "7103:\tfrom all lookup 7117 suppress_prefixlength 0",
                "7104:\tfrom all lookup main suppress_prefixlength 0",
                "7105:\tfrom all lookup 7117",
            ] {
                assert_eq!(rules.matches(expected).count(), 1, "{expected} in\n{rules}");
            }
            assert!(ip("route get 10.90.1.1").contains("dev tf0"), "a range leads into the device");
            ip("address add 10.20.0.1/16 dev tf1");
            ip("link set tf1 up");
            assert!(
                ip("route get 10.20.7.7").contains("dev tf1"),
                "a native range within a network range is the LAN's"
            );
            assert!(ip("route get 10.20.90.1").contains("dev tf0"), "and a network range within that is not");
            assert!(ip("link show tf0").contains("mtu 1400"));
        });
        let left = ip("route show table 7117");
        assert!(left.contains("blackhole 10.90.0.0/16"), "nothing may leak when the daemon stops: {left}");
        let unreachable = Command::new("ip").args(["route", "get", "10.90.1.1"]).output().unwrap();
        assert!(!unreachable.status.success());
    });
}

#[test]
fn release_removes_everything_that_was_made() {
    in_namespace(|| {
        let before = (ip("rule show"), ip("route show table all"));
        install_and_remove(OnStop::Release, &[], || {
            assert!(ip("route get 203.0.113.5").contains("dev tf0"), "no ranges means everything");
        });
        assert_eq!((ip("rule show"), ip("route show table all")), before);
    });
}

/// A WAN link with a default route, so that what no rule of ours catches leaves in clear.
fn add_wan() {
    ip("link set lo up");
    ip("link add wan0 type veth peer name wan1");
    ip("link set wan0 up");
    ip("link set wan1 up");
    ip("address add 192.0.2.7/24 dev wan0");
    ip("route add default via 192.0.2.1");
}

/// Where the kernel would send a packet from: only over the WAN link has it this address.
fn leaks(destination: Ipv4Addr) -> bool {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((destination, 9)).is_ok()
        && socket.local_addr().unwrap().ip() == IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))
}

#[test]
fn a_restart_leaks_nothing_and_leaves_nothing_stale() {
    in_namespace(|| {
        add_wan();
        let covered = Ipv4Addr::new(10, 90, 1, 1);
        assert!(leaks(covered), "before the first start");
        let stop = Arc::new(AtomicBool::new(false));
        let mut watcher = None;
        for round in 0..30 {
            // As in a restart: another device, and every second time another configuration.
            ip("link add tf0 type veth peer name tf1");
            ip("address add 10.99.0.1/32 dev tf0");
            let odd = round % 2 == 1;
            let needs = RouteNeeds {
                device_index: index_of("tf0"),
                mtu: 1_400,
                ranges: &networks(if odd { &["10.90.0.0/16", "fd90::/64"] } else { &["10.90.0.0/16", "10.91.0.0/16"] }),
                narrow: &[],
                native: &networks(if odd { &["10.20.0.0/16"] } else { &["10.21.0.0/16"] }),
                underlay_addresses: &[Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(192, 0, 2, if odd { 8 } else { 7 })],
            };
            run(async {
                let routes = Routes::open(&plan(OnStop::Block)).unwrap();
                routes.install(&needs).await.unwrap();
                routes.remove().await.unwrap();
            });
            if watcher.is_none() {
                let stop = stop.clone();
                watcher = Some(std::thread::spawn(move || {
                    let mut seen = 0;
                    while !stop.load(Ordering::Relaxed) {
                        seen += u32::from(leaks(covered));
                    }
                    seen
                }));
            }
            let (rules, routes) = (ip("rule show"), ip("route show table 7117"));
            assert_eq!(rules.matches("\n710").count(), if odd { 6 } else { 5 }, "{rules}");
            for (native, stands) in [("throw 10.20.0.0/16", odd), ("throw 10.21.0.0/16", !odd)] {
                assert_eq!(routes.contains(native), stands, "{native}: {routes}");
            }
            assert_eq!(rules.matches("from 192.0.2.8").count(), usize::from(odd), "{rules}");
            assert_eq!(routes.matches("10.91.0.0/16").count(), if odd { 0 } else { 2 }, "{routes}");
            assert_eq!(ip("-6 route show table 7117").matches("fd90::/64").count(), if odd { 2 } else { 0 });
            ip("link del tf0");
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(watcher.map(|watcher| watcher.join().unwrap()), Some(0), "packets that would have left in clear");
    });
}

#[test]
fn rules_and_routes_of_others_are_left_alone_and_reported() {
    in_namespace(|| {
        ip("link set lo up");
        for foreign in [
            "rule add priority 7101 from 203.0.113.9 lookup main protocol 118",
            // The kernel would take this one for ours, asked to delete ours.
            "rule add priority 7105 iif lo lookup 7117",
            "-6 rule add priority 7104 from fd00::/8 lookup main",
            "route add blackhole 10.77.0.0/16 table 7117",
        ] {
            ip(foreign);
        }
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || install_and_remove(OnStop::Release, &["10.90.0.0/16"], || {}));
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches("a rule of somebody else").count(), 2 * 3, "three by each of two starts: {log}");
        assert!(log.contains("203.0.113.9/32"), "{log}");
        assert!(log.contains("a route of somebody else") && log.contains("10.77.0.0/16"), "{log}");
        let rules = ip("rule show");
        assert!(rules.contains("7101:\tfrom 203.0.113.9 lookup main proto 118"), "{rules}");
        assert!(rules.contains("7105:\tfrom all iif lo lookup 7117"), "{rules}");
        assert!(ip("-6 rule show").contains("7104:\tfrom fd00::/8 lookup main"));
        assert!(ip("route show table 7117").contains("blackhole 10.77.0.0/16"));
        assert!(!rules.contains("7103:"), "{rules}");
    });
}

fn install(device: &str, mtu: u16) -> io::Result<()> {
    let needs = RouteNeeds {
        device_index: index_of(device),
        mtu,
        ranges: &networks(&["10.90.0.0/16", "fd90::/64"]),
        narrow: &[],
        native: &[],
        underlay_addresses: &[],
    };
    let mut outcome = Ok(());
    run(async { outcome = Routes::open(&plan(OnStop::Block)).unwrap().install(&needs).await });
    outcome
}

#[test]
fn a_route_of_somebody_else_in_the_place_of_ours_is_not_replaced() {
    in_namespace(|| {
        ip("link set lo up");
        ip("link add tf0 type veth peer name tf1");
        ip("link set tf0 up");
        for (family, place) in [("-4", "10.90.0.0/16"), ("-6", "fd90::/64")] {
            for theirs in [format!("{place} dev lo"), format!("blackhole {place} metric 4294967295")] {
                ip(&format!("{family} route add {theirs} table 7117"));
                let refused = install("tf0", 1_400).unwrap_err().to_string();
                assert!(refused.contains("somebody else") && refused.contains(place), "{refused}");
                let left = ip(&format!("{family} route show table 7117 proto boot"));
                assert!(left.contains(theirs.split(" metric").next().unwrap()), "{left}");
                ip(&format!("{family} route del {theirs} table 7117"));
            }
        }
        install("tf0", 1_400).unwrap();
    });
}

#[test]
fn a_start_that_cannot_close_ipv6_fails() {
    in_namespace(|| {
        ip("link add tf0 type veth peer name tf1");
        // The plan's device has IPv6, so routes into it are tried; this one refuses them.
        std::fs::write("/proc/sys/net/ipv6/conf/tf1/disable_ipv6", "1").unwrap();
        assert_eq!(install("tf1", 1_400).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(ip("route get 10.90.1.1").contains("dev tf1"), "IPv4 was first");
        install("tf0", 1_400).unwrap();
    });
}

#[test]
fn a_device_without_ipv6_has_its_ranges_closed() {
    in_namespace(|| {
        ip("link set lo up");
        ip("link add tf0 type veth peer name tf1");
        // Once by the device's MTU, once by the host's will.
        for (mtu, switch) in [(1_000, "0"), (1_400, "1")] {
            ip(&format!("link set tf0 mtu {mtu}"));
            let file = "/proc/sys/net/ipv6/conf/tf0/disable_ipv6";
            assert!(std::fs::write(file, switch).is_ok() || mtu < 1_280);
            install("tf0", mtu).unwrap();
            let routes = ip("-6 route show table 7117");
            assert!(routes.contains("blackhole fd90::/64") && !routes.contains("tf0"), "{routes}");
            assert!(ip("-6 rule show").contains("7105:\tfrom all lookup 7117"));
            assert!(ip("route get 10.90.1.1").contains("dev tf0"));
        }
    });
}

#[test]
fn the_rules_follow_the_addresses_of_the_wan_links() {
    in_namespace(|| {
        ip("link set lo up");
        ip("link add tf0 type veth peer name tf1");
        ip("rule add priority 7101 from 203.0.113.9 lookup main");
        install("tf0", 1_400).unwrap();
        let others = || ip("rule show").lines().filter(|line| !line.contains("lookup main proto 117")).count();
        let before = others();
        run(async {
            let routes = Routes::open(&plan(OnStop::Block)).unwrap();
            let at_work = |expected: &[&str]| {
                let rules = ip("rule show");
                for address in ["192.0.2.7", "192.0.2.8", "198.51.100.3"] {
                    let rule = format!("7101:\tfrom {address} lookup main");
                    assert_eq!(rules.matches(&rule).count(), usize::from(expected.contains(&address)), "{rules}");
                }
                assert!(rules.contains("7101:\tfrom 203.0.113.9 lookup main"), "{rules}");
            };
            let [first, second, third] = [[192, 0, 2, 7], [192, 0, 2, 8], [198, 51, 100, 3]].map(Ipv4Addr::from);
            // Two links may have one address.
            routes.set_underlay_addresses(&[first, third, first]).await.unwrap();
            at_work(&["192.0.2.7", "198.51.100.3"]);
            routes.set_underlay_addresses(&[second, third]).await.unwrap();
            at_work(&["192.0.2.8", "198.51.100.3"]);
            routes.set_underlay_addresses(&[]).await.unwrap();
            at_work(&[]);
        });
        assert_eq!(others(), before);
    });
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[test]
fn what_somebody_takes_away_is_heard_of_and_stands_again() {
    in_namespace(|| {
        ip("link set lo up");
        ip("link add tf0 type veth peer name tf1");
        ip("link set tf1 up");
        let (ranges, native) = (networks(&["10.90.0.0/16", "fd90::/64"]), networks(&["10.20.0.0/16", "fd20::/64"]));
        let needs = RouteNeeds {
            device_index: index_of("tf0"),
            mtu: 1_400,
            ranges: &ranges,
            narrow: &[],
            native: &native,
            underlay_addresses: &[Ipv4Addr::new(192, 0, 2, 7)],
        };
        let state = || ["rule", "-6 rule", "route show table 7117", "-6 route show table 7117"].map(ip);
        run(async {
            let plan = plan(OnStop::Block);
            let routes = Routes::open(&plan).unwrap();
            routes.install(&needs).await.unwrap();
            let before = state();
            let mut watch = RouteWatch::open(&plan, needs.device_index).unwrap();
            for (doings, gone) in [
                (&["rule flush protocol 117", "-6 rule flush protocol 117"][..], 9),
                (&["route flush table 7117", "-6 route flush table 7117"], 6),
                // Takes its IPv4 route along in silence, and the IPv6 one.
                (&["link set tf0 down", "link set tf0 up"], 2),
            ] {
                doings.iter().for_each(|doing| _ = ip(doing));
                assert_ne!(state(), before, "{doings:?}");
                tokio::time::timeout(std::time::Duration::from_secs(20), watch.removed()).await.expect("heard of");
                assert_eq!(routes.restore(&needs).await.unwrap(), gone, "{doings:?}");
                assert_eq!(state(), before, "{doings:?}");
                assert_eq!(routes.restore(&needs).await.unwrap(), 0, "{doings:?}");
            }
            // What cannot be put back for now keeps the rest from nothing.
            ip("link set tf0 down");
            ip("rule flush protocol 117");
            assert!(routes.restore(&needs).await.is_err());
            assert!(ip("rule").contains("7105:\tfrom all lookup 7117"), "{}", ip("rule"));
        });
    });
}

#[test]
fn a_range_to_which_less_fits_than_into_the_device_has_it_in_its_route() {
    in_namespace(|| {
        ip("link add tf0 type veth peer name tf1");
        let needs = |mtu: u16| {
            let narrow = [("10.90.0.0/16".parse().unwrap(), mtu), ("fd90::/64".parse().unwrap(), mtu)];
            let needs = RouteNeeds {
                device_index: index_of("tf0"),
                mtu: 1_438,
                ranges: &networks(&["10.90.0.0/16", "10.91.0.0/16", "fd90::/64"]),
                narrow: &narrow,
                native: &[],
                underlay_addresses: &[],
            };
            run(async { Routes::open(&plan(OnStop::Block)).unwrap().install(&needs).await.unwrap() });
        };
        for mtu in [1_300, 1_400] {
            needs(mtu);
            let (routes, six) = (ip("route show table 7117"), ip("-6 route show table 7117"));
            let says = |routes: &str, range: &str| {
                let line = routes.lines().find(|line| line.starts_with(&format!("{range} dev tf0")));
                line.unwrap_or_else(|| panic!("{routes}")).contains(&format!("mtu {mtu}"))
            };
            assert!(says(&routes, "10.90.0.0/16") && says(&six, "fd90::/64"), "{routes}{six}");
            assert!(!says(&routes, "10.91.0.0/16"), "{routes}");
            assert_eq!(routes.matches("10.90.0.0/16").count(), 2, "{routes}");
            assert_eq!(six.matches("fd90::/64").count(), 2, "{six}");
        }
    });
}
