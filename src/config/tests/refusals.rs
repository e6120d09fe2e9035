//! Every refusal, with its place and its words. Lines are those of `SITE`, in which most tests
//! replace one piece.

use super::*;

const NEXT: &str = "[[connector.pop.primary.tunnel]]";
const SECONDARY: &str = r#"wan = "dsl"
[connector.pop.secondary]
psk_file = "pop.psk"
[[connector.pop.secondary.tunnel]]
wan = "dsl"
"#;

#[test]
fn a_role_has_at_most_three_tunnels() {
    let four =
        format!("{LAST}\n{NEXT}\nname=\"c\"\n{LAST}\nlocal_id=\"c\"\n{NEXT}\nname=\"d\"\n{LAST}\nlocal_id=\"d\"");
    assert_eq!(said(LAST, &four), ["site.toml:32:1 the primary role has 4 tunnels (at most 3 in a role)"]);
}

#[test]
fn a_role_has_at_least_one_tunnel_and_a_connector_its_primary_role() {
    let both = "[[connector.pop.primary.tunnel]]\nwan = \"fibre\"\n\n[[connector.pop.primary.tunnel]]\nwan = \"dsl\"";
    assert_eq!(
        said(both, "[connector.pop.secondary]"),
        [
            "site.toml:19:1 the primary role has no tunnel (1 to 3 [[connector.pop.primary.tunnel]])",
            "site.toml:23:1 the secondary role has no tunnel (1 to 3 [[connector.pop.secondary.tunnel]])",
        ]
    );
    let text = SITE.replace("pop.primary", "pop.secondary");
    assert_eq!(site(&text).findings(), ["site.toml:16:1 missing [connector.pop.primary] (a role with 1 to 3 tunnels)"]);
    let one_table = SITE.replacen("[[connector.pop.primary.tunnel]]\nwan = \"fibre\"\n", "", 1).replace("[[", "[");
    assert_eq!(
        site(&one_table.replace("]]", "]")).findings(),
        ["site.toml:24:1 tunnel is a table, not a list of tables ([[connector.pop.primary.tunnel]])"]
    );
}

#[test]
fn two_tunnels_of_a_role_cannot_have_one_local_id() {
    let refused = |place: &str, id: &str, other: &str| {
        let instead = "a local_id of its own for each tunnel of a role";
        [format!("site.toml:{place} local ID {id} is also that of the tunnel at site.toml:{other} ({instead})")]
    };
    let third = |fields: &str| said(LAST, &format!("{LAST}\nlocal_id=\"a.example\"\n{NEXT}\nname=\"c\"\n{fields}"));
    // Configured twice, but for its case.
    assert_eq!(third("wan=\"fibre\"\nlocal_id=\"A.example\""), refused("32:10", "a.example", "26"));
    // Defaulted from the public IP, which another tunnel has configured.
    let configured = "name=\"b\"\nwan=\"fibre\"\npublic_ip=\"198.51.100.1\"\n[[connector.pop.primary.tunnel]]\nname=\"d\"\nwan=\"fibre\"\nlocal_id=\"198.51.100.1\"";
    assert_eq!(said(LAST, configured), refused("33:10", "198.51.100.1", "26"));
    // Defaulted from the source address of the link.
    let defaulted = format!("{LAST}\n{NEXT}\nname=\"c\"\n{LAST}");
    assert_eq!(said(LAST, &defaulted), refused("28:1", "192.0.2.7", "26"));
    // Defaulted from an address that only the interface knows.
    let unknown = "name=\"b\"\nwan=\"fibre\"";
    assert_eq!(said(LAST, unknown), refused("26:1", "the address of eth1", "23"));
}

#[test]
fn two_tunnels_of_the_site_cannot_have_the_same_identities() {
    let pair = r#"wan = "dsl"
local_id = "me"
remote_id = "gw"
[connector.b]
network_ranges = ["x:10.1.0.0/16"]
[connector.b.primary]
destination = "pop-c.example.net"
psk_file = "pop.psk"
tunnel = [{ wan = "fibre", local_id = "me", remote_id = "gw" }]"#;
    assert_eq!(
        said(LAST, pair),
        [
            "site.toml:35:39 local ID me with remote ID gw is also the tunnel at site.toml:26 (two tunnels of a site differ in local_id or remote_id)"
        ]
    );
    assert_eq!(said(LAST, &pair.replacen("gw", "gw2", 1)), [""; 0]);
    // Both remote IDs are the destination's, one of them by its address.
    let by_address = pair
        .replacen("\"gw\"", "\"198.51.100.1\"", 1)
        .replacen("pop-c.example.net", "198.51.100.1", 1)
        .replace(", remote_id = \"gw\"", "");
    assert_eq!(said(LAST, &by_address).len(), 1);
}

