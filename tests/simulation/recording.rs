//! The flight recorder: what a site decided is decided the same again, and told for any moment.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use trefoil::edge::Explanation;
use trefoil::model::{Chance, Dscp, FlowKey, LinkId, Moment, Verdict, protocol};
use trefoil::recording::{Block, Entry, Line, Part, Reader, Report, When, explain_at, replay};
use trefoil::steer::{Action, Links, Matcher, OnFailback, PathStrategy, Rule, RuleSet, SlaClass, SlaId, Steering};

use super::network::Weather;
use super::plans::Lifetimes;
use super::world::World;
use super::{SECOND, up};

const MS: Duration = Duration::from_millis(1);

/// 2026-11-22T14:00:00Z, at moment zero.
const ZERO: u64 = 1_795_356_000_000;

/// Writes what has gathered.
fn finish(world: &mut World) {
    let now = world.now;
    let recorder = world.branch.recorder().expect("it records");
    recorder.finish(now);
    assert_eq!(recorder.status().fault, None, "the disk takes it");
}

fn set_clock(world: &mut World, unix_ms_at_zero: u64) {
    world.branch.recorder().expect("it records").unix_ms_at_zero = unix_ms_at_zero;
}

/// One rule of each strategy, so that everything has a say.
fn rules() -> RuleSet {
    let rule = |name: &str, dscp: u8, steering: Steering| Rule {
        name: name.to_owned(),
        place: format!("storm.toml:{dscp}"),
        matcher: Matcher { dscp: vec![Dscp::new(dscp).unwrap()], ..Matcher::default() },
        action: Action::Steer(steering),
    };
    let (dsl_first, voice) = (Links::Prefer(vec![LinkId(1), LinkId(0)]), Some(SlaId(0)));
    let rules = vec![
        rule(
            "voice",
            46,
            Steering { links: dsl_first.clone(), strategy: PathStrategy::Prefer, sla: voice, ..Steering::default() },
        ),
        rule("best", 10, Steering { strategy: PathStrategy::Best, ..Steering::default() }),
        rule("sticky", 12, Steering { links: dsl_first, strategy: PathStrategy::Sticky, ..Steering::default() }),
        rule("keep", 14, Steering { on_failback: OnFailback::Keep, ..Steering::default() }),
        rule(
            "strict",
            16,
            Steering { links: Links::Strict(vec![LinkId(2)]), strategy: PathStrategy::Prefer, ..Steering::default() },
        ),
    ];
    RuleSet::new(rules, SlaClass::shipped())
}

/// Bad weather of every kind over flows of every rule, recorded.
fn storm(seed: u64, directory: &Path) -> World {
    let mut chance = Chance::from_number(seed ^ 0x0f11);
    let mut world = World::new(seed, Lifetimes { ike: 40 * SECOND, child: 15 * SECOND }, rules());
    world.branch.record(directory, ZERO, world.now);
    let mut port = 1_000;
    for round in 0..10 {
        for dscp in [0, 0, 0, 46, 10, 12, 14, 16] {
            let interval = Duration::from_millis(u64::from(10 + chance.below(300)));
            let until = world.now + Duration::from_secs(u64::from(3 + chance.below(60)));
            world.start_flow_until(port, dscp, interval, Some(until));
            port += 1;
        }
        for link in 0..3 {
            for pop in 0..2 {
                let bad = chance.below(3) == 0;
                world.network.weather[link][pop] = Weather {
                    delay: Duration::from_millis(u64::from(1 + chance.below(if bad { 200 } else { 20 }))),
                    jitter: Duration::from_millis(u64::from(chance.below(if bad { 60 } else { 3 }))),
                    loss_permille: if bad { chance.below(150) } else { 0 },
                    loss_up_permille: 0,
                    duplicate_permille: chance.below(20),
                    cut: chance.below(4) == 0 || round == 4 && pop == 0,
                };
            }
        }
        world.run_for(Duration::from_millis(u64::from(5_000 + chance.below(9_000))));
    }
    finish(&mut world);
    world
}

fn replayed(directory: &Path) -> Report {
    replay(&Reader::open(directory).expect("a recording"), None, 0).expect("it can be read")
}

