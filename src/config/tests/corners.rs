//! Values at the corners: empty lists, names that mean something to the kernel, what follows
//! from an error, and folders that cannot be read.

use super::*;
use crate::model::{LinkId, Mbps, PathId, WorkerId};

fn with_policy(policy: &str) -> Memory {
    changed("\n[site]", "policy = \"p.toml\"\n[site]").with("p.toml", policy)
}

#[test]
fn an_empty_list_in_a_rule_is_not_taken_for_any() {
    let policy = "[[rule]]\nname = \"a\"\nmode = \"drop\"\n\
                  source = []\ndestination = []\nprotocol = []\nsource_port = []\ndestination_port = []\ndscp = []\n";
    let expected: Vec<String> = ["source", "destination", "protocol", "source_port", "destination_port", "dscp"]
        .iter()
        .zip(4..)
        .map(|(key, line)| {
            format!("p.toml:{line}:{} {key} is empty (at least one value, or no {key} for any)", key.len() + 4)
        })
        .collect();
    assert_eq!(with_policy(policy).findings(), expected);
}

#[test]
fn devices_have_names_that_are_nothing_else_to_the_kernel() {
    for name in ["all", "default", "tf%d", "a b", "eth0:1", "sixteen-bytes-it", ""] {
        let refused =
            |at: &str| format!("site.toml:{at} \"{name}\" is not an interface name (1 to 15 characters, such as eth1)");
        assert_eq!(
            changed("\"eth1\"", &format!("\"{name}\""))
                .with_change("\n[site]", &format!("[routes]\ndevice = \"{name}\"\n[site]"))
                .findings(),
            [refused("2:10"), refused("8:13")]
        );
    }
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_refused() {
    let files = changed("\n[site]", "control = { socket = \"/run/a\\u0000b\" }\n[site]");
    assert_eq!(
        files.findings(),
        ["site.toml:1:22 a socket path with a NUL byte (1 to 107 bytes, such as \"/run/trefoil/control.sock\")"]
    );
}

#[test]
fn a_keepalive_that_could_not_be_read_is_not_compared() {
    for (interval, dead_after, at) in [("2m", "bad", "2m\", dead_after="), ("bad", "2s", "interval=")] {
        let files = changed(
            "[connector.pop]",
            &format!("[connector.pop]\nkeepalive = {{interval=\"{interval}\", dead_after=\"{dead_after}\"}}"),
        );
        let findings = files.findings();
        assert_eq!(findings.len(), 1, "{findings:#?} at {at}");
        assert!(findings[0].contains("\"bad\" is not a duration"), "{findings:#?}");
    }
}

#[test]
fn the_beginning_of_a_key_is_told_the_whole() {
    let found = changed("psk_file = \"pop.psk\"", "psk = \"correct horse battery staple\"").findings();
    assert_eq!(found[0], "site.toml:21:1 unknown key \"psk\" in [connector.pop.primary] (did you mean psk_file?)");
    assert!(found.iter().all(|line| !line.contains("horse")), "{found:?}");
}

#[test]
fn a_pattern_is_a_folder_and_the_end_of_a_name() {
    for pattern in ["p*.toml", "*/p.toml", "a/*b*"] {
        let said = changed("\n[site]", &format!("policy = \"{pattern}\"\n[site]")).findings();
        assert_eq!(
            said,
            [format!(
                "site.toml:1:10 \"{pattern}\" is a pattern of another form (a path, or \"folder/*.toml\" for all files that end so)"
            )]
        );
    }
}

/// A folder of profiles that is there and cannot be read.
struct Unreadable(Memory);

impl Files for Unreadable {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path)
    }

    fn list(&self, _: &Path, _: &str) -> io::Result<Vec<PathBuf>> {
        Err(io::Error::other("more than 256 files"))
    }

    fn is_world_readable(&self, path: &Path) -> bool {
        self.0.is_world_readable(path)
    }
}

#[test]
fn a_folder_of_profiles_that_cannot_be_read_is_told() {
    let found = load_from(Path::new("site.toml"), &Unreadable(site(SITE))).unwrap_err();
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["site.toml \"profiles/*.toml\" cannot be read: more than 256 files (a path relative to the site file)"]
    );
}

