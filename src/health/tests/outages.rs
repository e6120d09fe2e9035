//! How soon a cut is noticed.

use std::time::Duration;

use super::*;

/// What the site does with the path when it is cut.
const FLOWS: [(&str, Option<Flow>); 7] = [
    ("500 packets a second, answered", Some(flow(2, 0, true))),
    ("a call: 50 a second, answered", Some(flow(20, 0, true))),
    ("requests at random, 3 a second, answered", Some(flow(50, 600, true))),
    ("small ones at random, 30 a second, answered", Some(flow(1, 66, true))),
    ("500 a second, answered over another path", Some(flow(2, 0, false))),
    ("50 a second, answered over another path", Some(flow(20, 0, false))),
    ("nothing", None),
];

const fn flow(every: u64, spread: u64, answered: bool) -> Flow {
    let (every, spread) = (Duration::from_millis(every), Duration::from_millis(spread));
    Flow { every, spread, answered, next: Moment::ZERO }
}

/// Times from the cut, or from the first packet of the site that it costs, to the verdict; shortest
/// first.
fn cuts(
    settings: HealthSettings,
    rtt: u64,
    loss: u32,
    flow: Option<Flow>,
    seeds: std::ops::Range<u64>,
) -> Vec<Duration> {
    let mut times: Vec<Duration> = seeds
        .map(|seed| {
            let cut = at(8.0) + Duration::from_micros(seed.wrapping_mul(7_919) % 1_000_000);
            let mut before = line(rtt, loss);
            let fate = move |now, kind, chance: &mut Chance| {
                if now + ms(rtt / 2) >= cut { Fate::Lost } else { before(now, kind, chance) }
            };
            let mut world = World::new(settings, &[], seed, fate);
            (world.flow, world.missing_from) = (flow, cut - ms(rtt / 2));
            world.run(14.0);
            let down = world.changes.iter().find(|change| change.to == Verdict::Down && change.at >= cut);
            let down = down.unwrap_or_else(|| panic!("seed {seed}: never down: {:?}", world.changes));
            down.at.since(world.missed.unwrap_or(cut).max(cut))
        })
        .collect();
    times.sort_unstable();
    times
}

fn print(what: &str, times: &[Duration]) {
    let of = |permille: usize| times[(times.len() - 1) * permille / 1000].as_secs_f64() * 1e3;
    println!("{what}: median {:.0} ms, 99 % {:.0} ms, worst {:.0} ms", of(500), of(990), of(1000));
}

fn notice_cuts(of_each: u64) {
    let mut all = Vec::new();
    for (what, flow) in FLOWS {
        let times = cuts(HealthSettings::default(), 20, 0, flow, 0..of_each);
        print(what, &times);
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        if flow.is_some() {
            assert!(median <= ms(250) && worst <= ms(500), "{what}: {median:?}, {worst:?}");
            all.extend(times);
        } else {
            assert!(worst <= ms(1_600), "{what}: {worst:?}");
        }
    }
    all.sort_unstable();
    assert!(all[all.len() / 2] <= ms(200));
    print(&format!("{} cuts under traffic at 20 ms", all.len()), &all);
}

#[test]
fn a_cut_under_traffic_is_noticed_within_milliseconds() {
    notice_cuts(100);
}

#[test]
#[ignore = "10,000 cuts take minutes; the short form is above"]
fn ten_thousand_cuts_under_traffic_are_noticed_within_milliseconds() {
    notice_cuts(1_700);
}

#[test]
fn cuts_of_lossy_slow_and_differently_watched_paths_take_what_the_documentation_says() {
    let call = FLOWS[1].1;
    let watched = |sensitivity| HealthSettings { sensitivity, ..HealthSettings::default() };
    // Sensitivity, round trip, loss there and back in thousandths; the longest median and worst.
    for (sensitivity, rtt, loss, median, worst) in [
        (Sensitivity::Voice, 20, 0, 180, 250),
        (Sensitivity::Normal, 20, 0, 200, 300),
        (Sensitivity::Calm, 20, 0, 600, 700),
        (Sensitivity::Normal, 20, 40, 260, 500),
        (Sensitivity::Normal, 20, 200, 500, 1_000),
        (Sensitivity::Normal, 100, 0, 350, 450),
        (Sensitivity::Normal, 600, 0, 1_250, 1_500),
    ] {
        let times = cuts(watched(sensitivity), rtt, loss, call, 0..60);
        print(&format!("{}, round trip {rtt} ms, loss {loss} of 1000, a call", sensitivity.name()), &times);
        assert!(times[30] <= ms(median) && times[59] <= ms(worst), "{sensitivity:?}, {rtt}, {loss}: {times:?}");
    }
}

