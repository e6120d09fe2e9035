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

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|one| one.is_alphanumeric() || " -_".contains(*one)).collect::<String>().replace(' ', "-")
}

#[test]
fn every_page_leads_to_pages_and_headings_that_are_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let names = fs::read_dir(&folder).expect("pages").map(|page| page.expect("readable").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.ends_with(".md"));
    for name in names {
        let page = read(&name);
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { &name } else { file };
            assert!(folder.join(file).exists(), "{name}: {link} is not there");
            let there = read(file);
            let headings = there.lines().filter(|line| line.starts_with('#'));
            let found = there.contains(&format!("<a id=\"{wanted}\">"))
                || headings.map(|line| anchor(line.trim_start_matches('#'))).any(|one| one == wanted);
            assert!(wanted.is_empty() || found, "{name}: {link} is not there");
        }
    }
}
