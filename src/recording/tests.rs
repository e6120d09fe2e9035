use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proptest::prelude::*;

use super::face::{FaceRecord, Published};
use super::plan_record::{ConnectorRecord, LinkRecord, PlanRecord, TunnelRecord};
use super::*;
use crate::edge::{self, Destination, Fact, Plan, SiteEvent, Steering, TunnelState, Whole};
use crate::forward::{Forwarding, SaTable};
use crate::ha::{Failback, RoleSelector};
use crate::ike::Identity;
use crate::model::{ConnectorId, LinkId, Mbps, Moment, PathId, Role, Selectors, TrafficSelector, Verdict};

const ZERO: u64 = 1_795_356_000_000;

fn record() -> PlanRecord {
    let mbps = Mbps::new(50).unwrap();
    let link = LinkRecord {
        name: "fibre".to_owned(),
        downstream: mbps,
        upstream: mbps,
        preference: 1,
        metered: false,
        last_resort: false,
    };
    let connector = ConnectorRecord {
        name: "pop".to_owned(),
        ranges: vec!["10.90.0.0/16".parse().unwrap()],
        roles: [Some(vec![PathId(0)]), None],
        failback: Failback::After(Duration::from_secs(60)),
    };
    let tunnel = TunnelRecord {
        name: "fibre".to_owned(),
        connector: ConnectorId(0),
        role: Role::Primary,
        link: LinkId(0),
        downstream: mbps,
        upstream: mbps,
        private_local: None,
        private_remote: None,
        probes: Vec::new(),
    };
    PlanRecord {
        site: "lisbon".to_owned(),
        gateway: false,
        native: vec!["10.20.0.0/16".parse().unwrap()],
        links: vec![link],
        connectors: vec![connector],
        tunnels: vec![tunnel],
        rules: Vec::new(),
        elsewhere: Vec::new(),
        sla_classes: Vec::new(),
        steering_interval: Duration::from_secs(10),
        workers: std::num::NonZeroU16::MIN,
        interfaces: Vec::new(),
    }
}

fn plan() -> Arc<Plan> {
    Arc::new(record().into_plan().expect("sound"))
}

fn seconds(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1_000)
}

/// With the path, so that a moment can be explained.
fn first(plan: &Plan) -> Arc<Forwarding> {
    let all = || [TrafficSelector::of_network("0.0.0.0/0".parse().unwrap())].into();
    let selectors = Selectors { local: all(), remote: all() };
    let face = FaceRecord {
        connector: ConnectorId(0),
        role: Role::Primary,
        link: LinkId(0),
        epoch: 1,
        usable: true,
        verdict: Verdict::Healthy,
        duty: Default::default(),
        preference: 1,
        weight: 50,
        metered: false,
        last_resort: false,
        settled: true,
        sla: Default::default(),
        score: None,
        condition: Default::default(),
        mtu: 1_400,
        children: vec![Arc::new(selectors)],
    };
    let published = Published {
        generation: 1,
        policy_epoch: 0,
        minute: Default::default(),
        active: vec![Role::Primary],
        paths: vec![(PathId(0), face)],
        breakouts: Vec::new(),
    };
    Arc::new(published.after(&edge::blank(plan, &Arc::new(SaTable::new(1, 1)))))
}

fn whole(plan: &Plan, now: Moment) -> News {
    let roles = vec![RoleSelector::new([true, false], Failback::After(Duration::from_secs(60)), Moment::ZERO)];
    News::Fact(Box::new(Fact::Whole(Box::new(Whole {
        steering: remembered(plan, now),
        roles,
        sent: Vec::new(),
        measured: Vec::new(),
        verdicts: Vec::new(),
    }))))
}

/// What steering remembers when it has been judging each second.
fn remembered(plan: &Plan, now: Moment) -> Steering {
    let mut steering = Steering::new(plan, seconds(1));
    let path = || std::iter::once(Default::default());
    steering.follow(plan, std::iter::once(crate::model::Verdict::Down), now);
    steering.judge(plan, path(), now);
    steering
}

fn judged() -> News {
    News::Fact(Box::new(Fact::Followed { verdicts: Vec::new(), judged: Some(Vec::new()), standings: Vec::new() }))
}

