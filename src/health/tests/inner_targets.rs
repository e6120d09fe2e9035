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
