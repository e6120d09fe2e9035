use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::source::At;
use super::table::{Table, Value};
use super::wording::{self, Complaint, complain};
use super::words;
use crate::edge::ProbePlan;
use crate::health::MAX_TARGETS;
use crate::probe::{Ask, Record, Target};

const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// Of a host or a path in an HTTP request, which so fits into one segment of 536 bytes.
const HTTP_TEXT_MAX: usize = 200;
const KINDS: [&str; 7] = ["icmp", "udp", "tcp", "http", "https", "tls", "dns"];
/// RFC 1035 4.1.1.
const RCODES: [(&str, u8); 6] =
    [("noerror", 0), ("formerr", 1), ("servfail", 2), ("nxdomain", 3), ("notimp", 4), ("refused", 5)];

/// `probes` as written, of a connector, a role or a tunnel: what one leaves out comes from the one around it.
#[derive(Clone, Default)]
pub struct Probes {
    pub targets: Option<Vec<At<Target>>>,
    pub need: Option<At<u8>>,
    pub interval: Option<Duration>,
}

impl Probes {
    /// A list of targets, or a table with them and how they are asked.
    pub fn read(table: &mut Table<'_>) -> Probes {
        match table.table_or_value("probes") {
            None => Probes::default(),
            Some(Err(value)) => Probes { targets: Some(targets(&value)), ..Probes::default() },
            Some(Ok(mut table)) => {
                let probes = Probes {
                    targets: table.value("targets").map(|value| targets(&value)),
                    need: table
                        .value("need")
                        .and_then(|value| Some(value.at(value.number(1..=MAX_TARGETS as i64, "targets")?))),
                    interval: table.value("interval").and_then(|value| value.duration(INTERVAL)),
                };
                table.finish();
                probes
            }
        }
    }

    /// These, with what they leave out taken from `around`.
    pub fn or(self, around: &Probes) -> Probes {
        Probes {
            targets: self.targets.or_else(|| around.targets.clone()),
            need: self.need.or_else(|| around.need.clone()),
            interval: self.interval.or(around.interval),
        }
    }

    pub fn targets(&self) -> &[At<Target>] {
        self.targets.as_deref().unwrap_or_default()
    }

    pub fn plan(&self) -> ProbePlan {
        ProbePlan {
            targets: self.targets().iter().map(|at| at.value.clone()).collect(),
            need: self.need.as_ref().map_or(1, |at| at.value),
            interval: self.interval,
        }
    }
}

fn targets(value: &Value<'_>) -> Vec<At<Target>> {
    let mut found: Vec<At<Target>> = Vec::new();
    for item in value.items(MAX_TARGETS) {
        let Some(target) = target(&item) else { continue };
        match found.iter().find(|earlier| earlier.value == target) {
            Some(earlier) => {
                item.error(format!("probe target {target} is already at {}", earlier.spot), "each target once")
            }
            None => found.push(item.at(target)),
        }
    }
    found
}

/// An address, which is sent ICMP echo requests, or a table that says what to ask.
fn target(value: &Value<'_>) -> Option<Target> {
    if !value.is_table() {
        return value.parse(words::host).map(Target::icmp);
    }
    let mut table = value.clone().into_table("probes")?;
    let kind = table.required("kind", "kind = \"tcp\"").and_then(|value| value.parse(kind));
    let address = table.required("address", "address = \"10.20.0.5\"").and_then(|value| value.parse(words::host));
    let Some(kind) = kind else {
        // Which keys there may be depends on the kind.
        return None;
    };
    let mut port = |usual: Option<u16>| {
        let range = 1..=i64::from(u16::MAX);
        match usual {
            Some(usual) => table.value("port").map_or(Some(usual), |value| value.number(range, "")),
            None => table.required("port", "port = 443")?.number(range, ""),
        }
    };
    let ask = match kind {
        "icmp" => Some(Ask::Icmp),
        "udp" => port(Some(7)).map(|port| Ask::Udp { port }),
        "tcp" => port(None).map(|port| Ask::Tcp { port }),
        "http" => port(Some(80)).and_then(|port| http(&mut table, port, address, false)),
        "https" => port(Some(443)).and_then(|port| http(&mut table, port, address, true)),
        "tls" => port(Some(443)).and_then(|port| {
            let name = table.value("name").map(|value| value.parse(words::fqdn));
            if matches!(name, Some(None)) { None } else { Some(Ask::Tls { port, name: name.flatten() }) }
        }),
        _ => port(Some(53)).and_then(|port| dns(&mut table, port)),
    };
    table.finish();
    Some(Target { address: address?, ask: ask? })
}

