//! What is refused of key files, and that no key is ever shown.

use super::*;

#[test]
fn a_key_has_up_to_64_characters_on_one_line_and_is_never_shown() {
    let findings = |key: &str| {
        let found = site(SITE).with("pop.psk", key).findings();
        assert!(!found.iter().any(|line| line.contains("hunter2")), "{found:?}");
        found
    };
    let refused = |why: &str| [format!("site.toml:21:12 pre-shared key file \"pop.psk\" {why}")];
    assert_eq!(findings(&"é".repeat(64)), [""; 0]);
    assert_eq!(findings(&format!("{}\r\n", "a".repeat(64))), [""; 0]);
    assert_eq!(findings(&format!("hunter2{}", "é".repeat(58))), refused("has 65 characters (1 to 64 characters)"));
    assert_eq!(findings("\n"), refused("is empty (a key of 1 to 64 characters)"));
    assert_eq!(findings("hunter2\nhunter2\n"), refused("has more than one line (the key alone, on one line)"));
    assert_eq!(
        findings(" hunter2"),
        ["site.toml:21:12 warning: the key in \"pop.psk\" begins or ends with a blank, which counts (the key alone)"]
    );
    let loaded = site(SITE).with("pop.psk", "hunter2").load().unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn what_an_editor_adds_to_a_key_is_refused_or_told() {
    let findings = |key: &[u8]| site(SITE).with("pop.psk", key).findings();
    let refused = |why: &str| [format!("site.toml:21:12 pre-shared key file \"pop.psk\" {why}")];
    assert_eq!(
        findings(b"\xef\xbb\xbfhunter2"),
        refused("begins with a byte order mark (the key alone, in UTF-8 without such a mark)")
    );
    assert_eq!(findings(b"hunter2\0"), refused("has a NUL character (the key alone, as text)"));
    assert_eq!(
        findings(b"\"hunter2\"\n"),
        ["site.toml:21:12 warning: the key in \"pop.psk\" stands in quotes, which count (the key alone)"]
    );
}

#[test]
fn a_key_in_the_wrong_place_is_not_shown() {
    let told = |files: Memory| {
        let found = files.findings();
        assert!(!found.iter().any(|line| line.contains("hunter2")), "{found:?}");
        found
    };
    assert_eq!(
        told(changed("\"pop.psk\"", "\"aG9/hunter2\"")),
        [
            "site.toml:21:12 the pre-shared key file cannot be read: no such file (the name of a file that has the key, relative to the site file, and not the key itself)"
        ]
    );
    let not_shown = "is not TOML and may be a key: nothing of it is shown";
    for key in ["hunter2", "hunter2=", "hunter2 = \"a\"\n"] {
        let files = changed("\n[site]", "policy = \"pop.psk\"\n[site]").with("pop.psk", key);
        assert_eq!(told(files)[0], format!("site.toml:1:10 \"pop.psk\" {not_shown} (a profile or policy file)"));
    }
    let files = changed("\n[site]", "profiles = [\"p/*\"]\n[site]").with("p/key", "hunter2==\n");
    assert_eq!(told(files)[0], format!("site.toml:1:13 \"p/key\" {not_shown} (a profile or policy file)"));
    assert_eq!(
        told(Memory::default().with("site.toml", "hunter2\n")),
        [format!("site.toml {not_shown} (a site file)")]
    );
}

#[test]
fn a_key_file_must_be_there_and_be_named() {
    assert_eq!(
        said("\"pop.psk\"", "\"keys/pop.psk\""),
        [
            "site.toml:21:12 pre-shared key file \"keys/pop.psk\" cannot be read: no such file (a path relative to the site file)"
        ]
    );
    assert_eq!(
        said("psk_file = \"pop.psk\"", ""),
        [
            "site.toml:23:1 the tunnel has no pre-shared key (such as psk_file = \"keys/pop.psk\")",
            "site.toml:26:1 the tunnel has no pre-shared key (such as psk_file = \"keys/pop.psk\")",
        ]
    );
}

#[test]
fn a_key_file_that_everybody_can_read_is_warned_of_once() {
    assert_eq!(
        site(SITE).world_readable("pop.psk").findings(),
        ["site.toml:21:12 warning: pre-shared key file \"pop.psk\" can be read by every user (chmod 640, or 600)"]
    );
}