fn batch(news: Vec<(Moment, News)>) -> Batch {
    Batch { news, unix_ms_at_zero: ZERO, ..Batch::default() }
}

/// A disk of memory that can be full, and tears what does not fit.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Vec<u8>>,
    room: Option<usize>,
    syncs: usize,
}

impl Storage for Memory {
    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        Ok(self.state().files.iter().map(|(number, bytes)| (*number, bytes.len() as u64)).collect())
    }

    fn head(&self, number: u64) -> io::Result<Vec<u8>> {
        Ok(self.state().files.get(&number).map_or_else(Vec::new, |bytes| bytes.iter().copied().take(72).collect()))
    }

    fn tail(&self, number: u64) -> io::Result<Vec<u8>> {
        Ok(self.state().files.get(&number).cloned().unwrap_or_default())
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fits = state.room.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(room) = &mut state.room {
            *room -= fits;
        }
        state.files.entry(number).or_default().extend(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        self.state().files.entry(number).or_default().truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state().syncs += 1;
        Ok(())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.state().files.remove(&number);
        Ok(())
    }
}

/// A block of about so many bytes that nothing makes shorter.
fn bulk(bytes: usize, number: u64) -> Vec<u8> {
    bulk_of(1, bytes, number)
}

fn bulk_of(run: u64, bytes: usize, number: u64) -> Vec<u8> {
    let mut chance = crate::model::Chance::from_number(number);
    let noise: String = (0..bytes * 4 / 3).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
    let told = Told { what: String::new(), of: noise, from: String::new(), to: String::new(), reason: String::new() };
    let mut block = Block::new(run, number, ZERO);
    assert!(block.push(&Line { at: seconds(number), entry: Entry::Told(told) }));
    block.seal().unwrap()
}

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
        assert_eq!(held as u64, ring.bytes());
        assert!(held <= 4_000_000 + 30_000, "{held}");
    }
    assert!(ring.bytes() > 3_500_000, "no more is forgotten than must be: {}", ring.bytes());
    let numbers: Vec<u64> = disk.state().files.keys().copied().collect();
    let (first, count) = (numbers[0], numbers.len());
    assert!(first > 20 && count > 20, "{first} {count}");
    // Another run goes on where this one ended.
    let mut next = Ring::open(disk.clone(), limits, 2, seconds(0)).unwrap();
    next.begin_file(seconds(0)).unwrap();
    next.append(&bulk(100, 1), false, seconds(1)).unwrap();
    assert!(*disk.state().files.keys().last().unwrap() > first + count as u64 - 1);
    assert!(next.first_unix_ms().is_some_and(|first| first > ZERO));
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
    assert_eq!(ring.first_unix_ms(), Some(ZERO + left[0].as_nanos() / 1_000_000));
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

fn writer(disk: &Memory, plan: &Arc<Plan>) -> Writer<Memory> {
    let limits = RingLimits { bytes: 10_000_000, age: Duration::from_secs(86_400) };
    let disk = disk.clone();
    Writer::new(Journal::new(plan.clone(), first(plan), ZERO), limits, 9, Box::new(move || Ok(disk.clone())))
}

fn on_disk(disk: &Memory) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, bytes) in &disk.state().files {
        std::fs::write(folder.path().join(format!("{number:010}.trefoil.gz")), bytes).unwrap();
    }
    folder
}

fn report(folder: &Path) -> Report {
    replay(&Reader::open(folder).unwrap(), None, 0).unwrap()
}

/// What a daemon writes that has nothing to tell but the time, from second `from` to `to`.
fn uneventful(writer: &mut Writer<Memory>, plan: &Plan, from: u64, to: u64) {
    for second in from..to {
        let now = seconds(second);
        let mut news = vec![(now, judged())];
        if writer.wants_whole() || second % 60 == 0 {
            news.push((now, whole(plan, now)));
        }
        // Told once; the test looks at the status.
        let _ = writer.handle(batch(news), now);
    }
}

