//! What the kernel does with the packets that leave outside of the tunnels: for each link rules and a
//! table of its own with the link's default route and a blackhole, and one nftables table that gives
//! them the link's address and keeps them from every other interface. The rule asks for a mark that
//! only the nftables table sets: without it, nothing gets to the route.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteNextHopFlags, RouteType};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::rule::{OUR_PROTOCOL, Rule};
use super::{Family, Lead, MAIN, Routes, metric, table, to_io};
use crate::edge::{RoutePlan, UnderlayPlan};
use crate::model::LinkId;
use crate::net::breakout::device_name;
use crate::net::nft_watch::NftWatch;
use crate::net::{HostWatch, Interface};

/// Links that a site may have: so many tables are ours.
const LINKS_MAX: u32 = 256;

/// Beyond it `table * 1000` would not fit.
const TABLE_TIMES_1000: u32 = 4_000_000;

/// Beside the rule for the native ranges, before those that lead into the tunnels; those at the priority before are
/// followed by others.
const UNMARKED: u32 = 2;

/// IPv4's dummy address (RFC 7600): the kernel's reverse-path filter, loose or not, lets nothing in by a
/// device without an address.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Zones of connection tracking, one for each link: 256 for each daemon, by its routing table. The kernel has seen
/// the packets before, on their way into the tunnel device, and would not translate what it knows already.
const ZONES: u32 = 256;
/// Those of zone 0 are everybody's.
const BLOCKS_OF_ZONES: u32 = 255;

/// One link by which flows leave.
#[derive(Clone, Debug)]
pub struct BreakoutNeed {
    pub link: LinkId,
    pub underlay: UnderlayPlan,
}

/// Keeps in place what the kernel needs for it.
pub struct BreakoutRoutes {
    routes: Routes,
    host: HostWatch,
    /// `None`: a kernel that says nothing of nftables.
    nft: Option<NftWatch>,
    needs: Vec<BreakoutNeed>,
    /// As nftables was last told.
    ruleset: String,
    /// Interfaces whose reverse-path filter would drop the answers; told once.
    told_strict: Vec<String>,
}

/// Where a link's packets go.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Exit {
    link: LinkId,
    device: String,
    interface: String,
    index: u32,
    gateway: Option<Ipv4Addr>,
    on_link: bool,
    /// The link's own: several may share the interface. `None`: whichever the interface has.
    source: Option<Ipv4Addr>,
}

impl BreakoutRoutes {
    /// Needs a tokio runtime, and the devices.
    pub fn open(plan: &RoutePlan, needs: Vec<BreakoutNeed>) -> io::Result<BreakoutRoutes> {
        let (routes, host) = (Routes::open(plan)?, HostWatch::open()?);
        let nft = NftWatch::open().inspect_err(|error| tracing::debug!(%error, "nftables cannot be listened to")).ok();
        Ok(BreakoutRoutes { routes, host, nft, needs, ruleset: String::new(), told_strict: Vec::new() })
    }

    /// Returns when something of the host has changed.
    pub async fn changed(&mut self) {
        let BreakoutRoutes { host, nft, .. } = self;
        let removed = async {
            match nft {
                Some(nft) => nft.removed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = host.changed() => {}
            () = removed => {}
        }
    }

    /// Brings everything in line with what the host has now, and tells by which links packets can leave, and
    /// what went wrong: trouble with one link is none of the others. What could send a packet out
    /// untranslated comes after what translates it.
    pub async fn look(&mut self) -> (Vec<LinkId>, Option<io::Error>) {
        let (mut exits, mut trouble) = (Vec::new(), None);
        for need in &self.needs {
            match self.routes.exit_of(need).await {
                Ok(exit) => exits.extend(exit),
                Err(error) => trouble = Some(error),
            }
        }
        if let Err(error) = self.translate(&exits) {
            return (Vec::new(), Some(error));
        }
        let mut ready = Vec::new();
        for need in self.needs.clone() {
            let exit = exits.iter().find(|exit| exit.link == need.link);
            match (self.routes.lead(need.link, exit).await, exit) {
                (Ok(()), Some(exit)) => {
                    self.tell_if_strict(&exit.interface);
                    ready.push(need.link);
                }
                (Ok(()), None) => {}
                (Err(error), _) => trouble = Some(error),
            }
        }
        (ready, trouble)
    }

    /// Tells nftables, unless it knows: other programs may throw away all that it knows.
    fn translate(&mut self, exits: &[Exit]) -> io::Result<()> {
        let plan = &self.routes.plan;
        let wanted = ruleset(plan, &self.needs, exits);
        let name = nft_table(&plan.device);
        if wanted == self.ruleset && stands(&name) {
            return Ok(());
        }
        if !self.ruleset.is_empty() && wanted == self.ruleset {
            tracing::warn!(table = name, "somebody has removed our nftables table: no flow could break out; made anew");
        }
        nft(&wanted)?;
        self.ruleset = wanted;
        Ok(())
    }

    fn tell_if_strict(&mut self, interface: &str) {
        let filter = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?;
            text.trim().parse::<u8>().ok()
        };
        let is_strict = filter("all").max(filter(interface)) == Some(1);
        if is_strict && !self.told_strict.iter().any(|told| told == interface) {
            tracing::warn!(interface, "its reverse-path filter is strict: answers to flows that break out are dropped");
            self.told_strict.push(interface.to_owned());
        }
    }
}

