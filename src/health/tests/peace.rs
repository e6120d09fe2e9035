//! What must not be taken for an outage, over simulated days.

use super::*;

const DAY: f64 = 86_400.0;

/// Verdicts `Down` of so many days.
fn downs(
    settings: HealthSettings,
    flow: Option<Flow>,
    days: f64,
    seed: u64,
    fate: impl FnMut(Moment, Kind, &mut Chance) -> Fate,
) -> usize {
    let mut world = World::new(settings, &[], seed, fate);
    world.flow = flow;
    world.run(days * DAY);
    world.verdicts().iter().filter(|verdict| **verdict == Verdict::Down).count()
}

/// Loss of 2 % each way comes to this there and back, in thousandths.
const TWO_PER_CENT: u32 = 40;

fn random_loss(days: f64) {
    for sensitivity in Sensitivity::ALL {
        for (what, flow, share) in [
            ("idle", None, 1.0),
            ("sends 100 a second, hears nothing", Some(Flow::new(10, 0, false)), 0.2),
            ("a call", Some(Flow::new(20, 0, true)), 0.1),
            ("requests at random", Some(Flow::new(20, 400, true)), 0.3),
        ] {
            let settings = HealthSettings { sensitivity, ..HealthSettings::default() };
            let days = days * share;
            let count = downs(settings, flow, days, 7, line(20, TWO_PER_CENT));
            let name = sensitivity.name();
            println!("{name}, 2 % of random loss each way, {what}: {count} false alarms in {days:.1} days");
            assert!(count as f64 <= 3.0 * days, "{name}, {what}: {count}");
        }
    }
}

#[test]
fn random_loss_of_two_per_cent_raises_no_alarm() {
    random_loss(1.0);
}

#[test]
#[ignore = "weeks take minutes; the short form is above"]
fn random_loss_of_two_per_cent_raises_no_alarm_for_weeks() {
    random_loss(30.0);
}

/// Holes in which everything is lost, with these mean lengths in ms, which make up 2 % of the time.
fn holes(mean: f64) -> impl FnMut(Moment, Kind, &mut Chance) -> Fate {
    let (mut bad, mut until) = (true, Moment::ZERO);
    move |now, _, chance| {
        while until <= now {
            bad = !bad;
            let mean = if bad { mean } else { mean * 49.0 };
            let unit = (f64::from(chance.next_u32()) + 1.0) / 4_294_967_297.0;
            until = until + Duration::from_secs_f64(-unit.ln() * mean / 1e3);
        }
        if bad { Fate::Lost } else { Fate::Back(ms(20)) }
    }
}

#[test]
fn loss_in_rows_is_judged_more_calmly_the_longer_it_goes_on() {
    for sensitivity in Sensitivity::ALL {
        for mean in [20.0, 50.0, 100.0] {
            let settings = HealthSettings { sensitivity, ..HealthSettings::default() };
            let call = Some(Flow::new(20, 0, true));
            let count = downs(settings, call, 0.1, 3, holes(mean)) * 10;
            println!("{}, holes of {mean} ms in 2 % of the time, a call: {count} alarms a day", sensitivity.name());
        }
    }
}

#[test]
fn a_flow_that_ends_or_pauses_is_no_outage() {
    for seed in 0..20 {
        let mut world = World::new(HealthSettings::default(), &[], seed, line(20, 0));
        world.run(5.0);
        world.probes.clear();
        for second in 0..60 {
            world.flow = (second % 3 != 0).then_some(Flow { next: world.now, ..Flow::new(4, 6, true) });
            world.run(6.0 + f64::from(second));
        }
        assert_eq!(world.verdicts(), [Verdict::Healthy]);
        let extra = world.probes.len().saturating_sub(60);
        assert!(extra <= 60, "{extra} probes for 20 pauses");
    }
}

#[test]
fn a_path_that_is_used_one_way_only_is_probed_while_it_sends_and_left_alone_then() {
    let mut world = World::new(HealthSettings::default(), &[], 1, line(20, 0));
    world.flow = Some(Flow::new(5, 0, false));
    world.run(10.0).probes.clear();
    world.run(20.0);
    let while_sending = world.probes.len() as u64;
    assert!((10_000 / 100..=10_000 / 50).contains(&while_sending), "{while_sending} probes in 10 s");
    world.flow = None;
    world.run(21.0).probes.clear();
    world.run(31.0);
    assert!(world.probes.len() <= 11, "{} probes in 10 s", world.probes.len());
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
}

#[test]
fn a_queue_that_fills_is_no_outage() {
    // The round trip grows from 20 ms to 800 ms within five seconds, and shrinks again.
    let rtt = |now: Moment| {
        let second = now.since(at(20.0)).as_secs_f64();
        let up = (second / 5.0).min(((40.0 - second) / 5.0).clamp(0.0, 1.0)).clamp(0.0, 1.0);
        Duration::from_secs_f64(0.020 + 0.780 * up)
    };
    for flow in [None, Some(Flow::new(2, 0, true)), Some(Flow::new(5, 0, false)), Some(Flow::new(30, 200, true))] {
        let settings = HealthSettings { rtt_limit: ms(2_000), ..HealthSettings::default() };
        let mut world = World::new(settings, &[], 1, move |now, _, _| Fate::Back(rtt(now)));
        world.flow = flow;
        world.run(90.0);
        assert!(!world.verdicts().contains(&Verdict::Down), "{:?}", world.changes);
    }
}

#[test]
fn our_own_lateness_is_not_the_path_s() {
    // Control and workers stand still for a quarter of a second, again and again.
    let mut world = World::new(HealthSettings::default(), &[], 1, line(20, 0));
    world.flow = Some(Flow::new(2, 0, true));
    world.run(10.0);
    for round in 0..40 {
        let arrivals = std::mem::take(&mut world.arrivals);
        let traffic = world.traffic;
        world.now = world.now + ms(250);
        world.flow = Some(Flow { next: world.now, ..Flow::new(2, 0, true) });
        world.time_out();
        world.drain();
        assert_eq!(world.health.verdict(), Verdict::Healthy, "round {round}");
        // What came meanwhile is read now.
        let now = world.now;
        world.arrivals.extend(arrivals.into_iter().map(|((_, count), arrival)| ((now, count), arrival)));
        world.traffic = Traffic { last_in: Some(now), ..traffic };
        world.run(10.0 + f64::from(round) * 0.75 + 0.75);
    }
    assert_eq!(world.verdicts(), [Verdict::Healthy], "{:?}", world.changes);
}
