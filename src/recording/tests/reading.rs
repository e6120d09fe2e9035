use super::*;
use crate::forward::{FlowNote, Held, Outcome};
use crate::model::{ConnectorId, InterfaceId, NameId, RuleId, WeekMinute};
use crate::steer::{Action, Ends, Matcher, Rule, Why};

#[test]
fn files_that_the_ring_forgets_while_they_are_read_are_a_gap_and_no_error() {
    let (disk, _) = ten_minutes();
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let places = reader.index().unwrap();
    let mut parts = reader.parts(0);
    assert_eq!(parts.next().unwrap().unwrap(), Part::Run(9));
    for number in [2, 3] {
        std::fs::remove_file(folder.path().join(format!("{number:010}.trefoil.gz"))).unwrap();
    }
    let rest: Vec<Part> = parts.map(Result::unwrap).collect();
    assert_eq!(rest.iter().filter(|part| **part == Part::Gap).count(), 1);
    assert!(!rest.iter().any(|part| matches!(part, Part::Run(_) | Part::Trouble(_))));
    // What lies in them is not found any more either, in whatever order it is looked for.
    let gone = places.iter().filter(|place| [1, 2].contains(&place.file)).count();
    assert_eq!(reader.texts(places.iter()).count(), places.len() - gone);
    let told = report(folder.path());
    assert_eq!((told.differences.len(), told.troubles.len()), (0, 1));
    // A file is two minutes, and ends at the next whole state.
    let gap = "a gap from 2026-11-22T14:03:00.000Z to 2026-11-22T14:07:00.000Z";
    assert_eq!(told.troubles[0], gap);
}

#[test]
fn a_block_that_is_being_written_while_it_is_read_costs_nothing_but_itself() {
    let (disk, plan) = (Memory::default(), plan());
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, mut last) = (writer(&disk, &plan), None);
    for minute in 0..5 {
        uneventful(&mut writer, &plan, minute * 60 + 1, minute * 60 + 60);
        let file = disk.state().files[&1].clone();
        // As a reader may find it at any moment: whole blocks, and a part of the next.
        for more in [0, 1, 40, 200] {
            let half = [file.as_slice(), bulk_of(9, 300, 9_000).get(..more).unwrap()].concat();
            std::fs::write(folder.path().join("0000000001.trefoil.gz"), half).unwrap();
            let told = report(folder.path());
            assert_eq!((told.differences.len(), told.troubles.len()), (0, usize::from(more > 0)), "{told:?}");
            assert!(told.to_ms >= last, "{told:?}");
            last = told.to_ms;
        }
    }
}

#[test]
fn a_moment_between_two_files_is_explained_by_what_was_in_force_before_the_second() {
    let (disk, plan) = (Memory::default(), plan());
    let limits = RingLimits { bytes: 10_000_000, age: Duration::from_secs(16 * 120) };
    let opened = disk.clone();
    let journal = Journal::new(plan.clone(), first(&plan), ZERO);
    let mut writer = Writer::new(journal, limits, 9, Box::new(move || Ok(opened.clone())));
    for second in 1..600 {
        let now = seconds(second);
        writer.handle(batch(vec![(now, judged())]), now).unwrap();
        if writer.wants_whole() || second % 60 == 0 {
            let now = now + Duration::from_millis(500);
            writer.handle(batch(vec![(now, whole(&plan, now))]), now).unwrap();
        }
    }
    writer.finish(seconds(600));
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let places = reader.index().unwrap();
    let second = places.iter().position(|place| place.file == 1).unwrap();
    let (before, after) = (places[second - 1].header.last, places[second].header.first);
    assert!(before < after, "{before:?} {after:?}");
    let between = ZERO + (before.as_nanos() + after.as_nanos()) / 2_000_000;
    for when in [When::Wall(between), When::Ago(Duration::from_millis(ZERO + 600_000 - between))] {
        let told = explain_at(&reader, when, ZERO + 600_000, key(), None).unwrap();
        assert_eq!(told.candidates.len(), 1, "{told:#?}");
    }
}