impl Routes {
    /// `None` while the link's interface is not there, or has no carrier, or no default route.
    async fn exit_of(&self, need: &BreakoutNeed) -> io::Result<Option<Exit>> {
        let of_address = || Some(Interface::with_address(need.underlay.address?).ok()?.name);
        let Some(interface) = need.underlay.interface.clone().or_else(of_address) else { return Ok(None) };
        let Ok(index) = if_nametoindex(interface.as_str()) else { return Ok(None) };
        let carries = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let source = need.underlay.address;
        let is_usable = |entry: InterfaceAddress| {
            let address = entry.address.as_ref().and_then(|address| Some(address.as_sockaddr_in()?.ip()));
            entry.interface_name == interface
                && entry.flags.contains(carries)
                && (source.is_none() || source == address)
        };
        if !getifaddrs()?.any(is_usable) {
            return Ok(None);
        }
        let all = self.routes_of_v4().await?;
        let default = all.iter().filter(|route| table(route) == MAIN && route.header.destination_prefix_length == 0);
        let default = default.filter_map(|route| Some((metric(route), next_hop(route, index)?))).min();
        let device = device_name(&self.plan.device, need.link);
        let link = need.link;
        Ok(default.map(|(_, (gateway, on_link))| Exit { link, device, interface, index, gateway, on_link, source }))
    }

    /// The rules and the table of a link.
    async fn lead(&self, link: LinkId, exit: Option<&Exit>) -> io::Result<()> {
        let Routes { handle, plan } = self;
        let (device, number) = (device_name(&plan.device, link), table_of(plan, link));
        // What has no mark came past our nftables table, and would find its way into the tunnel device again.
        let unmarked = Rule::dropping(plan.rule_priority + UNMARKED);
        self.put_rule(Family::V4, &unmarked.arriving_by(&device)).await?;
        let everywhere = IpNet::V4(Ipv4Net::default());
        let blackhole = RouteMessageBuilder::<Ipv4Addr>::new();
        let blackhole = Lead::Blackhole.apply(blackhole, number);
        handle.route().add(blackhole).replace().execute().await.map_err(to_io)?;
        for route in self.routes_of_v4().await? {
            let ours = table(&route) == number && route.header.protocol == OUR_PROTOCOL;
            let wanted = exit.is_some_and(|exit| next_hop(&route, exit.index) == Some((exit.gateway, exit.on_link)));
            if ours && !wanted && !Lead::Blackhole.is(everywhere, &route) {
                handle.route().del(route).execute().await.map_err(to_io)?;
            }
        }
        if let Some(exit) = exit {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().table_id(number).protocol(OUR_PROTOCOL);
            let builder = builder.output_interface(exit.index);
            let mut route = match exit.gateway {
                Some(gateway) => builder.gateway(gateway).build(),
                None => builder.scope(rtnetlink::packet_route::route::RouteScope::Link).build(),
            };
            if exit.on_link {
                route.header.flags |= rtnetlink::packet_route::route::RouteFlags::Onlink;
            }
            handle.route().add(route).replace().execute().await.map_err(to_io)?;
        }
        let marked = Rule::new(plan.rule_priority, number).with_mark(number);
        self.put_rule(Family::V4, &marked.arriving_by(&device)).await?;
        // Packets come from there with the site's sources: loose, not strict.
        let filter = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        if let Err(error) = std::fs::write(&filter, "2") {
            tracing::warn!(file = filter, %error, "cannot set the reverse-path filter to loose");
        }
        let quiet = format!("/proc/sys/net/ipv6/conf/{device}/addr_gen_mode");
        if Path::new(&quiet).exists() {
            let _ = std::fs::write(&quiet, "1");
        }
        // Only what is missing: the kernel tells of an address that is put there again, and so we would look again.
        let number = if_nametoindex(device.as_str())?;
        let entries: Vec<_> = getifaddrs()?.filter(|entry| entry.interface_name == device).collect();
        let has_dummy = entries.iter().any(|entry| {
            entry.address.as_ref().and_then(|address| address.as_sockaddr_in()).is_some_and(|one| one.ip() == DUMMY)
        });
        if !has_dummy {
            handle.address().add(number, DUMMY.into(), 32).replace().execute().await.map_err(to_io)?;
        }
        if !entries.iter().any(|entry| entry.flags.contains(InterfaceFlags::IFF_UP)) {
            let up = LinkUnspec::new_with_index(number).up().build();
            handle.link().set(up).execute().await.map_err(to_io)?;
        }
        Ok(())
    }

