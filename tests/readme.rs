//! What the README shows is true.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

#[test]
fn the_readme_leads_to_every_page_and_to_nothing_that_is_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("a README");
    for page in fs::read_dir(root.join("docs")).expect("pages") {
        let page = format!("](docs/{})", page.expect("readable").file_name().to_string_lossy());
        assert!(readme.contains(&page), "the README does not lead to {page}");
    }
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(root.join(link).exists(), "{link} is not there");
    }
}