#[test]
fn an_idle_path_is_found_cut_within_its_interval_and_a_little() {
    // Interval, round trip, and the longest time from the cut to the verdict.
    for (interval, rtt, longest) in
        [(100, 20, 650), (250, 20, 850), (1000, 20, 1_600), (1000, 300, 1_900), (3000, 20, 3_600)]
    {
        let times = cuts(every(interval), rtt, 0, None, 0..40);
        print(&format!("idle, probes every {interval} ms, round trip {rtt} ms"), &times);
        assert!(times[39] <= ms(longest), "interval {interval}: {:?}", times[39]);
    }
}

#[test]
fn an_interface_that_goes_down_takes_its_idle_path_along() {
    for trouble in [Trouble::LinkDown, Trouble::Unreachable, Trouble::SendFailed] {
        let cut = at(60.0);
        let fate = move |now, _, _: &mut Chance| if now >= cut { Fate::Lost } else { Fate::Back(ms(20)) };
        let mut world = World::new(every(10_000), &[], 1, fate);
        world.run(60.0);
        world.health.handle_trouble(trouble, world.now);
        world.run(61.0);
        assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down]);
        let took = world.changes[1].at.since(cut);
        assert!(took <= ms(200), "{took:?}");
        println!("{}", world.changes[1].reason);
    }
}

/// The kernel tells of an interface some time after it has ceased to carry.
#[test]
fn what_the_system_says_while_a_silence_is_looked_into_is_the_reason_that_is_told() {
    let cut = at(60.0);
    let fate = move |now, _, _: &mut Chance| if now >= cut { Fate::Lost } else { Fate::Back(ms(20)) };
    for told in [&[Trouble::LinkDown][..], &[Trouble::SendFailed, Trouble::LinkDown, Trouble::SendFailed]] {
        let mut world = World::new(HealthSettings::default(), &[], 1, fate);
        world.flow = Some(Flow::new(20, 0, true));
        let mut second = 60.0;
        while !world.health.is_suspicious() {
            second += 0.001;
            world.run(second);
        }
        told.iter().for_each(|trouble| world.health.handle_trouble(*trouble, world.now));
        world.run(61.0);
        assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down]);
        let reason = &world.changes[1].reason;
        assert!(reason.ends_with("were not answered, after its interface went down"), "{told:?}: {reason}");
    }
}

#[test]
fn an_ike_daemon_that_is_busy_is_not_taken_for_a_dead_path() {
    // IKE stands still for two seconds, while the path's own packets keep coming in.
    let busy = |now: Moment| now >= at(20.0) && now < at(22.0);
    let fate = move |now, kind, _: &mut Chance| match kind {
        Kind::Ike if busy(now) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    };
    for every in [2, 20, 100, 250] {
        for seed in 0..20 {
            let mut world = World::new(HealthSettings::default(), &[], seed, fate);
            world.flow = Some(Flow::new(every, 0, true));
            world.run(60.0);
            assert_eq!(world.verdicts(), [Verdict::Healthy], "a packet each {every} ms: {:?}", world.changes);
        }
    }
    // The path brings nothing, but others bring the peer's packets, and its daemon answers nobody.
    let mut world = World::new(HealthSettings::default(), &[], 1, fate);
    world.flow = Some(Flow::new(5, 0, false));
    for step in 0..6_000 {
        world.run(f64::from(step) / 100.0);
        world.peer =
            PeerSigns { esp: Some(world.now), ike: (!busy(world.now)).then_some(world.now).or(world.peer.ike) };
    }
    assert_eq!(world.verdicts(), [Verdict::Healthy], "{:?}", world.changes);
}

#[test]
fn the_peer_s_answers_over_other_paths_prove_that_this_one_is_dead() {
    let cut = at(20.0);
    let fate = move |now, _, _: &mut Chance| if now >= cut { Fate::Lost } else { Fate::Back(ms(20)) };
    let mut world = World::new(HealthSettings::default(), &[], 1, fate);
    world.flow = Some(Flow::new(5, 0, false));
    let mut asked = None;
    for step in 0..25_000 {
        world.run(f64::from(step) / 1000.0);
        world.peer.esp = Some(world.now);
        if asked.is_none() && world.health.wants_witness(world.peer, world.now) {
            asked = Some(world.now);
        }
        if asked.is_some_and(|asked| world.now >= asked + ms(20)) {
            world.peer.ike = Some(world.now);
        }
    }
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down]);
    let took = world.changes[1].at.since(cut);
    assert!(took <= ms(300), "{took:?}");
}

