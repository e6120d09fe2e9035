//! A gateway instance in a cloud VPC: one NIC with three private addresses, which the cloud maps 1:1 to three public
//! ones, each a WAN role of its own. It answers the three tunnels of the lab's branch.
//!
//! ```text
//! branch ... internet --- 198.51.100.2, .3, .4 [cloud: pop1] 172.31.0.1 --- ens5 172.31.0.10, .11, .12 [instance]
//!                                                     |
//!                                                   server
//! ```

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use trefoil::edge::{FlowList, FlowStatus};

use super::bench::start_edge;
use super::daemon::{Trefoil, binary, tunnel, tunnels};
use super::emulator::{Direction, Model};
use super::namespace::{Namespace, join};
use super::outage::flows_again;
use super::process::wait_for;
use super::requirements::lab_is_possible;
use super::say;
use super::shares::{Mix, off};
use super::site::{Site, local_id, private_addresses};
use super::stream::Stream;
use super::topology::{
    LAN_HOST, LAN_RANGE, LINKS, POP1_NEW, POP1_THIRD, POPS, SERVER, SERVER_RANGE, Topology, WanLink,
};

/// In the order of the branch's links, whose tunnels lead to them.
const PUBLIC: [Ipv4Addr; 3] = [POPS[0], POP1_NEW, POP1_THIRD];
const PRIVATE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(172, 31, 0, 10), Ipv4Addr::new(172, 31, 0, 11), Ipv4Addr::new(172, 31, 0, 12)];
const ROLES: [&str; 3] = ["apps", "bulk", "replication"];

/// The branch binds each of these ports of the server to a link, whatever its health.
const BRANCH_POLICY: &str = r#"[[rule]]
name = "by-fibre"
protocol = "udp"
destination_port = 5601
links = ["fibre"]
mode = "strict"

[[rule]]
name = "by-dsl"
protocol = "udp"
destination_port = [5602, 5604, 5606]
links = ["dsl"]
mode = "strict"

[[rule]]
name = "by-lte"
protocol = "udp"
destination_port = 5603
links = ["lte"]
mode = "strict"
"#;

/// Of the server: what comes to them comes by fibre, dsl and lte.
const PORTS: [u16; 3] = [5_601, 5_602, 5_603];

/// The gateway sends what the server answers from this port through another tunnel than it arrived on.
const GATEWAY_POLICY: &str = r#"[[rule]]
name = "answers-by-apps"
protocol = "udp"
source_port = 5604
links = ["apps"]
"#;

struct Vpc {
    gateway: Trefoil,
    edge: Trefoil,
    // After the daemons, which live in them.
    _instance: Namespace,
    lab: Topology,
}

impl Vpc {
    fn start() -> Vpc {
        let lab = Topology::new();
        let cloud = &lab.pops[0];
        let instance = Namespace::new("vpc");
        instance.sysctl(&[
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.ip_forward=1",
        ]);
        join(&instance, "ens5", "172.31.0.10/24", cloud, "vpc", "172.31.0.1/24");
        instance.ip(
            "addr add 172.31.0.11/24 dev ens5\naddr add 172.31.0.12/24 dev ens5\nroute add default via 172.31.0.1\n",
        );
        let [_, _, third] = PUBLIC;
        // The VPC's route table leads to the branch by the instance, and both ways cross its one NIC.
        cloud.ip(&format!("addr add {third}/24 dev wan\nroute add 198.18.0.0/16 via {}\n", PRIVATE[0]));
        let pairs = |from: [Ipv4Addr; 3], to: [Ipv4Addr; 3]| {
            from.iter().zip(to).map(|(from, to)| format!("{from} : {to}")).collect::<Vec<_>>().join(", ")
        };
        cloud.nft(&format!(
            "table ip cloud {{\n\
               chain arriving {{ type nat hook prerouting priority -100; iifname \"wan\" dnat to ip daddr map {{ {} }}; }}\n\
               chain leaving {{ type nat hook postrouting priority 100; oifname \"wan\" snat to ip saddr map {{ {} }}; }}\n\
             }}\n",
            pairs(PUBLIC, PRIVATE),
            pairs(PRIVATE, PUBLIC)
        ));
        let mut site = Site { policy: BRANCH_POLICY, steering_interval: Duration::from_secs(1), ..Site::new() };
        site.roles[1].links = Vec::new();
        site.roles[0].destination_of_link = PUBLIC.to_vec();
        let gateway = start_gateway(&lab, &instance, &site);
        let edge = start_edge(&binary(), &lab, &site, &[]);
        Vpc { gateway, edge, _instance: instance, lab }
    }

