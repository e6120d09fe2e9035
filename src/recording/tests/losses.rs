use super::*;

#[test]
fn a_full_disk_costs_what_it_does_not_take_and_nothing_more() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 120);
    assert_eq!((writer.status().fault, writer.status().lost), (None, 0));
    let before = writer.status().extent;
    disk.state().room = Some(700);
    let complaints = (120..200).filter(|second| {
        let now = seconds(*second);
        writer.handle(batch(vec![(now, judged())]), now).is_err()
    });
    assert_eq!(complaints.count(), 1, "told once");
    let status = writer.status();
    assert!(status.fault.is_some_and(|fault| fault.contains("no storage space")) && status.lost > 0);
    let (there, known) = (status.extent, |unix_ms: Option<u64>| unix_ms.is_some_and(|at| at > ZERO));
    assert!(there.bytes >= before.bytes && there.first_unix_ms == before.first_unix_ms && known(there.last_unix_ms));
    disk.state().room = None;
    uneventful(&mut writer, &plan, 200, 400);
    assert_eq!(writer.status().fault, None, "it came back by itself");
    writer.finish(seconds(400));

    let report = report(on_disk(&disk).path());
    assert_eq!((report.troubles.len(), report.differences.len()), (1, 0), "{:?}", report.troubles);
    let told = &report.troubles[0];
    let missing = told.strip_prefix("a gap from ").and_then(|rest| rest.split_once(" to "));
    let missing = missing.map(|(from, to)| (When::parse(from).unwrap(), When::parse(to).unwrap()));
    let Some((When::Wall(from), When::Wall(to))) = missing else { panic!("{told}") };
    assert!((ZERO + 120_000..ZERO + 150_000).contains(&from) && to >= ZERO + 200_000, "{told}");
    // Who asks for a moment of it is told so.
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let why = explain_at(&reader, When::Wall(ZERO + 180_000), ZERO + 400_000, key(), None).unwrap_err().to_string();
    assert!(why.starts_with("the recording has a gap at 20"), "{why}");
    assert!(report.to_ms > Some(ZERO + 390_000), "{report:?}");
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_tells_what_is_there_from_before() {
    let (disk, plan) = (Memory::default(), plan());
    let mut before = writer(&disk, &plan);
    uneventful(&mut before, &plan, 1, 60);
    before.finish(seconds(60));
    disk.state().room = Some(0);
    let mut after = writer(&disk, &plan);
    uneventful(&mut after, &plan, 100, 110);
    assert!(after.status().fault.is_some());
    assert_eq!(after.status().extent, before.status().extent);
    assert_eq!(after.status().extent.last_unix_ms, Some(ZERO + 59_000));
}

#[test]
fn a_file_that_could_not_be_begun_leaves_nothing_and_every_line_that_is_lost_is_counted() {
    let (disk, plan) = (Memory::default(), plan());
    disk.state().room = Some(30);
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 9);
    assert!(disk.state().files.is_empty(), "no empty file, and none that nothing can be read of");
    let status = writer.status();
    // Opened, clock, plan, whole, published, and those of each second until it was to be written; and after it.
    assert!(status.fault.is_some() && status.lost >= 11, "{status:?}");
    disk.state().room = None;
    uneventful(&mut writer, &plan, 40, 60);
    writer.finish(seconds(60));
    let told = report(on_disk(&disk).path());
    assert_eq!((told.troubles.len(), told.differences.len()), (0, 0), "{told:?}");
}

#[test]
fn what_control_could_not_tell_is_a_gap_until_everything_is_told_again() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 10);
    assert!(!writer.wants_whole());
    writer.handle(batch(vec![(seconds(10), News::Lost(3))]), seconds(10)).unwrap();
    assert!(writer.wants_whole());
    uneventful(&mut writer, &plan, 11, 20);
    assert!(!writer.wants_whole());
    writer.finish(seconds(20));
    let report = report(on_disk(&disk).path());
    assert_eq!((report.troubles.len(), report.differences.len()), (1, 0), "{:?}", report.troubles);
    assert!(report.troubles[0].contains("3 entries were lost"), "{:?}", report.troubles);
    assert_eq!(writer.status().lost, 3);
}

#[test]
fn a_whole_state_that_was_told_before_a_loss_does_not_mend_it() {
    let plan = plan();
    let now = seconds(10);
    for (order, anew) in [([true, false], true), ([false, true], false)] {
        let mut writer = writer(&Memory::default(), &plan);
        uneventful(&mut writer, &plan, 1, 10);
        let news = order.map(|is_whole| (now, if is_whole { whole(&plan, now) } else { News::Lost(3) }));
        writer.handle(batch(news.into()), now).unwrap();
        assert_eq!(writer.wants_whole(), anew);
    }
}

#[test]
fn what_is_too_long_to_be_recorded_is_counted_and_told_until_the_next_file() {
    let (disk, mut plan) = (Memory::default(), plan());
    Arc::make_mut(&mut plan).site.name = "x".repeat(17 << 20);
    let mut writer = writer(&disk, &plan);
    for second in 1..6 {
        let now = seconds(second);
        let news = if writer.wants_whole() { vec![(now, whole(&plan, now))] } else { vec![(now, judged())] };
        writer.handle(batch(news), now).unwrap();
    }
    writer.finish(seconds(6));
    let status = writer.status();
    assert_eq!(status.lost, 1);
    assert!(status.fault.is_some_and(|fault| fault.starts_with("a line of more than 16 MB is left out")));
    let told = report(on_disk(&disk).path());
    assert!(told.decisions == 0 && told.not_compared > 0, "{told:?}");
}
