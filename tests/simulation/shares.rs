//! The shares of the bytes that each link carries, over a minute of a heavy-tailed mix of flows.

use std::time::Duration;

use trefoil::forward::MoveCause;
use trefoil::model::{Chance, LinkId};
use trefoil::steer::{Action, Matcher, Rule, RuleSet};

use super::plans::{self, Lifetimes};
use super::world::World;
use super::{SECOND, up};

/// Flows at any time.
const FLOWS: usize = 240;

/// Packets a second of all flows together, about.
const PACKETS: f64 = 1_500.0;

/// No flow has more of the bytes.
const LARGEST: f64 = 0.045;

/// Packets a second of each flow: Pareto with a tail exponent of 1.2, as flow sizes on the Internet
/// have (Crovella and Bestavros 1997 found 1.0 to 1.3).
fn rates(chance: &mut Chance) -> Vec<f64> {
    let uniform = |chance: &mut Chance| f64::from(1 + chance.below(1_000_000)) / 1_000_001.0;
    let mut rates: Vec<f64> = (0..FLOWS).map(|_| uniform(chance).powf(-1.0 / 1.2)).collect();
    for _ in 0..20 {
        let whole: f64 = rates.iter().sum();
        rates.iter_mut().for_each(|rate| *rate = rate.min(whole * LARGEST));
    }
    let whole: f64 = rates.iter().sum();
    rates.iter().map(|rate| rate / whole * PACKETS).collect()
}

/// The largest difference of a link's part of these bytes from its part of the bandwidths, in
/// per cent of all bytes.
fn error(before: [u64; 3], after: [u64; 3]) -> f64 {
    let sent: Vec<f64> = before.iter().zip(after).map(|(before, after)| (after - before) as f64).collect();
    let whole: f64 = sent.iter().sum();
    let off = plans::LINKS.iter().zip(&sent).map(|((_, _, mbps), sent)| 100.0 * sent / whole - f64::from(*mbps));
    off.map(f64::abs).fold(0.0, f64::max)
}

/// Runs the mix: each flow ends after a lifetime of its own, small ones sooner, and another of the
/// same rate begins. Returns the errors of the first ten seconds and of the minute after half a
/// one, moves, flows, and packets overtaken.
fn minute(seed: u64, restless: bool) -> (f64, f64, u32, usize, usize) {
    let mut world: World = up(seed, Lifetimes::LONG, RuleSet::default());
    for (link, delay) in [8, 20, 35].into_iter().enumerate() {
        world.network.weather[link].iter_mut().for_each(|weather| weather.delay = Duration::from_millis(delay));
    }
    world.run_for(40 * SECOND);
    let mut chance = Chance::from_number(seed ^ 0x5a7e);
    let rates = rates(&mut chance);
    let mut ends = vec![world.now; FLOWS];
    let mut port = 1_000;
    let start = world.now;
    let begun = world.bytes_by_link();
    let (mut early, mut half) = (0.0, begun);
    for second in 0..90 {
        if second == 10 {
            early = error(begun, world.bytes_by_link());
        }
        if second == 30 {
            half = world.bytes_by_link();
        }
        for (rate, end) in rates.iter().zip(&mut ends) {
            if world.now < *end {
                continue;
            }
            // From some seconds to minutes: a flow with many bytes lasts long.
            let life = if restless { (5.0 + rate * 4.0) * f64::from(5 + chance.below(10)) / 10.0 } else { 1_000.0 };
            *end = world.now + Duration::from_secs_f64(life);
            let interval = Duration::from_secs_f64(1.0 / rate);
            world.start_flow_until(port, 0, interval, Some(*end));
            port += 1;
        }
        world.run_until_second(start, second + 1);
    }
    let late = error(half, world.bytes_by_link());
    let moves = (1_000..port).filter_map(|port| world.flow(port)).map(|flow| flow.moves).sum();
    (early, late, moves, usize::from(port - 1_000), world.overtaken())
}

#[test]
fn bytes_follow_the_bandwidths_over_a_minute_with_few_moves() {
    for restless in [false, true] {
        for seed in 1..=2 {
            let (early, late, moves, flows, overtaken) = minute(seed, restless);
            println!(
                "seed {seed}, {flows} flows: off by {early:.1} % in the first ten seconds, by {late:.2} % over the \
                 minute after half a one; {moves} moves, {overtaken} packets overtaken"
            );
            assert!(late < 3.0, "the bytes are {late} % off");
            assert!(moves < 60, "{moves} moves");
            assert!(overtaken < 20, "{overtaken} packets overtaken");
        }
    }
}

#[test]
fn a_link_that_comes_and_goes_loses_its_flows_once_and_gets_them_back_when_it_stays() {
    let rule = Rule {
        name: "all".to_owned(),
        place: String::new(),
        matcher: Matcher::default(),
        action: Action::prefer([LinkId(1)]),
    };
    let mut world = up(11, Lifetimes::LONG, RuleSet::new(vec![rule], Vec::new()));
    world.run_for(30 * SECOND);
    let ports = 10_000..10_020;
    for port in ports.clone() {
        world.start_flow(port, 0, Duration::from_millis(200));
    }
    let moves = |world: &World| -> Vec<u32> {
        ports.clone().filter_map(|port| world.flow(port)).map(|flow| flow.moves).collect()
    };
    for _ in 0..8 {
        world.network.weather[1].iter_mut().for_each(|weather| weather.cut = true);
        world.run_for(6 * SECOND);
        world.network.weather[1].iter_mut().for_each(|weather| weather.cut = false);
        world.run_for(9 * SECOND);
    }
    println!("moves of each flow after eight cuts in two minutes: {:?}", moves(&world));
    assert_eq!(moves(&world), [1; 20], "{}", world.describe());
    world.run_for(100 * SECOND);
    assert_eq!(moves(&world), [2; 20], "{}", world.describe());
    let told = world.flow(10_000).expect("known");
    assert_eq!(
        told.history.iter().map(|moved| moved.cause).collect::<Vec<_>>(),
        [MoveCause::PathLost, MoveCause::Preferred]
    );
}
