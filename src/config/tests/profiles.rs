//! What is refused of profiles and their algorithms.

use super::*;

/// The small site, whose links have 99 Mbps together, with this profile in both phases.
fn with_profile(profile: &str) -> Memory {
    changed("[connector.pop]", "[connector.pop]\nphase1 = \"old\"\nphase2 = \"old\"").with("profiles/old.toml", profile)
}

#[test]
fn cbc_is_for_sites_below_100_mbps() {
    let profile = "[phase1]\nencryption = [\"AES-CBC-256\"]\nintegrity = [\"SHA2 256\"]\n[phase2]\n";
    let told =
        |files: &Memory| files.findings().into_iter().filter(|line| line.contains("Mbps (from")).collect::<Vec<_>>();
    let refusal = |line: u32| {
        [format!(
            "profiles/old.toml:2:15 aes-cbc-256 for connector \"pop\" at site.toml:{line}, on a site of 100 Mbps (from 100 Mbps aes-gcm-256 or aes-gcm-128)"
        )]
    };
    let files = with_profile(profile);
    assert_eq!(told(&files), [""; 0]);
    assert_eq!(told(&files.clone().with_change("downstream_mbps = 90", "downstream_mbps = 91")), refusal(16));
    assert_eq!(told(&files.clone().with_change("name =", "license_mbps = 100\nname =")), refusal(17));
    // The license is what the site has, whatever its links could do.
    let small = files.with_change("name =", "license_mbps = 99\nname =").with_change("= 90", "= 1000");
    assert_eq!(told(&small), [""; 0]);
}

#[test]
fn integrity_goes_with_cbc_and_never_with_an_aead() {
    let aead = "[phase1]\nencryption = [\"aes-gcm-256\"]\nintegrity = [\"sha2-256\"]\n[phase2]\n";
    assert_eq!(
        with_profile(aead).findings()[1],
        "profiles/old.toml:3:14 integrity algorithm beside AEAD encryption, which brings its own (no integrity with aes-gcm)"
    );
    let cbc = "[phase1]\n[phase2]\nencryption = [\"aes-gcm-128\", \"aes-cbc-128\"]\n";
    assert_eq!(
        with_profile(cbc).findings()[1],
        "profiles/old.toml:3:30 aes-cbc-128 without an integrity algorithm (such as integrity = [\"sha2-256\"])"
    );
}

#[test]
fn algorithms_are_known_and_supported() {
    let profile = r#"[phase1]
encryption = ["aes-gcm-257", "AES128_GCM", "aes-gcm-128", "aes-cbc-128"]
integrity = "sha1"
prf = ["PRFSHA512", "md5"]
dh_groups = [2, 19, 21]
[phase2]
pfs = false
pfs_groups = [14]
encryption = []
"#;
    assert_eq!(
        with_profile(profile).findings(),
        [
            "profiles/old.toml:2:15 unknown encryption algorithm \"aes-gcm-257\" (known: aes-gcm-256, aes-gcm-128, chacha20-poly1305, aes-cbc-256, aes-cbc-128)",
            "profiles/old.toml:2:44 encryption algorithm aes-gcm-128 is listed twice",
            "profiles/old.toml:2:59 encryption algorithm aes-cbc-128 is not yet supported by this build (supported: aes-gcm-256, aes-gcm-128)",
            "profiles/old.toml:3:13 integrity algorithm sha1 is not yet supported by this build (supported: none)",
            "profiles/old.toml:4:21 unknown pseudo-random function \"md5\" (known: sha2-512, sha2-384, sha2-256, sha1)",
            "profiles/old.toml:5:14 Diffie-Hellman group 2 is not yet supported by this build (supported: 19, 20, 14)",
            "profiles/old.toml:5:21 unknown Diffie-Hellman group 21 (known: 19, 20, 14, 15, 16, 5, 2)",
            "profiles/old.toml:8:14 pfs_groups without perfect forward secrecy (pfs = true, or no pfs_groups)",
            "profiles/old.toml:9:14 encryption is empty (at least one, or \"automatic\")",
        ]
    );
}

#[test]
fn profiles_have_a_name_of_their_own_and_something_in_them() {
    let files = site(SITE)
        .with("profiles/a b.toml", "[phase1]")
        .with("profiles/c.toml", "description = \"empty\"")
        .with("profiles/default.toml", "[phase2]")
        .with("more/same.toml", "[phase1]")
        .with("profiles/same.toml", "[phase1]")
        .with_change("\n[site]", "profiles = [\"profiles/*.toml\", \"more/same.toml\"]\n[site]");
    assert_eq!(
        files.findings(),
        [
            "more/same.toml:1:1 profile \"same\" is already in profiles/same.toml:1 (another file name)",
            "profiles/a b.toml:1:1 \"a b\" is not a name (1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit)",
            "profiles/c.toml:1:1 a profile without [phase1] and [phase2] (at least one of them)",
            "profiles/default.toml:1:1 profile \"default\" is built in (another file name)",
        ]
    );
}
