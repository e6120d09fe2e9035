use std::time::Duration;

use super::*;
use crate::model::Permille;

#[test]
fn a_new_path_is_unknown_until_three_probes_are_answered() {
    let mut world = World::new(every(1000), &[], 1, line(20, 0));
    assert_eq!(world.health.metrics(), Metrics::default());
    world.run(10.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    assert!(world.changes[0].at >= at(0.5) && world.changes[0].at <= at(1.7), "{:?}", world.changes);
    let metrics = world.health.metrics();
    assert_eq!(metrics.loss, Some(Permille::ZERO));
    assert!(metrics.rtt.is_some_and(|rtt| rtt >= ms(20) && rtt <= ms(21)), "{metrics:?}");
    assert!(metrics.jitter.is_some_and(|jitter| jitter < ms(1)), "{metrics:?}");
    assert_eq!(world.health.note(), None);
}

#[test]
fn a_path_that_never_answers_goes_down_and_was_never_measured_as_zero() {
    let mut world = World::new(every(1000), &[target(1)], 1, |_, _, _| Fate::Lost);
    world.run(8.0);
    assert_eq!(world.verdicts(), [Verdict::Down]);
    assert_eq!(world.changes[0].reason, "none of 3 probes was answered");
    assert_eq!((world.health.metrics().rtt, world.health.metrics().jitter), (None, None));
}

#[test]
fn of_a_healthy_path_that_shows_more_loss_than_the_limit_it_is_told_why_that_is_not_held_against_it() {
    let lost = |now: Moment| [60.0, 68.0, 76.0].iter().any(|from| (at(*from)..at(*from + 1.0)).contains(&now));
    let fate = move |now, kind, _: &mut Chance| match kind {
        Kind::Inner(_) if lost(now) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    };
    let mut world = World::new(every(1000), &[target(1)], 1, fate);
    world.run(65.0);
    assert_eq!(world.health.note(), None);
    world.run(80.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    assert_eq!(world.changes[0].reason, "measured, and nothing is surely beyond its limit");
    let told = "loss 10.0 % over the window is above the limit of 5.0 %, but of too few probes to be sure: degraded when 4 of the \
                newest 10 are lost, or 6 of 30";
    assert_eq!(world.health.note().as_deref(), Some(told));
}

#[test]
fn steady_probes_keep_their_interval() {
    for interval in [100, 250, 1000, 10_000, 60_000] {
        let mut world = World::new(every(interval), &[target(1), target(2)], 5, line(20, 0));
        world.run(300.0).probes.clear();
        world.run(900.0);
        let expected = 600_000 / interval;
        for kind in [ProbeKind::Liveness, ProbeKind::Inner(0), ProbeKind::Inner(1)] {
            let count = world.probes.iter().filter(|(_, probe)| *probe == kind).count() as u64;
            assert!(count.abs_diff(expected) <= 1, "{count} of {kind:?} at {interval} ms, expected {expected}");
        }
    }
}

#[test]
fn round_trips_longer_than_the_interval_are_measured_and_never_lost() {
    for (interval, rtt) in [(100, 600), (100, 1_500), (200, 3_000), (1000, 1_200), (1000, 2_500)] {
        let limits = HealthSettings { rtt_limit: ms(4_000), ..every(interval) };
        for targets in [&[][..], &[target(1)][..]] {
            let mut world = World::new(limits, targets, 3, line(rtt, 0));
            world.run(120.0);
            assert_eq!(world.verdicts(), [Verdict::Healthy], "interval {interval}, round trip {rtt}");
            let metrics = world.health.metrics();
            assert_eq!(metrics.loss, Some(Permille::ZERO), "interval {interval}, round trip {rtt}");
            assert!(metrics.rtt.is_some_and(|found| found >= ms(rtt) && found <= ms(rtt + 1)), "{metrics:?}");
        }
    }
}

#[test]
fn a_sudden_longer_round_trip_is_told_from_loss() {
    for targets in [&[][..], &[target(1)][..]] {
        let rtt = |now| if now < at(60.0) { ms(20) } else { ms(110) };
        let settings = HealthSettings { rtt_limit: ms(80), ..every(1000) };
        let mut world = World::new(settings, targets, 3, move |now, _, _| Fate::Back(rtt(now)));
        world.run(180.0);
        assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Degraded]);
        assert!(world.changes[1].reason.starts_with("round-trip time"), "{}", world.changes[1].reason);
        assert!(world.changes[1].at < at(72.0), "{:?}", world.changes[1]);
        assert_eq!(world.health.metrics().loss, Some(Permille::ZERO));
    }
}

