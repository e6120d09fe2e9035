//! The tables of a site file that have a default for everything: names, health, steering, ports, routes, data
//! plane, control, recording.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostic::Report;
use super::table::{Table, Value};
use super::wording::{self, Complaint};
use super::words;
use crate::crypto::Backend;
use crate::edge::{CapPlan, DataplanePlan, OnStop, PortPlan, RecordingPlan, RoutePlan, SteeringPlan};
use crate::forward::FLOWS_DEFAULT;
use crate::health::HealthSettings;
use crate::model::Permille;

const HEALTH_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const STEERING_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Seed: "traffic is re-distributed to the best-performing link every 10 seconds".
const STEERING_DEFAULT: Duration = Duration::from_secs(10);
/// The kernel's `main` table has the rule 32766; ours must come before it.
const RULE_PRIORITY_MAX: i64 = 32_000;
/// `default`, `main` and `local` belong to the system.
const SYSTEM_TABLES: RangeInclusive<u32> = 253..=255;
/// Free in /etc/iproute2/rt_tables, and not strongSwan's 220.
const TABLE_DEFAULT: u32 = 221;
const RULE_PRIORITY_DEFAULT: u32 = 2210;
/// Lets the daemon measure, and take the fastest.
const AUTO: &str = "auto";
/// Beyond it a TUN device has no more queues to give than it is worth.
const MAX_WORKERS: u16 = 64;
/// With fewer a small office would forget flows that are in use; with more, memory would rather hold
/// two tables: a million is some 300 MiB.
const FLOW_LIMIT: RangeInclusive<i64> = 1_024..=1_048_576;
/// Each DNS question is held against all of them.
const RESOLVERS_MAX: usize = 64;
/// `sun_path` of a Unix socket address, without its final zero.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_DEFAULT: &str = "/run/trefoil/control.sock";
/// Below it each site has a recording of its own.
const RECORDING_FOLDER: &str = "/var/lib/trefoil";
/// A branch with six tunnels fills some 15 MB a day, and many flows a second ten times as much.
const RECORDING_MB: u64 = 256;
const RECORDING_AGE: Duration = Duration::from_secs(24 * 3600);
const RECORDING_AGES: RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(90 * 24 * 3600);

pub fn read_health(table: Option<Table<'_>>) -> HealthSettings {
    let defaults = HealthSettings::default();
    let Some(mut table) = table else { return defaults };
    let interval = table.value("interval").and_then(|value| value.duration(HEALTH_INTERVAL));
    let window = table.value("window").and_then(|value| value.number(5..=600, "probes"));
    let mut count = |key| table.value(key).and_then(|value| value.number(1..=100, "probes"));
    let (down_after, up_after) = (count("down_after"), count("up_after"));
    let loss = table.value("loss_percent").and_then(|value| value.decimal(0.1..=100.0, "per cent"));
    let mut limit = |key| {
        let number = table.value(key).and_then(|value| value.number::<u64>(1..=10_000, "ms"));
        number.map(Duration::from_millis)
    };
    let (rtt, jitter) = (limit("rtt_ms"), limit("jitter_ms"));
    let in_band = table.value("in_band").and_then(|value| value.boolean());
    let sensitivity = table.value("sensitivity").and_then(|value| value.parse(words::sensitivity));
    table.finish();
    HealthSettings {
        interval: interval.unwrap_or(defaults.interval),
        inner_interval: interval.unwrap_or(defaults.inner_interval),
        need: defaults.need,
        window: window.unwrap_or(defaults.window),
        down_after: down_after.unwrap_or(defaults.down_after),
        up_after: up_after.unwrap_or(defaults.up_after),
        loss_limit: loss.and_then(|loss| Permille::new((loss * 10.0).round() as u16)).unwrap_or(defaults.loss_limit),
        rtt_limit: rtt.unwrap_or(defaults.rtt_limit),
        jitter_limit: jitter.unwrap_or(defaults.jitter_limit),
        degraded_hold: defaults.degraded_hold,
        scrutiny: defaults.scrutiny,
        sensitivity: sensitivity.unwrap_or(defaults.sensitivity),
        in_band: in_band.unwrap_or(defaults.in_band),
    }
}

