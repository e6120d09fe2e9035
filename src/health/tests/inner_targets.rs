use super::*;
use crate::model::Permille;

#[test]
fn answers_over_another_tunnel_say_nothing() {
    // The peer returns all inner answers over a sibling, which is then cut.
    let fate = |now: Moment, kind, _: &mut Chance| match kind {
        Kind::Ike | Kind::Site => Fate::Back(ms(20)),
        Kind::Inner(_) if now < at(10.0) => Fate::Back(ms(20)),
        Kind::Inner(_) if now < at(60.0) => Fate::Elsewhere(ms(900)),
        Kind::Inner(_) => Fate::Lost,
    };
    let mut world = World::new(every(1000), &[target(1), target(2)], 1, fate);
    world.run(50.0);
    let note = world.health.note().unwrap_or_default();
    assert!(note.contains("come back over another tunnel"), "{note}");
    world.run(600.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    let metrics = world.health.metrics();
    assert_eq!((metrics.loss, metrics.rtt), (Some(Permille::ZERO), Some(ms(20))));
}

#[test]
fn a_target_that_never_answers_stays_out_of_the_verdict() {
    let fate = |_, kind, _: &mut Chance| if kind == Kind::Ike { Fate::Back(ms(20)) } else { Fate::Lost };
    let mut world = World::new(every(1000), &[target(7)], 1, fate);
    world.run(300.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    assert!(world.health.note().is_some_and(|note| note.contains("10.9.0.7 have never been answered")));
}

#[test]
fn one_silent_target_of_several_is_a_note_and_all_of_them_degrade() {
    let dead = |kind, now: Moment| {
        kind == Kind::Inner(target(1)) && now >= at(60.0) || kind == Kind::Inner(target(2)) && now >= at(120.0)
    };
    let fate = move |now, kind, _: &mut Chance| {
        if dead(kind, now) && now < at(300.0) { Fate::Lost } else { Fate::Back(ms(20)) }
    };
    let mut world = World::new(every(1000), &[target(1), target(2), target(3)], 1, move |now, kind, chance| {
        if kind == Kind::Inner(target(3)) { Fate::Lost } else { fate(now, kind, chance) }
    });
    world.run(119.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    assert_eq!(world.health.note().as_deref(), Some("inner probes to 10.9.0.1 are not answered any more, others are"));
    world.run(290.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Degraded]);
    assert!(world.changes[1].at < at(125.0), "{:?}", world.changes);
    let note = world.health.note().unwrap_or_default();
    assert!(note.starts_with("IKE answers, inner probes to 10.9.0.1, 10.9.0.2 do not: suspect"), "{note}");
    assert_eq!(world.health.metrics().loss, Some(Permille::ZERO));
    world.run(400.0);
    assert_eq!(world.health.verdict(), Verdict::Healthy);
    assert_eq!(world.changes[2].reason, "inner probes are answered again, and below three quarters of the limits");
}

#[test]
fn inner_answers_keep_a_path_whose_ike_is_silent() {
    let fate = |now: Moment, kind, _: &mut Chance| {
        if kind == Kind::Ike && now >= at(60.0) { Fate::Lost } else { Fate::Back(ms(20)) }
    };
    let mut world = World::new(every(1000), &[target(1)], 1, fate);
    world.run(120.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    assert_eq!(world.health.note().as_deref(), Some("inner probes are answered, IKE is not"));
}

#[test]
fn where_nothing_is_answered_no_note_speaks_of_others() {
    let fate = |now: Moment, _, _: &mut Chance| if now < at(60.0) { Fate::Back(ms(20)) } else { Fate::Lost };
    let mut world = World::new(every(1000), &[target(1), target(2)], 1, fate);
    for second in 60..90 {
        world.run(f64::from(second));
        let note = world.health.note().unwrap_or_default();
        assert!(!note.contains("others are") && !note.contains("probes are answered"), "{note}");
    }
    assert_eq!(world.health.verdict(), Verdict::Down);
}

#[test]
fn one_lost_ike_probe_does_not_make_silent_inner_targets_well() {
    let mut lost = false;
    let fate = move |now: Moment, kind, _: &mut Chance| match kind {
        Kind::Ike if now >= at(120.0) && !std::mem::replace(&mut lost, true) => Fate::Lost,
        Kind::Inner(_) if now >= at(60.0) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    };
    let mut world = World::new(every(1000), &[target(1), target(2)], 1, fate);
    world.run(200.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Degraded], "{:?}", world.changes);
}

/// A path of three targets that has been well for a minute.
fn three(
    need: u8,
    fate: impl FnMut(Moment, Kind, &mut Chance) -> Fate,
) -> World<impl FnMut(Moment, Kind, &mut Chance) -> Fate> {
    World::new(HealthSettings { need, ..every(1000) }, &[target(1), target(2), target(3)], 1, fate)
}

#[test]
fn as_many_targets_as_needed_must_answer() {
    for (need, expected) in [(1, vec![Verdict::Healthy]), (2, vec![Verdict::Healthy, Verdict::Degraded])] {
        let dead = |kind| kind == Kind::Inner(target(1)) || kind == Kind::Inner(target(3));
        let mut world = three(
            need,
            move |now, kind, _| {
                if dead(kind) && now >= at(60.0) { Fate::Lost } else { Fate::Back(ms(20)) }
            },
        );
        world.run(120.0);
        assert_eq!(world.verdicts(), expected, "{need} needed");
        let note = world.health.note().unwrap_or_default();
        assert_eq!(note.contains("(1 of 3 answer, 2 are needed): suspect"), need == 2, "{note}");
        assert_eq!(world.health.metrics().loss, Some(Permille::ZERO));
    }
}

#[test]
fn the_last_of_the_needed_targets_speaks_for_the_path() {
    for (need, rtt) in [(1, 20), (2, 80), (3, 200)] {
        let mut world = three(need, |_, kind, _| match kind {
            Kind::Inner(asked) if asked == target(1) => Fate::Back(ms(80)),
            Kind::Inner(asked) if asked == target(2) => Fate::Back(ms(200)),
            Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
        });
        world.run(60.0);
        assert_eq!(world.health.metrics().rtt, Some(ms(rtt)), "{need} needed");
    }
}

#[test]
fn a_target_that_answers_late_or_twice_changes_nothing_but_a_counter() {
    // Patience for a round trip of 20 ms is 500 ms.
    let mut world = World::new(every(1000), &[target(1)], 1, |now, kind, _| match kind {
        Kind::Inner(_) if now >= at(60.0) && now < at(61.0) => Fate::Lost,
        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(ms(20)),
    });
    world.run(62.0);
    let before = world.health.metrics();
    let asked: Vec<u64> =
        world.probes.iter().filter(|(_, kind)| *kind == ProbeKind::Inner(0)).map(|(at, _)| at.as_nanos()).collect();
    let (first, count) = (world.health.targets().next().unwrap().counts, asked.len() as u64);
    assert_eq!((first.sent, first.answered, first.late, first.unexpected), (count, count - 1, 0, 0));
    // Ids count up by one; the lost one is second to last, or third.
    let ids: Vec<u64> = world.ids.iter().copied().rev().take(5).collect();
    for id in ids {
        for _ in 0..3 {
            world.health.handle_inner(id, 0, true, Duration::from_secs(1), world.now);
        }
        world.health.handle_inner(id, 0, false, Duration::from_secs(1), world.now);
    }
    let counts = world.health.targets().next().unwrap().counts;
    assert_eq!((counts.answered, counts.late, counts.unexpected, counts.elsewhere), (count - 1, 1, 19, 0));
    assert_eq!(world.health.metrics(), before);
    world.drain();
    assert_eq!((world.verdicts(), world.health.note()), (vec![Verdict::Healthy], None));
}

#[test]
fn a_target_that_says_no_is_named_with_what_it_said_and_is_no_loss() {
    let mut world = World::new(every(1000), &[target(1), target(2)], 1, line(20, 0));
    world.run(30.0);
    for second in 30..40 {
        world.refusing = second >= 32;
        world.run(f64::from(second));
    }
    let report = world.health.targets().next().unwrap();
    assert_eq!((report.standing, report.refusal), (TargetStanding::Silent, Some("HTTP status 503")));
    assert_eq!(report.metrics.loss, Some(Permille::ZERO));
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    let note = world.health.note().unwrap();
    assert_eq!(note, "inner probes to 10.9.0.1 (HTTP status 503) are not answered any more, others are");
}

#[test]
fn a_target_that_has_only_ever_said_no_is_not_told_to_have_ceased() {
    let mut world = World::new(every(1000), &[target(1), target(2)], 1, line(20, 0));
    world.refusing = true;
    world.run(30.0);
    let report = world.health.targets().next().unwrap();
    assert_eq!((report.standing, report.refusal), (TargetStanding::Never, Some("HTTP status 503")));
    let note = world.health.note().unwrap();
    assert_eq!(note, "inner probes to 10.9.0.1 (HTTP status 503) have never been answered, others are");
    world.refusing = false;
    world.run(40.0);
    assert_eq!(world.health.targets().next().unwrap().standing, TargetStanding::Answers);
}

#[test]
fn inner_targets_have_an_interval_of_their_own() {
    let settings = HealthSettings { inner_interval: ms(100), ..every(1000) };
    let mut world = World::new(settings, &[target(1)], 1, line(20, 0));
    world.run(60.0);
    let count = |wanted: ProbeKind| world.probes.iter().filter(|(_, kind)| *kind == wanted).count();
    assert!((590..=610).contains(&count(ProbeKind::Inner(0))), "{}", count(ProbeKind::Inner(0)));
    assert!((55..=70).contains(&count(ProbeKind::Liveness)), "{}", count(ProbeKind::Liveness));
}