#[test]
fn a_role_has_one_destination_type() {
    assert_eq!(
        said(LAST, "wan = \"dsl\"\ndestination = \"198.51.100.1\""),
        [
            "site.toml:28:15 198.51.100.1 is not of destination type fqdn, as at site.toml:20 (one destination type for all tunnels of a role)"
        ]
    );
    assert_eq!(
        said("destination =", "destination_type = \"ipv4\"\ndestination ="),
        [
            "site.toml:21:15 pop-a.example.net is not of destination type ipv4, as at site.toml:20 (one destination type for all tunnels of a role)"
        ]
    );
    assert_eq!(
        said("destination =", "destination_type = \"ipv6\"\ndestination ="),
        ["site.toml:20:20 unknown destination type \"ipv6\" (known: fqdn, ipv4)"]
    );
}

#[test]
fn the_roles_lead_to_different_pops() {
    assert_eq!(
        said(LAST, &format!("{SECONDARY}destination = \"POP-A.example.net.\"")),
        [
            "site.toml:32:15 both roles lead to pop-a.example.net, as at site.toml:20 (the secondary role leads to another PoP)"
        ]
    );
    let address = changed("pop-a.example.net", "198.51.100.1")
        .with_change(LAST, &format!("{SECONDARY}destination = \"198.51.100.1\""));
    assert_eq!(
        address.findings(),
        [
            "site.toml:32:15 both roles lead to 198.51.100.1, as at site.toml:20 (the secondary role leads to another PoP)"
        ]
    );
}

#[test]
fn different_addresses_in_a_role_must_be_one_pop() {
    let files =
        changed("pop-a.example.net", "198.51.100.1").with_change(LAST, "wan = \"dsl\"\ndestination = \"198.51.100.2\"");
    assert_eq!(
        files.findings(),
        [
            "site.toml:28:15 198.51.100.1 and 198.51.100.2 in one role (one PoP for all tunnels of a role; same_pop = true where two addresses are one PoP)"
        ]
    );
    assert_eq!(files.with_change("psk_file", "same_pop = true\npsk_file").findings(), [""; 0]);
}

#[test]
fn a_missing_profile_is_told_those_that_there_are() {
    let files = changed("[connector.pop]", "[connector.pop]\nphase1 = \"cato\"\nphase2 = \"only-1\"")
        .with("profiles/only-1.toml", "[phase1]\n")
        .with("profiles/only-2.toml", "[phase2]\n");
    assert_eq!(
        files.findings(),
        [
            "site.toml:17:10 unknown phase 1 profile \"cato\" (known: default, only-1)",
            "site.toml:18:10 unknown phase 2 profile \"only-1\" (known: default, only-2)",
        ]
    );
}

#[test]
fn files_that_are_named_must_be_there() {
    let named = "profiles = [\"a.toml\", \"p/*.toml\"]\npolicy = \"b.toml\"\n[site]";
    assert_eq!(
        said("\n[site]", named),
        [
            "site.toml:1:13 \"a.toml\" cannot be read: no such file (a path relative to the site file)",
            "site.toml:1:23 no file matches \"p/*.toml\" (a path relative to the site file)",
            "site.toml:2:10 \"b.toml\" cannot be read: no such file (a path relative to the site file)",
        ]
    );
    assert_eq!(Memory::default().findings(), ["site.toml cannot be read: no such file"]);
}