    /// Removes all that was made for flows that leave outside of the tunnels, also by an earlier run.
    pub async fn remove_breakouts(&self) -> io::Result<()> {
        let standing = self.standing_rules(Family::V4).await?;
        // Beside those of another daemon in this network namespace.
        let devices: Vec<String> =
            (0..LINKS_MAX as u16).map(|link| device_name(&self.plan.device, LinkId(link))).collect();
        let of_ours = |rule: &Rule| rule.interface.as_ref().is_some_and(|name| devices.contains(name));
        let rules = standing.iter().filter(|rule| Rule::is_ours(rule) && of_ours(&Rule::read(rule))).count();
        self.remove_rules(Family::V4, of_ours).await?;
        let first = table_of(&self.plan, LinkId(0));
        let mut routes = 0;
        for route in self.routes_of_v4().await? {
            let number = table(&route);
            let ours = number.abs_diff(first) < LINKS_MAX && number != self.plan.table;
            if ours && route.header.protocol == OUR_PROTOCOL {
                routes += 1;
                self.handle.route().del(route).execute().await.map_err(to_io)?;
            }
        }
        let name = nft_table(&self.plan.device);
        if rules + routes > 0 { nft(&format!("table ip {name}\ndelete table ip {name}\n")) } else { Ok(()) }
    }

    async fn routes_of_v4(&self) -> io::Result<Vec<RouteMessage>> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        self.handle.route().get(filter).execute().try_collect().await.map_err(to_io)
    }
}

/// The nftables table of the daemon with this device: there may be several of both in one network namespace.
fn nft_table(device: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("_{:x}", u32::from(c)) };
    format!("trefoil_{}", device.chars().map(plain).collect::<String>())
}

fn zone(plan: &RoutePlan, link: LinkId) -> u32 {
    (plan.table % BLOCKS_OF_ZONES + 1) * ZONES + u32::from(link.0) % ZONES
}

/// The table of a link's own, and the mark of the packets that may go by it.
fn table_of(plan: &RoutePlan, link: LinkId) -> u32 {
    let number = u32::from(link.0);
    match plan.table {
        small @ ..TABLE_TIMES_1000 => small * 1_000 + number + 1,
        large => large - 1 - number,
    }
}

/// The gateway by which a route leads over this interface, and whether it is a neighbour whatever its
/// address says.
fn next_hop(route: &RouteMessage, index: u32) -> Option<(Option<Ipv4Addr>, bool)> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let gateway = |attributes: &[RouteAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })
    };
    let by_one = route.attributes.contains(&RouteAttribute::Oif(index)).then(|| {
        let on_link = route.header.flags.contains(rtnetlink::packet_route::route::RouteFlags::Onlink);
        (gateway(&route.attributes), on_link)
    });
    let hops = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    by_one.or_else(|| {
        let hop = hops?.iter().find(|hop| hop.interface_index == index)?;
        Some((gateway(&hop.attributes), hop.flags.contains(RouteNextHopFlags::Onlink)))
    })
}