#[test]
fn a_recorded_storm_is_decided_the_same_again_decision_by_decision() {
    for seed in 1..=4 {
        let folder = tempfile::tempdir().expect("a folder");
        let world = storm(seed, folder.path());
        let report = replayed(folder.path());
        let moves = report.steps.iter().filter(|step| step.what == "flow").count();
        let roles = report.steps.iter().filter(|step| step.what == "role").count();
        println!(
            "seed {seed}, {:?}: {} decisions, {} equal, {} not compared; {} steps, {moves} moves of flows, {roles} of roles",
            world.now,
            report.decisions,
            report.equal,
            report.not_compared,
            report.steps.len()
        );
        assert!(report.differences.is_empty(), "{:#?}", report.differences);
        assert!(report.troubles.is_empty(), "{:?}", report.troubles);
        assert_eq!((report.equal, report.not_compared), (report.decisions, 0));
        assert!(report.decisions > 300 && moves > 10 && roles > 0, "{}", world.describe());
    }
}

#[test]
fn a_day_of_a_thousand_flows_a_minute_fits_into_what_a_recording_may_have() {
    let a_day = |flows_a_minute: u32| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = up(11, Lifetimes { ike: 4 * 3600 * SECOND, child: 3600 * SECOND }, rules());
        let fair = Weather { delay: 20 * MS, jitter: 3 * MS, loss_permille: 2, ..Weather::FAIR };
        world.network.weather = [[fair; 2]; 3];
        world.branch.record(folder.path(), ZERO, world.now);
        let mut chance = Chance::from_number(11);
        let mut bytes = |world: &mut World, seconds: u32| {
            let before = world.branch.recorder().expect("it records").status().extent.bytes;
            for _ in 0..seconds {
                for _ in 0..flows_a_minute / 60 {
                    let [source, destination] =
                        [20, 90].map(|net| Ipv4Addr::new(10, net, chance.below(4) as u8, chance.below(250) as u8));
                    let until = world.now + Duration::from_millis(u64::from(500 + chance.below(8_000)));
                    let port = 1_024 + chance.below(60_000) as u16;
                    world.start_flow_between([source, destination], port, 0, 800 * MS, Some(until));
                }
                world.run_for(SECOND);
            }
            world.branch.recorder().expect("it records").status().extent.bytes - before
        };
        bytes(&mut world, 30);
        let measured = bytes(&mut world, 180);
        finish(&mut world);
        let report = replayed(folder.path());
        assert!(report.differences.is_empty() && report.equal == report.decisions, "{:#?}", report.differences);
        measured as f64 * 86_400.0 / 180.0 / 1e6
    };
    // In docs/recording.md.
    let (quiet, busy) = (a_day(0), a_day(1_020));
    println!("a day of six tunnels takes {quiet:.1} MB, with 1,020 new flows a minute {busy:.1} MB");
    assert!(quiet < 25.0 && busy < 150.0, "{quiet} {busy}");
}

/// The recording again with its lines altered.
fn altered(directory: &Path, mut alter: impl FnMut(&mut Line)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = Reader::open(directory).expect("a recording");
    let mut block = Block::new(7, 0, ZERO);
    for part in reader.parts(0) {
        match part.expect("readable") {
            Part::Line(mut line) => {
                alter(&mut line);
                assert!(block.push(&line));
            }
            Part::Run(_) => {}
            part @ (Part::Gap | Part::Trouble(_)) => panic!("{part:?}"),
        }
    }
    std::fs::write(folder.path().join("0000000001.trefoil.gz"), block.seal().expect("sealed")).expect("written");
    folder
}

#[test]
fn one_altered_input_is_told_by_what_comes_out_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    storm(9, folder.path());
    assert!(replayed(altered(folder.path(), |_| {}).path()).differences.is_empty(), "written again as it was");

    // A flow was marked otherwise: another rule decides.
    let mut once = true;
    let marked = altered(folder.path(), |line| {
        if let Entry::Flow(note) = &mut line.entry
            && note.dscp.value() == 16
            && std::mem::take(&mut once)
        {
            note.dscp = Dscp::DEFAULT;
        }
    });
    let report = replayed(marked.path());
    println!("{:#?}", report.differences);
    assert_eq!((report.differences.len(), report.decisions - report.equal), (1, 1));
    assert!(report.differences[0].of.starts_with("flow udp"), "{:?}", report.differences);

    // A tunnel was not as down as it was recorded to be.
    let mut once = true;
    let well = altered(folder.path(), |line| {
        if let Entry::Fact(trefoil::edge::Fact::Followed { verdicts, .. }) = &mut line.entry
            && let Some((_, verdict)) = verdicts.iter_mut().find(|(_, verdict)| *verdict == Verdict::Healthy)
            && std::mem::take(&mut once)
        {
            *verdict = Verdict::Degraded;
        }
    });
    let report = replayed(well.path());
    assert!(!report.differences.is_empty(), "steering held another path for settled");
}

