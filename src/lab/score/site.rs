use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::config::{self, Diagnostic, Files, Scenario};
use crate::edge::{
    ConnectorPlan, DataplanePlan, Destination, LabelledRange, LinkPlan, Mode, Plan, PortPlan, ProbePlan, RolePlan,
    SiteKind, SitePlan, TunnelPlan, UnderlayPlan,
};
use crate::forward::FLOWS_DEFAULT;
use crate::ike::Identity;
use crate::model::{ConnectorId, PathId, Role, Secret, UnderlayId};
use crate::steer::RuleSet;

/// The networks of the scoreboard's site and of what it talks to.
pub const NATIVE: &str = "10.20.0.0/16";
pub const FAR: &str = "10.90.0.0/16";

/// The one rule of the scoreboard's site: as much as an operator has to say who wants good calls.
const POLICY: &str = r#"
[[rule]]
name = "voice"
dscp = "ef"
sla = "voice"
strategy = "best"
"#;

/// Peers in simulated time keep no secrets.
const PSK: &[u8] = b"in simulated time";

/// The site that plays a scenario: a branch with the links of the scenario, and a tunnel over each to
/// both of two PoPs; every setting that is not needed for that is left at its default.
pub fn plan(scenario: &Scenario) -> Result<Plan, Vec<Diagnostic>> {
    plan_with(
        scenario,
        &format!("native_ranges = [\"{NATIVE}\"]"),
        &format!("network_ranges = [\"far:{FAR}\"]"),
        POLICY,
    )
}

/// The same for flows from anywhere to anywhere, without rules.
pub fn open_plan(scenario: &Scenario) -> Result<Plan, Vec<Diagnostic>> {
    plan_with(scenario, "", "", "")
}

fn plan_with(scenario: &Scenario, native: &str, ranges: &str, policy: &str) -> Result<Plan, Vec<Diagnostic>> {
    let mut text = format!("policy = [\"policy.toml\"]\n[site]\nname = \"scoreboard\"\nkind = \"branch\"\n{native}\n");
    // Writing into a text cannot fail.
    for link in &scenario.links {
        let _ = write!(
            text,
            "[wan.{}]\ninterface = \"eth{}\"\nupstream_mbps = {}\ndownstream_mbps = {}\n",
            link.name,
            text.len(),
            link.up.rate.value(),
            link.down.rate.value()
        );
    }
    let _ = write!(text, "[connector.pop]\n{ranges}\n");
    for role in Role::ALL {
        let number = role.index();
        let _ = write!(
            text,
            "[connector.pop.{role}]\ndestination_type = \"ipv4\"\ndestination = \"192.0.2.{}\"\npsk_file = \"psk\"\n",
            number + 1
        );
        for (index, link) in scenario.links.iter().enumerate() {
            let _ = write!(
                text,
                "[[connector.pop.{role}.tunnel]]\nname = \"{0}\"\nwan = \"{0}\"\nlocal_id = \"fqdn:{0}.example\"\n\
                 private_local = \"169.254.{number}.{1}/30\"\nprivate_remote = \"169.254.{number}.{2}/30\"\n\
                 probes = [\"169.254.{number}.{2}\"]\n",
                link.name,
                4 * index + 1,
                4 * index + 2
            );
        }
    }
    let files = Memory::new([("site.toml", text.as_str()), ("policy.toml", policy), ("psk", "in simulated time\n")]);
    Ok(in_simulation(config::load_from(Path::new("site.toml"), &files)?.plan))
}