/// In one step, so that there is no moment without it. What has no exit goes nowhere.
fn ruleset(plan: &RoutePlan, needs: &[BreakoutNeed], exits: &[Exit]) -> String {
    let (mut zones, mut marks, mut forward) = (String::new(), String::new(), String::new());
    let (mut translate, mut last) = (String::new(), String::new());
    for need in needs {
        let (from, zone) = (device_name(&plan.device, need.link), zone(plan, need.link));
        // Answers come by the link like any other packet, and belong to no zone.
        let _ = writeln!(zones, "    iifname \"{from}\" ct original zone set {zone}");
        match exits.iter().find(|exit| exit.link == need.link) {
            Some(Exit { interface, source, .. }) => {
                let _ = writeln!(marks, "    iifname \"{from}\" meta mark set {}", table_of(plan, need.link));
                // The zone says where a packet comes from: kernels before 5.7 have forgotten it by then, and whoever
                // sets marks of his own cannot change it.
                let to = source.map_or_else(|| "masquerade".to_owned(), |source| format!("snat to {source}"));
                let _ = writeln!(translate, "    ct original zone {zone} oifname \"{interface}\" {to}");
                let _ = writeln!(last, "    ct original zone {zone} ct status & snat != snat drop");
                let _ = writeln!(forward, "    iifname \"{from}\" oifname != \"{interface}\" drop");
                // What connection tracking does not translate: packets that fit no connection, and answers
                // to what came in by a tunnel.
                let _ = writeln!(forward, "    iifname \"{from}\" ct state invalid drop");
                let _ = writeln!(forward, "    iifname \"{from}\" ct direction reply drop");
            }
            None => _ = writeln!(forward, "    iifname \"{from}\" drop"),
        }
    }
    let name = nft_table(&plan.device);
    let chain = |name: &str, kind: &str, hook: &str, priority: &str, rules: &str| {
        format!("  chain {name} {{\n    type {kind} hook {hook} priority {priority}; policy accept;\n{rules}  }}\n")
    };
    let chains = [
        chain("zones", "filter", "prerouting", "raw", &zones),
        // After those who set marks for reasons of their own.
        chain("marks", "filter", "prerouting", "dstnat + 10", &marks),
        chain("forward", "filter", "forward", "filter", &forward),
        // The first to translate a connection decides.
        chain("translate", "nat", "postrouting", "srcnat - 10", &translate),
        chain("last", "filter", "postrouting", "srcnat + 10", &last),
    ];
    format!("table ip {name}\ndelete table ip {name}\ntable ip {name} {{\n{}}}\n", chains.concat())
}

fn stands(name: &str) -> bool {
    let mut list = Command::new("nft");
    list.args(["list", "table", "ip", name]).stdout(Stdio::null()).stderr(Stdio::null());
    list.status().is_ok_and(|status| status.success())
}

