//! A site in which everything is wrong, on disk as an operator would have it.

use std::path::Path;

use super::super::{Disk, FILE_BYTES_MAX, load, load_from};
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
fn a_missing_file_is_named_as_the_site_file_names_it_however_deep_the_site_lies() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a-very-long-name-of-a-folder/".repeat(8));
    std::fs::create_dir_all(&deep).unwrap();
    let site = deep.join("site.toml");
    std::fs::write(&site, "policy = [\"policy/lost.toml\"]\n").unwrap();
    let found = load(&site).unwrap_err();
    let told = found.iter().any(|one| one.what.starts_with("\"policy/lost.toml\" cannot be read"));
    assert!(told, "{found:?}");
}

#[test]
fn files_beyond_four_mebibytes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.toml");
    std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(Disk.read(&path).unwrap_err().to_string(), "larger than 4 MiB");
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(Disk.read(&pipe).unwrap_err().to_string(), "not a regular file");
    let found = load_from(Path::new("/dev/zero"), &Disk).unwrap_err();
    assert_eq!(found[0].to_string(), "/dev/zero cannot be read: not a regular file");
}

#[test]
fn a_site_file_in_the_present_folder_finds_its_profiles_there() {
    let files = changed("[connector.pop]", "[connector.pop]\nphase1 = \"here\"").with("here.toml", "[phase1]\n");
    assert_eq!(files.with_change("\n[site]", "profiles = [\"*ere.toml\"]\n[site]").findings(), [""; 0]);
}