/// A flow of `World::start_flow`.
fn key(port: u16) -> FlowKey {
    FlowKey {
        segment: 0,
        protocol: protocol::UDP,
        source: [10, 20, 0, 5].into(),
        destination: [10, 90, 0, 9].into(),
        source_port: port,
        destination_port: 7,
    }
}

fn at(directory: &Path, when: Moment, port: u16) -> Explanation {
    let reader = Reader::open(directory).expect("a recording");
    let wall = When::Wall(ZERO + when.as_nanos() / 1_000_000);
    explain_at(&reader, wall, 0, key(port), None).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_past_moment_is_explained_as_the_present_was_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = up(3, Lifetimes::LONG, rules());
    world.branch.record(folder.path(), ZERO, world.now);
    world.run_for(5 * SECOND);
    world.start_flow(5_000, 46, Duration::from_millis(20));
    world.run_for(5 * SECOND);
    let before = world.now;
    world.network.weather[1] = [Weather { cut: true, ..Weather::FAIR }; 2];
    world.run_for(10 * SECOND);
    let after = world.now;
    world.run_for(30 * SECOND);
    finish(&mut world);

    let told = at(folder.path(), before, 5_000);
    assert_eq!(told.tunnel.as_deref(), Some("pop/primary/dsl"), "{told:#?}");
    assert_eq!(told.rule.as_ref().map(|rule| rule.rule.as_str()), Some("voice"));
    assert_eq!((told.candidates[1].verdict.as_str(), told.candidates[1].best), ("healthy", true));
    assert!(told.candidates[1].rtt_ms.is_some() && told.stays.is_some(), "{told:#?}");
    let past = told.past.expect("told");
    assert_eq!(past.decisions.len(), 2, "its first decision, and the move that was to come: {past:#?}");

    let told = at(folder.path(), after, 5_000);
    assert_eq!(told.tunnel.as_deref(), Some("pop/primary/fibre"), "{told:#?}");
    assert_eq!(told.candidates[1].verdict, "down");
    let past = told.past.expect("told");
    assert_eq!(past.decisions[1].from.as_deref(), Some("pop/primary/dsl"));
    assert_eq!(past.decisions[1].cause.as_deref(), Some("path_lost"));

    let told = at(folder.path(), before, 6_000);
    assert_eq!(told.past.map(|past| past.decisions.len()), Some(0), "nobody has sent it");

    let reader = Reader::open(folder.path()).expect("a recording");
    let error = explain_at(&reader, When::Wall(ZERO - 5_000), 0, key(1), None).expect_err("before it began");
    assert!(error.to_string().contains("the recording reaches from 2026-11-22T14:00:"), "{error}");
}

#[test]
fn a_flow_that_its_rule_keeps_on_the_secondary_role_is_explained_by_that_and_not_by_the_tunnels_that_it_could_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = up(6, Lifetimes::LONG, rules());
    world.branch.record(folder.path(), ZERO, world.now);
    world.start_flow(5_000, 14, Duration::from_millis(20));
    world.run_for(2 * SECOND);
    world.network.weather.iter_mut().for_each(|link| link[0].cut = true);
    assert!(world.run_while_not(10 * SECOND, |world| world.active_role() == "secondary"), "{}", world.describe());
    world.network.weather.iter_mut().for_each(|link| link[0].cut = false);
    assert!(world.run_while_not(60 * SECOND, |world| world.active_role() == "primary"), "{}", world.describe());
    world.run_for(10 * SECOND);
    let moment = world.now;
    let present = world.branch.explain(key(5_000), Dscp::new(14).unwrap(), moment);
    world.run_for(SECOND);
    finish(&mut world);

    for told in [present, at(folder.path(), moment, 5_000)] {
        let own = told.tunnel.as_deref().expect("it is somewhere");
        assert!(own.starts_with("pop/secondary/") && told.kept, "{told:#?}");
        assert_eq!(
            told.stays.as_deref(),
            Some("its rule keeps it on the secondary role as long as its path there will do")
        );
        let standing =
            |name: &str| told.candidates.iter().find(|one| one.tunnel == name).map(|one| one.standing.as_str());
        assert_eq!(standing(own), Some("of the other role: the rule keeps the flow on it"), "{told:#?}");
        assert_eq!(told.candidates.len(), 4, "{told:#?}");
        assert_eq!(standing("pop/primary/fibre"), Some("among the best"), "{told:#?}");
        assert!(told.why.contains("share by bandwidth among 3"), "{told:#?}");
    }
}