    /// Both ends hold all three tunnels for well.
    fn wait_until_well(&self) {
        for end in [&self.edge, &self.gateway] {
            end.wait("all tunnels are well", Duration::from_secs(60), |status| {
                tunnels(status).filter(|tunnel| tunnel.verdict == "healthy").count() == 3
            });
        }
    }

    /// Packets of ESP that the instance has sent to each of the branch's links, by the link of whose tunnel they are:
    /// counted on the wire.
    fn sent_on(&self, link: usize) -> u64 {
        self.lab.wan.esp(|kind| kind.source == PUBLIC[link] && kind.destination == LINKS[link].address).left
    }

    /// Three streams of the branch, each over a link of its own and in proportion to the bandwidths, so that nothing
    /// needs to be moved for the shares.
    fn streams(&self) -> [Stream; 3] {
        let interval = |mbps| Duration::from_micros(600_000 / u64::from(mbps));
        let start = |place: usize| {
            let port = PORTS[place];
            Stream::start_on(port, &self.lab.lan, &self.lab.server, SERVER, interval(LINKS[place].mbps), 300)
        };
        let streams = [0, 1, 2].map(start);
        streams.iter().for_each(flows_again);
        streams
    }

    /// What the instance knows of the flow that the server sends from this port.
    fn answers(&self, port: u16) -> Option<FlowStatus> {
        let list: FlowList = serde_json::from_str(&self.gateway.verb(&["flows", "--json"])).expect("JSON");
        list.flows.into_iter().find(|flow| flow.source == format!("{SERVER}:{port}"))
    }

    /// Packets that the instance sends by each of its tunnels within two seconds, seen on the wire.
    fn on_the_wire(&self) -> [u64; 3] {
        let before = [0, 1, 2].map(|link| self.sent_on(link));
        thread::sleep(Duration::from_secs(2));
        std::array::from_fn(|link| self.sent_on(link) - before[link])
    }

    fn describe(&self) -> String {
        format!("{}{}", self.edge.describe(), self.gateway.describe())
    }
}

fn start_gateway(lab: &Topology, instance: &Namespace, site: &Site) -> Trefoil {
    let folder = lab.directory().join("vpc");
    fs::create_dir_all(&folder).expect("a folder for the gateway");
    let write = |file: &str, text: &str| fs::write(folder.join(file), text).expect("a file of the gateway");
    write("psk", &site.psk);
    fs::set_permissions(folder.join("psk"), Permissions::from_mode(0o600)).expect("a private key file");
    write("policy.toml", GATEWAY_POLICY);
    let socket = folder.join("trefoil.sock");
    let mut text = format!(
        "policy = [\"policy.toml\"]\n\n[site]\nname = \"vpc\"\nkind = \"cloud-vpc\"\nnative_ranges = [\"{SERVER_RANGE}\"]\n\n\
         [control]\nsocket = \"{}\"\n\n[steering]\ninterval = \"1s\"\n",
        socket.display()
    );
    for (role, (address, link)) in ROLES.iter().zip(PRIVATE.iter().zip(&LINKS)) {
        let mbps = link.mbps;
        let _ = writeln!(
            text,
            "\n[wan.{role}]\ninterface = \"ens5\"\nsource_address = \"{address}\"\ndownstream_mbps = {mbps}\nupstream_mbps = 1000"
        );
    }
    let _ = writeln!(
        text,
        "\n[connector.branch]\nmode = \"responder\"\nnetwork_ranges = [\"branch:{LAN_RANGE}\"]\n\n\
         [connector.branch.primary]\npsk_file = \"psk\""
    );
    for (role, (public, link)) in ROLES.iter().zip(PUBLIC.iter().zip(&LINKS)) {
        let (theirs, ours) = private_addresses(0, link);
        // Each end calls itself by what the other knows: the instance by its public address.
        let _ = writeln!(
            text,
            "\n[[connector.branch.primary.tunnel]]\nname = \"{}\"\nwan = \"{role}\"\npublic_ip = \"{public}\"\n\
             remote_id = \"{}\"\nprivate_local = \"{ours}/30\"\nprivate_remote = \"{theirs}/30\"",
            link.name,
            local_id(0, link)
        );
    }
    write("site.toml", &text);
    Trefoil::launch(&binary(), instance, &folder.join("site.toml"), &socket, &[])
}

#[test]
fn an_instance_behind_one_to_one_nat_serves_a_branch_and_steers_what_it_sends_back() {
    if !lab_is_possible() {
        return;
    }
    let vpc = Vpc::start();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(&vpc)));
    if let Err(panic) = outcome {
        eprintln!("{}", vpc.describe());
        std::panic::resume_unwind(panic);
    }
}