#[test]
fn rules_name_links_that_exist_and_say_where_flows_go() {
    let policy = r#"
[[rule]]
name = "voice"
dscp = "af44"
links = ["fibre", "lte2"]
[[rule]]
name = "voice"
source = "10.0.0.1/8"
mode = "drop"
links = ["dsl"]
[[rule]]
name = "nowhere"
protocol = "icmp"
destination_port = 80
[[rule]]
name = "web"
protocol = "tpc"
destination_port = ["9-8", 70000]
mode = "blance"
link = "dsl"
[[rule]]
name = "none"
links = []
[[rule]]
links = ["dsl", "dsl"]
"#;
    let files = changed("\n[site]", "policy = \"p.toml\"\n[site]").with("p.toml", policy);
    assert_eq!(
        files.findings(),
        [
            "p.toml:4:8 \"af44\" is not a DSCP (ef, af11 to af43, cs0 to cs7, va, le, default, or 0 to 63)",
            "p.toml:5:19 unknown WAN link \"lte2\" (known: fibre, dsl)",
            "p.toml:7:8 rule \"voice\" is already at p.toml:3 (a name of its own for each rule)",
            "p.toml:8:10 \"10.0.0.1/8\" is not a network address: bits are set behind the prefix (\"10.0.0.0/8\")",
            "p.toml:10:9 links in a rule that chooses none (mode = \"prefer\", \"strict\" or \"breakout\", or no links)",
            "p.toml:11:1 the rule says nothing about where its flows go (links = [...], or mode = \"balance\" or \"drop\")",
            "p.toml:14:20 destination_port for a protocol without ports (protocol tcp or udp)",
            "p.toml:17:12 \"tpc\" is not a protocol (tcp, udp, icmp, icmpv6, gre, esp, ah, sctp or 0 to 255)",
            "p.toml:18:21 \"9-8\" is not a port (0 to 65535, or a range such as \"5000-5100\")",
            "p.toml:18:28 destination_port 70000 is out of range (0 to 65535)",
            "p.toml:19:8 unknown mode \"blance\" (known: prefer, strict, balance, breakout, drop)",
            "p.toml:20:1 unknown key \"link\" in [[rule]] (did you mean links?)",
            "p.toml:22:8 a rule called \"none\" (another name: a test says \"none\" of a flow that no rule matches)",
            "p.toml:23:9 links is empty (at least one WAN link)",
            "p.toml:24:1 missing name in [[rule]] (such as name = \"voice\")",
            "p.toml:25:17 \"dsl\" is listed twice",
            "p.toml:24:1 warning: this rule is never reached: the one at p.toml:21 matches every flow (the rule that matches every flow comes last)",
        ]
    );
}

#[test]
fn an_identity_that_may_be_another_tunnels_address_is_refused() {
    let files = changed("source_address = \"192.0.2.7\"", "interface = \"eth1\"\nsource_address = \"192.0.2.7\"");
    assert_eq!(
        files.findings(),
        [
            "site.toml:27:1 the local ID is an address of \"eth1\", and may be that of the tunnel at site.toml:24 (a local_id of its own for each tunnel of a role)"
        ]
    );
    assert_eq!(files.with_change(LAST, "wan = \"dsl\"\nlocal_id = \"dsl.example\"").findings(), [""; 0]);
}

#[test]
fn all_findings_are_counted_and_a_thousand_are_shown() {
    let keys: String = (0..1_500).map(|number| format!("key{number} = 1\n")).collect();
    let found = site(&format!("{keys}{SITE}")).load().unwrap_err();
    assert_eq!(found.len(), 1_001);
    assert_eq!(found.last().unwrap().what, "500 more errors are left out");
    assert_eq!(found.iter().map(|one| one.count).sum::<usize>(), 1_500);
}

#[test]
fn no_number_of_warnings_hides_an_error() {
    let never_reached: String =
        (0..1_200).map(|number| format!("[[rule]]\nname = \"r{number}\"\nlinks = \"a\"\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    std::fs::write(&file, format!("{never_reached}[[rule]]\nname = \"typo\"\nmode = \"strictt\"\n")).unwrap();
    let found = crate::config::load_policy(&[file], None).unwrap_err();
    assert!(found[0].what.contains("strictt"), "{}", found[0]);
}

#[test]
fn private_addresses_are_apart_from_each_other() {
    let files = changed("wan = \"fibre\"", "wan = \"fibre\"\nprivate_local = \"169.254.1.1/29\"")
        .with_change(LAST, "wan = \"dsl\"\nprivate_local = \"169.254.1.6/30\"\nprivate_remote = \"169.254.1.6/30\"");
    assert_eq!(
        files.findings(),
        [
            "site.toml:29:17 private address 169.254.1.6/30 overlaps 169.254.1.1/29 at site.toml:25 (a network of its own for each tunnel)",
            "site.toml:30:18 private_remote 169.254.1.6 is private_local as well (the peer's address in the tunnel)",
        ]
    );
    assert_eq!(
        said(LAST, "wan = \"dsl\"\nprivate_remote = \"169.254.1.6/30\""),
        ["site.toml:28:18 private_remote without private_local (both, or neither)"]
    );
}

