mod breakout;
mod claim;
mod rule;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion, LinkUnspec, RouteMessageBuilder};
use socket2::{Domain, Socket, Type};

pub use self::breakout::{BreakoutNeed, BreakoutRoutes};
pub use self::claim::Claim;
use self::rule::{OUR_PROTOCOL, Rule};
pub use self::watch::RouteWatch;
use crate::edge::{OnStop, RoutePlan};

/// The kernel's main routing table.
pub(super) const MAIN: u32 = 254;

/// Our own rules stand at this many priorities, from `RoutePlan::rule_priority` on.
const RULE_PRIORITIES: u32 = 6;

/// The metric of the blackholes: the worst there is, so that any other route wins.
const BLACKHOLE_METRIC: u32 = u32::MAX;

/// Routes that lead a site's traffic into the tunnels, and rules that keep everything else out:
///
/// | priority | rule | why |
/// | --- | --- | --- |
/// | P | our mark: main table | the tunnels' own packets |
/// | P+1 | from a WAN link's address: main table | name look-ups, management over the WAN |
/// | P+3 | our table, without its default route | the network ranges |
/// | P+4 | main table, without its default route | networks that the host knows by itself |
/// | P+5 | our table | everything else, when the connector has no network ranges |
///
/// A native range is a route of our table that sends the packet on to the next rule, so that of ranges within
/// each other the longest decides. Priority P+2 is for breakouts.
///
/// Each network range also has a blackhole, so that without the device packets are dropped and never
/// leave in clear. What is there already is never taken away before what replaces it stands, so
/// that a restart has no gap either. See docs/routing.md.
pub struct Routes {
    handle: Handle,
    plan: RoutePlan,
}

/// What to lead where.
#[derive(Clone, Copy)]
pub struct RouteNeeds<'a> {
    pub device_index: u32,
    pub mtu: u16,
    /// Empty: everything.
    pub ranges: &'a [IpNet],
    /// Those to which packets must be smaller than the device's, with their MTU.
    pub narrow: &'a [(IpNet, u16)],
    pub native: &'a [IpNet],
    pub underlay_addresses: &'a [Ipv4Addr],
}

impl Routes {
    /// The mark of the tunnels' own packets: the number of the routing table.
    pub fn mark(plan: &RoutePlan) -> u32 {
        plan.table
    }