#[test]
fn a_path_that_is_cut_in_one_direction_goes_down_although_packets_come_in() {
    let cut = at(20.0);
    let fate = move |now, kind, _: &mut Chance| match kind {
        Kind::Ike if now >= cut => Fate::Lost,
        // The answers to what other paths carry.
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    };
    for (others_answer, longest) in [(true, 2_000), (false, 4_000)] {
        let mut world = World::new(HealthSettings::default(), &[], 1, fate);
        world.flow = Some(Flow::new(5, 0, true));
        for step in 0..2_500 {
            world.run(f64::from(step) / 100.0);
            world.peer.ike = others_answer.then_some(world.now);
        }
        let took = world.changes[1].at.since(cut);
        println!("cut in one direction, others answer: {others_answer}: {took:?}, {}", world.changes[1].reason);
        assert!(world.changes[1].to == Verdict::Down && took <= ms(longest), "{:?}", world.changes);
    }
}

#[test]
fn a_call_is_off_a_path_that_is_cut_in_one_direction_within_half_a_second() {
    let mut times = Vec::new();
    for seed in 0..40 {
        let cut = at(20.0) + ms(seed * 25);
        let fate = move |now, kind, _: &mut Chance| match kind {
            Kind::Ike | Kind::Inner(_) if now >= cut => Fate::Lost,
            // The far end goes on talking.
            Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
        };
        let settings = HealthSettings { scrutiny: Closeness::Close, ..every(1000) };
        let mut world = World::new(settings, &[target(1)], seed, fate);
        world.flow = Some(Flow::new(20, 0, true));
        for step in 0..2_600 {
            world.run(f64::from(step) / 100.0);
            world.peer.ike = Some(world.now);
        }
        assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down]);
        times.push(world.changes[1].at.since(cut));
    }
    times.sort();
    print("cut in one direction, a call", &times);
    assert!(times[20] <= ms(450) && times[39] <= ms(550), "{times:?}");
}

#[test]
fn a_queue_that_fills_while_packets_come_in_is_no_cut() {
    // An upload at twice the rate of the link makes the way there longer by half a second, as fast as time passes.
    let rtt = |now: Moment| ms(20) + now.since(at(20.0)).min(ms(500));
    let fate = move |now, kind, _: &mut Chance| match kind {
        Kind::Ike | Kind::Inner(_) => Fate::Back(rtt(now)),
        Kind::Site => Fate::Back(ms(20)),
    };
    for seed in 0..20 {
        let settings = HealthSettings { scrutiny: Closeness::Close, ..every(1000) };
        let mut world = World::new(settings, &[target(1)], seed, fate);
        world.flow = Some(Flow::new(5, 0, true));
        for step in 0..4_000 {
            world.run(f64::from(step) / 100.0);
            world.peer.ike = Some(world.now);
        }
        assert!(!world.verdicts().contains(&Verdict::Down), "{:?}", world.changes);
    }
}

#[test]
fn a_target_that_dies_while_the_ike_daemon_is_busy_is_no_cut() {
    for seed in 0..40 {
        let gone = at(20.0) + ms(seed * 25);
        let fate = move |now: Moment, kind, _: &mut Chance| match kind {
            Kind::Inner(_) if now >= gone => Fate::Lost,
            // It has answered since, and then works on this IKE SA for some time.
            Kind::Ike if now >= gone + ms(350) && now < gone + ms(850) => Fate::Lost,
            Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
        };
        let settings = HealthSettings { scrutiny: Closeness::Close, ..every(1000) };
        let mut world = World::new(settings, &[target(1)], seed, fate);
        world.flow = Some(Flow::new(10, 0, true));
        for step in 0..2_600 {
            world.run(f64::from(step) / 100.0);
            world.peer.ike = Some(world.now);
        }
        assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Degraded], "{seed}: {:?}", world.changes);
    }
}

#[test]
fn a_cut_is_noticed_quickly_soon_after_a_tunnel_whose_first_probe_was_lost_has_come_up() {
    let play = |cut: Moment, until: f64| {
        let fate = move |now: Moment, kind, _: &mut Chance| match kind {
            Kind::Ike if now < at(1.0) => Fate::Lost,
            _ if now >= cut => Fate::Lost,
            Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
        };
        let mut world = World::new(every(1000), &[target(1)], 1, fate);
        world.flow = Some(Flow::new(10, 0, true));
        let (mut is_asked, mut answered) = (false, None);
        for step in 0..(until * 1000.0) as u32 {
            world.run(f64::from(step) / 1000.0);
            if std::mem::replace(&mut is_asked, world.request.is_some()) && !is_asked {
                answered = answered.or(Some(world.now));
            }
        }
        let down = world.changes.iter().find(|change| change.to == Verdict::Down).map(|change| change.at);
        (answered, down)
    };
    let (answered, down) = play(at(60.0), 3.0);
    let cut = answered.expect("the second one is answered") + ms(300);
    assert_eq!(down, None);
    let (_, down) = play(cut, 8.0);
    let took = down.map(|down| down.since(cut));
    assert!(took.is_some_and(|took| took <= ms(400)), "{took:?}");
}