fn serve(vpc: &Vpc) {
    vpc.wait_until_well();
    for link in &LINKS {
        let [ours, theirs] = [&vpc.edge, &vpc.gateway].map(|end| {
            let status = end.status().expect("status");
            let found = tunnels(&status).find(|tunnel| tunnel.name == link.name).expect("a tunnel of the link");
            found.remote.clone().expect("it is up")
        });
        say(&format!("{}: the branch sends to {ours}, the instance to {theirs}", link.name));
        assert!(theirs.starts_with(&format!("{}:", link.address)), "{theirs}");
    }

    let streams = vpc.streams();
    let sent = vpc.on_the_wire();
    // Through several re-steers.
    thread::sleep(Duration::from_secs(3));
    say(&format!("answers to 500, 167 and 83 packets a second by fibre, dsl and lte, in 2 s on the wire: {sent:?}"));
    for (place, link) in LINKS.iter().enumerate() {
        let flow = vpc.answers(PORTS[place]).expect("the instance knows the flow");
        assert_eq!((flow.arrived_on.as_ref(), flow.moves), (flow.tunnel.as_ref(), 0), "{flow:?}");
        assert_eq!(flow.tunnel, Some(format!("branch/primary/{}", link.name)), "{flow:?}");
        let wanted = [1_000, 333, 166][place];
        assert!(sent[place].abs_diff(wanted) < wanted / 5 + 30, "{sent:?}");
    }

    drop(streams);

    let alone = |port: u16| {
        let stream = Stream::start_on(port, &vpc.lab.lan, &vpc.lab.server, SERVER, Duration::from_millis(4), 300);
        flows_again(&stream);
        stream
    };
    let stream = alone(5_604);
    let sent = vpc.on_the_wire();
    let flow = vpc.answers(5_604).expect("the instance knows the flow");
    say(&format!("answers that a rule sends by apps, in 2 s on the wire {sent:?}: {}", told(&flow)));
    assert_eq!((flow.rule.as_deref(), flow.link.as_deref()), (Some("answers-by-apps"), Some("apps")), "{flow:?}");
    assert_eq!(flow.arrived_on.as_deref(), Some("branch/primary/dsl"));
    // Liveness checks are no ESP, and the branch's inner probes are answered on each tunnel.
    assert!(sent[0] > 400 && sent[1] < 60 && sent[2] < 60, "{sent:?}");
    drop(stream);

    // One flow alone is more than the share of the path that it arrived on.
    let stream = alone(5_606);
    let moved = wait_for("a re-steer moves the flow", Duration::from_secs(20), || {
        vpc.answers(5_606).filter(|flow| flow.moves > 0)
    });
    say(&format!("a flow that came by dsl, after a re-steer: {}", told(&moved)));
    assert!(moved.history.iter().any(|one| one.cause == "shares"), "{moved:?}");
    drop(stream);

    let bytes = || {
        let status = vpc.edge.status().expect("status");
        LINKS.each_ref().map(|link: &WanLink| tunnel(&status, "primary", link.name).bytes_in)
    };
    let mix = Mix::start(&vpc.lab.server, &vpc.lab.lan, LAN_HOST);
    thread::sleep(Duration::from_secs(6));
    let before = bytes();
    thread::sleep(Duration::from_secs(10));
    let off = off(before, bytes());
    say(&format!(
        "flows that the instance opens: {:+.2}, {:+.2}, {:+.2} % of all bytes off the downstream of fibre, dsl and lte",
        off[0], off[1], off[2]
    ));
    assert!(off.iter().all(|part| part.abs() < 3.0), "{off:?}");
    drop(mix);

    let _streams = vpc.streams();
    // The way down the lte tunnel becomes bad; what the branch sends still comes by it.
    vpc.lab.wan.set(PUBLIC[2], Direction::From, Model { loss_permille: 400, ..Model::CLEAN });
    let moved = wait_for("the answers leave the bad path", Duration::from_secs(60), || {
        vpc.answers(PORTS[2]).filter(|flow| flow.link.as_deref() != Some(ROLES[2]))
    });
    say(&format!("answers to what comes by lte, while that is lossy downstream: {}", told(&moved)));
    assert_eq!(moved.arrived_on.as_deref(), Some("branch/primary/lte"));
    assert!(moved.history.iter().any(|one| one.cause == "health"), "{moved:?}");
}

fn told(flow: &FlowStatus) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
    let moves: Vec<&str> = flow.history.iter().map(|one| one.reason.as_str()).collect();
    format!(
        "arrives on {}, leaves by {} ({}); moves: {moves:?}",
        or_none(&flow.arrived_on),
        or_none(&flow.tunnel),
        flow.why
    )
}
