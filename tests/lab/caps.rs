//! A link that is held to its bandwidth: shaped what leaves, policed what arrives, on the wire to a strongSwan PoP.

use std::thread;
use std::time::{Duration, Instant};

use trefoil::edge::{LinkStatus, TunnelStatus};

use super::bench::Bench;
use super::daemon::tunnels;
use super::emulator::EspKind;
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::stream::Stream;
use super::topology::{FIBRE, SERVER};
use super::traffic::{IperfServer, Load};

const MBPS: u32 = 20;
const DATAGRAM: u32 = 1_200;
/// Around a datagram: UDP and IP inside; and AES-GCM's ESP with padding to four bytes, UDP and IP outside.
const ON_WIRE: u32 = DATAGRAM + 28 + 36 + 28;
/// The same of a packet of the small flow.
const SMALL_ON_WIRE: u32 = 160 + 28 + 36 + 28;
const TOLERANCE: f64 = 0.03;

#[test]
fn a_capped_link_carries_its_rate_to_the_per_cent_and_a_small_flow_does_not_wait() {
    if !lab_is_possible() {
        return;
    }
    let mut site = Site::new();
    (site.mbps, site.cap) = (Some(MBPS), "cap = { upstream = true, downstream = true }");
    site.roles[0].links = vec![FIBRE];
    site.roles[1].links = Vec::new();
    let bench = Bench::ready(site);
    let server = IperfServer::start(&bench.lab.server, SERVER, bench.directory());
    let expected = f64::from(MBPS) * f64::from(DATAGRAM) / f64::from(ON_WIRE);
    let stream = || Stream::start(&bench.lab.lan, &bench.lab.server, SERVER, Duration::from_millis(20), 160);
    let ms = |span: Duration| span.as_secs_f64() * 1e3;

    let alone = stream();
    thread::sleep(Duration::from_secs(3));
    let alone = alone.finish();

    // Twice as much as may leave, from a sender that listens to nobody, and then from some that do.
    let small = stream();
    let wire_mbps = thread::scope(|scope| {
        let flood = || server.measure(&bench.lab.lan, Load::Udp(MBPS * 2_000, DATAGRAM), false, 6).expect("a flood");
        let flood = scope.spawn(flood);
        let begun = bulk_entered(&bench);
        wait_for("the flood reaches the link", PATIENCE, || (bulk_entered(&bench) > begun + 100).then_some(()));
        thread::sleep(Duration::from_secs(1));
        let mbps = sent_mbps(&bench, Duration::from_secs(3));
        flood.join().expect("the flood");
        mbps
    });
    let beside_flood = small.finish();
    let small = stream();
    let bulk = server.measure(&bench.lab.lan, Load::Tcp, false, 6).expect("bulk");
    let beside_bulk = small.finish();
    let link = link(&bench);
    say(&format!(
        "shaped to {MBPS} Mbps: {wire_mbps:.2} Mbps on the wire, {:.2} Mbps of TCP; a small flow there: alone \
         {:.1} ms, beside the flood {:.1} (99 %: {:.1}), beside TCP {:.1} (99 %: {:.1}); {} dropped, {} marked",
        bulk.mbps,
        ms(alone.there.delay(50)),
        ms(beside_flood.there.delay(50)),
        ms(beside_flood.there.delay(99)),
        ms(beside_bulk.there.delay(50)),
        ms(beside_bulk.there.delay(99)),
        link.shaper_drops,
        link.shaper_marks
    ));
    assert!((wire_mbps / f64::from(MBPS) - 1.0).abs() < TOLERANCE, "{wire_mbps} Mbps");
    assert!(bulk.mbps > expected * 0.9 && bulk.mbps < f64::from(MBPS), "{bulk:?}");
    for beside in [&beside_flood, &beside_bulk] {
        let added = |percent| beside.there.delay(percent).saturating_sub(alone.there.delay(percent));
        assert_eq!(beside.there.lost, 0);
        assert!(added(50) < Duration::from_millis(5), "{:?}", added(50));
        assert!(added(95) < Duration::from_millis(15), "{:?}", added(95));
    }
    assert!(drops(&bench, |tunnel| &tunnel.drops_out, "shaped") > 1_000);

    let flood = server.measure(&bench.lab.lan, Load::Udp(MBPS * 2_000, DATAGRAM), true, 6).expect("a flood");
    let bulk = server.measure(&bench.lab.lan, Load::Tcp, true, 6).expect("bulk");
    let dropped = drops(&bench, |tunnel| &tunnel.drops_in, "policed");
    say(&format!(
        "policed to {MBPS} Mbps: {:.2} Mbps of datagrams (of {expected:.2}), {:.2} Mbps of TCP; {dropped} dropped",
        flood.mbps, bulk.mbps
    ));
    assert!((flood.mbps / expected - 1.0).abs() < TOLERANCE, "{flood:?}");
    assert!(bulk.mbps > expected / 2.0 && bulk.mbps < f64::from(MBPS), "{bulk:?}");
    assert!(dropped > 1_000, "{dropped}");
}

/// Large packets of ESP that have left by the link.
fn bulk_entered(bench: &Bench) -> u64 {
    bench.lab.wan.esp(|kind| kind.source == FIBRE.address && kind.length > 1_000).entered
}

/// What leaves by the link on the wire, in ESP, of the flood and of the small flow.
fn sent_mbps(bench: &Bench, span: Duration) -> f64 {
    let entered = |bulk: bool| {
        let ours = |kind: &EspKind| kind.source == FIBRE.address && (kind.length > 1_000) == bulk;
        bench.lab.wan.esp(ours).entered
    };
    let (started, before) = (Instant::now(), (entered(true), entered(false)));
    thread::sleep(span);
    let (bulk, small) = (entered(true) - before.0, entered(false) - before.1);
    let bytes = bulk * u64::from(ON_WIRE) + small * u64::from(SMALL_ON_WIRE);
    bytes as f64 * 8e-6 / started.elapsed().as_secs_f64()
}

fn link(bench: &Bench) -> LinkStatus {
    let status = bench.trefoil.status().expect("status");
    status.links.into_iter().find(|link| link.name == FIBRE.name).expect("the link")
}

fn drops(bench: &Bench, of: impl Fn(&TunnelStatus) -> &Vec<trefoil::edge::DropStatus>, reason: &str) -> u64 {
    let status = bench.trefoil.status().expect("status");
    let drops = tunnels(&status).flat_map(of).filter(|drop| drop.reason == reason);
    drops.map(|drop| drop.packets).sum()
}