#[test]
fn inner_targets_speak_for_a_path_in_a_burst_too() {
    // IKE is gone for good, inner probes are answered: the path stays.
    let fate = |now: Moment, kind, _: &mut Chance| match kind {
        Kind::Ike if now >= at(20.0) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    };
    let mut world = World::new(HealthSettings::default(), &[target(1)], 1, fate);
    world.run(120.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy], "{:?}", world.changes);
    // And then the path is cut.
    let cut = at(120.0);
    let fate = move |now: Moment, kind, _: &mut Chance| match kind {
        Kind::Ike if now >= at(20.0) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => {
            if now >= cut {
                Fate::Lost
            } else {
                Fate::Back(ms(20))
            }
        }
    };
    let mut world = World::new(HealthSettings::default(), &[target(1)], 1, fate);
    world.flow = Some(Flow::new(2, 0, true));
    world.run(130.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down]);
    let took = world.changes[1].at.since(cut);
    assert!(took <= ms(300), "{took:?}");
}

#[test]
fn a_verdict_is_confirmed_only_while_nothing_is_heard() {
    let hole = |now: Moment| now >= at(20.0) && now < at(20.25);
    let fate = move |now, _, _: &mut Chance| if hole(now) { Fate::Lost } else { Fate::Back(ms(20)) };
    let mut world = World::new(HealthSettings::default(), &[], 1, fate);
    world.flow = Some(Flow::new(5, 0, true));
    world.run(20.24);
    assert_eq!(world.health.verdict(), Verdict::Down);
    assert!(world.health.confirmed_at().is_some_and(|at| at > world.now));
    world.run(20.35);
    assert_eq!(world.health.confirmed_at(), None);
    world.run(30.0);
    assert_ne!(world.health.verdict(), Verdict::Down);
}

#[test]
fn a_thousand_paths_that_are_cut_at_once_share_the_budget() {
    let cut = at(10.0);
    let fate = move |now, _, _: &mut Chance| if now >= cut { Fate::Lost } else { Fate::Back(ms(20)) };
    let mut worlds: Vec<_> = (0..1_000).map(|seed| World::new(HealthSettings::default(), &[], seed, fate)).collect();
    for world in &mut worlds {
        world.flow = Some(Flow::new(10, 0, true));
        world.run(9.99);
        world.probes.clear();
    }
    let mut budget = ProbeBudget::default();
    for step in 9_990..14_000 {
        for world in &mut worlds {
            world.budget = budget.clone();
            world.run(f64::from(step) / 1000.0);
            budget = world.budget.clone();
        }
    }
    let mut downs: Vec<Duration> = worlds.iter().map(|world| world.changes[1].at.since(cut)).collect();
    downs.sort_unstable();
    print("a thousand paths cut at once", &downs);
    assert!(downs[999] <= ms(2_800), "{:?}", downs[999]);
    let mut probes: Vec<Moment> = worlds.iter().flat_map(|world| world.probes.iter().map(|(at, _)| *at)).collect();
    probes.sort_unstable();
    let most = probes
        .iter()
        .map(|from| probes.partition_point(|at| *at < *from + ms(1_000)) - probes.partition_point(|at| at < from))
        .max();
    // 2,000 a second, 200 at once, and the steady ones.
    assert!(most <= Some(3_300), "{most:?}");
}

#[test]
fn a_question_that_got_no_turn_is_asked_when_there_is_one() {
    let mut world = World::new(HealthSettings::default(), &[], 1, line(20, 0));
    world.flow = Some(Flow::new(5, 0, false));
    world.run(10.0).probes.clear();
    for round in 1..100 {
        // Others take all turns of the next 50 ms.
        while world.budget.turn(world.now) < world.now + ms(50) {}
        world.run(10.0 + f64::from(round) * 0.31);
    }
    let asked: Vec<Moment> = world.probes.iter().map(|(at, _)| *at).collect();
    let longest = asked.windows(2).map(|pair| pair[1].since(pair[0])).max();
    // 75 ms after the answer, and what it waits for its turn; not 75 ms more.
    assert!(longest > Some(ms(100)) && longest <= Some(ms(150)), "{longest:?}");
}