#[test]
fn roles_at_one_place_are_warned_of() {
    let placed = |primary: &str, secondary: &str| {
        let roles = format!(
            "wan = \"dsl\"\n[connector.pop.secondary]\npop_location = \"{secondary}\"\npsk_file = \"pop.psk\"\n\
             destination = \"pop-b.example.net\"\n[[connector.pop.secondary.tunnel]]\nwan = \"dsl\""
        );
        changed("wan = \"dsl\"", &roles)
            .with_change("destination =", &format!("pop_location = \"{primary}\"\ndestination ="))
            .findings()
    };
    assert_eq!(
        placed("Frankfurt", "frankfurt"),
        [
            "site.toml:30:16 warning: both roles have the PoP location \"frankfurt\" (different locations, or \"Automatic\")"
        ]
    );
    assert_eq!(placed("Frankfurt", "Munich"), [""; 0]);
    assert_eq!(placed("Automatic", "automatic"), [""; 0]);
}

#[test]
fn a_bandwidth_is_a_cap_where_the_site_says_so_and_in_no_other_direction() {
    let plan = |from: &str, to: &str| changed(from, to).load().unwrap().plan;
    let (fibre, dsl) = (LinkId(0), LinkId(1));
    let none = plan("name = \"lyon\"", "name = \"lyon\"\nlicense_mbps = 50");
    assert_eq!((none.link_cap(fibre), none.site_cap()), ((None, None), (None, None)));
    assert!(!none.is_shaped(fibre) && !none.is_policed(fibre));
    let capped = plan("upstream_mbps = 40", "upstream_mbps = 40\ncap = { upstream = true }");
    assert_eq!((capped.link_cap(fibre), capped.link_cap(dsl)), ((Mbps::new(40), None), (None, None)));
    assert!(capped.is_shaped(fibre) && !capped.is_policed(fibre) && !capped.is_shaped(dsl));
    let both = "cap = { upstream = true, downstream = true }";
    let gateway = format!("name = \"lyon\"\nkind = \"cloud-vpc\"\nlicense_mbps = 50\n{both}");
    let gateway = plan("name = \"lyon\"", &gateway);
    assert_eq!(gateway.site_cap(), (Mbps::new(50), Mbps::new(50)));
    let downstream = "name = \"lyon\"\nkind = \"cloud-vpc\"\nlicense_mbps = 50\ncap = { downstream = true }";
    // What is downstream is what a gateway sends.
    assert_eq!(plan("name = \"lyon\"", downstream).site_cap(), (Mbps::new(50), None));
    // One shaper, one home.
    let homes: Vec<_> = (0..2).map(|path| gateway.home(PathId(path))).collect();
    assert_eq!(homes, [WorkerId(0), WorkerId(0)]);
}

#[test]
fn a_license_that_the_links_cannot_use_or_that_all_but_shuts_them_is_warned_of() {
    let licensed = |mbps: u32| said("name = \"lyon\"", &format!("name = \"lyon\"\nlicense_mbps = {mbps}"));
    let links = "all WAN links together have 99 Mbps in their faster direction";
    assert_eq!(licensed(100), [format!("site.toml:4:16 warning: the license is 100 Mbps ({links})")]);
    assert_eq!(
        licensed(4),
        [format!(
            "site.toml:4:16 warning: the license is 4 Mbps, less than a 20th of the links (license_mbps in Mbps: {links})"
        )]
    );
    assert_eq!((licensed(99), licensed(5)), (vec![], vec![]));
}

#[test]
fn caps_and_claims_beyond_the_license_are_warned_of() {
    let licensed = SITE.replace("name = \"lyon\"", "name = \"lyon\"\nlicense_mbps = 30");
    let capped = licensed.replace("upstream_mbps = 40", "upstream_mbps = 40\ncap = { upstream = true }");
    assert_eq!(
        site(&capped).findings(),
        [
            "site.toml:7:6 warning: WAN link \"fibre\" is capped at 40 Mbps upstream (the license at site.toml:4 is 30 Mbps)"
        ]
    );
    let claims = licensed.replace("wan = \"fibre\"", "wan = \"fibre\"\ndownstream_mbps = 31");
    assert_eq!(
        site(&claims).findings(),
        [
            "site.toml:20:1 warning: the primary role's tunnels claim 31 Mbps downstream (the license at site.toml:4 is 30 Mbps)"
        ]
    );
    assert_eq!(
        said("name = \"lyon\"", "name = \"lyon\"\ncap = { downstream = true }"),
        ["site.toml:2:1 a cap on the site, which has no license_mbps (such as license_mbps = 100)"]
    );
    assert_eq!(
        said("upstream_mbps = 40", "upstream_mbps = 40\ncap = { up = true }"),
        ["site.toml:10:9 unknown key \"up\" in [wan.fibre.cap] (did you mean upstream?)"]
    );
}