#[test]
fn probes_need_an_address_to_leave_from_and_a_target_that_the_tunnel_reaches() {
    let files = changed("wan = \"fibre\"", "wan = \"fibre\"\nprobes = [\"10.0.0.1\"]").with_change(
        LAST,
        "wan = \"dsl\"\nprivate_local = \"169.254.1.6/30\"\nprobes = [\"192.0.2.1\", \"2001:db8::1\"]",
    );
    assert_eq!(
        files.findings(),
        [
            "site.toml:25:11 probes without a private address to send them from (such as private_local = \"169.254.10.2/30\")",
            "site.toml:30:11 probe target 192.0.2.1 is outside the peer traffic selectors (a target within them, or private_remote)",
            "site.toml:30:24 probe target 2001:db8::1 is of another family than private_local (both IPv4 or both IPv6)",
        ]
    );
}

#[test]
fn names_have_a_safe_alphabet() {
    let not_a_name = "is not a name (1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit)";
    assert_eq!(said("\"lyon\"", "\"ly\\u001bon\""), [format!("site.toml:3:8 \"ly\\u{{1b}}on\" {not_a_name}")]);
    assert_eq!(said("[wan.dsl]", "[wan.'d/sl']")[0], format!("site.toml:11:6 \"d/sl\" {not_a_name}"));
    assert_eq!(
        said(LAST, "wan = \"dsl\"\nname = \"fibre\""),
        ["site.toml:28:8 tunnel \"fibre\" is already at site.toml:23 (a name of its own for each tunnel of a role)"]
    );
}

#[test]
fn numbers_and_durations_stay_in_their_range() {
    let files = changed("= 90", "= 0").with_change("= 40", "= -5").with_change("= 9\n", "= 9.5\n");
    assert_eq!(
        files.with_change("= 2\n", "= \"2\"\n").findings(),
        [
            "site.toml:8:19 downstream_mbps 0 is out of range (1 to 400000 Mbps)",
            "site.toml:9:17 upstream_mbps -5 is out of range (1 to 400000 Mbps)",
            "site.toml:13:19 downstream_mbps is a number with a fraction, not a whole number (1 to 400000 Mbps)",
            "site.toml:14:17 upstream_mbps is text, not a whole number (1 to 400000 Mbps)",
        ]
    );
    let files = changed("\n[site]", "[health]\ninterval=\"50ms\"\n[steering]\ninterval=\"500ms\"\n[site]");
    assert_eq!(
        files
            .with_change("[connector.pop]", "[connector.pop]\nfailback={after=60}\nkeepalive={interval=\"2m\"}")
            .findings(),
        [
            "site.toml:2:10 \"50ms\" is out of range (100ms to 1m)",
            "site.toml:4:10 \"500ms\" is out of range (1s to 1h)",
            "site.toml:20:17 after 60 has no unit (such as \"60s\", with ms, s, m, h or d)",
            "site.toml:21:21 the keepalive interval leaves no time for an answer (interval below dead_after, which is 1m)",
        ]
    );
}

#[test]
fn a_failback_that_says_nothing_or_two_things_is_refused() {
    let told = |text: &str| said("[connector.pop]", &format!("[connector.pop]\n{text}"));
    let example = "{ after = \"60s\" }";
    assert_eq!(
        told("failback = \"soon\""),
        [format!("site.toml:17:12 unknown failback \"soon\" (\"immediate\", \"manual\" or {example})")]
    );
    assert_eq!(told("failback = {}"), [format!("site.toml:17:12 missing after in [failback] (such as {example})")]);
    assert_eq!(
        told("failback = { after = \"0s\", until = 5 }"),
        [
            "site.toml:17:22 \"0s\" is out of range (1s to 1d)",
            "site.toml:17:28 unknown key \"until\" in [failback] (known: after)",
        ]
    );
    assert_eq!(
        told("failback = \"manual\"\nfailback_hold = \"9s\""),
        ["site.toml:18:17 failback is given at site.toml:17 already (without failback_hold)"]
    );
}

