use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::super::{Disk, load};
use super::*;
use crate::crypto::{Backend, DhGroup, Encryption, PrfAlgorithm};
use crate::edge::{Destination, Mode, OnStop, SiteKind};
use crate::ha::Failback;
use crate::health::Sensitivity;
use crate::ike::Identity;
use crate::model::{ConnectorId, Dscp, LinkId, PathId, Role, TrafficSelector, UnderlayId};
use crate::steer::Action;

fn good(files: &Memory) -> crate::edge::Plan {
    let loaded = files.load().unwrap_or_else(|found| panic!("{found:#?}"));
    assert_eq!(loaded.warnings, []);
    loaded.plan
}

#[test]
fn the_data_plane_is_as_the_file_says() {
    let plan = |text: &str| good(&site(&format!("{SITE}\n[dataplane]\n{text}\n"))).dataplane;
    assert_eq!(plan("workers = 3").workers.get(), 3);
    assert_eq!(plan("aead_backend = \"aes-gcm\"").aead_backend, Some(Backend::RustCrypto));
    assert_eq!(plan("aead_backend = \"auto\"").aead_backend, None);
    assert!(plan("pinned = true").pinned && !plan("").pinned);
    assert_eq!((plan("flow_limit = 1_048_576").flow_limit, plan("").flow_limit), (1_048_576, 65_536));
}

#[test]
fn a_small_site_takes_the_defaults_of_the_seeds() {
    let plan = good(&site(SITE));
    assert_eq!((plan.site.name.as_str(), plan.site.kind), ("lyon", SiteKind::Branch));
    assert_eq!(plan.steering.interval, Duration::from_secs(10));
    assert_eq!(plan.health.interval, Duration::from_secs(1));
    assert_eq!((plan.local_ports.ike, plan.remote_ports.natt), (500, 4500));
    assert_eq!((plan.routes.device.as_str(), plan.routes.on_stop), ("trefoil0", OnStop::Block));
    assert_eq!(plan.control_socket, Path::new("/run/trefoil/control.sock"));
    let connector = &plan.connectors[0];
    assert_eq!((connector.mode, connector.failback), (Mode::Initiator, Failback::After(Duration::from_secs(60))));
    assert_eq!(connector.local_selectors, [TrafficSelector::of_network("10.20.0.0/16".parse().unwrap())]);
    assert_eq!(connector.peer_selectors, [TrafficSelector::of_network("10.0.0.0/8".parse().unwrap())]);
    assert_eq!(connector.roles[0].as_ref().unwrap().tunnels, [PathId(0), PathId(1)]);
    assert!(connector.roles[1].is_none());
    let tunnel = &plan.tunnels[0];
    assert_eq!((tunnel.name.as_str(), tunnel.connector, tunnel.role), ("fibre", ConnectorId(0), Role::Primary));
    assert_eq!(tunnel.destination, Some(Destination::Fqdn("pop-a.example.net".into())));
    assert_eq!(tunnel.psk.expose(), b"correct horse battery staple");
    assert_eq!((tunnel.local_id.clone(), tunnel.remote_id.clone()), (None, None));
    assert_eq!(tunnel.dead_after, Duration::from_secs(60));
    assert_eq!(tunnel.phase1.lifetime, Duration::from_secs(4 * 3600));
    assert_eq!(tunnel.phase1.encryption, [Encryption::AesGcm256, Encryption::AesGcm128]);
    assert!(tunnel.phase1.integrity.is_empty() && !tunnel.phase1.prf.contains(&PrfAlgorithm::Sha1));
    assert!(tunnel.phase2.groups.contains(&DhGroup::Ecp256));
}

#[test]
fn failback_is_at_once_after_a_time_or_by_hand() {
    let failback = |text: &str| {
        let plan = good(&changed("[connector.pop]", &format!("[connector.pop]\n{text}")));
        plan.connectors[0].failback
    };
    assert_eq!(failback("failback = \"immediate\""), Failback::Immediate);
    assert_eq!(failback("failback = \"manual\""), Failback::Manual);
    assert_eq!(failback("failback = { after = \"5m\" }"), Failback::After(Duration::from_secs(300)));
}

