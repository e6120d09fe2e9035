use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::edge::ResolveFailure;
use crate::model::UnderlayId;

/// Addresses of one name that are looked at; a PoP has a few.
const ANSWER_LIMIT: usize = 32;

/// One query; two are made to each name server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Where names become addresses: the system's name servers, or a table in memory.
#[derive(Clone)]
pub enum Names {
    System,
    Static(StaticNames),
}

impl Names {
    /// The IPv4 addresses of a name, in the order of the answer. `source` is the address of the
    /// WAN link that will use it: the query leaves over the same link, so that a PoP chosen by
    /// the asker's place is right for that link.
    pub async fn resolve(
        &self,
        name: &str,
        underlay: UnderlayId,
        source: Option<Ipv4Addr>,
    ) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
        match self {
            Names::System => ask_system(name, source).await,
            Names::Static(names) => names.answer(name, underlay),
        }
    }
}

/// Reads the system's configuration anew each time: DHCP may have changed it, and no answer is
/// taken from a cache, since every attempt shall see the present one.
async fn ask_system(name: &str, source: Option<Ipv4Addr>) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
    let unavailable = |error: NetError| ResolveFailure::Unavailable(error.to_string());
    let (mut config, mut options) = hickory_resolver::system_conf::read_system_conf().map_err(unavailable)?;
    options.ip_strategy = LookupIpStrategy::Ipv4Only;
    options.cache_size = 0;
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 2;
    if let Some(source) = source {
        config = bound_to(config, source);
    }
    let mut builder = TokioResolver::builder_with_config(config, Default::default());
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(unavailable)?;
    // A trailing dot keeps the search list out: a PoP's name is complete.
    let full = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
    match resolver.lookup(full.as_str(), RecordType::A).await {
        Ok(answer) => {
            let addresses: Vec<Ipv4Addr> = answer
                .answers()
                .iter()
                .filter_map(|record| match record.data {
                    RData::A(address) => Some(Ipv4Addr::from(address)),
                    _ => None,
                })
                .filter(|address| is_usable(*address))
                .take(ANSWER_LIMIT)
                .collect();
            if addresses.is_empty() {
                return Err(ResolveFailure::Unavailable("the answer has no usable IPv4 address".to_owned()));
            }
            Ok(addresses)
        }
        Err(error) if error.is_nx_domain() => Err(ResolveFailure::NoSuchName),
        Err(error) if error.is_no_records_found() => match resolver.lookup(full.as_str(), RecordType::AAAA).await {
            Ok(_) => Err(ResolveFailure::OnlyIpv6),
            Err(_) => Err(ResolveFailure::Unavailable("the name exists, but has no address".to_owned())),
        },
        Err(error) => Err(unavailable(error)),
    }
}

/// A name server on loopback is asked from loopback.
fn bound_to(
    config: hickory_resolver::config::ResolverConfig,
    source: Ipv4Addr,
) -> hickory_resolver::config::ResolverConfig {
    let (domain, search, mut servers) = config.into_parts();
    for server in &mut servers {
        if matches!(server.ip, IpAddr::V4(address) if !address.is_loopback()) {
            for connection in &mut server.connections {
                connection.bind_addr = Some(SocketAddr::new(IpAddr::V4(source), 0));
            }
        }
    }
    hickory_resolver::config::ResolverConfig::from_parts(domain, search, servers)
}

/// A hostile or broken answer must not make us talk to ourselves or to everybody.
fn is_usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
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
