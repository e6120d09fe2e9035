use super::*;
use crate::model::Permille;

#[test]
fn a_path_comes_back_after_answers_in_a_row_and_its_outage_is_not_held_against_it() {
    let outage = |now: Moment| now >= at(60.0) && now < at(90.0);
    let fate = move |now, _, _: &mut Chance| if outage(now) { Fate::Lost } else { Fate::Back(ms(20)) };
    let mut world = World::new(every(1000), &[], 1, fate);
    world.run(200.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down, Verdict::Healthy]);
    let back = world.changes[2].at.since(at(90.0));
    assert!(back >= ms(500) && back <= ms(3_100), "{back:?}");
    assert_eq!(world.health.metrics().loss, Some(Permille::ZERO));
}

#[test]
fn a_path_that_comes_back_lossy_is_soon_found_out() {
    let fate = move |now: Moment, _, chance: &mut Chance| match now {
        now if now < at(60.0) => Fate::Back(ms(20)),
        now if now < at(90.0) => Fate::Lost,
        _ if chance.below(1000) < 400 => Fate::Lost,
        _ => Fate::Back(ms(20)),
    };
    let mut world = World::new(every(1000), &[target(1)], 1, fate);
    world.run(150.0);
    assert!(world.verdicts()[2..].contains(&Verdict::Degraded), "{:?}", world.changes);
}

#[test]
fn a_path_with_calls_shows_within_seconds_that_it_loses_some() {
    let (median, worst) = certain_of_loss_after("four calls", Closeness::Close, 5);
    assert!(median <= 4.5 && worst <= 25.0);
}

#[test]
fn a_metered_path_with_one_call_shows_well_within_a_minute_that_it_loses_some() {
    let (median, worst) = certain_of_loss_after("one call on a metered link", Closeness::Sparing, 20);
    assert!(median <= 13.0 && worst <= 50.0);
}

/// So many seconds, at the median and at worst, until it is certain that a path loses 5 %, with a packet sent so often.
fn certain_of_loss_after(what: &str, scrutiny: Closeness, every_ms: u64) -> (f64, f64) {
    let mut times = Vec::new();
    for seed in 0..30 {
        let fate = |now: Moment, _, chance: &mut Chance| {
            if now >= at(60.0) && chance.below(1000) < 50 { Fate::Lost } else { Fate::Back(ms(20)) }
        };
        let mut world = World::new(HealthSettings { scrutiny, ..every(1000) }, &[target(1)], seed, fate);
        world.flow = Some(Flow::new(every_ms, 0, true));
        world.run(60.0);
        let least = |world: &World<_>| world.health.metrics().recent.map_or(Permille::ZERO, |recent| recent.loss_least);
        let mut second = 60.0;
        while least(&world) <= Permille::new(10).unwrap() && second < 120.0 {
            second += 0.1;
            world.run(second);
        }
        times.push(second - 60.0);
    }
    times.sort_by(f64::total_cmp);
    println!("5 % of loss under {what}: seen after {:.1} s at the median, {:.1} s at worst", times[15], times[29]);
    (times[15], times[29])
}

#[test]
fn a_path_without_traffic_is_not_asked_more_often_for_what_rules_want() {
    let count = |scrutiny: Closeness, lost: u32| {
        let settings = HealthSettings { scrutiny, ..every(1000) };
        let fate = move |_, _, chance: &mut Chance| {
            if chance.below(100) < lost { Fate::Lost } else { Fate::Back(ms(20)) }
        };
        let mut world = World::new(settings, &[target(1)], 1, fate);
        world.run(100.0);
        world.probes.len()
    };
    for closeness in [Closeness::Sparing, Closeness::Close] {
        assert_eq!(count(closeness, 0), count(Closeness::Never, 0));
        assert_eq!(count(closeness, 10), count(Closeness::Never, 10));
    }
}

#[test]
fn after_an_outage_a_path_just_within_a_limit_is_healthy_again() {
    // 350 ms of 400 ms allowed: healthy before, and so after.
    let outage = |now: Moment| now >= at(60.0) && now < at(90.0);
    let fate = move |now, _, _: &mut Chance| if outage(now) { Fate::Lost } else { Fate::Back(ms(350)) };
    let mut world = World::new(every(1000), &[], 1, fate);
    world.run(200.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down, Verdict::Healthy]);
}

