//! Scenario files: those that are shipped, and what is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Memory;
use crate::config::{Direction, Scenario, TrafficKind, Where, load_scenario, load_scenario_from};
use crate::model::{Permille, Role};

fn load(text: &str) -> Result<Scenario, Vec<String>> {
    let files = Memory::default().with("s.toml", text);
    load_scenario_from(Path::new("s.toml"), &files).map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn findings(text: &str) -> Vec<String> {
    load(text).expect_err("something is wrong")
}

#[test]
fn a_scenario_says_links_events_and_traffic() {
    let text = r#"
        name = "mixed"
        duration = "2m"
        seed = 7
        [link.fibre]
        up_mbps = 20
        down_mbps = 50
        delay_ms = 8
        loss_percent = 0.25
        [link.lte]
        up_mbps = 5
        down_mbps = 15
        delay_ms = 30
        [[event]]
        at = "10s"
        for = "5s"
        every = "20s"
        link = "lte"
        direction = "up"
        trace_mbps = [5, 1]
        step = "500ms"
        [[event]]
        at = "60s"
        pop = "secondary"
        cut = true
        [[traffic]]
        kind = "voice"
        [[traffic]]
        kind = "mice"
        per_second = 2.5
        direction = "down"
    "#;
    let scenario = load(text).unwrap_or_else(|found| panic!("{found:#?}"));
    assert_eq!((scenario.seed, scenario.links.len(), scenario.duration), (7, 2, Duration::from_secs(120)));
    // A thousandth is the smallest part.
    assert_eq!(scenario.links[0].up.loss, Permille::new(3).unwrap());
    assert_eq!(scenario.links[1].down.queue, Duration::from_millis(100));
    let [fading, lost] = &scenario.events[..] else { panic!("{:?}", scenario.events) };
    assert_eq!((fading.place, fading.direction, fading.until), (Where::Link(1), Direction::Up, scenario.duration));
    assert_eq!(fading.change.trace.as_ref().map(|trace| trace.rates.len()), Some(2));
    assert_eq!((lost.place, lost.lasts, lost.change.cut), (Where::Pop(Role::Secondary), None, true));
    let mice = TrafficKind::Mice { per_second: 2.5, bytes: 50_000, upload: false };
    assert_eq!(scenario.traffic[0].kind, TrafficKind::Voice { calls: 1 });
    assert_eq!(scenario.traffic[1].kind, mice);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let found = findings(
        r#"name = "a b"
duration = "5s"
[link.a]
up_mbps = 0
down_mbps = 5
delay_ms = 10
[[event]]
at = "1s"
link = "b"
cut = true
[[event]]
at = "1s"
pop = "third"
direction = "sideways"
[[traffic]]
kind = "video"
"#,
    );
    let expected = [
        "s.toml:1:8 \"a b\" is not a name",
        "s.toml:2:12 \"5s\" is out of range (10s to 1d)",
        "s.toml:4:11 up_mbps 0 is out of range",
        "s.toml:9:8 unknown link \"b\"",
        "s.toml:13:7 unknown PoP \"third\" (known: primary, secondary)",
        "s.toml:14:13 unknown direction \"sideways\" (known: both, up, down)",
        "s.toml:16:8 unknown kind \"video\" (known: voice, bulk, mice)",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn events_and_traffic_that_make_no_sense_are_refused() {
    const HEAD: &str = "name = \"a\"\nduration = \"1m\"\n[link.a]\nup_mbps = 5\ndown_mbps = 5\ndelay_ms = 10\n";
    for (rest, expected) in [
        ("[[event]]\nat = \"1s\"\nlink = \"a\"\n", "nothing happens in the event"),
        ("[[event]]\nat = \"1s\"\ncut = true\n", "the event has no place"),
        ("[[event]]\nat = \"1s\"\nlink = \"a\"\npop = \"primary\"\ncut = true\n", "link and pop in one event"),
        ("[[event]]\nat = \"1s\"\npop = \"primary\"\nloss_percent = 5\n", "a PoP can only be cut"),
        ("[[event]]\nat = \"1s\"\nevery = \"5s\"\nlink = \"a\"\ncut = true\n", "no end before it begins again"),
        ("[[event]]\nat = \"2m\"\nlink = \"a\"\ncut = true\n", "out of range"),
        ("[[event]]\nat = \"1s\"\nlink = \"a\"\ntrace_mbps = []\n", "trace_mbps is empty"),
        ("[[traffic]]\nkind = \"mice\"\n", "do not go together"),
        ("[[traffic]]\nkind = \"bulk\"\nper_second = 3\n", "do not go together"),
        ("[[traffic]]\nkind = \"bulk\"\ndirection = \"both\"\n", "one direction"),
        ("[[traffic]]\nkind = \"voice\"\nflows = 0\n", "out of range"),
    ] {
        let found = findings(&format!("{HEAD}{rest}"));
        assert!(found.len() == 1 && found[0].contains(expected), "{rest}: {found:#?}");
    }
    assert!(findings("name = \"a\"\nduration = \"1m\"\n")[0].contains("no link"));
}

#[test]
fn the_shipped_scenarios_are_good_and_have_calls_throughout() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 9);
    for file in files {
        let scenario = load_scenario(&file).unwrap_or_else(|found| panic!("{found:#?}"));
        assert_eq!(Some(scenario.name.as_str()), file.file_stem().and_then(|stem| stem.to_str()));
        let throughout = scenario.traffic.iter().any(|traffic| {
            matches!(traffic.kind, TrafficKind::Voice { .. })
                && (traffic.from, traffic.until) == (Duration::ZERO, scenario.duration)
        });
        assert!(throughout, "{}", scenario.name);
    }
}
