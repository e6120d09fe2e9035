use proptest::prelude::*;

use super::*;

#[test]
fn a_block_that_was_cut_off_is_passed_over_with_a_word() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 100);
    writer.finish(seconds(100));
    let whole = report(on_disk(&disk).path());
    for cut in [1, 20, 71, 100] {
        let torn = Memory::default();
        let files = disk.state().files.clone();
        torn.state().files = files;
        let mut state = torn.state();
        let last = state.files.values_mut().last().unwrap();
        last.truncate(last.len() - cut);
        drop(state);
        let told = report(on_disk(&torn).path());
        assert_eq!(told.troubles.len(), 1, "{:?}", told.troubles);
        assert!(told.troubles[0].contains("cut off: power was lost"), "{:?}", told.troubles);
        assert!(told.differences.is_empty() && told.to_ms < whole.to_ms);
    }
}

#[test]
fn damage_in_the_middle_costs_its_block_and_what_rests_on_it() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 600);
    writer.finish(seconds(600));
    let length = disk.state().files[&1].len();
    for place in (0..length).step_by(97) {
        let damaged = Memory::default();
        let files = disk.state().files.clone();
        damaged.state().files = files;
        damaged.state().files.get_mut(&1).unwrap()[place] ^= 0x20;
        let told = report(on_disk(&damaged).path());
        assert!(told.differences.is_empty() && told.troubles.len() <= 3, "{place}: {told:?}");
        // The last block is five seconds.
        assert!(told.to_ms >= Some(ZERO + 594_000), "{place}: all behind it is read");
    }
}

#[test]
fn files_in_the_wrong_order_or_there_twice_are_told_and_nothing_is_decided_by_them() {
    let (disk, _) = ten_minutes();
    let whole = report(on_disk(&disk).path());
    let swapped = Memory::default();
    swapped.state().files = disk.state().files.clone();
    {
        let mut state = swapped.state();
        let third = state.files[&3].clone();
        let second = state.files.insert(2, third).unwrap();
        state.files.insert(3, second);
    }
    let told = report(on_disk(&swapped).path());
    assert!(told.troubles.iter().any(|trouble| trouble.contains("mixed up, or there twice")), "{:?}", told.troubles);
    assert!(told.differences.is_empty() && told.decisions <= whole.decisions, "{told:?}");
    let twice = Memory::default();
    twice.state().files = disk.state().files.clone();
    let last = twice.state().files[&1].clone();
    twice.state().files.insert(99, last);
    let told = report(on_disk(&twice).path());
    assert!(told.differences.is_empty() && told.troubles.iter().any(|trouble| trouble.contains("there twice")));
}