#[test]
fn what_is_not_shown_of_a_flow_or_not_recorded_any_more_is_said() {
    let (disk, plan) = (Memory::default(), plan());
    let limits = RingLimits { bytes: 10_000_000, age: Duration::from_secs(16 * 120) };
    let opened = disk.clone();
    let journal = Journal::new(plan.clone(), first(&plan), ZERO);
    let mut writer = Writer::new(journal, limits, 9, Box::new(move || Ok(opened.clone())));
    // From second 11 on: refused in even ones, there again in odd ones.
    let mut held = Held::default();
    for second in 1..600 {
        let now = seconds(second);
        let is_whole = writer.wants_whole() || second % 60 == 0;
        let news = vec![(now, if is_whole { whole(&plan, now) } else { judged() })];
        let refused = second % 2 == 0;
        let (path, why) = if refused { (None, Why::StrictNoLink) } else { (Some(PathId(0)), Why::OnlyCandidate) };
        let outcome = Outcome { path, rule: None, why, stay: None, moved: None };
        let (dscp, ends) = (crate::model::Dscp::DEFAULT, Default::default());
        let note = FlowNote { at: now, generation: 1, key: key(), dscp, ends, held, covers: 1, outcome };
        let notes = Vec::from_iter((second > 10).then_some(note));
        held = notes.last().map_or(held, |_| Held { path: Some(PathId(0)), refused, ..held });
        writer.handle(Batch { notes, ..batch(news) }, now).unwrap();
    }
    writer.finish(seconds(600));
    let folder = on_disk(&disk);
    let past = |second: u64| {
        let reader = Reader::open(folder.path()).unwrap();
        let told = explain_at(&reader, When::Wall(ZERO + second * 1_000), 0, key(), None).unwrap();
        (told.tunnel, told.past.unwrap())
    };
    let (tunnel, told) = past(400);
    assert_eq!(tunnel.as_deref(), Some("pop/primary/fibre"), "what is refused has what it had");
    let first = &told.decisions[0];
    assert_eq!((told.decisions.len(), first.at_ms, first.tunnel.as_deref()), (32, ZERO + 385_000, tunnel.as_deref()));
    assert_eq!(told.notes, ["374 earlier and 183 later decisions about the flow are recorded, and not shown here"]);

    std::fs::remove_file(folder.path().join("0000000001.trefoil.gz")).unwrap();
    let told = past(400).1.notes;
    assert_eq!(told.last().unwrap(), "the flow was there before the first decision about it that is recorded");
}

#[test]
fn of_a_flow_that_is_not_recorded_rules_by_segment_or_name_are_not_judged_and_it_says_so() {
    let rule = |name: &str, matcher: Matcher| Rule {
        name: name.to_owned(),
        place: String::new(),
        matcher,
        action: Action::Drop,
    };
    let (interfaces, names) = (vec![InterfaceId(1)], vec![NameId(1)]);
    let rules = vec![
        rule("guests", Matcher { interfaces: interfaces.clone(), ..Matcher::default() }),
        rule("guests elsewhere", Matcher { interfaces, connectors: vec![ConnectorId(7)], ..Matcher::default() }),
        rule("shop", Matcher { names, ..Matcher::default() }),
    ];
    let record = PlanRecord { interfaces: vec!["lan1".to_owned()], rules, ..record() };
    let (disk, plan) = (Memory::default(), Arc::new(record.into_plan().unwrap()));
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 60);
    let outcome = Outcome { path: None, rule: Some(RuleId(0)), why: Why::RuleDrop, stay: None, moved: None };
    let (dscp, held) = (crate::model::Dscp::DEFAULT, Held::default());
    let ends = Ends { interface: InterfaceId(1), ..Ends::default() };
    let note = FlowNote { at: seconds(60), generation: 1, key: key(), dscp, ends, held, covers: 1, outcome };
    writer.handle(Batch { notes: vec![note], ..batch(vec![(seconds(60), judged())]) }, seconds(60)).unwrap();
    uneventful(&mut writer, &plan, 61, 100);
    writer.finish(seconds(100));
    let folder = on_disk(&disk);
    let told = |second: u64| {
        let reader = Reader::open(folder.path()).unwrap();
        explain_at(&reader, When::Wall(ZERO + second * 1_000), 0, key(), None).unwrap()
    };
    let before = told(50);
    let because: Vec<&str> = before.passed_over.iter().map(|one| one.because.as_str()).collect();
    let expected = [
        "by which interface the source was reached is not recorded: not judged",
        "it goes to another connector",
        "which names the destination had is not recorded: not judged",
    ];
    assert_eq!((&because[..], before.rule), (&expected[..], None));
    assert!(before.past.unwrap().notes[0].ends_with("rules that ask for it were passed over"));
    let after = told(70);
    assert_eq!(after.rule.map(|rule| rule.rule).as_deref(), Some("guests"));
    assert_eq!(after.past.unwrap().notes, Vec::<String>::new());
}