fn http(table: &mut Table<'_>, port: u16, address: Option<IpAddr>, secure: bool) -> Option<Ask> {
    let path = table.value("path").map_or(Some("/".to_owned()), |value| value.parse(path));
    let host = match table.value("host") {
        Some(value) => value.parse(host_header),
        None => address.map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }),
    };
    let status = table.value("status").map(|value| value.number::<u16>(100..=599, ""));
    if matches!(status, Some(None)) {
        return None;
    }
    Some(Ask::Http { port, host: host?, path: path?, status: status.flatten(), secure })
}

fn dns(table: &mut Table<'_>, port: u16) -> Option<Ask> {
    let name = table.required("name", "name = \"pop.example.net\"").and_then(|value| value.parse(query_name));
    let record = table.value("type").map_or(Some(Record::A), |value| value.parse(record));
    let rcode = table
        .value("rcode")
        .map(|value| if value.is_integer() { value.number::<u8>(0..=15, "") } else { value.parse(rcode) });
    if matches!(rcode, Some(None)) {
        return None;
    }
    Some(Ask::Dns { port, name: name?, record: record?, rcode: rcode.flatten() })
}

fn kind(text: &str) -> Result<&'static str, Complaint> {
    match KINDS.into_iter().find(|kind| *kind == text) {
        Some(kind) => Ok(kind),
        None => complain(format!("unknown kind of probe {}", wording::quoted(text)), wording::known(KINDS)),
    }
}

fn path(text: &str) -> Result<String, Complaint> {
    let clean = text.chars().all(|c| c.is_ascii_graphic());
    if clean && text.starts_with('/') && text.len() <= HTTP_TEXT_MAX {
        return Ok(text.to_owned());
    }
    complain(
        format!("{} is not a path of a URL", wording::quoted(text)),
        format!("/ and up to {} characters without blanks, such as \"/health\"", HTTP_TEXT_MAX - 1),
    )
}

fn host_header(text: &str) -> Result<String, Complaint> {
    let clean = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    if clean && (1..=HTTP_TEXT_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    complain(
        format!("{} is not the host of a URL", wording::quoted(text)),
        format!("a name or an address of up to {HTTP_TEXT_MAX} characters"),
    )
}

fn query_name(text: &str) -> Result<String, Complaint> {
    if text == "." { Ok(text.to_owned()) } else { words::fqdn(text) }
}

fn record(text: &str) -> Result<Record, Complaint> {
    let lower = text.to_ascii_lowercase();
    Record::ALL.into_iter().find(|record| record.name() == lower).ok_or_else(|| Complaint {
        what: format!("unknown type of DNS record {}", wording::quoted(text)),
        instead: wording::known(Record::ALL.map(Record::name)),
    })
}

fn rcode(text: &str) -> Result<u8, Complaint> {
    let lower = text.to_ascii_lowercase();
    RCODES.into_iter().find(|(name, _)| *name == lower).map(|(_, number)| number).ok_or_else(|| Complaint {
        what: format!("unknown DNS response code {}", wording::quoted(text)),
        instead: format!("{}, or 0 to 15", wording::known(RCODES.map(|(name, _)| name))),
    })
}
