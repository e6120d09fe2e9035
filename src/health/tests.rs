use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Chance, Moment, Permille, Verdict};

/// What the world does to one probe.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Back(Duration),
    /// Answered over another tunnel.
    Elsewhere(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ike,
    Inner(IpAddr),
}

enum Arrival {
    Ike { exchange: u64 },
    Echo { id: u64, target: IpAddr, same_path: bool, sent: Moment },
}

/// A path's health with the world around it: an IKE SA that has one request outstanding at a
/// time, and inner targets.
struct World<F: FnMut(Moment, Kind, &mut Chance) -> Fate> {
    health: PathHealth,
    fate: F,
    chance: Chance,
    now: Moment,
    /// Number, first transmission and number of transmissions of the outstanding IKE request.
    request: Option<(u64, Moment, u32)>,
    arrivals: BTreeMap<(Moment, u64), Arrival>,
    count: u64,
    changes: Vec<VerdictChange>,
    /// How long each change came after the last own answer.
    silences: Vec<Option<Duration>>,
    probes: Vec<(Moment, ProbeKind)>,
    /// The last own answer.
    answered: Option<Moment>,
}

impl<F: FnMut(Moment, Kind, &mut Chance) -> Fate> World<F> {
    fn new(settings: HealthSettings, targets: &[IpAddr], seed: u64, fate: F) -> Self {
        let mut chance = Chance::from_number(seed);
        let targets: Vec<ProbeTarget> = targets.iter().map(|&address| ProbeTarget { address }).collect();
        World {
            health: PathHealth::new(settings, &targets, Moment::ZERO, &mut chance),
            fate,
            chance,
            now: Moment::ZERO,
            request: None,
            arrivals: BTreeMap::new(),
            count: 0,
            changes: Vec::new(),
            silences: Vec::new(),
            probes: Vec::new(),
            answered: None,
        }
    }

    fn run(&mut self, seconds: f64) -> &mut Self {
        let end = Moment::ZERO + Duration::from_secs_f64(seconds);
        loop {
            let arrival = self.arrivals.first_key_value().map(|(&(at, _), _)| at);
            let timeout = self.health.poll_timeout();
            let next = arrival.map_or(timeout, |at| at.min(timeout));
            if next > end {
                self.now = end;
                return self;
            }
            assert!(next >= self.now, "time runs backwards");
            self.now = next;
            if arrival == Some(next) {
                self.deliver();
            } else {
                self.health.handle_timeout(self.now);
            }
            self.drain();
            assert!(self.health.poll_timeout() > self.now || arrival == Some(next), "a timeout that stays due");
        }
    }

