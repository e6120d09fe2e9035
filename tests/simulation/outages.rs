//! How long a cut is felt by what crosses the site, and how the far end is told of it.

use std::time::Duration;

use trefoil::edge::SiteEvent;
use trefoil::model::{PathId, Role};
use trefoil::steer::RuleSet;

use super::network::Weather;
use super::plans::Lifetimes;
use super::world::World;
use super::{SECOND, up};

const FLOWS: u16 = 6;

/// The times that each flow stood still there and back, over so many cuts of links that carried.
fn cuts(seed: u64, count: usize) -> Vec<Duration> {
    let mut world = up(seed, Lifetimes::LONG, RuleSet::default());
    let mut times = Vec::new();
    for cut in 0..count {
        for flow in 0..FLOWS {
            world.start_flow(10_000 + cut as u16 * FLOWS + flow, 0, Duration::from_millis(10));
        }
        world.run_for(3 * SECOND + Duration::from_millis((cut as u64 * 137) % 1_000));
        let (link, cut_at) = (cut % 3, world.now);
        world.network.weather[link] = [Weather { cut: true, ..Weather::FAIR }; 2];
        world.run_for(3 * SECOND);
        for flow in 0..FLOWS {
            let gap = world.longest_gap(10_000 + cut as u16 * FLOWS + flow, cut_at);
            // The others do not use the link.
            if gap > Duration::from_millis(60) {
                times.push(gap);
            }
        }
        world.stop_flows();
        world.network.weather[link] = [Weather::FAIR; 2];
        let whole = world.run_while_not(60 * SECOND, |world| world.healthy() == 6);
        assert!(whole, "seed {seed}: not whole again\n{}", world.describe());
    }
    times
}

fn print(mut times: Vec<Duration>, cuts: usize) {
    times.sort_unstable();
    let of = |permille: usize| times[(times.len() - 1) * permille / 1000];
    let (median, most, worst) = (of(500), of(990), of(1000));
    println!(
        "{cuts} cuts at a round trip of 20 ms, {} flows of 100 packets a second hit: they stood still for {} ms \
         (median), {} ms (99 %), {} ms (worst)",
        times.len(),
        median.as_millis(),
        most.as_millis(),
        worst.as_millis()
    );
    assert!(times.len() > cuts / 2, "the flows were hit");
    // The gap is the outage and the way there and back of the first packet after it.
    assert!(median <= Duration::from_millis(220), "{median:?}");
    assert!(worst <= Duration::from_millis(500), "{worst:?}");
}

#[test]
fn flows_leave_a_cut_link_within_milliseconds() {
    let times = (1..=4).flat_map(|seed| cuts(seed, 6)).collect();
    print(times, 24);
}

#[test]
#[ignore = "10,000 cuts take the better part of an hour; the short form is above"]
fn flows_leave_a_cut_link_within_milliseconds_ten_thousand_times() {
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let halves =
            [1..500u64, 500..1_001].map(|seeds| scope.spawn(|| seeds.flat_map(|seed| cuts(seed, 10)).collect()));
        halves.into_iter().flat_map(|half| half.join().unwrap_or_else(|_| Vec::<Duration>::new())).collect()
    });
    print(times, 10_000);
}

#[test]
fn the_far_end_is_told_of_a_dead_tunnel_over_another_link() {
    for (seed, link) in [(11, 0), (12, 1), (13, 2)] {
        let mut world = up(seed, Lifetimes::LONG, RuleSet::default());
        for flow in 0..20 {
            world.start_flow(10_000 + flow, 0, Duration::from_millis(20));
        }
        world.run_for(3 * SECOND);
        let cut_at = world.now;
        world.network.weather[link] = [Weather { cut: true, ..Weather::FAIR }; 2];
        world.run_for(2 * SECOND);
        for pop in &world.pops {
            let ended = pop.events.iter().find_map(|(at, event)| match event {
                SiteEvent::TunnelState { path: PathId(path), reason, .. } if usize::from(*path) == link => {
                    (*at >= cut_at).then(|| (*at, reason.clone()))
                }
                _ => None,
            });
            let (at, reason) = ended.unwrap_or_else(|| panic!("not told\n{}", world.describe()));
            assert!(reason.contains("the peer deleted the IKE SA"), "{reason}");
            println!("link {link}: the far end was told {} ms after the cut", at.since(cut_at).as_millis());
        }
        // It comes back over its own link when that does.
        assert_eq!(world.usable(Role::Primary), 2, "{}", world.describe());
        world.network.weather[link] = [Weather::FAIR; 2];
        assert!(world.run_while_not(30 * SECOND, |world| world.healthy() == 6), "{}", world.describe());
    }
}

#[test]
fn when_all_links_are_cut_nobody_is_told_and_all_come_back() {
    let mut world = up(21, Lifetimes::LONG, RuleSet::default());
    world.start_flow(10_000, 0, Duration::from_millis(20));
    world.run_for(3 * SECOND);
    for link in &mut world.network.weather {
        *link = [Weather { cut: true, ..Weather::FAIR }; 2];
    }
    world.run_for(3 * SECOND);
    for link in &mut world.network.weather {
        *link = [Weather::FAIR; 2];
    }
    assert!(world.run_while_not(30 * SECOND, |world| world.healthy() == 6), "{}", world.describe());
    for pop in &world.pops {
        let deleted = pop.events.iter().any(|(_, event)| format!("{event:?}").contains("deleted the IKE SA"));
        assert!(!deleted, "{:?}", pop.events);
    }
}

#[test]
fn loss_and_rekeys_on_all_links_are_no_outage() {
    let lifetimes = Lifetimes { ike: Duration::from_secs(9), child: Duration::from_secs(4) };
    let mut world = World::new(31, lifetimes, RuleSet::default());
    for flow in 0..4 {
        world.start_flow(10_000 + flow, 0, Duration::from_millis(20));
    }
    for link in &mut world.network.weather {
        *link = [Weather { loss_permille: 20, jitter: Duration::from_millis(5), ..Weather::FAIR }; 2];
    }
    world.run_for(120 * SECOND);
    let downs = world.branch.events.iter().filter(|(_, event)| match event {
        SiteEvent::Verdict { to, .. } => *to == trefoil::model::Verdict::Down,
        _ => false,
    });
    assert_eq!(downs.count(), 0, "{}", world.describe());
}
