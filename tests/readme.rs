//! What the README shows is true.

use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_first_real_site_of_the_readme_is_good_as_it_stands() {
    let readme = include_str!("../README.md");
    let site = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a TOML example");
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("pop.psk");
    fs::write(&key, "a secret\n").expect("the key file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
    let file = folder.path().join("lisbon.toml");
    fs::write(&file, site).expect("the site file");
    let loaded = trefoil::config::load(&file).unwrap_or_else(|found| panic!("{found:#?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.plan.tunnels.len(), 2);
}