#[test]
fn the_outer_dscp_is_that_of_the_packet_inside_or_one_of_its_own() {
    let outer = |text: &str| {
        let files = changed("[connector.pop]", &format!("[connector.pop]\n{text}"));
        files.load().unwrap().plan.connectors[0].outer_dscp.map(Dscp::value)
    };
    assert_eq!((outer(""), outer("outer_dscp = \"copy\"")), (None, None));
    assert_eq!((outer("outer_dscp = \"cs1\""), outer("outer_dscp = 46")), (Some(8), Some(46)));
    let refused = changed("[connector.pop]", "[connector.pop]\nouter_dscp = 64");
    assert!(refused.load().is_err());
}

#[test]
fn the_earlier_word_for_failback_is_still_read() {
    let read = |hold: &str| {
        let files = changed("[connector.pop]", &format!("[connector.pop]\nfailback_hold = \"{hold}\""));
        (files.load().unwrap().plan.connectors[0].failback, files.findings())
    };
    let says =
        |now: &str| vec![format!("site.toml:17:17 warning: failback_hold is written in another way now ({now})")];
    let (hold, told) = read("90s");
    assert_eq!((hold, told), (Failback::After(Duration::from_secs(90)), says("failback = { after = \"90s\" }")));
    assert_eq!(read("0s"), (Failback::Immediate, says("failback = \"immediate\"")));
}

#[test]
fn the_shipped_examples_profiles_and_policies_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut policies = Vec::new();
    let mut seen = 0;
    for path in Disk.list(&root.join("examples"), ".toml").unwrap() {
        let loaded = load(&path).unwrap_or_else(|found| panic!("{found:#?}"));
        // The keys of the examples come out of a checkout readable by all; nothing else is odd.
        assert!(loaded.warnings.iter().all(|one| one.what.contains("can be read by every user")), "{loaded:#?}");
        policies.extend(loaded.plan.rules.rules().iter().map(|rule| rule.name.clone()));
        seen += 1;
    }
    assert!(seen >= 3);
    assert!(policies.iter().any(|name| name == "voice") && policies.iter().any(|name| name == "database-replication"));
    for path in Disk.list(&root.join("policy"), ".toml").unwrap() {
        let text = std::fs::read_to_string(&path).unwrap();
        let rules = text.split("[[test]]").next().unwrap();
        let names = rules.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        assert!(names.clone().count() > 0);
        for name in names {
            assert!(policies.iter().any(|known| known == name), "no example uses rule {name} of {path:?}");
        }
    }
}

#[test]
fn the_shipped_profiles_have_the_values_of_the_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tunnel = |example: &str| {
        let path = root.join("examples").join(example);
        load(&path).unwrap_or_else(|found| panic!("{found:#?}")).plan.tunnels.remove(0)
    };
    let cato = tunnel("branch.toml");
    assert_eq!(cato.phase1.lifetime, Duration::from_secs(19_800));
    assert_eq!(cato.phase2.lifetime, Duration::from_secs(3600));
    assert_eq!(cato.keepalive, Some(Duration::from_secs(10)));
    let again = cato.retransmission;
    assert_eq!((again.first, again.factor_percent, again.tries), (Duration::from_secs(10), 100, 5));
    assert_eq!(again.longest, Duration::from_secs(10));
    assert_eq!((cato.dead_after, cato.rebuild_interval), (Duration::from_secs(60), Duration::from_secs(90)));

    let f5 = tunnel("cloud-vpc.toml");
    assert_eq!(f5.phase1.encryption, [Encryption::AesGcm256]);
    assert_eq!(f5.phase1.prf, [PrfAlgorithm::Sha512]);
    assert_eq!(f5.phase1.groups, [DhGroup::Ecp256]);
    assert_eq!(f5.phase2.groups, [DhGroup::Ecp256]);
    assert_eq!((f5.phase1.lifetime, f5.phase2.lifetime), (Duration::from_secs(14_400), Duration::from_secs(14_400)));
    assert_eq!(f5.keepalive, Some(Duration::from_secs(3)));
}