#[test]
fn a_full_disk_costs_what_it_does_not_take_and_nothing_more() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 120);
    assert_eq!((writer.status().fault, writer.status().lost), (None, 0));
    disk.state().room = Some(700);
    let complaints = (120..200).filter(|second| {
        let now = seconds(*second);
        writer.handle(batch(vec![(now, judged())]), now).is_err()
    });
    assert_eq!(complaints.count(), 1, "told once");
    let status = writer.status();
    assert!(status.fault.is_some_and(|fault| fault.contains("no storage space")) && status.lost > 0);
    disk.state().room = None;
    uneventful(&mut writer, &plan, 200, 400);
    assert_eq!(writer.status().fault, None, "it came back by itself");
    writer.finish(seconds(400));

    let report = report(on_disk(&disk).path());
    assert_eq!((report.troubles.len(), report.differences.len()), (1, 0), "{:?}", report.troubles);
    assert!(report.troubles[0].contains("missing"), "what it did not take, and no torn block: {:?}", report.troubles);
    assert!(report.to_ms > Some(ZERO + 390_000), "{report:?}");
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
fn a_recording_of_a_later_version_is_refused_and_its_single_lines_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0000000001.trefoil.gz");
    let write = |texts: &[&str]| {
        let mut block = Block::new(1, 0, ZERO);
        for text in texts {
            let line: Result<Line, _> = serde_json::from_str(text);
            match line {
                Ok(line) => assert!(block.push(&line)),
                Err(_) => block.push_text(text),
            }
        }
        std::fs::write(&file, block.seal().unwrap()).unwrap();
    };
    write(&[r#"{"at":1,"left_out":{"flows":1}}"#, r#"{"at":2,"telepathy":{}}"#, r#"{"at":3,"left_out":{"flows":2}}"#]);
    let told = report(folder.path());
    assert_eq!((told.left_out, told.troubles.len()), (3, 1), "{:?}", told.troubles);
    assert!(told.troubles[0].contains("a line is not understood: "), "{:?}", told.troubles);
    write(&[r#"{"at":1,"opened":{"format":2,"version":"9.0.0"}}"#]);
    let error = replay(&Reader::open(folder.path()).unwrap(), None, 0).unwrap_err();
    assert!(error.to_string().contains("recorded by trefoil 9.0.0 in format 2"), "{error}");
    assert!(explain_at(&Reader::open(&file).unwrap(), When::Ago(Duration::ZERO), ZERO, key(), None).is_err());
}

fn key() -> crate::model::FlowKey {
    crate::model::FlowKey {
        segment: 0,
        protocol: 6,
        source: [10, 20, 0, 1].into(),
        destination: [10, 90, 0, 1].into(),
        source_port: 1,
        destination_port: 2,
    }
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

#[test]
fn nothing_that_is_told_names_a_peer_or_its_address() {
    let mut plan = plan().as_ref().clone();
    let tunnel = &mut plan.tunnels[0];
    tunnel.destination = Some(Destination::Fqdn("pop1.example.net".to_owned()));
    tunnel.remote_id = Some(Identity::Fqdn("id.example.org".to_owned()));
    let path = PathId(0);
    let state = |reason: &str| SiteEvent::TunnelState {
        path,
        from: TunnelState::Waiting,
        to: TunnelState::Connecting,
        reason: reason.to_owned(),
    };
    let address = [192, 0, 2, 77].into();
    let events = [
        state("calling 192.0.2.77"),
        state("pop1.example.net (192.0.2.77:4500), answered by id.example.org: no proposal"),
        SiteEvent::AddressChanged { path, name: "pop1.example.net".to_owned(), from: address, to: address },
        SiteEvent::ResolutionFailed {
            path,
            name: "pop1.example.net".to_owned(),
            reason: "pop1.example.net: no such name".to_owned(),
            fallback: Some(address),
        },
        SiteEvent::RolesAlike { connector: ConnectorId(0), address },
    ];
    for event in &events {
        let line = Line { at: Moment::ZERO, entry: Entry::Told(Told::of(event, &plan)) };
        let text = serde_json::to_string(&line).unwrap();
        assert!(!["192.0.2.77", "example"].iter().any(|secret| text.contains(secret)), "{text}");
    }
    let Told { reason, .. } = Told::of(&events[1], &plan);
    assert_eq!(reason, "(a name) ((an address)), answered by (a name): no proposal");
}

/// A daemon's recording of ten minutes in files of a few, as it lies on disk; and its plan.
fn ten_minutes() -> (Memory, Arc<Plan>) {
    let (disk, plan) = (Memory::default(), plan());
    // A file for each sixteenth of the age.
    let limits = RingLimits { bytes: 10_000_000, age: Duration::from_secs(16 * 120) };
    let opened = disk.clone();
    let journal = Journal::new(plan.clone(), first(&plan), ZERO);
    let mut writer = Writer::new(journal, limits, 9, Box::new(move || Ok(opened.clone())));
    uneventful(&mut writer, &plan, 1, 600);
    writer.finish(seconds(600));
    assert!((4..=6).contains(&disk.state().files.len()));
    (disk, plan)
}

#[test]
fn files_that_the_ring_forgets_while_they_are_read_are_a_gap_and_no_error() {
    let (disk, _) = ten_minutes();
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let places = reader.index().unwrap();
    let mut parts = reader.parts(0);
    assert_eq!(parts.next().unwrap().unwrap(), Part::Run);
    for number in [2, 3] {
        std::fs::remove_file(folder.path().join(format!("{number:010}.trefoil.gz"))).unwrap();
    }
    let rest: Vec<Part> = parts.map(Result::unwrap).collect();
    assert_eq!(rest.iter().filter(|part| **part == Part::Gap).count(), 1);
    assert!(!rest.iter().any(|part| matches!(part, Part::Run | Part::Trouble(_))));
    // What lies in them is not found any more either, in whatever order it is looked for.
    let gone = places.iter().filter(|place| [1, 2].contains(&place.file)).count();
    assert_eq!(reader.texts(places.iter()).count(), places.len() - gone);
    let told = report(folder.path());
    assert_eq!((told.differences.len(), &told.troubles[..]), (0, &["something is missing here".to_owned()][..]));
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
fn a_line_of_another_kind_costs_no_decision_and_one_of_a_known_kind_all_until_everything_is_told_again() {
    for (odd, gaps) in [(r#"{"at":1,"telepathy":{}}"#, 0), (r#"{"at":1,"fact":{"is":"guessed"}}"#, 1), ("?", 1)] {
        let (disk, plan) = (Memory::default(), plan());
        let mut writer = writer(&disk, &plan);
        uneventful(&mut writer, &plan, 1, 200);
        writer.finish(seconds(200));
        let whole = report(on_disk(&disk).path());
        let folder = on_disk(&disk);
        let mut block = Block::new(9, 0, ZERO);
        for (number, part) in Reader::open(folder.path()).unwrap().parts(0).enumerate() {
            if let Part::Line(line) = part.unwrap() {
                assert!(block.push(&line));
            }
            if number == 40 {
                block.push_text(odd);
            }
        }
        std::fs::write(folder.path().join("0000000001.trefoil.gz"), block.seal().unwrap()).unwrap();
        let told = report(folder.path());
        assert_eq!((told.troubles.len(), told.differences.len()), (1 + gaps, 0), "{:?}", told.troubles);
        assert_eq!(told.not_compared > 0, gaps > 0, "{odd}: {told:?}");
        assert_eq!(told.decisions == whole.decisions, gaps == 0);
        assert!(told.to_ms == whole.to_ms && told.decisions > 0);
    }
}

#[test]
fn fields_that_a_later_version_adds_are_passed_over_and_those_that_an_older_one_lacks_have_their_defaults() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 100);
    writer.finish(seconds(100));
    let whole = report(on_disk(&disk).path());
    let folder = on_disk(&disk);
    let mut block = Block::new(9, 0, ZERO);
    for part in Reader::open(folder.path()).unwrap().parts(0) {
        let Part::Line(line) = part.unwrap() else { continue };
        let mut value = serde_json::to_value(&line).unwrap();
        later(&mut value);
        value["seen_by"] = serde_json::json!("a later version");
        let again: Line = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
        assert_eq!(again, *line, "what is not known says nothing");
        block.push(&line);
    }
    let told = {
        std::fs::write(folder.path().join("0000000001.trefoil.gz"), block.seal().unwrap()).unwrap();
        report(folder.path())
    };
    assert_eq!((told.decisions, told.equal, told.troubles.len()), (whole.decisions, whole.equal, 0));
    // As the first version wrote them.
    let first = [
        r#"{"at":5,"published":{"generation":1,"policy_epoch":0,"minute":0,"active":["primary"],"paths":[]}}"#,
        r#"{"at":5,"fact":{"is":"followed"}}"#,
        r#"{"at":5,"told":{"what":"verdict","of":"pop/primary/fibre"}}"#,
    ];
    for text in first {
        let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(line.at, Moment::from_nanos(5));
    }
}

/// Every object of a line with a field that nobody knows.
fn later(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(later);
            // Of an enum's value, the one field names it.
            if fields.len() > 1 && !fields.contains_key("nanos") {
                fields.insert("added_later".to_owned(), serde_json::json!([{ "x": 1 }]));
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(later),
        _ => {}
    }
}

#[test]
fn a_clock_that_is_set_back_while_it_records_begins_a_block_and_disturbs_no_order() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    let back = ZERO - 7_200_000;
    for second in 1..120 {
        let now = seconds(second);
        let mut news = vec![(now, judged())];
        if writer.wants_whole() || second % 60 == 0 {
            news.push((now, whole(&plan, now)));
        }
        let unix_ms_at_zero = if second < 62 { ZERO } else { back };
        writer.handle(Batch { news, unix_ms_at_zero, ..Batch::default() }, now).unwrap();
    }
    writer.finish(seconds(120));
    let folder = on_disk(&disk);
    let reader = Reader::open(folder.path()).unwrap();
    let places = reader.index().unwrap();
    for place in &places {
        let expected = if place.header.first < seconds(62) { ZERO } else { back };
        assert_eq!(place.header.unix_ms_at_zero, expected, "a block has one clock: {place:?}");
        assert!(place.header.last < seconds(62) || place.header.first >= seconds(62), "{place:?}");
    }
    assert!(
        places.is_sorted_by_key(|place| place.header.number) && places.is_sorted_by_key(|place| place.header.first)
    );
    let told = report(folder.path());
    assert_eq!((told.differences.len(), told.troubles.len()), (0, 0), "{told:?}");
    let clocks: Vec<u64> = told.steps.iter().filter(|step| step.what == "clock").map(|step| step.at_ms).collect();
    assert_eq!(clocks, [ZERO + 2_000, back + 62_000]);
    assert_eq!(writer.status().last_unix_ms, Some(back + 120_000));
}

#[test]
fn what_is_urgent_reaches_the_disk_within_a_second_and_the_rest_within_thirty() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    let mut now = seconds(1);
    let mut tick = |writer: &mut Writer<Memory>, news: Vec<News>| {
        now = now + Duration::from_millis(250);
        writer.handle(batch(news.into_iter().map(|news| (now, news)).collect()), now).unwrap();
        let bytes: usize = disk.state().files.values().map(Vec::len).sum();
        (bytes, disk.state().syncs)
    };
    tick(&mut writer, vec![]);
    let begun = whole(&plan, seconds(1));
    tick(&mut writer, vec![begun]);
    for _ in 0..8 {
        tick(&mut writer, vec![judged()]);
    }
    let (bytes, syncs) = tick(&mut writer, vec![judged()]);
    let event = SiteEvent::Rekeyed { path: PathId(0), what: "IKE SA" };
    let (after, synced) = tick(&mut writer, vec![News::Event(Box::new(event.clone()))]);
    assert!(after > bytes && synced == syncs + 1, "at once, when nothing was for a second: {synced} {syncs}");
    let (more, again) = tick(&mut writer, vec![News::Event(Box::new(event))]);
    assert!(more > after && again == synced, "and not twice within one");
    let outcomes: Vec<usize> = (0..4).map(|_| tick(&mut writer, vec![]).1).collect();
    assert_eq!(outcomes[3], synced + 1, "though nothing more is told: {outcomes:?}");
    let quiet = (0..115).map(|_| tick(&mut writer, vec![judged()]).1).max().unwrap();
    assert_eq!(quiet, synced + 1);
    assert_eq!((0..12).map(|_| tick(&mut writer, vec![judged()]).1).max(), Some(synced + 2));
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