#[test]
fn of_a_flow_that_was_refused_for_a_while_the_recording_tells_from_when_to_when_however_many_packets_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = up(8, Lifetimes::LONG, rules());
    world.branch.record(folder.path(), ZERO, world.now);
    world.run_for(5 * SECOND);
    // So many others that not every refused packet is noted.
    for port in 6_000..6_200 {
        world.start_flow(port, 16, Duration::from_millis(200));
    }
    world.start_flow(5_000, 16, SECOND);
    world.run_for(2 * SECOND);
    for _ in 0..2 {
        let refused = world.tally.refused;
        world.network.weather[2] = [Weather { cut: true, ..Weather::FAIR }; 2];
        let until_refused = world.run_while_not(20 * SECOND, |world| world.tally.refused > refused);
        assert!(until_refused, "{}", world.describe());
        world.run_for(20 * SECOND);
        world.network.weather[2] = [Weather::FAIR; 2];
        world.run_for(30 * SECOND);
    }
    let moment = world.now;
    let live = world.branch.explain(key(5_000), Dscp::new(16).unwrap(), moment).live.expect("it is there");
    let latest = live.last_refusal.expect("it was refused");
    world.run_for(SECOND);
    finish(&mut world);

    let told = at(folder.path(), moment, 5_000);
    let past = told.past.expect("told");
    let rows: Vec<(Option<&str>, Option<&str>)> =
        past.decisions.iter().map(|one| (one.from.as_deref(), one.tunnel.as_deref())).collect();
    let lte = Some("pop/primary/lte");
    assert_eq!(rows, [(None, lte), (lte, None), (None, lte), (lte, None), (None, lte)], "{past:#?}");
    assert_eq!(past.notes, Vec::<String>::new());
    let [.., from, until] = &past.decisions[..] else { panic!("{past:#?}") };
    assert_eq!((from.at_ms - ZERO, Some(until.at_ms - ZERO)), (latest.from_ms, latest.until_ms));
    assert_eq!(from.why, latest.why);
}

#[test]
fn a_time_of_day_that_jumps_breaks_neither_order_nor_lookups() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = up(5, Lifetimes::LONG, rules());
    world.branch.record(folder.path(), ZERO, world.now);
    world.run_for(20 * SECOND);
    let first = world.now;
    world.network.weather[1] = [Weather { cut: true, ..Weather::FAIR }; 2];
    world.run_for(20 * SECOND);
    // An hour back, and what follows has the same times of day as nothing before.
    set_clock(&mut world, ZERO - 3_600_000);
    world.run_for(30 * SECOND);
    let second = world.now;
    // Forward, to where the first part has been already.
    let again = ZERO - (second.as_nanos() - first.as_nanos()) / 1_000_000;
    set_clock(&mut world, again);
    world.network.weather[1] = [Weather::FAIR; 2];
    world.run_for(60 * SECOND);
    finish(&mut world);

    let report = replayed(folder.path());
    assert!(report.differences.is_empty() && report.troubles.is_empty(), "{report:#?}");
    assert!(report.decisions > 5, "{report:#?}");
    assert_eq!(report.steps.iter().filter(|step| step.what == "clock").count(), 3);

    let reader = Reader::open(folder.path()).expect("a recording");
    let explain = |when: When, now: u64| explain_at(&reader, when, now, key(1), Some(Dscp::new(46).unwrap()));
    let verdict = |told: &Explanation| told.candidates[1].verdict.clone();
    let ms = |at: Moment| at.as_nanos() / 1_000_000;
    // Only the middle part has this time.
    let told = explain(When::Wall(ZERO - 3_600_000 + ms(second) - 5_000), 0).expect("recorded");
    assert_eq!((verdict(&told).as_str(), told.past.map(|past| past.notes.len())), ("down", Some(0)));
    // This time came twice: before the cut, and at the end.
    let told = explain(When::Wall(ZERO + ms(first) - 5_000), 0).expect("recorded");
    assert_eq!(told.past.map(|past| past.notes.len()), Some(0), "it came once: the last part begins later");
    let told = explain(When::Wall(ZERO + ms(first) + 10_000), 0).expect("recorded");
    let notes = told.past.as_ref().expect("told").notes.clone();
    assert!(notes.iter().any(|note| note.contains("came more than once")), "{notes:?}");
    // Back from now goes by the daemon's clock, whatever the time of day did.
    let now = again + ms(world.now);
    let told = explain(When::Ago(Duration::from_secs(80)), now).expect("recorded");
    assert_eq!(verdict(&told), "down", "in the middle part, which had another time of day");
    let error = explain(When::Wall(ZERO + 7_200_000), 0).expect_err("it never came");
    assert!(error.to_string().contains("is not recorded"), "{error}");
}

