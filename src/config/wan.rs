use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::diagnostic::Report;
use super::settings;
use super::source::{At, Spot};
use super::table::Table;
use super::wording;
use super::words;
use crate::edge::{CapPlan, LinkPlan, UnderlayPlan};
use crate::health::Sensitivity;
use crate::model::{LinkId, Mbps, UnderlayId};

/// More links than any site has; each costs a column in every table that people read.
const LINKS_MAX: usize = 256;
/// Metered links come after all others unless the operator says otherwise.
const PREFERENCE_METERED: u8 = 2;

/// The `[wan.*]` tables. A link that has errors keeps its name and place, so that what refers to
/// it is not reported as well.
pub struct Wan {
    links: Vec<Link>,
}

struct Link {
    name: At<String>,
    interface: Option<At<String>>,
    source_address: Option<At<Ipv4Addr>>,
    downstream: Option<Mbps>,
    upstream: Option<Mbps>,
    cap: CapPlan,
    metered: bool,
    last_resort: bool,
    preference: Option<u8>,
    sensitivity: Option<Sensitivity>,
}

impl Wan {
    pub fn read(tables: Vec<(At<&str>, Table<'_>)>, report: &Report) -> Wan {
        if let Some((name, _)) = tables.get(LINKS_MAX) {
            report.error(
                &name.spot,
                format!("WAN link {} is one too many", wording::quoted(name.value)),
                format!("at most {LINKS_MAX}"),
            );
        }
        let links = tables.into_iter().take(LINKS_MAX).map(|(name, table)| Link::read(name, table, report)).collect();
        let wan = Wan { links };
        wan.check_addresses(report);
        wan
    }

    pub fn link(&self, name: &str) -> Option<LinkId> {
        let index = self.links.iter().position(|link| link.name.value == name)?;
        u16::try_from(index).ok().map(LinkId)
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub fn known(&self) -> String {
        wording::known(self.links.iter().map(|link| &link.name.value))
    }

    pub fn name(&self, id: LinkId) -> &str {
        self.get(id).map_or("", |link| &link.name.value)
    }

    pub fn names(&self) -> impl Iterator<Item = (LinkId, &At<String>)> {
        (0..).map(LinkId).zip(self.links.iter().map(|link| &link.name))
    }

    pub fn interfaces(&self) -> impl Iterator<Item = &At<String>> {
        self.links.iter().filter_map(|link| link.interface.as_ref())
    }

    pub fn bandwidth(&self, id: LinkId) -> Option<(Mbps, Mbps)> {
        let link = self.get(id)?;
        link.downstream.zip(link.upstream)
    }

    pub fn cap(&self, id: LinkId) -> CapPlan {
        self.get(id).map_or_else(CapPlan::default, |link| link.cap)
    }

    /// What an IPv4 identity that is not configured will be: the source address, or whatever
    /// address the interface has, which only the underlay tells apart.
    pub fn source(&self, id: LinkId) -> Option<SourceAddress> {
        let link = self.get(id)?;
        match (&link.source_address, &link.interface) {
            (Some(address), _) => Some(SourceAddress::Known(address.value)),
            (None, Some(interface)) => Some(SourceAddress::OfInterface(interface.value.clone())),
            (None, None) => None,
        }
    }

    pub fn interface(&self, id: LinkId) -> Option<&str> {
        self.get(id)?.interface.as_ref().map(|at| at.value.as_str())
    }

    /// The bandwidth of all links together, in the direction that has more.
    pub fn total_mbps(&self) -> u64 {
        let sum = |one: fn(&Link) -> Option<Mbps>| {
            self.links.iter().filter_map(one).map(|mbps| u64::from(mbps.value())).sum::<u64>()
        };
        sum(|link| link.downstream).max(sum(|link| link.upstream))
    }

    /// The plan of the links and of the underlays that they share, if all of them are complete.
    pub fn plan(&self) -> Option<(Vec<UnderlayPlan>, Vec<LinkPlan>)> {
        let mut underlays: Vec<UnderlayPlan> = Vec::new();
        let mut links = Vec::new();
        for link in &self.links {
            let address = link.source_address.as_ref().map(|at| at.value);
            let underlay = UnderlayPlan { interface: link.interface_name().cloned(), address };
            let index = underlays.iter().position(|earlier| *earlier == underlay).unwrap_or_else(|| {
                underlays.push(underlay);
                underlays.len() - 1
            });
            links.push(LinkPlan {
                name: link.name.value.clone(),
                underlay: UnderlayId(u16::try_from(index).ok()?),
                downstream: link.downstream?,
                upstream: link.upstream?,
                cap: link.cap,
                metered: link.metered,
                last_resort: link.last_resort,
                preference: link.preference.unwrap_or(if link.metered { PREFERENCE_METERED } else { 1 }),
                sensitivity: link.sensitivity,
            });
        }
        Some((underlays, links))
    }

    fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(usize::from(id.0))
    }

    /// Two sockets cannot be bound to one address unless their interfaces are the same.
    fn check_addresses(&self, report: &Report) {
        let mut seen: BTreeMap<Ipv4Addr, (Option<&String>, &Spot)> = BTreeMap::new();
        for link in &self.links {
            let Some(address) = &link.source_address else { continue };
            match seen.get(&address.value) {
                Some((interface, spot)) if *interface != link.interface_name() => report.error(
                    &address.spot,
                    format!("source_address {} has another interface at {spot}", address.value),
                    "the same interface, or none, wherever one address is used",
                ),
                _ => {
                    seen.insert(address.value, (link.interface_name(), &address.spot));
                }
            }
        }
    }
}

/// Where a link's datagrams come from, as far as files tell.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SourceAddress {
    Known(Ipv4Addr),
    OfInterface(String),
}

impl Link {
    fn interface_name(&self) -> Option<&String> {
        self.interface.as_ref().map(|at| &at.value)
    }

    fn read(name: At<&str>, mut table: Table<'_>, report: &Report) -> Link {
        if let Err(complaint) = words::name(name.value) {
            report.error(&name.spot, complaint.what, complaint.instead);
        }
        let interface = table.value("interface");
        let source_address = table.value("source_address");
        if interface.is_none() && source_address.is_none() {
            report.missing(
                table.spot(),
                format!("WAN link {} has neither interface nor source_address", wording::quoted(name.value)),
                "such as interface = \"eth1\"",
            );
        }
        let downstream = table.required("downstream_mbps", "downstream_mbps = 100").and_then(|value| value.mbps());
        let upstream = table.required("upstream_mbps", "upstream_mbps = 40").and_then(|value| value.mbps());
        let cap = settings::read_cap(table.table("cap"));
        let metered = table.value("metered").and_then(|value| value.boolean()).unwrap_or(false);
        let last_resort = table.value("last_resort").and_then(|value| value.boolean()).unwrap_or(false);
        let preference = table.value("preference").and_then(|value| value.number(1..=255, ""));
        let sensitivity = table.value("sensitivity").and_then(|value| value.parse(words::sensitivity));
        table.finish();
        Link {
            name: At { value: name.value.to_string(), spot: name.spot },
            interface: interface.and_then(|value| value.parse_at(words::interface)),
            source_address: source_address.and_then(|value| value.parse_at(words::ipv4_host)),
            downstream,
            upstream,
            cap,
            metered,
            last_resort,
            preference,
            sensitivity,
        }
    }
}