#[test]
fn links_connectors_and_tunnels_keep_the_order_of_the_file() {
    let plan = good(&site(
        r#"
        site.name = "s"
        [wan.zulu]
        interface = "eth0"
        downstream_mbps = 10
        upstream_mbps = 10
        [wan.alfa]
        interface = "eth0"
        downstream_mbps = 10
        upstream_mbps = 10
        metered = true
        [wan.mike]
        interface = "eth0"
        source_address = "192.0.2.1"
        downstream_mbps = 10
        upstream_mbps = 10
        [connector.z.primary]
        destination = "192.0.2.9"
        psk_file = "pop.psk"
        tunnel = [{ wan = "zulu", local_id = "z1" }, { wan = "alfa", local_id = "a1" }]
        [connector.a]
        network_ranges = ["a:10.0.0.0/8"]
        [connector.a.primary]
        destination = "192.0.2.10"
        psk_file = "pop.psk"
        tunnel = [{ wan = "mike" }]
        "#,
    ));
    let names: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["zulu", "alfa", "mike"]);
    let underlays: Vec<UnderlayId> = plan.links.iter().map(|link| link.underlay).collect();
    assert_eq!(underlays, [UnderlayId(0), UnderlayId(0), UnderlayId(1)]);
    assert_eq!(plan.links.iter().map(|link| link.preference).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(plan.connectors.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(plan.tunnels.iter().map(|one| one.link).collect::<Vec<_>>(), [LinkId(0), LinkId(1), LinkId(2)]);
    assert_eq!(plan.connectors[0].peer_selectors, [TrafficSelector::ANY_IPV4]);
    assert_eq!(plan.connectors[1].local_selectors, [TrafficSelector::ANY_IPV4]);
}

#[test]
fn a_link_may_be_watched_more_or_less_nervously_than_the_site() {
    let plan = good(&site(
        &format!("{SITE}\n[health]\nsensitivity = \"calm\"\n")
            .replace("interface = \"eth1\"", "interface = \"eth1\"\nsensitivity = \"voice\""),
    ));
    assert_eq!(plan.health.sensitivity, Sensitivity::Calm);
    assert_eq!(plan.links[0].sensitivity, Some(Sensitivity::Voice));
    let plan = good(&site(SITE));
    assert_eq!((plan.health.sensitivity, plan.links[0].sensitivity), (Sensitivity::Normal, None));
}

#[test]
fn a_route_based_connector_offers_everything_on_both_sides() {
    let plan = good(&changed("network_ranges = [\"hq:10.0.0.0/8\"]", ""));
    assert_eq!(plan.connectors[0].local_selectors, [TrafficSelector::ANY_IPV4]);
    assert_eq!(plan.connectors[0].peer_selectors, [TrafficSelector::ANY_IPV4]);
    let with_ipv6 = site(
        &SITE
            .replace("network_ranges = [\"hq:10.0.0.0/8\"]", "")
            .replace("[\"10.20.0.0/16\"]", "[\"10.20.0.0/16\", \"2001:db8:20::/48\"]"),
    );
    let both = [TrafficSelector::ANY_IPV4, TrafficSelector::ANY_IPV6];
    assert_eq!(good(&with_ipv6).connectors[0].peer_selectors, both);
}

#[test]
fn every_field_of_a_tunnel_arrives_in_the_plan() {
    let plan = good(&changed(
        "wan = \"fibre\"",
        r#"
        name = "paris"
        wan = "fibre"
        destination = "POP-B.example.net."
        local_id = "keyid:branch 1"
        remote_id = "gw@example.net"
        public_ip = "198.51.100.9"
        private_local = "169.254.1.2/30"
        private_remote = "169.254.1.1/30"
        downstream_mbps = 70
        upstream_mbps = 30
        probes = ["10.254.254.1", "169.254.1.1"]
        "#,
    ));
    let tunnel = &plan.tunnels[0];
    assert_eq!(tunnel.full_name(&plan.connectors), "pop/primary/paris");
    assert_eq!(tunnel.destination, Some(Destination::Fqdn("pop-b.example.net".into())));
    assert_eq!(tunnel.local_id, Some(Identity::KeyId(b"branch 1".to_vec())));
    assert_eq!(tunnel.remote_id, Some(Identity::Email("gw@example.net".into())));
    assert_eq!(tunnel.public_ip, Some(Ipv4Addr::new(198, 51, 100, 9)));
    assert_eq!(tunnel.private_local, "169.254.1.2/30".parse().ok());
    assert_eq!((tunnel.downstream.value(), tunnel.upstream.value()), (70, 30));
    assert_eq!(tunnel.probes.targets.len(), 2);
    assert_eq!(plan.tunnels[1].downstream.value(), 9);
}

#[test]
fn policies_are_read_in_the_order_given_and_compiled_to_links() {
    let files = site(&format!("policy = [\"b.toml\", \"rules/*.toml\"]\n{SITE}"))
        .with("b.toml", "[[rule]]\nname = \"last-name\"\ndscp = \"ef\"\nlinks = [\"dsl\", \"fibre\"]\n")
        .with("rules/1.toml", "[[rule]]\nname = \"r1\"\nprotocol = [\"udp\", 6]\ndestination_port = [53, \"5000-5100\"]\nmode = \"balance\"\n")
        .with("rules/2.toml", "[[rule]]\nname = \"r2\"\nlinks = \"fibre\"\nmode = \"strict\"\n");
    let plan = good(&files);
    let rules = plan.rules.rules();
    assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["last-name", "r1", "r2"]);
    assert_eq!(rules[0].action, Action::prefer([LinkId(1), LinkId(0)]));
    assert_eq!(rules[0].matcher.dscp.iter().map(|dscp| dscp.value()).collect::<Vec<_>>(), [46]);
    assert_eq!(rules[1].matcher.protocols, [17, 6]);
    assert_eq!(rules[1].matcher.destination_ports, [(53, 53), (5000, 5100)]);
    assert_eq!(rules[2].action, Action::strict([LinkId(0)]));
}

