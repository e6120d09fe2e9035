//! Whatever is in the files, the loader returns, and says something when it refuses.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const POLICY: &str = include_str!("../../../policy/branch.toml");
const PROFILE: &str = include_str!("../../../profiles/cato-default.toml");
const EXAMPLE: &str = include_str!("../../../examples/branch.toml");

/// The branch example with its files in memory.
fn example() -> Memory {
    Memory::default()
        .with("site.toml", EXAMPLE.replace("../", ""))
        .with("policy/branch.toml", POLICY)
        .with("profiles/cato-default.toml", PROFILE)
        .with("keys/primary.psk", "one")
        .with("keys/secondary.psk", "two")
}

/// Every refusal has a reason, and every reason a place in the file.
fn survives(files: &Memory) -> Result<(), TestCaseError> {
    if let Err(found) = files.load() {
        prop_assert!(found.iter().any(|one| one.severity == crate::config::Severity::Error));
        for one in found {
            let lines =
                files.files.get(&one.file).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
            prop_assert!(one.line as usize <= lines + 1, "{one}");
        }
    }
    Ok(())
}

/// Pieces that mean something here, so that mutations get beyond the syntax.
const PIECES: &[&str] = &[
    "\"",
    "[",
    "]",
    "[[",
    "]]",
    "=",
    "{",
    "}",
    ",",
    ".",
    "\n",
    "#",
    "'",
    "\"\"\"",
    "0",
    "-1",
    "1.5",
    "true",
    "nan",
    "99999999999999999999",
    "0x_",
    "1979-05-27",
    "\"\"",
    "\"ef\"",
    "\"10.0.0.1/8\"",
    "\"::/0\"",
    "\"any\"",
    "\"0.0.0.0/0\"",
    "\"1-0\"",
    "\"keyid:\"",
    "\"a@b\"",
    "\"99999999999999999999d\"",
    "\"*.toml\"",
    "\"/\"",
    "é",
    "\0",
    "\u{feff}",
    "[wan.x]\n",
    "[connector.x]\n",
    "[[rule]]\n",
    "tunnel = 1\n",
    "[[connector.pop.primary.tunnel]]\n",
];

fn mutation() -> impl Strategy<Value = (prop::sample::Index, usize, &'static str)> {
    (any::<prop::sample::Index>(), 0usize..40, prop::sample::select(PIECES))
}

/// Replaces some bytes somewhere by a piece.
fn mutate(text: &str, mutations: &[(prop::sample::Index, usize, &str)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, length, piece) in mutations {
        let start = at.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, piece.bytes());
    }
    bytes
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_the_loader(text in any::<String>(), tokens in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        survives(&site(&text))?;
        survives(&site(&tokens.concat()))?;
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_loader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&example().with("site.toml", &bytes))?;
        survives(&example().with("policy/branch.toml", &bytes))?;
        survives(&example().with("profiles/cato-default.toml", &bytes))?;
        survives(&example().with("keys/primary.psk", &bytes))?;
    }

    #[test]
    fn mutated_files_never_panic_the_loader(
        site in prop::collection::vec(mutation(), 0..4),
        policy in prop::collection::vec(mutation(), 0..3),
        profile in prop::collection::vec(mutation(), 0..3),
    ) {
        let files = example()
            .with("site.toml", mutate(&EXAMPLE.replace("../", ""), &site))
            .with("policy/branch.toml", mutate(POLICY, &policy))
            .with("profiles/cato-default.toml", mutate(PROFILE, &profile));
        survives(&files)?;
    }
}

#[test]
fn the_example_that_is_mutated_is_right() {
    assert_eq!(example().findings(), [""; 0]);
}

#[test]
fn findings_are_bounded_and_so_is_the_time_to_find_them() {
    let start = Instant::now();
    let keys: String = (0..40_000).map(|number| format!("k{number}=0,")).collect();
    let one_line = site(&format!("[site]\nx = {{{keys}}}\nsite2 = {{{keys}}}\n"));
    assert!(!one_line.findings().is_empty());
    let lines: String = (0..40_000).map(|number| format!("k{number} = 0\n")).collect();
    let found = site(&lines).findings();
    assert!(found.len() <= 1001, "{}", found.len());
    assert!(found.last().is_some_and(|last| last.ends_with("more errors are left out")), "{:?}", found.last());
    let _ = site(&"[".repeat(500_000)).findings();
    let _ = site(&format!("a = {}", "[".repeat(500_000))).findings();
    let _ = site(&"a = b\n".repeat(20_000)).findings();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
