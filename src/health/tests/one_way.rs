//! Packets that come in say nothing of the way there.

use super::*;

const CALL: Flow =
    Flow { every: Duration::from_millis(20), spread: Duration::ZERO, answered: true, next: Moment::ZERO };

fn closely<F: FnMut(Moment, Kind, &mut Chance) -> Fate>(targets: u8, seed: u64, fate: F) -> World<F> {
    let settings = HealthSettings { scrutiny: Closeness::Close, ..every(1000) };
    let targets: Vec<IpAddr> = (1..=targets).map(target).collect();
    let mut world = World::new(settings, &targets, seed, fate);
    world.flow = Some(CALL);
    world
}

/// Meanwhile the peer's IKE daemon answers over other paths, at the time that is given for each moment.
fn beside<F: FnMut(Moment, Kind, &mut Chance) -> Fate>(
    world: &mut World<F>,
    until: f64,
    others: impl Fn(Moment) -> Moment,
) {
    while world.now < at(until) {
        let next = world.now + ms(10);
        world.run(next.since(Moment::ZERO).as_secs_f64());
        world.peer.ike = Some(others(world.now));
    }
}

fn downs<F: FnMut(Moment, Kind, &mut Chance) -> Fate>(world: &World<F>) -> usize {
    world.changes.iter().filter(|change| change.to == Verdict::Down).count()
}

/// How long the hole lasts still that is at the beginning of every 20 s.
fn hole(now: Moment, length: Duration) -> Option<Duration> {
    let phase = Duration::from_nanos(now.as_nanos() % 20_000_000_000);
    length.checked_sub(phase).filter(|left| !left.is_zero())
}

#[test]
fn about_a_dead_target_beside_one_that_answers_a_path_is_asked_no_more_quickly_than_in_a_burst() {
    for seed in 0..10 {
        let gone = at(30.0) + ms(seed * 13);
        // What the first one loses makes the second one speak for the path.
        let fate = move |now, kind, chance: &mut Chance| match kind {
            Kind::Inner(one) if one == target(1) && chance.below(10) == 0 => Fate::Lost,
            Kind::Inner(one) if one == target(2) && now >= gone => Fate::Lost,
            Kind::Inner(_) | Kind::Ike | Kind::Site => Fate::Back(ms(2)),
        };
        let mut world = closely(2, seed, fate);
        beside(&mut world, 33.0, |now| now);
        let probes: Vec<Moment> = world.probes.iter().map(|(at, _)| *at).filter(|at| *at >= gone).collect();
        let within = |from: Moment| probes.iter().filter(|at| **at >= from && at.since(from) < ms(100)).count();
        let most = probes.iter().map(|at| within(*at)).max();
        assert!(most <= Some(14), "{most:?} probes in 100 ms");
    }
}

#[test]
fn a_daemon_that_was_busy_and_answers_other_paths_a_little_sooner_is_no_cut() {
    for (targets, busy) in [(0, 1_000), (0, 1_500), (1, 600), (1, 1_000)] {
        for seed in 0..20 {
            let begin = at(10.0) + ms(seed * 25);
            let end = begin + ms(busy);
            let fate = move |now: Moment, kind, _: &mut Chance| match kind {
                Kind::Inner(_) if now >= begin => Fate::Lost,
                Kind::Ike if now >= begin && now < end => Fate::Back(end.since(now) + ms(30)),
                Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
            };
            let mut world = closely(targets, seed, fate);
            let others = |now| if now >= begin && now < end + ms(20) { begin } else { now };
            beside(&mut world, 13.0, others);
            assert_eq!(downs(&world), 0, "{targets} targets, {busy} ms: {:?}", world.changes);
        }
    }
}

/// Control does nothing for so long, while workers go on; what came for it meanwhile is read when it has looked at the time.
fn stand_still<F: FnMut(Moment, Kind, &mut Chance) -> Fate>(world: &mut World<F>, length: Duration) {
    world.now = world.now + length;
    for ((at, count), arrival) in std::mem::take(&mut world.arrivals) {
        match arrival {
            Arrival::Site if at <= world.now => world.traffic.received += 1,
            Arrival::Site | Arrival::Ike { .. } | Arrival::Echo { .. } => {
                world.arrivals.insert((at.max(world.now), count), arrival);
            }
        }
    }
    world.traffic.last_in = Some(world.now);
    world.time_out();
    world.drain();
}

#[test]
fn our_own_lateness_is_no_cut_while_packets_come_in() {
    let begin = at(20.0);
    // All that is lost on the way there is lost within so short a time.
    let fate = move |now: Moment, kind, _: &mut Chance| match kind {
        Kind::Ike | Kind::Inner(_) if now >= begin && now < begin + ms(60) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(200)),
    };
    for seed in 0..20 {
        for late in (200..700).step_by(20) {
            let mut world = closely(1, seed, fate);
            beside(&mut world, 20.0 + f64::from(late) / 1e3, |now| now);
            stand_still(&mut world, ms(400));
            beside(&mut world, 24.0, |now| now);
            assert_eq!(downs(&world), 0, "seed {seed}, after {late} ms: {:?}", world.changes);
        }
    }
}

#[test]
fn short_holes_on_the_way_there_are_judged_more_calmly_too() {
    let fate = |now, kind, _: &mut Chance| match kind {
        Kind::Ike | Kind::Inner(_) if hole(now, ms(500)).is_some() => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    };
    let mut world = closely(1, 1, fate);
    beside(&mut world, 210.0, |now| now);
    assert!((1..=4).contains(&downs(&world)), "{:?}", world.changes);
}

#[test]
fn a_target_that_answers_a_few_times_a_second_makes_no_cut_of_an_ike_daemon_that_is_busy() {
    for (allowed, seed) in [(3, 0), (3, 1), (8, 2), (8, 3)] {
        let mut second = (0, 0);
        let fate = move |now: Moment, kind, _: &mut Chance| match kind {
            Kind::Inner(_) => {
                let this = now.as_nanos() / 1_000_000_000;
                second = if second.0 == this { (this, second.1 + 1) } else { (this, 1) };
                if second.1 > allowed { Fate::Lost } else { Fate::Back(ms(20)) }
            }
            Kind::Ike => Fate::Back(hole(now, ms(500)).unwrap_or_default() + ms(20)),
            Kind::Site => Fate::Back(ms(20)),
        };
        let mut world = closely(1, seed, fate);
        beside(&mut world, 110.0, |now| now);
        assert_eq!(downs(&world), 0, "{allowed} a second: {:?}", world.changes);
    }
}

#[test]
fn after_a_cut_in_both_directions_a_target_is_believed_as_before() {
    let mut times = Vec::new();
    for seed in 0..40 {
        let cut = at(20.0) + ms(seed * 13);
        let back = cut + ms(1_500);
        let again = at(50.0) + ms(seed * 7);
        let fate = move |now, kind, _: &mut Chance| match kind {
            _ if now >= cut && now < back => Fate::Lost,
            // The way to the target is there a little later than that to the peer.
            Kind::Inner(_) if now >= cut && now < back + ms(400) => Fate::Lost,
            Kind::Ike | Kind::Inner(_) if now >= again => Fate::Lost,
            Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
        };
        let mut world = closely(1, seed, fate);
        beside(&mut world, 54.0, |now| now);
        let expected = [Verdict::Healthy, Verdict::Down, Verdict::Healthy, Verdict::Down];
        assert_eq!(world.verdicts(), expected, "{:?}", world.changes);
        times.push(world.changes[3].at.since(again));
    }
    times.sort();
    assert!(times[39] <= ms(550), "{times:?}");
}