#[test]
fn settings_are_checked_like_everything_else() {
    let settings = r#"[ports]
ike = 4500
peer_natt = 0
[routes]
device = "a/b"
table = 254
rule_priority = 32766
on_stop = "leak"
[control]
socket = ""
[health]
window = 1
loss_percent = 0.01
rtt_ms = 0
sensitivity = "nervous"
[site]
kind = "cloud""#;
    assert_eq!(
        said("\n[site]", settings),
        [
            "site.toml:1:1 ike and natt are both port 4500 (two different ports, by default 500 and 4500)",
            "site.toml:3:13 peer_natt 0 is out of range (1 to 65535)",
            "site.toml:5:10 \"a/b\" is not an interface name (1 to 15 characters, such as eth1)",
            "site.toml:6:9 routing table 254 is the system's (a table of its own, such as 221)",
            "site.toml:7:17 rule_priority 32766 is out of range (1 to 32000)",
            "site.toml:8:11 unknown on_stop \"leak\" (known: block, release)",
            "site.toml:10:10 a socket path of 0 bytes (1 to 107 bytes, such as \"/run/trefoil/control.sock\")",
            "site.toml:12:10 window 1 is out of range (5 to 600 probes)",
            "site.toml:13:16 loss_percent 0.01 is out of range (0.1 to 100 per cent)",
            "site.toml:14:10 rtt_ms 0 is out of range (1 to 10000 ms)",
            "site.toml:15:15 unknown sensitivity \"nervous\" (known: voice, normal, calm)",
            "site.toml:17:8 unknown kind \"cloud\" (known: branch, cloud-vpc)",
        ]
    );
    assert_eq!(
        said("\n[site]", "ports = { ike = 4500, peer_ike = 0 }\n[site]"),
        [
            "site.toml:1:9 ike and natt are both port 4500 (two different ports, by default 500 and 4500)",
            "site.toml:1:34 peer_ike 0 is out of range (1 to 65535)",
        ]
    );
    assert_eq!(
        said("\n[site]", "ports = { ike = 4500 }\nroutes = { device = \"eth1\" }\n[site]"),
        [
            "site.toml:1:9 ike and natt are both port 4500 (two different ports, by default 500 and 4500)",
            "site.toml:8:13 \"eth1\" is the device of the tunnels as well (another name for device in [routes])",
        ]
    );
}

#[test]
fn ranges_are_networks_and_lead_to_one_connector() {
    let files = changed("\"10.20.0.0/16\"", "\"10.20.0.1/16\", \"10.30.0.0/16\"").with_change(
        "\"hq:10.0.0.0/8\"",
        "\"hq:10.0.0.1/8\", \"10.0.0.0/8\", \"a:10.30.0.0/16\", \"b:10.9.0.0/16\", \"c:10.9.0.0/16\"",
    );
    assert_eq!(
        files.findings(),
        [
            "site.toml:4:18 \"10.20.0.1/16\" is not a network address: bits are set behind the prefix (\"10.20.0.0/16\")",
            "site.toml:17:19 \"10.0.0.1/8\" is not a network address: bits are set behind the prefix (\"10.0.0.0/8\")",
            "site.toml:17:36 \"10.0.0.0/8\" is not a labelled range (label:range, such as \"hq:10.0.0.0/8\")",
            "site.toml:17:50 10.30.0.0/16 is already a native range, at site.toml:4 (a network range leads to one connector)",
            "site.toml:17:85 10.9.0.0/16 is already a range of connector \"pop\", at site.toml:17 (a network range leads to one connector)",
        ]
    );
    let second =
        "wan=\"dsl\"\n[connector.b.primary]\ndestination=\"x.example\"\npsk_file=\"pop.psk\"\ntunnel=[{wan=\"dsl\"}]";
    assert_eq!(
        changed("network_ranges = [\"hq:10.0.0.0/8\"]", "").with_change(LAST, second).findings(),
        [
            "site.toml:28:12 connectors \"pop\" and \"b\" both have no network_ranges, so both would carry everything (network_ranges in all but one)"
        ]
    );
}

