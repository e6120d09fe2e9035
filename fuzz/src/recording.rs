use std::fs;
use std::time::Duration;

use trefoil::model::FlowKey;
use trefoil::recording::{Reader, When, explain_at, replay};

/// A file of a recording that somebody sends us. What cannot be read is an error or a trouble, and never more.
pub fn recording(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("trefoil-fuzz-{}.trefoil.gz", std::process::id()));
    if fs::write(&path, bytes).is_err() {
        return;
    }
    let reader = Reader::open(&path).expect("it is there");
    let (report, places) = (replay(&reader, None, 0), reader.index());
    assert_eq!(report.is_err(), places.is_err() || reader.parts(0).any(|part| part.is_err()));
    if let Ok(report) = report {
        assert!(report.equal <= report.decisions && report.troubles.len() <= 64);
        assert!(report.more_troubles == 0 || report.troubles.len() == 64);
    }
    let any = [10, 0, 0, 1].into();
    let key = FlowKey { segment: 0, protocol: 6, source: any, destination: any, source_port: 1, destination_port: 2 };
    for when in [When::Ago(Duration::ZERO), When::Wall(1_795_356_000_000)] {
        let _ = explain_at(&reader, when, 1_795_356_060_000, key, None);
    }
    let _ = fs::remove_file(&path);
}