/// The same site with addresses, identities and keys of the simulation: one underlay for each link, and
/// PoPs that it calls.
pub fn in_simulation(plan: Plan) -> Plan {
    let tunnels = plan.tunnels.iter().zip(0u16..).map(|(tunnel, number)| {
        let host = (number % 64) as u8 * 4;
        let private = |last: u8| {
            let address = Ipv4Addr::new(169, 254, (number / 64) as u8, host + last);
            IpNet::V4(Ipv4Net::new_assert(address, 30))
        };
        let has_private = tunnel.private_local.is_some();
        let probe = ProbePlan::icmp(private(2).addr());
        TunnelPlan {
            destination: Some(Destination::Ipv4(pop_address(pop_of(tunnel)))),
            local_id: Some(Identity::Fqdn(format!("tunnel{number}.site.example"))),
            remote_id: Some(Identity::Fqdn(format!("pop{}.example", pop_of(tunnel)))),
            public_ip: None,
            psk: Secret::new(PSK.to_vec()),
            private_local: has_private.then(|| private(1)),
            private_remote: has_private.then(|| private(2)),
            probes: if has_private && !tunnel.probes.targets.is_empty() { probe } else { ProbePlan::NONE },
            ..tunnel.clone()
        }
    });
    let links = (0u16..).zip(&plan.links);
    let connectors = plan.connectors.iter();
    Plan {
        underlays: (0..plan.links.len())
            .map(|link| UnderlayPlan { interface: None, address: Some(link_address(link)) })
            .collect(),
        links: links.map(|(number, link)| LinkPlan { underlay: UnderlayId(number), ..link.clone() }).collect(),
        connectors: connectors
            .map(|connector| ConnectorPlan { mode: Mode::Initiator, pmtu_discovery: false, ..connector.clone() })
            .collect(),
        tunnels: tunnels.collect(),
        local_ports: PORTS,
        remote_ports: PORTS,
        dataplane: DataplanePlan {
            workers: NonZeroU16::MIN,
            pinned: false,
            aead_backend: None,
            flow_limit: FLOWS_DEFAULT,
        },
        ..plan
    }
}

/// The PoPs that such a site calls, by their numbers; `None` where a connector has no such role.
pub fn pops(site: &Plan) -> Vec<Option<Plan>> {
    (0..2 * site.connectors.len()).map(|number| pop(site, number)).collect()
}

fn pop(site: &Plan, number: usize) -> Option<Plan> {
    let connector = site.connectors.get(number / 2)?;
    connector.roles[number % 2].as_ref()?;
    let ours: Vec<&TunnelPlan> = site.tunnels.iter().filter(|tunnel| pop_of(tunnel) == number).collect();
    let tunnels: Vec<TunnelPlan> = ours
        .iter()
        .map(|ours| TunnelPlan {
            connector: ConnectorId(0),
            role: Role::Primary,
            destination: None,
            local_id: ours.remote_id.clone(),
            remote_id: ours.local_id.clone(),
            private_local: ours.private_remote,
            private_remote: ours.private_local,
            downstream: ours.upstream,
            upstream: ours.downstream,
            probes: ProbePlan::NONE,
            ..(*ours).clone()
        })
        .collect();
    let all = || IpNet::V4(Ipv4Net::default());
    let native: Vec<IpNet> = connector.ranges.iter().map(|range| range.range).collect();
    let ranges = if site.site.native.is_empty() { vec![all()] } else { site.site.native.clone() };
    let links = site.links.iter().map(|link| LinkPlan { underlay: UnderlayId(0), ..link.clone() });
    let connector = ConnectorPlan {
        name: "site".into(),
        mode: Mode::Responder,
        local_selectors: connector.peer_selectors.clone(),
        peer_selectors: connector.local_selectors.clone(),
        ranges: ranges.iter().map(|range| LabelledRange { label: "site".into(), range: *range }).collect(),
        roles: [Some(RolePlan { pop_location: None, tunnels: (0..tunnels.len() as u16).map(PathId).collect() }), None],
        ..connector.clone()
    };
    Some(Plan {
        site: SitePlan { name: format!("pop{number}"), kind: SiteKind::CloudVpc, native, ..site.site.clone() },
        underlays: vec![UnderlayPlan { interface: None, address: Some(pop_address(number)) }],
        links: links.collect(),
        connectors: vec![connector],
        tunnels,
        rules: Arc::new(RuleSet::default()),
        ..site.clone()
    })
}

const PORTS: PortPlan = PortPlan { ike: 500, natt: 4500 };

/// PoPs are numbered by connector and role.
pub fn pop_of(tunnel: &TunnelPlan) -> usize {
    2 * usize::from(tunnel.connector.0) + tunnel.role.index()
}

/// RFC 6598 and RFC 2544 keep these addresses free of anybody's own.
pub fn link_address(link: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + link as u32)
}

pub fn pop_address(pop: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + pop as u32)
}

/// The link of an address of ours.
pub fn link_at(address: Ipv4Addr, links: usize) -> Option<usize> {
    (0..links).find(|link| link_address(*link) == address)
}

pub fn pop_at(address: Ipv4Addr, pops: usize) -> Option<usize> {
    (0..pops).find(|pop| pop_address(*pop) == address)
}

/// Files in memory.
pub struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Memory {
    pub fn new<const N: usize>(files: [(&str, &str); N]) -> Memory {
        Memory { files: files.map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).into() }
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path, _: &str) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn is_world_readable(&self, _: &Path) -> bool {
        false
    }
}
