//! Formatting and lints are part of the tests.

use std::process::Command;

#[test]
fn the_source_is_formatted() {
    cargo(&["fmt", "--check"], "rustfmt");
}

#[test]
fn clippy_has_nothing_to_say() {
    cargo(&["clippy", "--quiet", "--all-targets", "--locked", "--", "-D", "warnings"], "clippy");
}

fn cargo(arguments: &[&str], component: &str) {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo, which built this test");
    assert!(
        output.status.success(),
        "cargo {} failed (needs: rustup component add {component})\n{}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