#[test]
fn peers_are_told_apart_by_what_can_be_an_identity_and_a_destination() {
    assert_eq!(
        said(
            "wan = \"fibre\"",
            "wan=\"fibre\"\nlocal_id=\"two words\"\nremote_id=\"x509:a\"\ndestination=\"2001:db8::1\""
        ),
        [
            "site.toml:25:10 \"two words\" is not an FQDN (such as \"branch1.example\"; for other text use \"keyid:...\")",
            "site.toml:26:11 \"x509:a\" has no known identity type (ipv4:, fqdn:, email: or keyid: and the identity)",
            "site.toml:27:13 \"2001:db8::1\" is an IPv6 address, and tunnels run over IPv4 (an IPv4 address or a name)",
        ]
    );
    assert_eq!(
        said("destination = \"pop-a.example.net\"", "")[0],
        "site.toml:23:1 the tunnel has no destination (such as destination = \"pop.example.net\", here or in the role; or mode = \"responder\" in [connector.pop])"
    );
    let responder = changed("destination = \"pop-a.example.net\"", "mode = \"responder\"")
        .with_change("mode = \"responder\"\n", "")
        .with_change("[connector.pop]", "[connector.pop]\nmode = \"responder\"");
    assert_eq!(
        responder.findings()[0],
        "site.toml:23:1 nothing tells who the peer is (remote_id, or a destination whose address is its identity)"
    );
}

#[test]
fn tunnels_and_links_fit_together() {
    assert_eq!(
        said("wan = \"fibre\"", "wan = \"fiber\""),
        ["site.toml:24:7 unknown WAN link \"fiber\" (known: fibre, dsl)"]
    );
    assert_eq!(
        said(LAST, "wan = \"dsl\"\nupstream_mbps = 3"),
        ["site.toml:19:1 warning: the primary role's tunnels on dsl claim 3 Mbps upstream (the link has 2 Mbps)"]
    );
    assert_eq!(
        said("\n[[connector.pop.primary.tunnel]]\nwan = \"dsl\"", ""),
        ["site.toml:11:6 warning: WAN link \"dsl\" has no tunnel (a tunnel over it, or no such link)"]
    );
    assert_eq!(
        said("interface = \"eth1\"", "interface = \"eth1\"\nsource_address = \"192.0.2.7\"")[0],
        "site.toml:13:18 source_address 192.0.2.7 has another interface at site.toml:8 (the same interface, or none, wherever one address is used)"
    );
}

#[test]
fn unknown_keys_wrong_types_and_missing_tables_are_errors() {
    let files = changed("interface = ", "interfcae = ").with_change("name = ", "nam = ");
    assert_eq!(
        files.with_change("[connector.pop]", "[conector.pop]").findings(),
        [
            "site.toml:2:1 missing name in [site] (such as name = \"branch-1\")",
            "site.toml:3:1 unknown key \"nam\" in [site] (did you mean name?)",
            "site.toml:6:1 WAN link \"fibre\" has neither interface nor source_address (such as interface = \"eth1\")",
            "site.toml:7:1 unknown key \"interfcae\" in [wan.fibre] (did you mean interface?)",
            "site.toml:16:2 unknown key \"conector\" (did you mean connector?)",
        ]
    );
    let files = changed("\"lyon\"", "5").with_change("[\"10.20.0.0/16\"]", "true");
    assert_eq!(
        files.with_change("\"eth1\"", "1979-05-27").findings(),
        [
            "site.toml:3:8 name is a whole number, not text in quotes (name = \"...\")",
            "site.toml:4:17 native_ranges is a boolean, not text in quotes (native_ranges = \"...\")",
            "site.toml:7:13 interface is a date, not text in quotes (interface = \"...\")",
        ]
    );
    assert_eq!(
        site("").findings(),
        [
            "site.toml:1:1 missing [site] (such as [site] with name = \"branch-1\")",
            "site.toml:1:1 no WAN link (such as [wan.fibre] with interface = \"eth1\")",
            "site.toml:1:1 no connector (such as [connector.pop])",
        ]
    );
}

#[test]
fn syntax_errors_are_told_with_everything_else_and_cause_no_others() {
    // Line 8 has lost its value, line 13 its quotes, and line 9 is simply wrong.
    let files = changed("downstream_mbps = 90", "downstream_mbps =")
        .with_change("= 40", "= 0")
        .with_change("downstream_mbps = 9\n", "downstream_mbps = quick\n");
    assert_eq!(
        files.findings(),
        [
            "site.toml:8:18 syntax: no value (a value behind =)",
            "site.toml:9:17 upstream_mbps 0 is out of range (1 to 400000 Mbps)",
            "site.toml:13:19 syntax: string values must be quoted (expected literal string)",
        ]
    );
    assert_eq!(
        site(SITE).with("site.toml", b"a = \"\xff\"").findings(),
        ["site.toml:1:6 a byte that is not UTF-8 (TOML in UTF-8)"]
    );
    assert_eq!(
        site(SITE).with("site.toml", "name = 1\nb\0").findings(),
        ["site.toml:2:2 a NUL character (TOML in UTF-8)"]
    );
}