    fn deliver(&mut self) {
        let Some((_, arrival)) = self.arrivals.pop_first() else { return };
        match arrival {
            Arrival::Ike { exchange } => {
                if let Some((number, first, transmissions)) = self.request
                    && number == exchange
                {
                    self.request = None;
                    self.answered = Some(self.now);
                    let rtt = (transmissions == 1).then(|| self.now.since(first));
                    self.health.handle_liveness(rtt, self.now);
                }
            }
            Arrival::Echo { id, target, same_path, sent } => {
                if same_path {
                    self.answered = Some(self.now);
                }
                self.health.handle_echo(id, target, same_path, self.now.since(sent), self.now);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(probe) = self.health.poll_probe(self.now) {
            self.probes.push((self.now, probe.kind));
            self.count += 1;
            let (kind, arrival) = match probe.kind {
                ProbeKind::Liveness => {
                    let (number, first, transmissions) = self.request.unwrap_or((self.count, self.now, 0));
                    self.request = Some((number, first, transmissions + 1));
                    (Kind::Ike, Arrival::Ike { exchange: number })
                }
                ProbeKind::Echo(target) => {
                    (Kind::Inner(target), Arrival::Echo { id: probe.id, target, same_path: true, sent: self.now })
                }
            };
            match ((self.fate)(self.now, kind, &mut self.chance), arrival) {
                (Fate::Lost, _) | (Fate::Elsewhere(_), Arrival::Ike { .. }) => {}
                (Fate::Back(after), arrival) => {
                    self.arrivals.insert((self.now + after, self.count), arrival);
                }
                (Fate::Elsewhere(after), Arrival::Echo { id, target, sent, .. }) => {
                    let arrival = Arrival::Echo { id, target, same_path: false, sent };
                    self.arrivals.insert((self.now + after, self.count), arrival);
                }
            }
        }
        while let Some(change) = self.health.poll_change() {
            assert_ne!(change.from, change.to);
            assert_eq!(change.at, self.now);
            self.silences.push(self.answered.map(|answered| self.now.since(answered)));
            self.changes.push(change);
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.changes.iter().map(|change| change.to).collect()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn every(interval: u64) -> HealthSettings {
    HealthSettings { interval: ms(interval), ..HealthSettings::default() }
}

fn at(seconds: f64) -> Moment {
    Moment::ZERO + Duration::from_secs_f64(seconds)
}

fn target(last: u8) -> IpAddr {
    IpAddr::from([10, 9, 0, last])
}

/// A path with this round-trip time, up to a millisecond of jitter, and this loss.
fn line(rtt: u64, loss: u32) -> impl FnMut(Moment, Kind, &mut Chance) -> Fate {
    move |_, _, chance| {
        if chance.below(1000) < loss {
            return Fate::Lost;
        }
        Fate::Back(ms(rtt) + Duration::from_micros(u64::from(chance.below(1000))))
    }
}

#[test]
fn a_new_path_is_unknown_until_three_probes_are_answered() {
    let mut world = World::new(every(1000), &[], 1, line(20, 0));
    assert_eq!(world.health.metrics(), Metrics::default());
    world.run(10.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
    assert!(world.changes[0].at >= at(2.0) && world.changes[0].at <= at(3.1), "{:?}", world.changes);
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
fn steady_probes_keep_their_interval() {
    for interval in [100, 250, 1000, 10_000, 60_000] {
        let mut world = World::new(every(interval), &[target(1), target(2)], 5, line(20, 0));
        world.run(300.0).probes.clear();
        world.run(900.0);
        let expected = 600_000 / interval;
        for kind in [ProbeKind::Liveness, ProbeKind::Echo(target(1)), ProbeKind::Echo(target(2))] {
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
        let rtt = |now| if now < at(60.0) { ms(20) } else { ms(700) };
        let mut world = World::new(every(1000), targets, 3, move |now, _, _| Fate::Back(rtt(now)));
        world.run(180.0);
        assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Degraded]);
        assert!(world.changes[1].reason.starts_with("round-trip time"), "{}", world.changes[1].reason);
        assert!(world.changes[1].at < at(72.0), "{:?}", world.changes[1]);
        assert_eq!(world.health.metrics().loss, Some(Permille::ZERO));
    }
}

#[test]
fn a_cut_is_noticed_within_the_documented_time() {
    // Interval, round trip, and the longest time in ms from the cut to `Down`: an interval until
    // the first probe that is lost, two steps of at most 1 s, and the patience of 500 ms or four
    // round trips.
    for (interval, rtt, longest) in
        [(100, 20, 800), (250, 20, 1_250), (1000, 20, 3_500), (1000, 300, 4_200), (10_000, 20, 13_000)]
    {
        let mut slowest = Duration::ZERO;
        for seed in 0..40 {
            let cut = at(400.0) + ms(seed * interval / 40);
            let mut before = line(rtt, 0);
            let fate = move |now, kind, chance: &mut Chance| {
                if now + ms(rtt / 2) >= cut { Fate::Lost } else { before(now, kind, chance) }
            };
            let mut world = World::new(every(interval), &[], seed, fate);
            world.run(450.0);
            assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down], "interval {interval}");
            assert_eq!(world.changes[1].reason, "3 probes in a row were not answered");
            slowest = slowest.max(world.changes[1].at.since(cut));
        }
        println!("interval {interval} ms, round trip {rtt} ms: down at most {slowest:?} after a cut");
        assert!(slowest <= ms(longest), "interval {interval}: {slowest:?}");
    }
}

#[test]
fn a_path_comes_back_after_answers_in_a_row_and_is_healthy_when_its_window_is() {
    let outage = |now: Moment| now >= at(60.0) && now < at(90.0);
    let fate = move |now, _, _: &mut Chance| if outage(now) { Fate::Lost } else { Fate::Back(ms(20)) };
    let mut world = World::new(every(1000), &[], 1, fate);
    world.run(200.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down, Verdict::Degraded, Verdict::Healthy]);
    let back = world.changes[2].at.since(at(90.0));
    assert!(back >= ms(2_000) && back <= ms(3_100), "{back:?}");
    let healthy = world.changes[3].at.since(at(90.0));
    assert!(healthy >= Duration::from_secs(20) && healthy <= Duration::from_secs(32), "{healthy:?}");
}

#[test]
fn after_an_outage_a_path_just_within_a_limit_is_healthy_again() {
    // 350 ms of 400 ms allowed: healthy before, and so after.
    let outage = |now: Moment| now >= at(60.0) && now < at(90.0);
    let fate = move |now, _, _: &mut Chance| if outage(now) { Fate::Lost } else { Fate::Back(ms(350)) };
    let mut world = World::new(every(1000), &[], 1, fate);
    world.run(200.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy, Verdict::Down, Verdict::Degraded, Verdict::Healthy]);
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
fn one_or_two_lost_probes_change_nothing() {
    let hole = |now: Moment| now >= at(60.0) && now < at(61.9);
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
        [(&[][..], 1000, 3, 12), (&[target(1)][..], 1000, 3, 12), (&[][..], 250, 1, 24)]
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

#[test]
fn answers_over_another_tunnel_say_nothing() {
    // The peer returns all inner answers over a sibling, which is then cut.
    let fate = |now: Moment, kind, _: &mut Chance| match kind {
        Kind::Ike => Fate::Back(ms(20)),
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
    world.health.handle_echo(old.id, target(1), true, ms(20), world.now);
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
        world.health.handle_timeout(paused);
        world.drain();
        paused = paused + Duration::from_secs(2);
        world.health.handle_timeout(paused);
        world.now = paused;
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
        world.health.handle_echo(id, target(1), true, ms(1), world.now);
        world.health.handle_echo(id, target(1), false, ms(1), world.now);
    }
    world.health.handle_echo(7, target(99), true, ms(1), world.now);
    world.health.handle_echo(7, target(1), true, Duration::MAX, world.now);
    assert_eq!(world.health.metrics(), before);
    world.health.handle_liveness(Some(Duration::MAX), world.now);
    world.run(60.0);
    assert_eq!(world.verdicts(), [Verdict::Healthy]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Phases of random loss, delay and return path.
    #[test]
    fn no_weather_breaks_what_a_verdict_promises(
        seed in any::<u64>(),
        interval in prop_oneof![Just(100u64), Just(500), Just(1000), Just(5000)],
        phases in proptest::collection::vec((1u64..40, 0u32..=1000, 1u64..2500, 0u32..400, 0u8..4), 1..12),
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
                        Kind::Ike if returns == 2 => Fate::Lost,
                        Kind::Ike | Kind::Inner(_) => Fate::Back(delay),
                    };
                }
            }
            Fate::Lost
        };
        let mut world = World::new(every(interval), &[target(1), target(2)], seed, fate);
        let mut seen = 0;
        let mut degraded_since = Moment::ZERO;
        for step in 0..total * 20 {
            world.run(step as f64 / 20.0);
            for (change, silence) in world.changes.iter().zip(&world.silences).skip(seen) {
                match change.to {
                    // Down only after a silence in which that many probes got their time.
                    Verdict::Down => {
                        prop_assert!(silence.is_none_or(|silence| silence >= ms(500)), "{change:?}: {silence:?}");
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
        // Never more than one probe of a kind each interval, and one to confirm.
        prop_assert!(world.probes.len() as u64 <= 4 * (total * 1000 / interval.min(1000) + 2));
    }

    /// Facts in any order at any time.
    #[test]
    fn facts_in_any_order_are_survived(
        seed in any::<u64>(),
        facts in proptest::collection::vec((0u64..5_000, 0u8..6, any::<u8>()), 1..300),
    ) {
        let targets = [ProbeTarget { address: target(1) }, ProbeTarget { address: target(2) }];
        let mut chance = Chance::from_number(seed);
        let mut health = PathHealth::new(every(100), &targets, Moment::ZERO, &mut chance);
        let mut now = Moment::ZERO;
        let mut ids = vec![0];
        for (pause, fact, detail) in facts {
            now = now + ms(pause);
            match fact {
                0 | 1 => health.handle_timeout(now),
                2 => health.handle_liveness((detail % 2 == 0).then(|| ms(u64::from(detail))), now),
                3 => health.handle_restart(now),
                _ => {
                    let id = ids[usize::from(detail) % ids.len()];
                    health.handle_echo(id, target(1 + detail % 2), detail % 3 != 0, ms(u64::from(detail)), now);
                }
            }
            while let Some(probe) = health.poll_probe(now) {
                ids.push(probe.id);
            }
            while health.poll_change().is_some() {}
            health.handle_timeout(now);
            prop_assert!(health.poll_timeout() > now);
            let _ = (health.metrics(), health.note(), health.verdict());
        }
    }
}
