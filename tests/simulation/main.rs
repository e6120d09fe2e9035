//! A whole site with two PoPs in simulated time: both planes as production runs them, over a
//! network that loses, delays, reorders, duplicates and cuts by a seed. A failing seed is
//! printed; `TREFOIL_SEED=N cargo test --test simulation` runs that one alone, and
//! `TREFOIL_SEEDS=N` more than the thousand.

mod alike;
mod hours;
mod in_band;
mod network;
mod operations;
mod outages;
mod packet;
mod peace;
mod plans;
mod recording;
mod shares;
mod sites;
mod world;

use std::time::Duration;

use network::Weather;
use plans::Lifetimes;
use trefoil::model::{Chance, Dscp, LinkId, Role};
use trefoil::steer::{Action, Matcher, Rule, RuleSet};
use world::World;

const SECOND: Duration = Duration::from_secs(1);

fn up(seed: u64, lifetimes: Lifetimes, rules: RuleSet) -> World {
    let mut world = World::new(seed, lifetimes, rules);
    let all_up = world.run_while_not(10 * SECOND, |world| world.healthy() == 6);
    assert!(all_up, "{}", world.describe());
    world
}

#[test]
fn six_tunnels_come_up_and_carry_a_flow_there_and_back() {
    let mut world = up(1, Lifetimes::LONG, RuleSet::default());
    world.start_flow(5000, 0, Duration::from_millis(20));
    world.run_for(5 * SECOND);
    world.stop_flows();
    world.run_for(SECOND);
    assert_eq!(world.tally.returned, world.tally.sent, "{}", world.describe());
    assert_eq!(world.active_role(), "primary");
}

#[test]
fn many_flows_spread_over_the_links_by_their_bandwidths() {
    let mut world = up(2, Lifetimes::LONG, RuleSet::default());
    let before = world.packets_by_link();
    for port in 0..2_000 {
        world.start_flow(10_000 + port, 0, SECOND);
    }
    world.run_for(3 * SECOND);
    let after = world.packets_by_link();
    let sent = |link: &str| (after[link] - before[link]) as f64;
    let total = sent("fibre") + sent("dsl") + sent("lte");
    for (link, _, mbps) in plans::LINKS {
        let share = 100.0 * sent(link) / total;
        assert!((share - f64::from(mbps)).abs() < 3.0, "{link} has {share:.1} % of the packets instead of {mbps} %");
    }
}

#[test]
fn a_cut_link_loses_its_flows_to_the_others_and_the_role_stays() {
    let mut world = up(3, Lifetimes::LONG, RuleSet::default());
    for port in 0..30 {
        world.start_flow(10_000 + port, 0, Duration::from_millis(100));
    }
    world.run_for(2 * SECOND);
    let cut_at = world.now;
    world.network.weather[0] = [Weather { cut: true, ..Weather::FAIR }; 2];
    world.run_for(15 * SECOND);
    assert_eq!(world.active_role(), "primary");
    assert_eq!(world.usable(Role::Primary), 2, "{}", world.describe());
    for port in 0..30 {
        let gap = world.longest_gap(10_000 + port, cut_at);
        assert!(gap < 6 * SECOND, "a flow stood still for {gap:?}\n{}", world.describe());
    }
}

#[test]
fn when_the_last_primary_tunnel_dies_the_secondary_carries_all_and_hands_back_after_the_hold() {
    let mut world = up(4, Lifetimes::LONG, RuleSet::default());
    world.start_flow(5000, 0, Duration::from_millis(50));
    world.run_for(2 * SECOND);
    let cut_at = world.now;
    for link in &mut world.network.weather {
        link[0].cut = true;
    }
    assert!(world.run_while_not(10 * SECOND, |world| world.active_role() == "secondary"), "{}", world.describe());
    world.run_for(5 * SECOND);
    let gap = world.longest_gap(5000, cut_at);
    assert!(gap < 6 * SECOND, "the flow stood still for {gap:?}");
    for link in &mut world.network.weather {
        link[0].cut = false;
    }
    let healed_at = world.now;
    assert!(world.run_while_not(60 * SECOND, |world| world.active_role() == "primary"), "{}", world.describe());
    assert!(world.now.since(healed_at) >= 15 * SECOND, "failback came before the hold was over");
    world.run_for(5 * SECOND);
    assert!(world.longest_gap(5000, healed_at) < SECOND, "failback interrupted the flow");
}