/// The directions in which a bandwidth is a cap.
pub fn read_cap(table: Option<Table<'_>>) -> CapPlan {
    let Some(mut table) = table else { return CapPlan::default() };
    let mut is_on = |key| table.value(key).and_then(|value| value.boolean()).unwrap_or(false);
    let cap = CapPlan { downstream: is_on("downstream"), upstream: is_on("upstream") };
    table.finish();
    cap
}

pub fn read_steering(table: Option<Table<'_>>) -> SteeringPlan {
    let interval = table.and_then(|mut table| {
        let interval = table.value("interval").and_then(|value| value.duration(STEERING_INTERVAL));
        table.finish();
        interval
    });
    SteeringPlan { interval: interval.unwrap_or(STEERING_DEFAULT) }
}

/// Our ports and the peers'.
pub fn read_ports(table: Option<Table<'_>>, report: &Report) -> (PortPlan, PortPlan) {
    // RFC 7296 2, RFC 3948.
    let standard = PortPlan { ike: 500, natt: 4500 };
    let Some(mut table) = table else { return (standard, standard) };
    let spot = table.spot().clone();
    let mut pair = |ike_key, natt_key, keys| {
        let mut port = |key, standard: u16| match table.value(key) {
            Some(value) => value.number(1..=i64::from(u16::MAX), ""),
            None => Some(standard),
        };
        let (ike, natt) = (port(ike_key, standard.ike), port(natt_key, standard.natt));
        if let Some(number) = ike.filter(|_| ike == natt) {
            report.error(
                &spot,
                format!("{keys} are both port {number}"),
                "two different ports, by default 500 and 4500",
            );
        }
        PortPlan { ike: ike.unwrap_or(standard.ike), natt: natt.unwrap_or(standard.natt) }
    };
    let local = pair("ike", "natt", "ike and natt");
    let remote = pair("peer_ike", "peer_natt", "peer_ike and peer_natt");
    table.finish();
    (local, remote)
}

pub fn read_routes(table: Option<Table<'_>>) -> RoutePlan {
    let defaults = RoutePlan {
        device: "trefoil0".to_string(),
        table: TABLE_DEFAULT,
        rule_priority: RULE_PRIORITY_DEFAULT,
        on_stop: OnStop::Block,
    };
    let Some(mut table) = table else { return defaults };
    let device = table.value("device").and_then(|value| value.parse(words::interface));
    let number = table.value("table").and_then(|value| routing_table(&value));
    let rule_priority = table.value("rule_priority").and_then(|value| value.number(1..=RULE_PRIORITY_MAX, ""));
    let on_stop = table.value("on_stop").and_then(|value| value.parse(on_stop));
    table.finish();
    RoutePlan {
        device: device.unwrap_or(defaults.device),
        table: number.unwrap_or(defaults.table),
        rule_priority: rule_priority.unwrap_or(defaults.rule_priority),
        on_stop: on_stop.unwrap_or(defaults.on_stop),
    }
}

/// How packets are carried: by one thread for each core, and by the fastest ciphers, unless the
/// file says otherwise.
pub fn read_dataplane(table: Option<Table<'_>>) -> DataplanePlan {
    let Some(mut table) = table else {
        return DataplanePlan { workers: one_a_core(), pinned: false, aead_backend: None, flow_limit: FLOWS_DEFAULT };
    };
    let workers = table.value("workers").and_then(|value| value.number::<u16>(1..=i64::from(MAX_WORKERS), ""));
    let aead_backend = table.value("aead_backend").and_then(|value| value.parse(aead_backend)).flatten();
    let pinned = table.value("pinned").and_then(|value| value.boolean()).unwrap_or(false);
    let flow_limit = table.value("flow_limit").and_then(|value| value.number(FLOW_LIMIT, "flows"));
    table.finish();
    let workers = workers.and_then(NonZeroU16::new).unwrap_or_else(one_a_core);
    DataplanePlan { workers, pinned, aead_backend, flow_limit: flow_limit.unwrap_or(FLOWS_DEFAULT) }
}

/// `None` is "auto".
fn aead_backend(text: &str) -> Result<Option<Backend>, Complaint> {
    match Backend::from_name(text) {
        None if text != AUTO => Err(Complaint {
            what: format!("unknown AEAD backend {}", wording::quoted(text)),
            instead: wording::known([AUTO].into_iter().chain(Backend::ALL.map(Backend::name))),
        }),
        backend => Ok(backend),
    }
}

