//! The demo as a user starts it: two at once, each in its shortest form, and one that is
//! interrupted.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trefoil"))
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in {}", said(output)))
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{err}\n{out}", output.status)
}

#[test]
fn two_demos_at_once_show_everything_and_pass() {
    let arguments = |seed| ["--headless", "--json", "--seconds", "25", "--seed", seed];
    let runs = [demo(&arguments("1")), demo(&arguments("2"))];
    for run in runs {
        let output = run.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", said(&output));
        let summary = document(&output);
        assert_eq!(summary["passed"], true);
        let names: Vec<&str> =
            summary["events"].as_array().into_iter().flatten().filter_map(|e| e["name"].as_str()).collect();
        let expected = ["fibre-brownout", "fibre-recovers", "dsl-cut", "dsl-back", "pop-lost", "pop-back"];
        assert_eq!(names, expected);
        for event in summary["events"].as_array().into_iter().flatten() {
            let (detected, restored) = (event["detected_ms"].as_u64(), event["restored_ms"].as_u64());
            assert!(detected.is_some() && restored.is_some(), "{event}");
        }
        assert!(summary["voice"]["sent"].as_u64() > Some(2_000), "{}", summary["voice"]);
        assert!(summary["web"]["completed"].as_u64() > Some(50), "{}", summary["web"]);
        assert!(summary["bulk"]["uploaded_mbps"].as_f64() > Some(0.5), "{}", summary["bulk"]);
        assert_eq!(summary["sessions"]["broken"], 0);
        assert_eq!(summary["status"]["connectors"][0]["tunnels"].as_array().map(Vec::len), Some(6));
    }
}

#[test]
fn an_interrupt_ends_it_with_the_summary_so_far() {
    let mut run = demo(&["--headless"]);
    let mut out = BufReader::new(run.stdout.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("all six tunnels are up") {
        assert!(out.read_line(&mut text).expect("text") > 0, "{text}");
    }
    let started = Instant::now();
    let id = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill is there").success());
    out.read_to_string(&mut text).expect("text");
    let status = run.wait().expect("it ends");
    assert_eq!(status.code(), Some(130), "{text}");
    // Far less than the minute that it would have taken.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(text.contains("Ended early; all was well so far."), "{text}");
}

#[test]
fn a_run_too_short_to_show_everything_is_refused() {
    let output = demo(&["--seconds", "10"]).wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