#[test]
fn profiles_beside_the_site_file_are_found_without_being_named() {
    let files = changed("[connector.pop]", "[connector.pop]\nphase1 = \"slow\"")
        .with("profiles/slow.toml", "[phase1]\nlifetime = \"8h\"\n[keepalive]\ndpd = false\nretransmissions = 2\n");
    let plan = good(&files);
    assert_eq!(plan.tunnels[0].phase1.lifetime, Duration::from_secs(8 * 3600));
    assert_eq!((plan.tunnels[0].keepalive, plan.tunnels[0].retransmission.tries), (None, 2));
    let overridden = files.clone().with(
        "site.toml",
        format!("{}\n[connector.pop.keepalive]\ndpd = true\ninterval = \"5s\"\n", files.text("site.toml")),
    );
    let tunnel = &good(&overridden).tunnels[0];
    assert_eq!((tunnel.keepalive, tunnel.retransmission.tries), (Some(Duration::from_secs(5)), 2));
}

#[test]
fn a_responder_needs_no_destination_but_a_peer() {
    let plan = good(
        &changed("destination = \"pop-a.example.net\"", "remote_id = \"peer.example\"")
            .with_change("[connector.pop]", "[connector.pop]\nmode = \"responder\""),
    );
    assert_eq!(plan.tunnels[0].destination, None);
    assert_eq!(plan.tunnels[0].remote_id, Some(Identity::Fqdn("peer.example".into())));
}

#[test]
fn probes_are_taken_from_the_connector_and_told_apart_by_kind() {
    use crate::probe::{Ask, Record, Target};
    let text = SITE.replacen("wan = \"fibre\"", "wan = \"fibre\"\nprivate_local = \"169.254.1.2/30\"", 1).replacen(
        "wan = \"dsl\"",
        "wan = \"dsl\"\nprivate_local = \"169.254.2.2/30\"\nprobes = { targets = \"10.0.0.9\", need = 1 }",
        1,
    );
    let plan = good(&site(&format!(
        "{text}\n{}",
        r#"
        [connector.pop.probes]
        targets = [
            "10.0.0.1",
            { kind = "udp", address = "10.0.0.1" },
            { kind = "http", address = "10.0.0.2", path = "/up", status = 204 },
            { kind = "tls", address = "10.0.0.2", name = "App.example" },
            { kind = "dns", address = "10.0.0.3", name = ".", type = "NS", rcode = 0 },
        ]
        need = 3
        interval = "100ms"
        "#
    )));
    let probes = &plan.tunnels[0].probes;
    let to = |last: u8, ask| Target { address: [10, 0, 0, last].into(), ask };
    assert_eq!(
        probes.targets,
        [
            to(1, Ask::Icmp),
            to(1, Ask::Udp { port: 7 }),
            to(
                2,
                Ask::Http { port: 80, host: "10.0.0.2".into(), path: "/up".into(), status: Some(204), secure: false }
            ),
            to(2, Ask::Tls { port: 443, name: Some("app.example".into()) }),
            to(3, Ask::Dns { port: 53, name: ".".into(), record: Record::Ns, rcode: Some(0) }),
        ]
    );
    assert_eq!((probes.need, probes.interval), (3, Some(Duration::from_millis(100))));
    let own = &plan.tunnels[1].probes;
    assert_eq!((own.targets.as_slice(), own.need), (&[to(9, Ask::Icmp)][..], 1));
    assert_eq!(own.interval, Some(Duration::from_millis(100)), "what it leaves out is the connector's");
}