fn one_a_core() -> NonZeroU16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Between 1 and 64.
    NonZeroU16::new(cores.clamp(1, usize::from(MAX_WORKERS)) as u16).unwrap_or(NonZeroU16::MIN)
}

/// The path of the control socket; a relative one starts at the site file's folder.
pub fn read_control(table: Option<Table<'_>>, folder: &Path) -> PathBuf {
    let socket = table.and_then(|mut table| {
        let socket = table.value("socket").and_then(|value| {
            let path = folder.join(value.text()?);
            let length = path.as_os_str().len();
            let wrong = if path.as_os_str().as_encoded_bytes().contains(&0) {
                "with a NUL byte".to_string()
            } else if length > SOCKET_PATH_MAX || value.is_text("") {
                format!("of {length} bytes")
            } else {
                return Some(path);
            };
            value.error(
                format!("a socket path {wrong}"),
                format!("1 to {SOCKET_PATH_MAX} bytes, such as \"{SOCKET_DEFAULT}\""),
            );
            None
        });
        table.finish();
        socket
    });
    socket.unwrap_or_else(|| PathBuf::from(SOCKET_DEFAULT))
}

/// What a site file says of the flight recorder.
pub struct RecordingDraft {
    enabled: bool,
    directory: Option<PathBuf>,
    bytes: u64,
    age: Duration,
}

impl RecordingDraft {
    pub fn plan(self, site: &str) -> Option<RecordingPlan> {
        let directory = self.directory.unwrap_or_else(|| Path::new(RECORDING_FOLDER).join(site).join("recording"));
        self.enabled.then_some(RecordingPlan { directory, bytes: self.bytes, age: self.age })
    }
}

/// A relative directory starts at the site file's folder.
pub fn read_recording(table: Option<Table<'_>>, folder: &Path) -> RecordingDraft {
    let mut draft =
        RecordingDraft { enabled: true, directory: None, bytes: RECORDING_MB * 1_000_000, age: RECORDING_AGE };
    let Some(mut table) = table else { return draft };
    draft.enabled = table.value("enabled").and_then(|value| value.boolean()).unwrap_or(true);
    draft.directory = table.value("directory").and_then(|value| {
        let text = value.text()?;
        let wrong = text.is_empty() || text.contains('\0');
        if wrong {
            value.error("a directory without a name", "such as \"/var/lib/trefoil/recording\"");
        }
        (!wrong).then(|| folder.join(text))
    });
    let most = table.value("max_mb").and_then(|value| value.number::<u64>(1..=1_000_000, "MB"));
    draft.bytes = most.map_or(draft.bytes, |megabytes| megabytes.saturating_mul(1_000_000));
    draft.age = table.value("max_age").and_then(|value| value.duration(RECORDING_AGES)).unwrap_or(draft.age);
    table.finish();
    draft
}

/// Whose DNS answers are believed: none named, whoever a host asks.
pub fn read_resolvers(table: Option<Table<'_>>) -> Vec<IpNet> {
    let Some(mut table) = table else { return Vec::new() };
    let resolvers = table.value("resolvers").map_or_else(Vec::new, |value| {
        if value.is_empty_list() {
            value.error("resolvers is empty", "at least one address or network, or no resolvers for any");
        }
        value.parse_items(RESOLVERS_MAX, words::network).into_iter().map(|at| at.value).collect()
    });
    table.finish();
    resolvers
}

/// The routes of a site that says nothing of them.
pub fn default_routes() -> RoutePlan {
    read_routes(None)
}

fn routing_table(value: &Value<'_>) -> Option<u32> {
    let number: u32 = value.number(1..=i64::from(u32::MAX), "")?;
    if SYSTEM_TABLES.contains(&number) {
        value.error(format!("routing table {number} is the system's"), "a table of its own, such as 221");
        return None;
    }
    Some(number)
}

fn on_stop(text: &str) -> Result<OnStop, Complaint> {
    match text {
        "block" => Ok(OnStop::Block),
        "release" => Ok(OnStop::Release),
        _ => Err(Complaint {
            what: format!("unknown on_stop {}", wording::quoted(text)),
            instead: wording::known(["block", "release"]),
        }),
    }
}
