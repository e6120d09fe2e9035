mod damage;
mod forgetting;
mod losses;
mod memory;
mod reading;
mod versions;
mod writing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use memory::Memory;

use super::face::{FaceRecord, Published};
use super::plan_record::{ConnectorRecord, LinkRecord, PlanRecord, TunnelRecord};
use super::*;
use crate::edge::{self, Fact, Plan, SiteEvent, Steering, Whole};
use crate::forward::{Forwarding, SaTable};
use crate::ha::{Failback, RoleSelector};
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
        utc_offset_minutes: 90,
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
        doubt: 0,
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