#[test]
fn a_restart_forgets_the_old_tunnel() {
    let cut = |now: Moment| now >= at(60.0) && now < at(70.0);
    let fate = move |now, _, _: &mut Chance| if cut(now) { Fate::Lost } else { Fate::Back(ms(20)) };
    let mut world = World::new(every(1000), &[target(1)], 1, fate);
    world.run(75.0);
    let old = Probe { id: world.health.poll_probe(world.now).map_or(0, |probe| probe.id), kind: ProbeKind::Liveness };
    world.request = None;
    world.health.handle_restart(world.now);
    world.drain();
    assert_eq!(world.health.verdict(), Verdict::Unknown);
    assert_eq!(world.health.metrics(), Metrics::default());
    // An answer from before says nothing about the new tunnel.
    world.health.handle_inner(old.id, 0, true, ms(20), world.now);
    assert_eq!(world.health.metrics(), Metrics::default());
    world.run(80.0);
    assert_eq!(world.health.verdict(), Verdict::Healthy);
    assert_eq!(world.health.metrics().loss, Some(Permille::ZERO));
}

#[test]
fn a_pause_of_our_own_is_not_taken_for_the_peer_s_silence() {
    let mut world = World::new(every(100), &[], 1, line(20, 0));
    world.run(60.0);
    // Twenty probes were due and the answer to the last one waits unread.
    let mut paused = world.now;
    for _ in 0..20 {
        world.now = paused;
        world.time_out();
        world.drain();
        paused = paused + Duration::from_secs(2);
        world.now = paused;
        world.time_out();
        world.drain();
        world.arrivals.clear();
        world.request = None;
        world.health.handle_liveness(None, paused);
        world.drain();
    }
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
}

#[test]
fn a_target_that_lies_does_no_harm() {
    let mut world = World::new(every(1000), &[target(1)], 1, line(20, 0));
    world.run(30.0);
    let before = world.health.metrics();
    for id in [0, 1, u64::MAX] {
        world.health.handle_inner(id, 0, true, ms(1), world.now);
        world.health.handle_inner(id, 0, false, ms(1), world.now);
    }
    world.health.handle_inner(7, 99, true, ms(1), world.now);
    world.health.handle_inner(7, 0, true, Duration::MAX, world.now);
    assert_eq!(world.health.metrics(), before);
    world.health.handle_liveness(Some(Duration::MAX), world.now);
    world.run(60.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
}

#[test]
fn the_newest_round_trips_show_within_three_seconds_without_any_probes_more() {
    let rtt = |now| if now < at(60.0) { ms(20) } else { ms(110) };
    let mut world = World::new(every(1000), &[target(1)], 3, move |now, _, _| Fate::Back(rtt(now)));
    assert_eq!(world.run(60.0).health.metrics().latest, Some(ms(20)));
    let metrics = world.run(63.2).health.metrics();
    assert_eq!((metrics.latest, metrics.source), (Some(ms(110)), Some(0)));
    assert_eq!(metrics.rtt, Some(ms(20)), "half of the window is of before");
    // IKE tells it a little later: what is asked again meanwhile is not measured.
    let mut world = World::new(every(1000), &[], 3, move |now, _, _| Fate::Back(rtt(now)));
    let metrics = world.run(70.0).health.metrics();
    assert_eq!((metrics.latest, metrics.source), (Some(ms(110)), None));
}

#[test]
fn the_target_with_the_least_loss_speaks_for_the_path_and_its_round_trips_are_not_mixed_with_others() {
    // The first target loses a fifth for half a minute, the second is four times as far away.
    let fate = |now: Moment, kind, chance: &mut Chance| match kind {
        Kind::Inner(one) if one == target(2) => Fate::Back(ms(80)),
        Kind::Inner(_) if now >= at(60.0) && now < at(90.0) && chance.below(5) == 0 => Fate::Lost,
        Kind::Inner(_) | Kind::Ike | Kind::Site => Fate::Back(ms(20)),
    };
    let settings = HealthSettings { scrutiny: Closeness::Close, ..every(1000) };
    let mut world = World::new(settings, &[target(1), target(2)], 1, fate);
    world.flow = Some(Flow::new(5, 0, true));
    let told = |world: &World<_>| {
        let metrics = world.health.metrics();
        let recent = metrics.recent.expect("many probes");
        (metrics.source, recent.rtt, recent.jitter, recent.loss_least)
    };
    let before = told(world.run(60.0));
    assert_eq!(before, (Some(0), ms(20), ms(0), Permille::ZERO));
    let mut sources = vec![before.0];
    for second in 61..200 {
        let (source, rtt, jitter, loss_least) = told(world.run(f64::from(second)));
        assert_eq!(rtt, if source == Some(0) { ms(20) } else { ms(80) });
        assert_eq!((jitter, loss_least), (ms(0), Permille::ZERO), "second {second}");
        sources.push(source);
    }
    sources.dedup();
    assert_eq!(sources, [Some(0), Some(1), Some(0)]);
    // Asked quickly is who speaks.
    world.probes.clear();
    world.run(210.0);
    let asked = |index| world.probes.iter().filter(|(_, kind)| *kind == ProbeKind::Inner(index)).count();
    assert!(asked(0) > 80 && asked(1) < 15, "{} and {}", asked(0), asked(1));
}
