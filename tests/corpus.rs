//! Replays the fuzzing corpus through the same functions that the fuzzer calls, so that what it
//! once found stays found without it.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let bytes = fs::read(&file).expect("readable");
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("{} fails", file.display());
        }
    }
}

#[test]
fn the_corpus_of_ip_packets_replays() {
    replay("packet", targets::packet);
}

#[test]
fn the_corpus_of_super_packets_replays() {
    replay("segment", targets::segment);
}

#[test]
fn the_corpus_of_esp_packets_replays() {
    replay("esp", targets::esp);
}

#[test]
fn the_corpus_of_dns_messages_replays() {
    replay("dns", targets::dns);
}

#[test]
fn the_corpus_of_what_trefoils_tell_each_other_replays() {
    replay("in_band", targets::in_band);
}

#[test]
fn the_corpus_of_recordings_replays() {
    replay("recording", targets::recording);
}

#[test]
fn the_corpus_of_ike_messages_replays() {
    replay("ike_message", targets::ike_message);
}

#[test]
fn the_corpus_of_ike_conversations_replays() {
    replay("ike_endpoint", targets::ike_endpoint);
}
