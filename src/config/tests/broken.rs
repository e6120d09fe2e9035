//! A site in which everything is wrong, on disk as an operator would have it.

use std::path::Path;

use super::super::{Disk, load, load_from};
use super::*;

#[test]
fn all_errors_of_all_files_are_reported_in_one_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/broken");
    let found = load(&folder.join("site.toml")).unwrap_err();
    let prefix = format!("{}/", folder.display());
    let lines: Vec<String> = found.iter().map(|one| one.to_string().replace(&prefix, "")).collect();
    // A checkout may or may not leave the key readable by all.
    let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.contains("every user")).collect();
    let expected = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    assert_eq!(lines.join("\n"), expected.trim_end(), "\n{}\n", lines.join("\n"));
}

#[test]
fn files_beyond_a_mebibyte_are_refused_unread() {
    let refusal = Disk.read(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(refusal.to_string(), "larger than 1 MiB");
    let found = load_from(Path::new("/dev/zero"), &Disk).unwrap_err();
    assert_eq!(found[0].to_string(), "/dev/zero cannot be read: larger than 1 MiB");
}

#[test]
fn a_site_file_in_the_present_folder_finds_its_profiles_there() {
    let files = changed("[connector.pop]", "[connector.pop]\nphase1 = \"here\"").with("here.toml", "[phase1]\n");
    assert_eq!(files.with_change("\n[site]", "profiles = [\"*ere.toml\"]\n[site]").findings(), [""; 0]);
}
