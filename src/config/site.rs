use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::connector::{CONNECTORS_MAX, ConnectorDraft};
use super::diagnostic::Report;
use super::lan;
use super::policy;
use super::psk::PskFiles;
use super::settings;
use super::source::At;
use super::table::Table;
use super::wan::Wan;
use super::wording::{self, Complaint};
use super::words;
use crate::edge::{CapPlan, DataplanePlan, LanPlan, PortPlan, RoutePlan, SiteKind, SteeringPlan};
use crate::health::HealthSettings;
use crate::model::Mbps;

/// Native ranges become source checks for every packet.
const NATIVE_MAX: usize = 256;

/// A site file as written, each field checked by itself.
pub struct SiteDraft {
    pub name: Option<String>,
    pub kind: SiteKind,
    pub country: Option<String>,
    pub state: Option<String>,
    pub license: Option<At<Mbps>>,
    pub cap: CapPlan,
    /// Minutes ahead of UTC, for the hours of rules.
    pub utc_offset: i16,
    pub native: Vec<At<IpNet>>,
    pub wan: Wan,
    /// Without the interfaces that rules name.
    pub lan: LanPlan,
    pub connectors: Vec<ConnectorDraft>,
    /// Whose DNS answers are believed; empty: of whomever a host asks.
    pub resolvers: Vec<IpNet>,
    pub health: HealthSettings,
    pub steering: SteeringPlan,
    pub local_ports: PortPlan,
    pub remote_ports: PortPlan,
    pub routes: RoutePlan,
    pub dataplane: DataplanePlan,
    pub control_socket: PathBuf,
    /// Complete only together with the name of the site.
    pub recording: settings::RecordingDraft,
}

impl SiteDraft {
    pub fn read(mut table: Table<'_>, folder: &Path, keys: &mut PskFiles<'_>, report: &Report) -> SiteDraft {
        // Read before, by whoever opens the files that they name.
        let _ = (table.value("profiles"), table.value("policy"));
        let spot = table.spot().clone();
        let mut name = None;
        let mut kind = SiteKind::Branch;
        let (mut country, mut state, mut license, mut native) = (None, None, None, Vec::new());
        let mut cap = CapPlan::default();
        let mut utc_offset = 0;
        match table.table("site") {
            None => report.missing(&spot, "missing [site]", "such as [site] with name = \"branch-1\""),
            Some(mut site) => {
                name = site.required("name", "name = \"branch-1\"").and_then(|value| value.parse(words::name));
                kind = site.value("kind").and_then(|value| value.parse(site_kind)).unwrap_or(kind);
                country = site.value("country").and_then(|value| value.parse(words::free_text));
                state = site.value("state").and_then(|value| value.parse(words::free_text));
                license = site.value("license_mbps").and_then(|value| Some(value.at(value.mbps()?)));
                let spot = site.spot().clone();
                cap = settings::read_cap(site.table("cap"));
                if license.is_none() && cap != CapPlan::default() {
                    let example = "such as license_mbps = 100";
                    report.missing(&spot, "a cap on the site, which has no license_mbps", example);
                }
                let offset = site.value("utc_offset").and_then(|value| value.parse(policy::utc_offset));
                utc_offset = offset.unwrap_or(utc_offset);
                let ranges = site.value("native_ranges");
                native = ranges.map_or_else(Vec::new, |value| value.parse_items(NATIVE_MAX, words::network));
                site.finish();
            }
        }
        let mut links = table.table("wan");
        let wan = Wan::read(links.as_mut().map_or_else(Vec::new, Table::named_tables), report);
        if wan.is_empty() {
            report.missing(&spot, "no WAN link", "such as [wan.fibre] with interface = \"eth1\"");
        }
        let lan = lan::read(table.table("segments"), report);
        let tables = table.table("connector").map_or_else(Vec::new, |mut table| table.named_tables());
        if tables.is_empty() {
            report.missing(&spot, "no connector", "such as [connector.pop]");
        }
        if let Some((name, _)) = tables.get(CONNECTORS_MAX) {
            report.error(&name.spot, "one connector too many", format!("at most {CONNECTORS_MAX}"));
        }
        let connectors = tables.into_iter().take(CONNECTORS_MAX);
        let connectors =
            connectors.map(|(name, table)| ConnectorDraft::read(name, table, &wan, keys, report)).collect();
        let resolvers = settings::read_resolvers(table.table("names"));
        let health = settings::read_health(table.table("health"));
        let steering = settings::read_steering(table.table("steering"));
        let (local_ports, remote_ports) = settings::read_ports(table.table("ports"), report);
        let routes = settings::read_routes(table.table("routes"));
        let dataplane = settings::read_dataplane(table.table("dataplane"));
        let control_socket = settings::read_control(table.table("control"), folder);
        let recording = settings::read_recording(table.table("recording"), folder);
        table.finish();
        SiteDraft {
            name,
            kind,
            country,
            state,
            license,
            cap,
            utc_offset,
            native,
            wan,
            lan,
            connectors,
            resolvers,
            health,
            steering,
            local_ports,
            remote_ports,
            routes,
            dataplane,
            control_socket,
            recording,
        }
    }

    /// What "a site of 100 Mbps" means: its license, and without one what its links have
    /// together, in the direction that has more.
    pub fn bandwidth_mbps(&self) -> u64 {
        self.license.as_ref().map_or_else(|| self.wan.total_mbps(), |license| u64::from(license.value.value()))
    }
}

fn site_kind(text: &str) -> Result<SiteKind, Complaint> {
    match text {
        "branch" => Ok(SiteKind::Branch),
        "cloud-vpc" => Ok(SiteKind::CloudVpc),
        _ => Err(Complaint {
            what: format!("unknown kind {}", wording::quoted(text)),
            instead: wording::known(["branch", "cloud-vpc"]),
        }),
    }
}