    /// Needs a tokio runtime.
    pub fn open(plan: &RoutePlan) -> io::Result<Routes> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Routes { handle, plan: plan.clone() })
    }

    /// Brings the device up and leads the traffic into it; takes over what an earlier run left.
    pub async fn install(&self, needs: &RouteNeeds<'_>) -> io::Result<()> {
        // No address of its own, so no neighbour discovery either: nobody is there to answer it.
        let addresses = format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", self.plan.device);
        if Path::new(&addresses).exists()
            && let Err(error) = std::fs::write(&addresses, "1")
        {
            tracing::debug!(file = addresses, %error, "the kernel will speak IPv6 of its own on the tunnel device");
        }
        let link = LinkUnspec::new_with_index(needs.device_index).mtu(u32::from(needs.mtu)).up().build();
        self.handle.link().set(link).execute().await.map_err(to_io)?;
        // Replies may arrive by this device while the way out is another: loose, not strict.
        let reverse_path = format!("/proc/sys/net/ipv4/conf/{}/rp_filter", self.plan.device);
        if let Err(error) = std::fs::write(&reverse_path, "2") {
            tracing::warn!(file = reverse_path, %error, "cannot set the reverse-path filter to loose");
        }
        for family in Family::present() {
            self.install_family(family, needs).await?;
        }
        Ok(())
    }

    async fn install_family(&self, family: Family, needs: &RouteNeeds<'_>) -> io::Result<()> {
        if family == Family::V6 && !self.device_has_ipv6() {
            tracing::warn!(device = self.plan.device, "IPv6 is off on the tunnel device: its IPv6 traffic is dropped");
        }
        let (routes, rules) = (self.routes_for(family, needs), self.rules_for(family, needs));
        self.refuse_to_replace(family, &routes).await?;
        for (range, lead) in &routes {
            self.put_route(*range, *lead, needs).await?;
        }
        for rule in &rules {
            self.put_rule(family, rule).await?;
        }
        self.remove_rules(family, |rule| !rules.contains(rule)).await?;
        self.remove_routes(family, |route| !routes.iter().any(|(range, lead)| lead.is(*range, route))).await?;
        self.report_strangers(family).await
    }

    /// Puts back what somebody has taken away since `install`; tells how much that was. What cannot be put back keeps
    /// nothing else from it: without a route into the device, its range is closed all the same.
    pub async fn restore(&self, needs: &RouteNeeds<'_>) -> io::Result<usize> {
        let mut restored = 0;
        let mut outcome = Ok(());
        for family in Family::present() {
            let standing = self.standing_routes(family).await?;
            for (range, lead) in self.routes_for(family, needs) {
                if !standing.iter().any(|route| lead.is(range, route)) {
                    let put = self.put_route(range, lead, needs).await;
                    restored += usize::from(put.is_ok());
                    outcome = outcome.and(put);
                }
            }
            let standing: Vec<Rule> = self.standing_rules(family).await?.iter().map(Rule::read).collect();
            for rule in self.rules_for(family, needs).iter().filter(|rule| !standing.contains(rule)) {
                let put = self.put_rule(family, rule).await;
                restored += usize::from(put.is_ok());
                outcome = outcome.and(put);
            }
        }
        outcome.map(|()| restored)
    }

    /// Not so below 1,280 bytes of MTU, or where the host switched it off; other devices may have
    /// it all the same.
    fn device_has_ipv6(&self) -> bool {
        let switch = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.plan.device);
        std::fs::read_to_string(switch).is_ok_and(|value| value.trim() == "0")
    }

    /// A blackhole comes before the way into the device, and what keeps traffic out of the tunnels first of all.
    fn routes_for(&self, family: Family, needs: &RouteNeeds<'_>) -> Vec<(IpNet, Lead)> {
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let ranges = if needs.ranges.is_empty() { &everything[..] } else { needs.ranges };
        let mut leads = vec![Lead::Blackhole];
        if family == Family::V4 || self.device_has_ipv6() {
            leads.push(Lead::Device(needs.device_index));
        }
        let of_family = ranges.iter().filter(|range| family.has(range));
        let led = of_family.flat_map(|range| leads.iter().map(|lead| (range.trunc(), *lead)));
        let native = needs.native.iter().filter(|network| family.has(network));
        native.map(|network| (network.trunc(), Lead::Onward)).chain(led).collect()
    }

    /// Those that keep traffic out of the tunnels come first.
    fn rules_for(&self, family: Family, needs: &RouteNeeds<'_>) -> Vec<Rule> {
        let (first, table) = (self.plan.rule_priority, self.plan.table);
        let mut rules = vec![Rule::new(first, MAIN).with_mark(Routes::mark(&self.plan))];
        if family == Family::V4 {
            rules.extend(self.rules_from(needs.underlay_addresses));
        }
        rules.push(Rule::new(first + 3, table).without_default_route());
        rules.push(Rule::new(first + 4, MAIN).without_default_route());
        rules.push(Rule::new(first + 5, table));
        rules
    }

    fn rules_from(&self, underlay_addresses: &[Ipv4Addr]) -> impl Iterator<Item = Rule> {
        let priority = self.plan.rule_priority + 1;
        underlay_addresses.iter().map(move |address| Rule::new(priority, MAIN).from(IpAddr::V4(*address).into()))
    }

    /// Follows the WAN links' addresses after `install`.
    pub async fn set_underlay_addresses(&self, addresses: &[Ipv4Addr]) -> io::Result<()> {
        let rules: Vec<Rule> = self.rules_from(addresses).collect();
        for rule in &rules {
            self.put_rule(Family::V4, rule).await?;
        }
        let priority = self.plan.rule_priority + 1;
        self.remove_rules(Family::V4, |rule| rule.priority == priority && !rules.contains(rule)).await
    }

    /// Removes what `install` made. With `OnStop::Block` the rules and blackholes stay; the
    /// device's routes go with the device.
    pub async fn remove(&self) -> io::Result<()> {
        self.remove_breakouts().await?;
        match self.plan.on_stop {
            OnStop::Block => Ok(()),
            OnStop::Release => {
                for family in Family::present() {
                    self.remove_rules(family, |_| true).await?;
                    self.remove_routes(family, |_| true).await?;
                }
                Ok(())
            }
        }
    }

    async fn put_route(&self, range: IpNet, lead: Lead, needs: &RouteNeeds<'_>) -> io::Result<()> {
        let narrow = needs.narrow.iter().filter(|(narrow, _)| narrow.trunc() == range);
        let mtu = narrow.map(|(_, mtu)| *mtu).min();
        let mut message = match range {
            IpNet::V4(network) => lead.apply(
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network.network(), network.prefix_len()),
                self.plan.table,
            ),
            IpNet::V6(network) => lead.apply(
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(network.network(), network.prefix_len()),
                self.plan.table,
            ),
        };
        if let Some(mtu) = mtu.filter(|_| matches!(lead, Lead::Device(_))) {
            message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu.into())]));
        }
        self.handle.route().add(message).replace().execute().await.map_err(to_io)
    }

    /// A rule that stands already may stay: the kernel has no replacing of rules.
    async fn put_rule(&self, family: Family, rule: &Rule) -> io::Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message(family.address_family());
        match request.execute().await.map_err(to_io) {
            Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes rules of ours.
    async fn remove_rules(&self, family: Family, is_stale: impl Fn(&Rule) -> bool) -> io::Result<()> {
        let mut standing = self.standing_rules(family).await?;
        let mut index = 0;
        while let Some(message) = standing.get(index) {
            let rule = Rule::read(message);
            if !Rule::is_ours(message) || !is_stale(&rule) {
                index += 1;
            } else if standing.iter().position(|other| rule.would_delete(&Rule::read(other))) < Some(index) {
                tracing::warn!(?rule, "a rule of ours cannot be removed without another that stands before it");
                index += 1;
            } else {
                self.handle.rule().del(standing.remove(index)).execute().await.map_err(to_io)?;
            }
        }
        Ok(())
    }

    /// Removes routes of ours.
    async fn remove_routes(&self, family: Family, is_stale: impl Fn(&RouteMessage) -> bool) -> io::Result<()> {
        for route in self.standing_routes(family).await? {
            if route.header.protocol == OUR_PROTOCOL && is_stale(&route) {
                self.handle.route().del(route).execute().await.map_err(to_io)?;
            }
        }
        Ok(())
    }

    /// The kernel would take a route of somebody else away for ours where both have one destination
    /// and metric; and left alone it would lead the range past the tunnels.
    async fn refuse_to_replace(&self, family: Family, routes: &[(IpNet, Lead)]) -> io::Result<()> {
        let standing = self.standing_routes(family).await?;
        let theirs = |route: &&RouteMessage| route.header.protocol != OUR_PROTOCOL;
        let in_place_of_ours = |route: &RouteMessage| {
            let (destination, metric) = (destination(route), metric(route));
            routes.iter().any(|(range, lead)| destination == Some(*range) && metric == lead.metric(family))
        };
        match standing.iter().filter(theirs).find(|route| in_place_of_ours(route)).and_then(destination) {
            Some(range) => Err(io::Error::other(format!(
                "in table {} stands a route of somebody else to {range}, where ours must stand: remove it, or choose \
                 another routes.table",
                self.plan.table
            ))),
            None => Ok(()),
        }
    }

    /// What others have put where we rule is theirs to remove, but it may lead traffic past us.
    async fn report_strangers(&self, family: Family) -> io::Result<()> {
        for rule in self.standing_rules(family).await?.iter().filter(|message| !Rule::is_ours(message)) {
            tracing::warn!(
                rule = ?Rule::read(rule),
                "a rule of somebody else stands among ours and is left alone: traffic may go another way \
                 (routes.rule_priority moves ours)"
            );
        }
        for route in self.standing_routes(family).await?.iter().filter(|route| route.header.protocol != OUR_PROTOCOL) {
            tracing::warn!(
                destination = ?destination(route),
                table = self.plan.table,
                "a route of somebody else stands in our table and is left alone (routes.table takes another)"
            );
        }
        Ok(())
    }

    /// All rules at our priorities, in the kernel's order.
    async fn standing_rules(&self, family: Family) -> io::Result<Vec<RuleMessage>> {
        let priorities = self.plan.rule_priority..self.plan.rule_priority + RULE_PRIORITIES;
        let rules = self.handle.rule().get(family.version()).execute();
        let at_ours = rules.try_filter(|message| {
            let ours = priorities.contains(&Rule::read(message).priority);
            async move { ours }
        });
        at_ours.try_collect().await.map_err(to_io)
    }

    /// All routes in our table.
    async fn standing_routes(&self, family: Family) -> io::Result<Vec<RouteMessage>> {
        let routes: Vec<RouteMessage> =
            self.handle.route().get(family.all_routes()).execute().try_collect().await.map_err(to_io)?;
        let in_ours = |route: &RouteMessage| table(route) == self.plan.table;
        Ok(routes.into_iter().filter(in_ours).collect())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Those of this kernel; where there is no IPv6, there is none to lead.
    pub(in crate::net) fn present() -> Vec<Family> {
        // Asked in two ways: a sandbox may refuse such a socket to us, and not to others.
        let has_v6 = Path::new("/proc/net/if_inet6").exists() || Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok();
        if has_v6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
    }

    /// What asks the kernel for all of them.
    pub(in crate::net) fn all_routes(self) -> RouteMessage {
        match self {
            Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        }
    }

    fn has(self, network: &IpNet) -> bool {
        match network {
            IpNet::V4(_) => self == Family::V4,
            IpNet::V6(_) => self == Family::V6,
        }
    }

    fn version(self) -> IpVersion {
        match self {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        }
    }

    fn address_family(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }
}

#[derive(Clone, Copy)]
enum Lead {
    Device(u32),
    Blackhole,
    /// To whatever the rules behind the one that looked here say.
    Onward,
}

impl Lead {
    fn apply<T>(self, builder: RouteMessageBuilder<T>, table: u32) -> RouteMessage {
        let builder = builder.table_id(table).protocol(OUR_PROTOCOL);
        match self {
            Lead::Device(index) => builder.output_interface(index).build(),
            Lead::Blackhole => builder.kind(RouteType::BlackHole).priority(BLACKHOLE_METRIC).build(),
            Lead::Onward => builder.kind(RouteType::Throw).build(),
        }
    }

    /// As the kernel lists it: by default 0 in IPv4, and 1,024 in IPv6.
    fn metric(self, family: Family) -> u32 {
        match (self, family) {
            (Lead::Device(_) | Lead::Onward, Family::V4) => 0,
            (Lead::Device(_) | Lead::Onward, Family::V6) => 1_024,
            (Lead::Blackhole, _) => BLACKHOLE_METRIC,
        }
    }

    /// Whether this route leads so.
    fn is(self, range: IpNet, route: &RouteMessage) -> bool {
        let leads = match self {
            Lead::Device(index) => {
                route.header.kind == RouteType::Unicast && route.attributes.contains(&RouteAttribute::Oif(index))
            }
            Lead::Blackhole => route.header.kind == RouteType::BlackHole,
            Lead::Onward => route.header.kind == RouteType::Throw,
        };
        leads && destination(route) == Some(range)
    }
}

/// The number of the table that a route stands in.
pub(super) fn table(route: &RouteMessage) -> u32 {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(u32::from(route.header.table))
}

pub(super) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let everywhere = match route.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new(address.unwrap_or(everywhere), route.header.destination_prefix_length).ok()
}

pub(super) fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

pub(super) fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