/// Some value of the JSON text becomes another.
fn spoil(text: &str, chance: &mut Chance) -> String {
    let mut value: serde_json::Value = serde_json::from_str(text).expect("a line");
    let mut place = &mut value;
    loop {
        let count = match place {
            serde_json::Value::Array(items) => items.len(),
            serde_json::Value::Object(fields) => fields.len(),
            _ => 0,
        };
        if count == 0 || chance.below(12) == 0 {
            break;
        }
        let nth = chance.below(count as u32) as usize;
        place = match place {
            serde_json::Value::Array(items) => &mut items[nth],
            serde_json::Value::Object(fields) => fields.values_mut().nth(nth).expect("counted"),
            _ => unreachable!("it has parts"),
        };
    }
    let others = [
        serde_json::json!(null),
        serde_json::json!(0),
        serde_json::json!(1),
        serde_json::json!(7),
        serde_json::json!(65_535),
        serde_json::json!(u64::MAX),
        serde_json::json!(-1),
        serde_json::json!("down"),
        serde_json::json!([]),
        serde_json::json!({ "secs": u64::MAX, "nanos": 999_999_999 }),
    ];
    *place = others[chance.below(others.len() as u32) as usize].clone();
    value.to_string()
}

#[test]
fn no_recording_that_somebody_has_meddled_with_ends_in_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    storm(21, folder.path());
    let reader = Reader::open(folder.path()).expect("a recording");
    let lines: Vec<Line> = reader
        .parts(0)
        .filter_map(|part| match part.expect("readable") {
            Part::Line(line) => Some(*line),
            Part::Run(_) | Part::Gap | Part::Trouble(_) => None,
        })
        .take(3_000)
        .collect();
    let mut chance = Chance::from_number(77);
    let mut odd = 0;
    for _ in 0..40 {
        let spoilt = tempfile::tempdir().expect("a folder");
        let mut block = Block::new(7, 0, ZERO);
        for line in &lines {
            let plain = serde_json::to_string(line).expect("a line");
            let first = block.is_empty();
            let line = if chance.below(if first { 2 } else { 40 }) == 0 {
                serde_json::from_str(&spoil(&plain, &mut chance))
            } else {
                Ok(line.clone())
            };
            match line {
                Ok(line) => assert!(block.push(&line)),
                Err(_) => odd += 1,
            }
        }
        std::fs::write(spoilt.path().join("0000000001.trefoil.gz"), block.seal().expect("sealed")).expect("written");
        let reader = Reader::open(spoilt.path()).expect("a recording");
        let told = replay(&reader, None, 0);
        assert!(told.is_err() || told.is_ok_and(|report| report.equal <= report.decisions));
        for ago in [0, 10, 40] {
            let _ = explain_at(&reader, When::Ago(Duration::from_secs(ago)), ZERO + 60_000, key(1_003), None);
        }
    }
    println!("{odd} lines were not even lines any more");
}
