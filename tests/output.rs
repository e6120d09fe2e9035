//! What the verbs do when nobody reads them, or when what they write to is full.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::{fs, io, thread};

const GOOD_SITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/branch.toml");

fn trefoil(arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trefoil"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .expect("the binary starts")
}

fn full() -> fs::File {
    OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there")
}

/// A pipe whose reader has left.
fn closed() -> io::PipeWriter {
    io::pipe().expect("a pipe").1
}

/// Answers one status request with as much text as the answer of a large site.
fn stand_in(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("a handle")).read_line(&mut line).expect("a line");
            let site = "x".repeat(100_000);
            let answer = format!(
                r#"{{"answer":"status","site":"{site}","kind":"branch","at_ms":1,"started_ms":0,"generation":1,"connectors":[],"drops":[],"flows":0}}"#
            );
            writeln!(stream, "{answer}").expect("it is written");
        }
    });
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    stand_in(&socket);
    let socket = socket.display().to_string();
    let calls: [&[&str]; 4] = [
        &["check", GOOD_SITE],
        &["status", "--socket", &socket],
        &["status", "--json", "--socket", &socket],
        &["--help"],
    ];
    for call in calls {
        let output = trefoil(call, closed());
        assert!(output.status.success(), "{call:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{call:?}: {output:?}");
    }
}

#[test]
fn a_full_disk_is_a_plain_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    stand_in(&socket);
    let socket = socket.display().to_string();
    let calls: [&[&str]; 5] = [
        &["check", GOOD_SITE],
        &["status", "--socket", &socket],
        &["status", "--json", "--socket", &socket],
        &["demo", "--headless"],
        &["--help"],
    ];
    for call in calls {
        let output = trefoil(call, full());
        assert_eq!(output.status.code(), Some(1), "{call:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("trefoil: cannot write"), "{call:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{call:?}: {said}");
    }
}

#[test]
fn without_any_output_the_exit_code_still_tells() {
    let status = Command::new(env!("CARGO_BIN_EXE_trefoil"))
        .args(["status", "--socket", "/nowhere/at/all.sock"])
        .stdout(full())
        .stderr(full())
        .status();
    assert_eq!(status.expect("the binary starts").code(), Some(1));
}