#[test]
fn the_data_plane_takes_the_workers_and_ciphers_that_there_are() {
    let table = |text: &str| format!("{LAST}\n\n[dataplane]\n{text}");
    for (text, finding) in [
        ("workers = 0", "site.toml:30:11 workers 0 is out of range (1 to 64)"),
        ("workers = 65", "site.toml:30:11 workers 65 is out of range (1 to 64)"),
        ("flow_limit = 1000", "site.toml:30:14 flow_limit 1000 is out of range (1024 to 1048576 flows)"),
        ("flow_limit = 2_000_000", "site.toml:30:14 flow_limit 2000000 is out of range (1024 to 1048576 flows)"),
        ("aead_backend = \"ring\"", "site.toml:30:16 unknown AEAD backend \"ring\" (known: auto, aws-lc, aes-gcm)"),
    ] {
        assert_eq!(said(LAST, &table(text)), [finding]);
    }
}

#[test]
fn a_probe_target_is_told_what_is_wrong_with_it() {
    let with = |probes: &str| {
        let text = format!("{LAST}\nprivate_local = \"169.254.1.2/30\"\nprobes = {probes}");
        said(LAST, &text).into_iter().map(|one| one.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    for (probes, expected) in [
        (
            r#"[{ kind = "ping", address = "10.0.0.1" }]"#,
            "unknown kind of probe \"ping\" (known: icmp, udp, tcp, http, https, tls, dns)",
        ),
        (r#"[{ kind = "tcp", address = "10.0.0.1" }]"#, "missing port in [probes] (such as port = 443)"),
        (r#"[{ kind = "tcp", port = 1 }]"#, "missing address in [probes] (such as address = \"10.20.0.5\")"),
        (r#"[{ kind = "udp", address = "10.0.0.1", port = 0 }]"#, "port 0 is out of range (1 to 65535)"),
        (
            r#"[{ kind = "http", address = "10.0.0.1", path = "x y" }]"#,
            "\"x y\" is not a path of a URL (/ and up to 199 characters without blanks, such as \"/health\")",
        ),
        (
            r#"[{ kind = "http", address = "10.0.0.1", host = "a b" }]"#,
            "\"a b\" is not the host of a URL (a name or an address of up to 200 characters)",
        ),
        (r#"[{ kind = "http", address = "10.0.0.1", status = 20 }]"#, "status 20 is out of range (100 to 599)"),
        (
            r#"[{ kind = "dns", address = "10.0.0.1" }]"#,
            "missing name in [probes] (such as name = \"pop.example.net\")",
        ),
        (
            r#"[{ kind = "dns", address = "10.0.0.1", name = "a.b", type = "mx" }]"#,
            "unknown type of DNS record \"mx\" (known: a, aaaa, ns, soa, txt)",
        ),
        (
            r#"[{ kind = "icmp", address = "10.0.0.1", port = 4 }]"#,
            "unknown key \"port\" in [probes] (known: kind, address)",
        ),
        (r#"{ targets = "10.0.0.1", interval = "99ms" }"#, "\"99ms\" is out of range (100ms to 1m)"),
    ] {
        assert_eq!(with(probes), [expected]);
    }
    let twice = with(r#"["10.0.0.1", { kind = "icmp", address = "10.0.0.1" }]"#);
    assert!(twice[0].starts_with("probe target 10.0.0.1 is already at site.toml:"), "{twice:?}");
    let many = with(r#"{ targets = "10.0.0.1", need = 2 }"#);
    assert!(many[0].starts_with("2 probe targets are needed, and the tunnel at site.toml:"), "{many:?}");
    let outside = with(r#"[{ kind = "tcp", address = "192.0.2.1", port = 80 }]"#);
    assert_eq!(
        outside,
        [
            "probe target tcp 192.0.2.1:80 is outside the peer traffic selectors (a target within them, or private_remote)"
        ]
    );
}
