use super::*;

#[test]
fn a_ring_forgets_its_oldest_files_when_it_is_full() {
    let disk = Memory::default();
    let limits = RingLimits { bytes: 4_000_000, age: Duration::from_secs(86_400) };
    let mut ring = Ring::open(disk.clone(), limits, 1, seconds(0)).unwrap();
    for number in 0..400 {
        let now = seconds(number);
        if ring.wants_file(now) {
            ring.begin_file(now).unwrap();
        }
        ring.append(&bulk(20_000, number), false, now).unwrap();
        let held: usize = disk.state().files.values().map(Vec::len).sum();
        assert_eq!(held as u64, ring.extent().bytes);
        assert!(held <= 4_000_000 + 30_000, "{held}");
    }
    assert!(ring.extent().bytes > 3_500_000, "no more is forgotten than must be: {}", ring.extent().bytes);
    let numbers: Vec<u64> = disk.state().files.keys().copied().collect();
    let (first, count) = (numbers[0], numbers.len());
    assert!(first > 20 && count > 20, "{first} {count}");
    // Another run goes on where this one ended.
    let mut next = Ring::open(disk.clone(), limits, 2, seconds(0)).unwrap();
    next.begin_file(seconds(0)).unwrap();
    next.append(&bulk(100, 1), false, seconds(1)).unwrap();
    assert!(*disk.state().files.keys().last().unwrap() > first + count as u64 - 1);
    assert!(next.extent().first_unix_ms.is_some_and(|first| first > ZERO));
}

#[test]
fn a_ring_forgets_what_is_older_than_its_limit_in_time_that_it_ran() {
    let disk = Memory::default();
    let limits = RingLimits { bytes: 100_000_000, age: Duration::from_secs(1_600) };
    let mut ring = Ring::open(disk.clone(), limits, 1, seconds(0)).unwrap();
    for number in 0..6_000 {
        let now = seconds(number);
        if ring.wants_file(now) {
            ring.begin_file(now).unwrap();
        }
        ring.append(&bulk(100, number), false, now).unwrap();
    }
    let files = disk.state().files.len();
    assert!((16..=18).contains(&files), "a sixteenth of the limit each: {files}");
}

/// What a run of the daemon that begins and ends at these seconds of its clock writes, a block a minute.
fn run(disk: &Memory, limits: RingLimits, run: u64, from: u64, to: u64) -> Ring<Memory> {
    let mut ring = Ring::open(disk.clone(), limits, run, seconds(from)).unwrap();
    for number in (from..to).step_by(60) {
        let now = seconds(number);
        if ring.wants_file(now) {
            ring.begin_file(now).unwrap();
        }
        ring.append(&bulk_of(run, 50, number), false, now).unwrap();
    }
    ring
}

#[test]
fn what_earlier_runs_recorded_is_as_old_as_its_blocks_tell() {
    let hours = 3_600;
    let limits = RingLimits { bytes: 100_000_000, age: Duration::from_secs(24 * hours) };
    let disk = Memory::default();
    let oldest = || disk.state().files.first_key_value().map(|(_, bytes)| BlockHeader::read(bytes).unwrap()).unwrap();
    // Ten hours each, by clocks that begin anywhere.
    run(&disk, limits, 1, 0, 10 * hours);
    run(&disk, limits, 2, 500 * hours, 510 * hours);
    assert_eq!((oldest().run, oldest().first), (1, seconds(0)), "20 hours are within the limit");
    run(&disk, limits, 3, 7, 10 * hours + 7);
    let header = oldest();
    assert_eq!(header.run, 1);
    // Of 30 hours all but 24, and a file, are forgotten.
    assert!((4 * hours..=6 * hours).contains(&(header.first.as_nanos() / 1_000_000_000)), "{header:?}");
    // A daemon that is started ever again for a minute keeps nothing the longer for it.
    for again in 4..700 {
        run(&disk, limits, again, 0, 120);
    }
    let header = oldest();
    assert!(header.run == 2 && header.first > seconds(504 * hours), "11 hours of those: {header:?}");
}

#[test]
fn a_disk_that_comes_back_within_a_run_makes_nothing_younger() {
    let limits = RingLimits { bytes: 100_000_000, age: Duration::from_secs(3_600) };
    let disk = Memory::default();
    run(&disk, limits, 1, 0, 3_000);
    let files = disk.state().files.len();
    let ring = Ring::open(disk.clone(), limits, 1, seconds(4_800)).unwrap();
    let left: Vec<Moment> = disk.state().files.values().map(|file| BlockHeader::read(file).unwrap().first).collect();
    assert!(left.len() < files && left[0] > seconds(900) && left[0] < seconds(1_300), "{left:?}");
    assert_eq!(ring.extent().first_unix_ms, Some(ZERO + left[0].as_nanos() / 1_000_000));
    // A file that no block can be read of is as old as the one behind it.
    let (first, second) = {
        let state = disk.state();
        let mut numbers = state.files.keys().copied();
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    disk.state().files.insert(first, vec![7; 100]);
    let later = left[1] + Duration::from_secs(3_600 + 250);
    Ring::open(disk.clone(), limits, 1, later).unwrap();
    assert_eq!(disk.state().files.first_key_value().map(|(number, _)| *number > second), Some(true));
}

#[test]
fn a_directory_has_one_writer_and_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a/b");
    let mut disk = Disk::open(&place).unwrap();
    assert_eq!(Disk::open(&place).unwrap_err().to_string(), "another daemon records there");
    disk.append(1, b"x").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(&place.join("0000000001.trefoil.gz"))), (0o700, 0o600));
    drop(disk);
    assert_eq!(Disk::open(&place).unwrap().list().unwrap(), [(1, 1)]);
}