#[test]
fn headers_that_lie_are_told_and_cost_only_themselves() {
    let sound = bulk(300, 1);
    let header = BlockHeader::read(&sound).unwrap();
    let lying = |change: fn(&mut BlockHeader)| {
        let mut header = header;
        change(&mut header);
        // With the checksum that belongs to it.
        let mut bytes = sound.clone();
        bytes[16..72].copy_from_slice(&header.fields());
        bytes
    };
    let lies = [
        lying(|header| header.plain = u32::MAX),
        lying(|header| header.plain += 1),
        lying(|header| header.length = u32::MAX),
        lying(|header| header.length = 1),
        lying(|header| header.length = 72),
        lying(|header| header.length -= 1),
        lying(|header| header.length += 9_000),
        lying(|header| (header.lines, header.number) = (u32::MAX, u64::MAX)),
        lying(|header| (header.first, header.last) = (Moment::from_nanos(u64::MAX), Moment::ZERO)),
        lying(|header| header.unix_ms_at_zero = u64::MAX),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0000000001.trefoil.gz");
    for (number, lie) in lies.iter().enumerate() {
        std::fs::write(&file, [&lie[..], &sound].concat()).unwrap();
        let told = report(&file);
        assert!(!told.steps.is_empty() && told.troubles.len() <= 4, "{number}: {:?}", told.troubles);
        assert!(number > 6 || !told.troubles.is_empty(), "{number}");
        for when in [When::Ago(Duration::ZERO), When::Wall(ZERO), When::Wall(u64::MAX)] {
            assert!(explain_at(&Reader::open(&file).unwrap(), when, ZERO, key(), None).is_err());
        }
    }
}

#[test]
fn troubles_without_number_are_told_in_few_words() {
    // What looks like beginnings of blocks, a header that is right and too short for any block, and lines of nonsense.
    let mut noise: Vec<u8> = [0x1f, 0x8b, 8, 4].repeat(200_000);
    let mut block = Block::new(1, 0, ZERO);
    for number in 0..1_000 {
        block.push_text(&format!("{{\"at\":1,\"flow\":\"{}\"}}", "x".repeat(number)));
    }
    let sealed = block.seal().unwrap();
    (0..200).for_each(|_| noise.extend([&sealed[..], b"?"].concat()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0000000001.trefoil.gz");
    std::fs::write(&file, &noise).unwrap();
    let told = report(&file);
    assert!(told.troubles.len() == 64 && told.more_troubles > 500, "{} {}", told.troubles.len(), told.more_troubles);
    assert!(told.troubles.iter().all(|trouble| trouble.len() < 400), "{:?}", told.troubles);
    assert!(told.troubles[0].contains("800000 bytes passed over"), "one stretch, one word: {}", told.troubles[0]);
}

#[test]
fn what_is_told_of_a_recording_is_bounded_in_bytes_whatever_its_lines_hold() {
    let long = "x".repeat(3 << 20);
    let told = |number: u64| {
        let mut block = Block::new(1, number, ZERO);
        let (of, reason) = (String::new(), long.clone());
        let told = Told { what: String::new(), of, from: String::new(), to: String::new(), reason };
        assert!(block.push(&Line { at: seconds(1), entry: Entry::Told(told) }));
        block.seal().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0000000001.trefoil.gz");
    let bytes: Vec<u8> = (0..20).flat_map(told).collect();
    std::fs::write(&file, bytes).unwrap();
    let report = report(&file);
    let kept: usize = report.steps.iter().map(|step| step.reason.len()).sum();
    assert!(kept <= 32 << 20 && report.steps.len() + report.more_steps as usize == 20, "{kept}");
    // What cannot be a line is none, and a writer writes none.
    let mut block = Block::new(1, 0, ZERO);
    let reason = "x".repeat(17 << 20);
    let told = Told { what: String::new(), of: String::new(), from: String::new(), to: String::new(), reason };
    assert!(!block.push(&Line { at: seconds(1), entry: Entry::Told(told) }) && block.is_empty());
}

#[test]
fn what_is_no_recording_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let why = |path: &Path| match Reader::open(path).and_then(|reader| reader.index().map(|_| ())) {
        Ok(()) => "it was read".to_owned(),
        Err(error) => error.to_string(),
    };
    assert!(why(folder.path()).contains("no recording is in"));
    assert!(why(&folder.path().join("nothing")).contains("cannot be read"));
    let file = folder.path().join("0000000001.trefoil.gz");
    for bytes in [&b""[..], b"hello", &[0x1f, 0x8b, 8, 4], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]] {
        std::fs::write(&file, bytes).unwrap();
        assert!(why(folder.path()).contains("is no recording"), "{}", why(folder.path()));
    }
    let whole = bulk(3_000, 1);
    for length in [20, 71, 72, 90, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(why(&file).contains("is it a whole copy?"), "{length}: {}", why(&file));
    }
    std::fs::File::create(&file).unwrap().set_len((256 << 20) + 1).unwrap();
    assert!(why(&file).contains("is larger than any file of a recording"), "{}", why(&file));
}

proptest! {
    #[test]
    fn no_bytes_in_a_file_make_the_reader_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..3_000, swallow in 0usize..400
    ) {
        let (disk, plan) = (Memory::default(), plan());
        let mut writer = writer(&disk, &plan);
        uneventful(&mut writer, &plan, 1, 40);
        writer.finish(seconds(40));
        {
            let mut state = disk.state();
            let file = state.files.get_mut(&1).unwrap();
            let at = at % file.len();
            let end = (at + swallow).min(file.len());
            file.splice(at..end, noise);
        }
        let folder = on_disk(&disk);
        let reader = Reader::open(folder.path()).unwrap();
        let _ = replay(&reader, None, 0);
        let _ = explain_at(&reader, When::Ago(Duration::from_secs(5)), ZERO + 40_000, key(), None);
    }
}
