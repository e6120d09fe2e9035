//! Whether anything can come of a rule whose flows are to leave outside of the tunnels.

use ipnet::IpNet;

use crate::config::diagnostic::Report;
use crate::config::source::Spot;
use crate::model::{ConnectorId, protocol};
use crate::steer::{Action, Matcher, Rule, Service};

/// Destinations that are named where no range has them.
const NETWORKS_SHOWN: usize = 4;

/// What leads flows of a site to its rules: the network ranges of each connector, by `ConnectorId`. A connector
/// without any carries everything.
#[derive(Clone, Default)]
pub struct Ranges(Vec<Vec<IpNet>>);

impl Ranges {
    pub fn new(of_connectors: impl Iterator<Item = Vec<IpNet>>) -> Ranges {
        Ranges(of_connectors.collect())
    }

    /// Warns of what can never break out by this rule. `ranges` is `None` where no site is known.
    pub fn check_breakout(ranges: Option<&Ranges>, rule: &Rule, spot: &Spot, report: &Report) {
        let Action::BreakOut(_) = rule.action else { return };
        if is_only_ipv6(&rule.matcher) {
            let what = "IPv6 never breaks out: all flows of this rule are refused";
            return report.warn(spot, what, "IPv4 networks; to refuse them, mode = \"drop\"");
        }
        let Some(ranges) = ranges else { return };
        let lost: Vec<String> = destinations(&rule.matcher)
            .filter(|network| network.addr().is_ipv4() && !ranges.lead_into(network, &rule.matcher.connectors))
            .map(ToString::to_string)
            .collect();
        let more = match lost.len().saturating_sub(NETWORKS_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !lost.is_empty() {
            let shown = lost.get(..NETWORKS_SHOWN).unwrap_or(&lost).join(", ");
            report.warn(
                spot,
                format!("no flow to {shown}{more} comes to this rule: no network range of the connectors is there"),
                "network_ranges that cover what is to break out; what none covers leaves as the host routes it",
            );
        }
    }

    /// Whether some flow to this network comes to one of the connectors; none named: of all.
    fn lead_into(&self, network: &IpNet, connectors: &[ConnectorId]) -> bool {
        let named = |index: usize| connectors.is_empty() || connectors.iter().any(|one| usize::from(one.0) == index);
        let meets = |range: &IpNet| range.contains(network) || network.contains(range);
        let of_named = self.0.iter().enumerate().filter(|(index, _)| named(*index));
        of_named.map(|(_, ranges)| ranges).any(|ranges| ranges.is_empty() || ranges.iter().any(meets))
    }
}

/// As the rule says, and each service of an application.
fn destinations(matcher: &Matcher) -> impl Iterator<Item = &IpNet> {
    matcher.destinations.iter().chain(matcher.services.iter().flat_map(|service| &service.destinations))
}

fn is_only_ipv6(matcher: &Matcher) -> bool {
    let all_ipv6 = |networks: &[IpNet]| !networks.is_empty() && networks.iter().all(|one| one.addr().is_ipv6());
    let of_ipv6 = |service: &Service| all_ipv6(&service.destinations);
    all_ipv6(&matcher.sources)
        || all_ipv6(&matcher.destinations)
        || matcher.protocols == [protocol::ICMPV6]
        || !matcher.services.is_empty() && matcher.services.iter().all(of_ipv6)
}