fn nft(ruleset: &str) -> io::Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let missing = |error| io::Error::other(format!("nft cannot be run ({error}): rules with breakout need nftables"));
    let mut child = command.spawn().map_err(missing)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(ruleset.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft refuses: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::OnStop;
    use crate::net::namespace::{Namespace, ip};

    fn plan(table: u32) -> RoutePlan {
        RoutePlan { device: "tf0".to_owned(), table, rule_priority: 7_100, on_stop: OnStop::Block }
    }

    #[test]
    fn each_link_has_a_table_of_its_own_beside_ours() {
        assert_eq!(table_of(&plan(221), LinkId(0)), 221_001);
        assert_eq!(table_of(&plan(1), LinkId(255)), 1_256);
        assert_eq!(table_of(&plan(u32::MAX), LinkId(255)), u32::MAX - 256);
        assert_eq!([0, 255].map(|link| zone(&plan(254), LinkId(link))), [255 * 256, 255 * 256 + 255]);
        assert_ne!(zone(&plan(221), LinkId(0)), zone(&plan(222), LinkId(0)), "two daemons in one namespace");
        assert_eq!([nft_table("trefoil0"), nft_table("tf-0")], ["trefoil_trefoil0", "trefoil_tf_2d0"]);
    }

    fn text(program: &str, arguments: &str) -> String {
        let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn a_link_leads_out_while_it_has_a_default_route_and_nothing_is_left_at_the_end() {
        let Some(namespace) = Namespace::new() else { return };
        namespace.run(|| {
            for line in [
                "link add wan0 type veth peer name wan0p",
                "link add wan1 type veth peer name wan1p",
                "tuntap add tf0b0 mode tun",
                "tuntap add tf0b1 mode tun",
                "address add 192.0.2.2/30 dev wan0",
                "link set wan0 up",
                "link set wan0p up",
                "link set wan1 up",
                "route add default via 192.0.2.1 dev wan0 metric 7",
            ] {
                ip(line);
            }
            let rules = text("ip", "rule");
            let underlay = |name: &str| UnderlayPlan { interface: Some(name.to_owned()), address: None };
            let needs = [(0, "wan0"), (1, "wan1")];
            let needs = needs.map(|(link, name)| BreakoutNeed { link: LinkId(link), underlay: underlay(name) });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let well = |(ready, trouble): (Vec<LinkId>, Option<io::Error>)| {
                assert!(trouble.is_none(), "{trouble:?}");
                ready
            };
            runtime.block_on(async {
                let mut breakouts = BreakoutRoutes::open(&plan(71), needs.to_vec()).unwrap();
                assert_eq!(well(breakouts.look().await), [LinkId(0)]);
                assert_eq!(well(breakouts.look().await), [LinkId(0)], "a second look changes nothing");
                let led = text("ip", "rule");
                assert!(led.contains("7100:\tfrom all fwmark 0x11559 iif tf0b0 lookup 71001 proto 117"), "{led}");
                assert!(led.contains("7102:\tfrom all iif tf0b0 blackhole proto 117"), "{led}");
                assert!(text("ip", "route show table 71001").contains("default via 192.0.2.1 dev wan0 proto 117"));
                assert!(text("ip", "route show table 71002").starts_with("blackhole default"));
                let nat = text("nft", "list table ip trefoil_tf0");
                assert!(nat.contains("iifname \"tf0b0\" meta mark set 0x00011559"), "{nat}");
                assert!(nat.contains("ct original zone 18432 oifname \"wan0\" masquerade"), "{nat}");
                assert!(nat.contains("iifname \"tf0b1\" drop"), "{nat}");
                assert!(nat.contains("iifname \"tf0b0\" ct direction reply drop"), "{nat}");
                assert!(!nat.contains("iifname \"tf0b1\" meta mark"), "{nat}");

                // A firewall that starts anew forgets everything.
                text("nft", "flush ruleset");
                assert_eq!(well(breakouts.look().await), [LinkId(0)]);
                assert!(stands("trefoil_tf0"));

                ip("route del default via 192.0.2.1 dev wan0 metric 7");
                assert_eq!(well(breakouts.look().await), []);
                let left = text("ip", "route show table 71001");
                assert!(left.starts_with("blackhole default") && left.lines().count() == 1, "{left}");
                assert!(text("nft", "list table ip trefoil_tf0").contains("iifname \"tf0b0\" drop"));

                Routes::open(&plan(71)).unwrap().remove_breakouts().await.unwrap();
                assert_eq!(text("ip", "rule"), rules);
                assert_eq!(text("ip", "route show table 71001"), "");
                assert!(!stands("trefoil_tf0"));
            });
        });
    }

    #[test]
    fn links_that_share_an_interface_have_each_its_own_address() {
        let Some(namespace) = Namespace::new() else { return };
        namespace.run(|| {
            for line in [
                "link add wan0 type veth peer name wan0p",
                "tuntap add tf0b0 mode tun",
                "tuntap add tf0b1 mode tun",
                "tuntap add tf0b2 mode tun",
                "address add 192.0.2.2/29 dev wan0",
                "address add 192.0.2.3/29 dev wan0",
                "link set wan0 up",
                "link set wan0p up",
                "route add default via 192.0.2.1 dev wan0",
            ] {
                ip(line);
            }
            let underlay = |last| UnderlayPlan { interface: None, address: Some(Ipv4Addr::new(192, 0, 2, last)) };
            let named = |last| UnderlayPlan { interface: Some("wan0".to_owned()), ..underlay(last) };
            let needs = [underlay(2), named(3), named(4)].into_iter().zip(0..);
            let needs = needs.map(|(underlay, link)| BreakoutNeed { link: LinkId(link), underlay }).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut breakouts = BreakoutRoutes::open(&plan(71), needs).unwrap();
                let (ready, trouble) = breakouts.look().await;
                assert!(trouble.is_none(), "{trouble:?}");
                assert_eq!(ready, [LinkId(0), LinkId(1)], "nobody has the third address");
                let nat = text("nft", "list table ip trefoil_tf0");
                for (zone, last) in [(18_432, 2), (18_433, 3)] {
                    let line = format!("ct original zone {zone} oifname \"wan0\" snat to 192.0.2.{last}");
                    assert!(nat.contains(&line), "{nat}");
                }
            });
        });
    }
}
