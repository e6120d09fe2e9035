//! What the flight recorder of a real daemon holds of a cut, and that it is decided the same again.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trefoil::edge::{Explanation, FlowList, FlowStatus};
use trefoil::recording::{Report, WallTime};

use super::bench::Bench;
use super::daemon::{tunnel, tunnels};
use super::kernel_drops::KernelDrops;
use super::outage::{flows_again, steady_stream};
use super::process::{PATIENCE, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{LINKS, SERVER, Topology};

#[test]
fn a_cut_is_explained_for_moments_before_and_after_it_and_decided_the_same_again() {
    if !lab_is_possible() {
        return;
    }
    let mut bench = Bench::ready(Site::new());
    bench.trefoil.wait("all tunnels are healthy", Duration::from_secs(30), |status| {
        tunnels(status).all(|tunnel| tunnel.verdict == "healthy")
    });
    let stream = steady_stream(&bench);
    let flow = stream_flow(&bench);
    let live_before = explained(&bench, &flow, &[]);
    let before = unix_ms();
    // So that the moment and the cut do not share a millisecond.
    std::thread::sleep(Duration::from_millis(20));

    let link = flow.link.clone().expect("it has a link");
    let address = LINKS.iter().find(|known| known.name == link).expect("a link of the lab").address;
    bench.lab.wan.cut(address);
    bench
        .trefoil
        .wait("the cut tunnel is down", Duration::from_secs(30), |status| !tunnel(status, "primary", &link).usable);
    flows_again(&stream);
    let moved = stream_flow(&bench);
    let live_after = explained(&bench, &flow, &[]);
    let after = unix_ms();
    assert_ne!(moved.tunnel, flow.tunnel, "{moved:?}");
    stream.finish();

    // The recording reaches beyond the later moment as soon as what followed it is written.
    bench.trefoil.wait("it is written", PATIENCE, |status| {
        status.recording.as_ref().is_some_and(|recording| recording.last_ms > Some(after))
    });
    let at = |ms: u64| explained(&bench, &flow, &["--at", &time(ms)]);
    let (told_before, told_after) = (at(before), at(after));
    say(&format!("trefoil explain --at {}\n{}", time(after), words(&bench, &flow, &["--at", &time(after)])));

    let standing = |told: &Explanation| -> Vec<(String, String, bool)> {
        let of = |candidate: &trefoil::edge::CandidateStatus| {
            (candidate.tunnel.clone(), candidate.verdict.clone(), candidate.best)
        };
        told.candidates.iter().map(of).collect()
    };
    for (live, told) in [(&live_before, &told_before), (&live_after, &told_after)] {
        assert_eq!((&told.tunnel, standing(told)), (&live.tunnel, standing(live)), "as the daemon itself said then");
    }
    assert_eq!((&told_before.tunnel, &told_after.tunnel), (&flow.tunnel, &moved.tunnel));
    let past = told_after.past.expect("what was recorded of it");
    let last = past.decisions.iter().rfind(|decision| decision.from.is_some()).expect("its move");
    let live = moved.history.last().expect("its move");
    assert_eq!((last.from.as_ref(), last.tunnel.as_ref()), (Some(&live.from), Some(&live.to)));
    assert_eq!((last.cause.as_ref(), last.reason.as_ref()), (Some(&live.cause), Some(&live.reason)));
    assert!(last.at_ms.abs_diff(live.at_ms) <= 1, "{last:?} {live:?}");

    let report = replayed(&bench);
    let text = bench.trefoil.plain(&["replay", &directory(&bench)]);
    say(&format!("trefoil replay\n{text}"));
    assert!(report.differences.is_empty(), "{:#?}", report.differences);
    assert!(report.decisions > 5 && report.equal == report.decisions, "{report:#?}");
    assert!(report.steps.iter().any(|step| step.what == "verdict" && step.to == "down"), "{:#?}", report.steps);
    assert!(report.steps.iter().any(|step| step.what == "flow" && Some(&step.to) == moved.tunnel.as_ref()));

    // Another run goes on in the same ring, and neither disturbs the other.
    bench.lab.wan.mend(address);
    assert!(bench.trefoil.stop().is_some_and(|status| status.success()));
    bench.restart();
    bench.wait_for_all();
    bench.trefoil.wait("the second run is written", PATIENCE, |status| {
        status.recording.as_ref().is_some_and(|recording| recording.last_ms > Some(status.started_ms))
    });
    assert_eq!(explained(&bench, &flow, &["--at", &time(before)]).tunnel, flow.tunnel);
    let both = replayed(&bench);
    assert!(both.differences.is_empty() && both.decisions > report.decisions, "{both:#?}");
}

#[test]
fn a_full_disk_costs_the_recording_alone_and_it_goes_on_when_there_is_room() {
    if !lab_is_possible() {
        return;
    }
    let lab = Topology::new();
    let folder = lab.directory().join("site/recording");
    fs::create_dir_all(&folder).expect("a folder");
    let small = SmallDisk::mount(&folder);
    let bench = Bench::start_in(lab, Site::new(), |_| {}, &[]);
    // It goes before the folder that it is mounted in.
    let _small = small;
    bench.wait_for_all();
    let ballast = folder.join("ballast");
    // Until nothing goes in any more.
    let _full = fs::write(&ballast, vec![7; 1 << 20]);
    let status = bench.trefoil.wait("the disk is told to be full", Duration::from_secs(30), |status| {
        status.recording.as_ref().is_some_and(|recording| recording.fault.is_some())
    });
    let fault = status.recording.and_then(|recording| recording.fault).unwrap_or_default();
    say(&format!("with a full disk: {fault}"));
    assert!(bench.trefoil.table().contains(&fault), "{}", bench.trefoil.table());
    let lab = &bench.lab;
    let places = [&lab.lan, &lab.edge, &lab.internet, &lab.pops[0], &lab.server];
    let before = KernelDrops::read(&places);
    let stream = steady_stream(&bench);
    flows_again(&stream);
    let (lost, dropped) = (stream.finish().there.lost, KernelDrops::read(&places).since(&before));
    assert!(lost <= dropped.total(), "traffic notices: {lost} lost, dropped by the kernel: {}", dropped.told());

    fs::remove_file(&ballast).expect("room again");
    bench.trefoil.wait("it writes again", Duration::from_secs(60), |status| {
        status.recording.as_ref().is_some_and(|recording| recording.fault.is_none())
    });
    assert!(replayed(&bench).differences.is_empty());
}

/// The flow of the stream to the server, as the daemon lists it.
fn stream_flow(bench: &Bench) -> FlowStatus {
    let destination = format!("{SERVER}:40000");
    wait_for("the stream is listed", PATIENCE, || {
        let list: FlowList = serde_json::from_str(&bench.trefoil.verb(&["flows", "--json"])).expect("JSON");
        list.flows.into_iter().find(|flow| flow.destination == destination)
    })
}

fn words(bench: &Bench, flow: &FlowStatus, more: &[&str]) -> String {
    bench.trefoil.verb(&[&["explain", &flow.protocol, &flow.source, &flow.destination], more].concat())
}

fn explained(bench: &Bench, flow: &FlowStatus, more: &[&str]) -> Explanation {
    serde_json::from_str(&words(bench, flow, &[more, &["--json"]].concat())).expect("JSON")
}

/// What a replay of the daemon's recording, up to now, comes to.
fn replayed(bench: &Bench) -> Report {
    serde_json::from_str(&bench.trefoil.plain(&["replay", &directory(bench), "--json"])).expect("JSON")
}

fn directory(bench: &Bench) -> String {
    bench.directory().join("site/recording").display().to_string()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    since.as_millis() as u64
}

fn time(ms: u64) -> String {
    WallTime(ms).to_string()
}

/// A file system of 256 KiB, for as long as it is held.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(folder: &Path) -> SmallDisk<'_> {
        run("mount", &["-t", "tmpfs", "-o", "size=256k", "none", &folder.display().to_string()]);
        SmallDisk(folder)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0.display().to_string()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = std::process::Command::new(program).args(arguments).status();
    assert!(done.is_ok_and(|status| status.success()), "{program} {arguments:?}");
}
