use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, LinkUnspec, RouteMessageBuilder};

use crate::edge::{OnStop, RoutePlan};

/// The kernel's main routing table.
const MAIN: u32 = 254;

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
/// | P+2 | to a native range: main table | the LAN |
/// | P+3 | our table, without its default route | the network ranges |
/// | P+4 | main table, without its default route | networks that the host knows by itself |
/// | P+5 | our table | everything else, when the connector has no network ranges |
///
/// Each range also has a blackhole, so that without the device packets are dropped and never
/// leave in clear.
pub struct Routes {
    handle: Handle,
    plan: RoutePlan,
}

/// What to lead where.
pub struct RouteNeeds<'a> {
    pub device_index: u32,
    pub mtu: u16,
    /// Empty: everything.
    pub ranges: &'a [IpNet],
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

    /// Takes over what an earlier run left, brings the device up and leads the traffic into it.
    pub async fn install(&self, needs: &RouteNeeds<'_>) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(needs.device_index).mtu(u32::from(needs.mtu)).up().build();
        self.handle.link().set(link).execute().await.map_err(to_io)?;
        // Replies may arrive by this device while the way out is another: loose, not strict.
        let reverse_path = format!("/proc/sys/net/ipv4/conf/{}/rp_filter", self.plan.device);
        if let Err(error) = std::fs::write(&reverse_path, "2") {
            tracing::warn!(file = reverse_path, %error, "cannot set the reverse-path filter to loose");
        }
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let ranges = if needs.ranges.is_empty() { &everything[..] } else { needs.ranges };
        for family in [IpVersion::V4, IpVersion::V6] {
            match self.install_family(&family, needs, ranges).await {
                // A kernel or namespace without IPv6 has no IPv6 traffic to lead.
                Err(error) if matches!(family, IpVersion::V6) => {
                    tracing::warn!(%error, "no IPv6 routes installed");
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn install_family(&self, family: &IpVersion, needs: &RouteNeeds<'_>, ranges: &[IpNet]) -> io::Result<()> {
        let ours = |network: &&IpNet| matches!(network, IpNet::V4(_)) == matches!(family, IpVersion::V4);
        self.remove_routes(family).await?;
        for range in ranges.iter().filter(ours) {
            self.add_route(*range, Lead::Blackhole).await?;
            self.add_route(*range, Lead::Device(needs.device_index)).await?;
        }
        self.remove_rules(family).await?;
        let first = self.plan.rule_priority;
        let table = self.plan.table;
        self.add_rule(family, first, MAIN, |rule| {
            rule.attributes.push(RuleAttribute::FwMark(Routes::mark(&self.plan)));
        })
        .await?;
        if matches!(family, IpVersion::V4) {
            for address in needs.underlay_addresses {
                self.add_rule(family, first + 1, MAIN, |rule| {
                    rule.header.src_len = 32;
                    rule.attributes.push(RuleAttribute::Source(IpAddr::V4(*address)));
                })
                .await?;
            }
        }
        for native in needs.native.iter().filter(ours) {
            self.add_rule(family, first + 2, MAIN, |rule| {
                rule.header.dst_len = native.prefix_len();
                rule.attributes.push(RuleAttribute::Destination(native.network()));
            })
            .await?;
        }
        let without_default = |rule: &mut RuleMessage| rule.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        self.add_rule(family, first + 3, table, without_default).await?;
        self.add_rule(family, first + 4, MAIN, without_default).await?;
        self.add_rule(family, first + 5, table, |_| {}).await
    }

    /// Removes what `install` made. With `OnStop::Block` the rules and blackholes stay; the
    /// device's routes go with the device.
    pub async fn remove(&self) -> io::Result<()> {
        match self.plan.on_stop {
            OnStop::Block => Ok(()),
            OnStop::Release => {
                for family in [IpVersion::V4, IpVersion::V6] {
                    self.remove_rules(&family).await?;
                    self.remove_routes(&family).await?;
                }
                Ok(())
            }
        }
    }

    async fn add_route(&self, range: IpNet, lead: Lead) -> io::Result<()> {
        let message = match range {
            IpNet::V4(network) => lead.apply(
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network.network(), network.prefix_len()),
                self.plan.table,
            ),
            IpNet::V6(network) => lead.apply(
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(network.network(), network.prefix_len()),
                self.plan.table,
            ),
        };
        self.handle.route().add(message).replace().execute().await.map_err(to_io)
    }

    async fn add_rule(
        &self,
        family: &IpVersion,
        priority: u32,
        table: u32,
        shape: impl FnOnce(&mut RuleMessage),
    ) -> io::Result<()> {
        let request = self.handle.rule().add().table_id(table).priority(priority).action(RuleAction::ToTable);
        let outcome = match family {
            IpVersion::V4 => {
                let mut request = request.v4();
                shape(request.message_mut());
                request.execute().await
            }
            IpVersion::V6 => {
                let mut request = request.v6();
                shape(request.message_mut());
                request.execute().await
            }
        };
        outcome.map_err(to_io)
    }

    async fn remove_rules(&self, family: &IpVersion) -> io::Result<()> {
        let priorities = self.plan.rule_priority..self.plan.rule_priority + RULE_PRIORITIES;
        let rules: Vec<RuleMessage> =
            self.handle.rule().get(family.clone()).execute().try_collect().await.map_err(to_io)?;
        for rule in rules {
            let priority = rule.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Priority(priority) => Some(*priority),
                _ => None,
            });
            if priority.is_some_and(|priority| priorities.contains(&priority)) {
                self.handle.rule().del(rule).execute().await.map_err(to_io)?;
            }
        }
        Ok(())
    }

    async fn remove_routes(&self, family: &IpVersion) -> io::Result<()> {
        let filter = match family {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes: Vec<RouteMessage> = self.handle.route().get(filter).execute().try_collect().await.map_err(to_io)?;
        for route in routes {
            let table = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Table(table) => Some(*table),
                _ => None,
            });
            if table.unwrap_or(u32::from(route.header.table)) == self.plan.table {
                self.handle.route().del(route).execute().await.map_err(to_io)?;
            }
        }
        Ok(())
    }
}

