use std::time::Duration;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Phases of random loss, delay and return path.
    #[test]
    fn no_weather_breaks_what_a_verdict_promises(
        seed in any::<u64>(),
        interval in prop_oneof![Just(100u64), Just(500), Just(1000), Just(5000)],
        flow in prop_oneof![Just(None), (1u64..200, 0u64..50, any::<bool>()).prop_map(Some)],
        phases in proptest::collection::vec((1u64..40, 0u32..=1000, 1u64..2500, 0u32..400, 0u8..6), 1..12),
        scrutiny in prop_oneof![Just(Closeness::Never), Just(Closeness::Sparing), Just(Closeness::Close)],
    ) {
        let total: u64 = phases.iter().map(|phase| phase.0).sum();
        let fate = move |now: Moment, kind, chance: &mut Chance| {
            let mut end = Moment::ZERO;
            for &(seconds, loss, rtt, spread, returns) in &phases {
                end = end + Duration::from_secs(seconds);
                if now < end {
                    let delay = ms(rtt + u64::from(chance.below(spread)));
                    return match kind {
                        _ if chance.below(1000) < loss => Fate::Lost,
                        Kind::Inner(_) if returns == 0 => Fate::Elsewhere(delay),
                        Kind::Inner(_) if returns == 1 => Fate::Lost,
                        Kind::Inner(one) if returns == 3 && one == target(1) => Fate::Elsewhere(delay),
                        Kind::Inner(one) if returns == 4 && one == target(1) => Fate::Lost,
                        Kind::Ike if returns == 2 => Fate::Lost,
                        Kind::Ike | Kind::Inner(_) | Kind::Site => Fate::Back(delay),
                    };
                }
            }
            Fate::Lost
        };
        let settings = HealthSettings { scrutiny, ..every(interval) };
        let mut world = World::new(settings, &[target(1), target(2)], seed, fate);
        world.flow = flow.map(|(every, spread, answered)| Flow::new(every, spread, answered));
        let mut seen = 0;
        let mut degraded_since = Moment::ZERO;
        for step in 0..total * 20 {
            world.run(step as f64 / 20.0);
            world.peer.ike = (scrutiny != Closeness::Never).then_some(world.now);
            for (change, silence) in world.changes.iter().zip(&world.silences).skip(seen) {
                match change.to {
                    // Down only after a silence in which that many probes got their time.
                    Verdict::Down => {
                        prop_assert!(silence.is_none_or(|silence| silence >= ms(90)), "{change:?}: {silence:?}");
                    }
                    Verdict::Degraded => degraded_since = change.at,
                    Verdict::Healthy => {
                        prop_assert!(world.answered.is_some());
                        let dwelt = change.at.since(degraded_since) >= Duration::from_secs(10);
                        prop_assert!(change.from != Verdict::Degraded || dwelt);
                    }
                    Verdict::Unknown => prop_assert!(false, "only a restart leads back to unknown"),
                }
            }
            seen = world.changes.len();
            if world.answered.is_none() {
                prop_assert!(matches!(world.health.verdict(), Verdict::Unknown | Verdict::Down));
                prop_assert_eq!(world.health.metrics().rtt, None);
            }
        }
        prop_assert!(world.changes.windows(2).all(|pair| pair[0].to == pair[1].from));
        // Never more than one probe of a kind each interval and one to confirm, and where there is
        // doubt one of each kind each 30 ms; under scrutiny one more each 50 or 100 ms.
        let closely = match scrutiny {
            Closeness::Never => 0,
            Closeness::Sparing => total * 10,
            Closeness::Close => total * 20,
        };
        let most = 4 * (total * 1000 / interval.min(1000) + 2) + 2 * total * 1000 / 30 + closely;
        prop_assert!(world.probes.len() as u64 <= most);
    }

    /// Facts in any order at any time.
    #[test]
    fn facts_in_any_order_are_survived(
        seed in any::<u64>(),
        facts in proptest::collection::vec((0u64..5_000, 0u8..9, any::<u8>()), 1..300),
    ) {
        let target = |name: &str| ProbeTarget { name: name.to_owned(), light: true };
        let targets = [target("1"), target("2")];
        let mut chance = Chance::from_number(seed);
        let mut health = PathHealth::new(every(100), &targets, Moment::ZERO, &mut chance);
        let mut now = Moment::ZERO;
        let mut ids = vec![0];
        let (mut traffic, mut budget) = (Traffic::default(), ProbeBudget::default());
        for (pause, fact, detail) in facts {
            now = now + ms(pause);
            match fact {
                0 | 1 => {
                    traffic.sent += u64::from(detail % 3);
                    traffic.received += u64::from(detail % 2);
                    traffic.last_in = if detail % 2 == 1 { Some(now) } else { traffic.last_in };
                    let peer = PeerSigns { esp: (detail % 5 == 1).then_some(now), ike: (detail % 7 == 1).then_some(now) };
                    health.handle_timeout(now, Surroundings { traffic, peer, budget: &mut budget });
                }
                6 => health.handle_trouble(Trouble::SendFailed, now),
                7 => health.handle_request(now),
                8 => health.handle_heavy(),
                2 => health.handle_liveness((detail % 2 == 0).then(|| ms(u64::from(detail))), now),
                3 => health.handle_restart(now),
                _ => {
                    let id = ids[usize::from(detail) % ids.len()];
                    health.handle_inner(id, usize::from(detail % 2), detail % 3 != 0, ms(u64::from(detail)), now);
                }
            }
            while let Some(probe) = health.poll_probe(now) {
                ids.push(probe.id);
            }
            while health.poll_change().is_some() {}
            health.handle_timeout(now, Surroundings { traffic, peer: PeerSigns::default(), budget: &mut budget });
            prop_assert!(health.poll_timeout() > now);
            let _ = (health.metrics(), health.note(), health.verdict());
        }
    }
}