#[test]
fn a_path_that_grew_too_slow_must_be_clearly_faster_to_be_healthy() {
    let rtt = |now| {
        if now < at(60.0) {
            20
        } else if now < at(120.0) {
            450
        } else if now < at(300.0) {
            350
        } else {
            290
        }
    };
    let mut world = World::new(every(1000), &[], 1, move |now, _, _| Fate::Back(ms(rtt(now))));
    world.run(400.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Degraded, Verdict::Healthy]);
    assert!(world.changes[2].at > at(310.0), "{:?}", world.changes);
}

#[test]
fn a_hole_that_is_over_before_a_verdict_changes_nothing() {
    let hole = |now: Moment| now >= at(60.0) && now < at(60.08);
    let fate = move |now, _, _: &mut Chance| if hole(now) { Fate::Lost } else { Fate::Back(ms(20)) };
    for seed in 0..20 {
        let mut world = World::new(every(1000), &[target(1)], seed, fate);
        world.run(200.0);
        assert_eq!(world.verdicts(), [Verdict::Healthy]);
    }
}

#[test]
fn one_late_answer_is_no_jitter() {
    let mut count = 0;
    let fate = move |_, _, _: &mut Chance| {
        count += 1;
        Fate::Back(ms(if count % 15 == 0 { 390 } else { 20 }))
    };
    let mut world = World::new(every(1000), &[], 1, fate);
    world.run(600.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
}

#[test]
fn a_brownout_degrades_the_path_and_its_end_is_believed_when_the_window_is_clean() {
    type Brownout = fn(Moment, Kind, &mut Chance) -> Fate;
    fn lossy(permille: u32, chance: &mut Chance) -> Fate {
        if chance.below(1000) < permille { Fate::Lost } else { Fate::Back(ms(20)) }
    }
    // Seconds within which half of the runs, and all of them, must have noticed. With random loss
    // the worst is a matter of luck.
    let cases: [(&str, Brownout, f64, f64); 5] = [
        ("loss of 50 %", |_, _, chance| lossy(500, chance), 10.0, 35.0),
        ("loss of 30 %", |_, _, chance| lossy(300, chance), 20.0, 60.0),
        ("loss of 20 %", |_, _, chance| lossy(200, chance), 40.0, 100.0),
        ("round trip of 500 ms", |_, _, _| Fate::Back(ms(500)), 8.0, 10.0),
        ("jitter", |_, _, chance| Fate::Back(ms(20 + u64::from(chance.below(300)))), 8.0, 30.0),
    ];
    for (name, brownout, usually, always) in cases {
        for targets in [&[][..], &[target(1)][..]] {
            let mut times = Vec::new();
            for seed in 0..30 {
                let browned = |now: Moment| now >= at(100.0) && now < at(200.0);
                let fate = move |now, kind, chance: &mut Chance| {
                    if browned(now) { brownout(now, kind, chance) } else { Fate::Back(ms(20)) }
                };
                let mut world = World::new(every(1000), targets, seed, fate);
                world.run(300.0);
                let first = world.changes.get(1).map(|change| change.at.since(at(100.0)).as_secs_f64());
                times.push(first.unwrap_or(f64::MAX));
                assert_eq!(world.health.verdict(), Verdict::Healthy, "{name}, {:?}", world.changes);
                let last = world.changes.last().map(|change| change.at).unwrap_or_default();
                assert!(last < at(235.0), "{name}: {:?}", world.changes);
            }
            times.sort_by(f64::total_cmp);
            println!("{name}, {} targets: median {:.1} s, worst {:.1} s", targets.len(), times[15], times[29]);
            assert!(times[15] <= usually && times[29] <= always, "{name}: {times:?}");
        }
    }
}

#[test]
fn two_per_cent_of_loss_leave_a_path_in_peace_for_a_day() {
    for (targets, interval, days, most) in
        [(&[][..], 1000, 3, 18), (&[target(1)][..], 1000, 3, 18), (&[][..], 250, 1, 24)]
    {
        let mut changes = 0;
        let mut downs = 0;
        for seed in 0..days {
            let mut world = World::new(every(interval), targets, seed, line(30, 20));
            world.run(86_400.0);
            changes += world.changes.len() - 1;
            downs += world.verdicts().iter().filter(|verdict| **verdict == Verdict::Down).count();
        }
        println!(
            "2 % loss, {} targets, every {interval} ms: {changes} changes in {days} days, {downs} of them to down",
            targets.len()
        );
        assert_eq!(downs, 0);
        assert!(changes <= most, "{changes}");
    }
}
