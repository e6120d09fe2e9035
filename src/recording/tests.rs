use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proptest::prelude::*;

use super::plan_record::{ConnectorRecord, LinkRecord, PlanRecord, TunnelRecord};
use super::*;
use crate::edge::{self, Destination, Fact, Plan, SiteEvent, Steering, TunnelState, Whole};
use crate::forward::{Forwarding, SaTable};
use crate::ha::{Failback, RoleSelector};
use crate::ike::Identity;
use crate::model::{ConnectorId, LinkId, Mbps, Moment, PathId, Role};

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

fn first(plan: &Plan) -> Arc<Forwarding> {
    Arc::new(edge::blank(plan, &Arc::new(SaTable::new(1, 1))))
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
    let mut chance = crate::model::Chance::from_number(number);
    let noise: String = (0..bytes * 4 / 3).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
    let told = Told { what: String::new(), of: noise, from: String::new(), to: String::new(), reason: String::new() };
    let mut block = Block::new(1, number, ZERO);
    assert!(block.push(&Line { at: seconds(number), entry: Entry::Told(told) }));
    block.seal().unwrap()
}

#[test]
fn a_ring_forgets_its_oldest_files_when_it_is_full() {
    let disk = Memory::default();
    let limits = RingLimits { bytes: 4_000_000, age: Duration::from_secs(86_400) };
    let mut ring = Ring::open(disk.clone(), limits, seconds(0)).unwrap();
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
    let mut next = Ring::open(disk.clone(), limits, seconds(0)).unwrap();
    next.begin_file(seconds(0)).unwrap();
    next.append(&bulk(100, 1), false, seconds(1)).unwrap();
    assert!(*disk.state().files.keys().last().unwrap() > first + count as u64 - 1);
    assert!(next.first_unix_ms().is_some_and(|first| first > ZERO));
}

#[test]
fn a_ring_forgets_what_is_older_than_its_limit_in_time_that_it_ran() {
    let disk = Memory::default();
    let limits = RingLimits { bytes: 100_000_000, age: Duration::from_secs(1_600) };
    let mut ring = Ring::open(disk.clone(), limits, seconds(0)).unwrap();
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
