//! A small flow beside bulk that takes all the road has.
//!
//! ```text
//! cargo build --release && TREFOIL_BINARY=target/release/trefoil cargo test --test lab fairness -- --ignored
//! ```

use std::thread;
use std::time::Duration;

use super::bench::start_edge;
use super::daemon::{Trefoil, binary, tunnels};
use super::gateway::{GatewayWish, start_gateway};
use super::kernel_drops::KernelDrops;
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::stream::{Report, Stream};
use super::topology::{FIBRE, SERVER, Topology};
use super::traffic::IperfServer;

/// A voice call: 50 packets a second each way.
const INTERVAL: Duration = Duration::from_millis(20);
const BYTES: usize = 160;

/// What bulk may add to a round trip: the queues of its own connections, which fill whatever lies in front
/// of them, and the time slices of a machine whose cores are all busy with it.
const ADDED_MEDIAN: Duration = Duration::from_millis(40);
const ADDED_P99: Duration = Duration::from_millis(120);

const LOADS: [(&str, &str); 3] = [
    ("one TCP flow up", "--parallel 1"),
    ("eight TCP flows up", "--parallel 8"),
    ("eight TCP flows down", "--parallel 8 --reverse"),
];

#[test]
fn a_small_flow_loses_nothing_beside_bulk_and_is_not_kept_waiting() {
    beside_bulk(2);
}

#[test]
#[ignore = "a measurement of two minutes that wants a release build and a quiet machine"]
fn a_voice_call_beside_bulk() {
    beside_bulk(30);
}

fn beside_bulk(seconds: u32) {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    lab.wan.bypass();
    let mut site = Site::new();
    site.roles[0].remote_id_of_link = true;
    site.roles[0].links = vec![FIBRE];
    site.roles[1].links = Vec::new();
    let (ike_lifetime, child_lifetime) = (site.ike_lifetime, site.child_lifetime);
    let gateway = start_gateway(&lab, &site, 0, GatewayWish { ike_lifetime, child_lifetime, workers: 2 });
    let edge = start_edge(&binary(), &lab, &site, &[]);
    edge.wait_for_tunnels(1, Duration::from_secs(20));
    let server = IperfServer::start(&lab.server, SERVER, lab.directory());

    let stream = || Stream::start(&lab.lan, &lab.server, SERVER, INTERVAL, BYTES);
    let alone = stream();
    thread::sleep(Duration::from_secs(seconds.into()));
    let alone = alone.finish();
    say(&format!("a small flow alone: {}", told(&alone)));
    for (name, arguments) in LOADS {
        let dropped = || [&edge, &gateway].map(drops).iter().sum::<u64>();
        let kernel = || KernelDrops::read(&[&lab.lan, &lab.edge, &lab.internet, &lab.pops[0], &lab.server]);
        let before = (dropped(), kernel());
        let small = stream();
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let bulk = server.run(&lab.lan, &arguments, seconds).unwrap_or_else(|error| panic!("{name}: {error}"));
        let small = small.finish();
        let (ours, kernels) = (dropped() - before.0, kernel().since(&before.1));
        let gbps = bulk["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate") / 1e9;
        say(&format!(
            "beside {name} at {gbps:.2} Gbit/s: {}; dropped by us {ours}, by the kernel {}",
            told(&small),
            kernels.told()
        ));
        let lost = small.there.lost + small.back.lost;
        assert!(lost <= kernels.total(), "{name}: {lost} packets of the small flow are lost, and we dropped {ours}");
        let added = |percent| small.back.delay(percent).saturating_sub(alone.back.delay(percent));
        assert!(added(50) < ADDED_MEDIAN && added(99) < ADDED_P99, "{name}: {:?} and {:?}", added(50), added(99));
    }
}

fn told(report: &Report) -> String {
    let ms = |percent| report.back.delay(percent).as_secs_f64() * 1e3;
    let lost = (report.there.lost, report.back.lost);
    format!(
        "lost {} and {} of {}; round trip median {:.2} ms, 99 % {:.2} ms, longest {:.2} ms",
        lost.0,
        lost.1,
        report.there.sent,
        ms(50),
        ms(99),
        ms(100)
    )
}

fn drops(trefoil: &Trefoil) -> u64 {
    let status = trefoil.status().expect("status");
    let all = tunnels(&status).flat_map(|tunnel| tunnel.drops_out.iter().chain(&tunnel.drops_in)).chain(&status.drops);
    all.map(|drop| drop.packets).sum()
}