#[test]
fn a_rule_keeps_its_traffic_on_the_link_it_names() {
    let voice = Rule {
        name: "voice".to_owned(),
        place: String::new(),
        matcher: Matcher { dscp: vec![Dscp::new(46).unwrap()], ..Matcher::default() },
        action: Action::prefer([LinkId(2), LinkId(1)]),
    };
    let rules = RuleSet::new(vec![voice], Vec::new());
    let mut world = up(5, Lifetimes::LONG, rules);
    let before = world.packets_by_link();
    for port in 0..50 {
        world.start_flow(10_000 + port, 46, Duration::from_millis(100));
    }
    world.run_for(3 * SECOND);
    let lte = world.packets_by_link()["lte"] - before["lte"];
    assert!(lte >= 1_500, "only {lte} voice packets went over lte");
    world.network.weather[2] = [Weather { loss_permille: 300, ..Weather::FAIR }; 2];
    world.run_for(15 * SECOND);
    let before = world.packets_by_link();
    world.run_for(3 * SECOND);
    let dsl = world.packets_by_link()["dsl"] - before["dsl"];
    assert!(dsl >= 1_500, "only {dsl} voice packets moved to dsl\n{}", world.describe());
}

#[test]
fn rekeys_of_both_kinds_lose_nothing() {
    let short = Lifetimes { ike: 12 * SECOND, child: 4 * SECOND };
    let mut world = up(6, short, RuleSet::default());
    for port in 0..10 {
        world.start_flow(10_000 + port, 0, Duration::from_millis(10));
    }
    world.run_for(60 * SECOND);
    world.stop_flows();
    world.run_for(SECOND);
    let rekeys: u64 = world.branch.status(world.now).connectors[0].tunnels.iter().map(|tunnel| tunnel.rekeys).sum();
    assert!(rekeys > 60, "only {rekeys} rekeys happened");
    assert_eq!(world.tally.returned, world.tally.sent, "{}", world.describe());
    assert_eq!(world.tally.duplicated, 0);
}

#[test]
fn after_any_storm_the_site_is_whole_again() {
    let seeds: Vec<u64> = match std::env::var("TREFOIL_SEED") {
        Ok(seed) => vec![seed.parse().expect("TREFOIL_SEED is a number")],
        Err(_) => {
            let count = std::env::var("TREFOIL_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000);
            (0..count).collect()
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    let mut failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|worker| {
                let seeds = seeds.iter().skip(worker).step_by(workers);
                scope.spawn(move || {
                    seeds.filter_map(|seed| storm(*seed).err().map(|why| (*seed, why))).collect::<Vec<_>>()
                })
            })
            .collect();
        running.into_iter().flat_map(|run| run.join().expect("a storm panicked; see above")).collect()
    });
    failures.sort();
    let replay: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    if let Some((seed, why)) = failures.first() {
        panic!(
            "{} of {} seeds failed: {replay:?}; TREFOIL_SEED={seed} replays the first:\n{why}",
            replay.len(),
            seeds.len()
        );
    }
    println!("{} seeds: after every storm all six tunnels were up again and lost nothing", seeds.len());
}

/// Bad weather of every kind for a while, then fair: everything must come back by itself.
fn storm(seed: u64) -> Result<(), String> {
    let print_seed = SeedOnPanic(seed);
    let mut chance = Chance::from_number(seed ^ 0x5708);
    let lifetimes = if chance.below(2) == 0 {
        Lifetimes::LONG
    } else {
        Lifetimes { ike: Duration::from_secs(9), child: Duration::from_secs(4) }
    };
    let mut world = World::new(seed, lifetimes, RuleSet::default());
    for port in 0..3 {
        world.start_flow(10_000 + port, 0, Duration::from_millis(100));
    }
    for _ in 0..6 {
        for link in 0..3 {
            for pop in 0..2 {
                world.network.weather[link][pop] = Weather {
                    delay: Duration::from_millis(u64::from(1 + chance.below(60))),
                    jitter: Duration::from_millis(u64::from(chance.below(40))),
                    loss_permille: chance.below(150),
                    loss_up_permille: 0,
                    duplicate_permille: chance.below(50),
                    cut: chance.below(4) == 0,
                };
            }
        }
        world.run_for(Duration::from_millis(u64::from(500 + chance.below(4_000))));
    }
    world.network.weather = [[Weather::FAIR; 2]; 3];
    if !world.run_while_not(120 * SECOND, |world| world.healthy() == 6 && world.active_role() == "primary") {
        return Err(format!("not whole after 120 s of fair weather\n{}", world.describe()));
    }
    world.stop_flows();
    world.run_for(SECOND);
    let (sent, returned) = (world.tally.sent, world.tally.returned);
    for port in 0..3 {
        world.start_flow(20_000 + port, 0, Duration::from_millis(50));
    }
    world.run_for(6 * SECOND);
    world.stop_flows();
    world.run_for(SECOND);
    let lost = (world.tally.sent - sent) - (world.tally.returned - returned);
    if lost > 0 || world.tally.duplicated > 0 || world.tally.damaged > 0 {
        return Err(format!(
            "in fair weather {lost} packets were lost; {} duplicated, {} damaged\n{}",
            world.tally.duplicated,
            world.tally.damaged,
            world.describe()
        ));
    }
    std::mem::forget(print_seed);
    Ok(())
}

/// Names the seed when something below panics.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TREFOIL_SEED={} panicked", self.0);
        }
    }
}
