mod wan_runtime;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use ipnet::IpNet;

use self::wan_runtime::WanRuntime;
use crate::edge::ResolveFailure;
use crate::model::UnderlayId;

/// Addresses of one name that are looked at; a PoP has a few.
const ANSWER_LIMIT: usize = 32;

/// Name servers that are named when none answers: resolv.conf(5) takes three.
const SERVERS_TOLD: usize = 3;

/// How long one query waits for its answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Where names become addresses: the system's name servers, or a table in memory.
#[derive(Clone)]
pub enum Names {
    System,
    Static(StaticNames),
}

/// The WAN link that will use an answer. The query leaves over the same link, so that a PoP
/// chosen by the asker's place is right for that link.
#[derive(Clone, Debug)]
pub struct Asker {
    pub underlay: UnderlayId,
    /// The link's IPv4 address.
    pub source: Option<Ipv4Addr>,
    pub interface: Option<String>,
    /// The mark that keeps packets out of the tunnels.
    pub fwmark: Option<u32>,
    /// Networks that are not behind the link: the LAN's, and those behind the tunnels.
    pub inside: Arc<[IpNet]>,
}

impl Names {
    /// The IPv4 addresses of a name, in the order of the answer.
    pub async fn resolve(&self, name: &str, asker: Asker) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
        match self {
            Names::System => NameServers::of_system().map_err(unavailable)?.ask(name, asker).await,
            Names::Static(names) => names.answer(name, asker.underlay),
        }
    }
}

/// Whom to ask, and how patiently.
struct NameServers {
    config: ResolverConfig,
    options: ResolverOpts,
    /// Of one query; two are made to each name server.
    timeout: Duration,
}

impl NameServers {
    /// Read anew each time: DHCP may have changed it.
    fn of_system() -> Result<NameServers, NetError> {
        let (config, options) = hickory_resolver::system_conf::read_system_conf()?;
        Ok(NameServers { config, options, timeout: QUERY_TIMEOUT })
    }

    async fn ask(mut self, name: &str, asker: Asker) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
        let asked = self.asked();
        let unanswered = |error: NetError| ResolveFailure::Unavailable(format!("{error} ({asked})"));
        self.options.timeout = self.timeout;
        self.options.attempts = 2;
        // Every attempt shall see the present answer.
        self.options.cache_size = 0;
        let mut builder = Resolver::builder_with_config(self.config, WanRuntime::new(asker));
        *builder.options_mut() = self.options;
        let resolver = builder.build().map_err(unavailable)?;
        // A trailing dot keeps the search list out: a PoP's name is complete.
        let full = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
        let answer = match resolver.lookup(full.as_str(), RecordType::A).await {
            Ok(answer) => answer,
            Err(error) if error.is_nx_domain() => return Err(ResolveFailure::NoSuchName),
            Err(error) if is_without_records(&error) => {
                return Err(match resolver.lookup(full.as_str(), RecordType::AAAA).await {
                    Ok(_) => ResolveFailure::OnlyIpv6,
                    Err(_) => ResolveFailure::Unavailable("the name exists, but has no address".to_owned()),
                });
            }
            Err(error) => return Err(unanswered(error)),
        };
        let addresses = answer.answers().iter().filter_map(|record| match record.data {
            RData::A(address) => Some(Ipv4Addr::from(address)),
            _ => None,
        });
        let usable: Vec<Ipv4Addr> = addresses.filter(|address| is_usable(*address)).take(ANSWER_LIMIT).collect();
        if usable.is_empty() {
            return Err(ResolveFailure::Unavailable("the answer has no usable IPv4 address".to_owned()));
        }
        Ok(usable)
    }

    /// Whom it asks, for people.
    fn asked(&self) -> String {
        let servers = self.config.name_servers().iter().map(|server| server.ip.to_string());
        match servers.take(SERVERS_TOLD).collect::<Vec<_>>() {
            none if none.is_empty() => "no name server is configured".to_owned(),
            servers => format!("asked {}", servers.join(", ")),
        }
    }
}

fn unavailable(error: NetError) -> ResolveFailure {
    ResolveFailure::Unavailable(error.to_string())
}

/// The name exists, without what was asked for; a server that failed also answers without records.
fn is_without_records(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError)
}

/// A hostile or broken answer must not make us talk to ourselves or to everybody: not
/// 0.0.0.0/8, loopback, multicast, nor 240.0.0.0/4 with the broadcast address (RFC 6890 2.2.2).
fn is_usable(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// Names in memory, with answers that can differ by underlay and change at run time.
#[derive(Clone, Default)]
pub struct StaticNames(Arc<Mutex<AnswerTable>>);

type AnswerTable = BTreeMap<(String, UnderlayId), Vec<Ipv4Addr>>;

impl StaticNames {
    pub fn set(&self, name: &str, underlay: UnderlayId, addresses: Vec<Ipv4Addr>) {
        let mut names = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        names.insert((name.to_owned(), underlay), addresses);
    }

    fn answer(&self, name: &str, underlay: UnderlayId) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
        let names = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        names.get(&(name.to_owned(), underlay)).cloned().ok_or(ResolveFailure::NoSuchName)
    }
}