#[test]
fn outside_of_a_rules_hours_the_time_that_is_told_is_that_of_the_moment() {
    let monday_eight = |minutes: u16| WeekMinute::new(8 * 60 + minutes).unwrap();
    let minutes = vec![(monday_eight(0), monday_eight(59))];
    let matcher = Matcher { minutes, ..Matcher::default() };
    let rule = Rule { name: "early".to_owned(), place: String::new(), matcher, action: Action::Drop };
    let plan = Arc::new(PlanRecord { rules: vec![rule], ..record() }.into_plan().unwrap());
    // Since then the same rules apply.
    let forwarding = Forwarding { minute: monday_eight(60), ..Arc::unwrap_or_clone(first(&plan)) };
    let limits = RingLimits { bytes: 10_000_000, age: Duration::from_secs(86_400) };
    let disk = Memory::default();
    let opened = disk.clone();
    let journal = Journal::new(plan.clone(), Arc::new(forwarding), ZERO);
    let mut writer = Writer::new(journal, limits, 9, Box::new(move || Ok(opened.clone())));
    uneventful(&mut writer, &plan, 1, 200);
    writer.finish(seconds(200));
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let told = explain_at(&reader, When::Wall(ZERO + 130_000), 0, key(), None).unwrap();
    // 14:02:10 UTC, 90 minutes ahead.
    assert_eq!(told.passed_over[0].because, "it is Sun 15:32, outside the rule's hours");
}

#[test]
fn the_end_of_a_run_is_told_as_it_was_before_another_began() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 100);
    writer.finish(seconds(100));
    // The next one, with other ranges, begins three minutes after it.
    let mut other = plan.as_ref().clone();
    other.connectors[0].ranges[0].range = "10.91.0.0/16".parse().unwrap();
    let (other, unix_ms_at_zero) = (Arc::new(other), ZERO + 280_000);
    let limits = RingLimits { bytes: 10_000_000, age: Duration::from_secs(86_400) };
    let opened = disk.clone();
    let journal = Journal::new(other.clone(), first(&other), unix_ms_at_zero);
    let mut writer = Writer::new(journal, limits, 10, Box::new(move || Ok(opened.clone())));
    for second in 1..120 {
        let now = seconds(second);
        let news = if writer.wants_whole() { vec![(now, whole(&other, now))] } else { vec![(now, judged())] };
        writer.handle(Batch { news, unix_ms_at_zero, ..Batch::default() }, now).unwrap();
    }
    writer.finish(seconds(120));

    let folder = on_disk(&disk);
    // As they lie, and as somebody may put them together.
    let all: Vec<u8> = disk.state().files.values().flatten().copied().collect();
    let together = folder.path().join("all.gz");
    std::fs::write(&together, all).unwrap();
    for place in [folder.path(), &together] {
        let reader = Reader::open(place).unwrap();
        let told = |at_ms| explain_at(&reader, When::Wall(at_ms), at_ms, key(), None).unwrap().candidates.len();
        assert_eq!((told(ZERO + 50_000), told(ZERO + 99_000)), (1, 1), "{}", place.display());
        assert_eq!(told(unix_ms_at_zero + 50_000), 0, "{}", place.display());
        let until = |at_ms| replay(&reader, Some(When::Wall(at_ms)), at_ms).unwrap().to_ms;
        assert_eq!(until(ZERO + 99_000), Some(ZERO + 99_000));
        assert_eq!(until(unix_ms_at_zero + 50_000), Some(unix_ms_at_zero + 50_000));
    }
}

#[test]
fn a_plan_whose_parts_do_not_go_together_is_none() {
    let mut wrong = [record(), record(), record(), record()];
    wrong[0].tunnels[0].link = LinkId(1);
    wrong[1].connectors[0].roles[0] = Some(vec![PathId(9)]);
    wrong[2].connectors[0].roles[0] = Some(vec![PathId(0); 9]);
    wrong[3].steering_interval = Duration::MAX;
    assert!(wrong.into_iter().all(|record| record.into_plan().is_none()));
    let again = PlanRecord::of(&plan());
    assert_eq!(again, record(), "nothing is lost on the way there and back");
}