enum Lead {
    Device(u32),
    Blackhole,
}

impl Lead {
    fn apply<T>(self, builder: RouteMessageBuilder<T>, table: u32) -> RouteMessage {
        let builder = builder.table_id(table);
        match self {
            Lead::Device(index) => builder.output_interface(index).build(),
            Lead::Blackhole => builder.kind(RouteType::BlackHole).priority(BLACKHOLE_METRIC).build(),
        }
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn ip(arguments: &str) -> String {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// In a network namespace of its own, which ends with the thread.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root to make a network namespace");
            return;
        }
        let outcome = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            test();
        })
        .join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    fn plan(on_stop: OnStop) -> RoutePlan {
        RoutePlan { device: "tf0".to_owned(), table: 7_117, rule_priority: 7_100, on_stop }
    }

    fn install_and_remove(on_stop: OnStop, ranges: &[&str], look: impl FnOnce()) {
        ip("link add tf0 type veth peer name tf1");
        let index = nix::net::if_::if_nametoindex("tf0").unwrap();
        let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let routes = Routes::open(&plan(on_stop)).unwrap();
            let needs = RouteNeeds {
                device_index: index,
                mtu: 1_400,
                ranges: &ranges,
                native: &["10.20.0.0/16".parse().unwrap()],
                underlay_addresses: &[Ipv4Addr::new(192, 0, 2, 7)],
            };
            routes.install(&needs).await.unwrap();
            // Taking over what is there already changes nothing.
            routes.install(&needs).await.unwrap();
            look();
            ip("link del tf0");
            routes.remove().await.unwrap();
        });
    }

    #[test]
    fn ranges_lead_into_the_device_and_own_traffic_stays_out() {
        in_namespace(|| {
            install_and_remove(OnStop::Block, &["10.90.0.0/16", "10.0.0.0/8"], || {
                let rules = ip("rule show");
                for expected in [
                    "7100:\tfrom all fwmark 0x1bcd lookup main",
                    "7101:\tfrom 192.0.2.7 lookup main",
                    "7102:\tfrom all to 10.20.0.0/16 lookup main",
                    "7103:\tfrom all lookup 7117 suppress_prefixlength 0",
                    "7104:\tfrom all lookup main suppress_prefixlength 0",
                    "7105:\tfrom all lookup 7117",
                ] {
                    assert_eq!(rules.matches(expected).count(), 1, "{expected} in\n{rules}");
                }
                assert!(ip("route get 10.90.1.1").contains("dev tf0"), "a range leads into the device");
                assert!(ip("link show tf0").contains("mtu 1400"));
            });
            let left = ip("route show table 7117");
            assert!(left.contains("blackhole 10.90.0.0/16"), "nothing may leak when the daemon stops: {left}");
            let unreachable = Command::new("ip").args(["route", "get", "10.90.1.1"]).output().unwrap();
            assert!(!unreachable.status.success());
        });
    }

    #[test]
    fn release_removes_everything_that_was_made() {
        in_namespace(|| {
            let before = (ip("rule show"), ip("route show table all"));
            install_and_remove(OnStop::Release, &[], || {
                assert!(ip("route get 203.0.113.5").contains("dev tf0"), "no ranges means everything");
            });
            assert_eq!((ip("rule show"), ip("route show table all")), before);
        });
    }
}
