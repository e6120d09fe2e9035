//! What no field tells by itself: whether the parts of a site go together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::connector::{ConnectorDraft, SELECTORS_MAX};
use super::diagnostic::Report;
use super::profile::{CBC_BELOW_MBPS, Profiles};
use super::site::SiteDraft;
use super::source::{At, Spot};
use super::tunnel::{DestinationType, EffectiveId, RoleDraft, TUNNELS_MAX, TunnelDraft};
use super::wan::SourceAddress;
use super::wording;
use super::words;
use crate::crypto::Encryption;
use crate::edge::Destination;
use crate::model::{LinkId, Mbps, Role};
use crate::probe::Target;

pub fn check(site: &SiteDraft, profiles: &Profiles, report: &Report) {
    let check = Check { site, profiles, report };
    check.ranges();
    check.identities();
    check.private_networks();
    check.device();
    check.license();
    check.caps();
    for connector in &site.connectors {
        check.roles(connector);
        check.profiles(connector);
        check.selectors(connector);
        for role in connector.roles() {
            check.tunnels(connector, role);
            check.names(role);
            check.local_ids(role);
            check.ids_by_interface(role);
            check.destinations(role);
            check.bandwidth(role);
        }
    }
    // A tunnel with an error may be the one that the link is for.
    if report.error_count() == 0 {
        check.unused_links();
    }
}

/// A smaller part of the links' bandwidth than one in this is hardly meant: more likely it is in another unit.
const LICENSE_PART_LEAST: u64 = 20;

/// The connector by its number, and the role.
type Place = (usize, Role);

struct Check<'a> {
    site: &'a SiteDraft,
    profiles: &'a Profiles,
    report: &'a Report,
}

impl Check<'_> {
    /// One destination network leads to one connector.
    fn ranges(&self) {
        let mut taken: BTreeMap<IpNet, (String, Spot)> = BTreeMap::new();
        for native in &self.site.native {
            let was = taken.insert(native.value, ("a native range".to_string(), native.spot.clone()));
            if let Some((_, earlier)) = was {
                self.report.error(&native.spot, format!("{} is already at {earlier}", native.value), "each range once");
            }
        }
        let mut route_based: Option<&ConnectorDraft> = None;
        for connector in &self.site.connectors {
            for range in &connector.ranges {
                match taken.entry(range.value.range) {
                    Entry::Occupied(earlier) => {
                        let (whose, spot) = earlier.get();
                        self.report.error(
                            &range.spot,
                            format!("{} is already {whose}, at {spot}", range.value.range),
                            "a network range leads to one connector",
                        );
                    }
                    Entry::Vacant(free) => {
                        let whose = format!("a range of connector {}", wording::quoted(&connector.name.value));
                        free.insert((whose, range.spot.clone()));
                    }
                }
            }
            // Seed: "If no Network Ranges are configured ... implicit: 0.0.0.0 <> 0.0.0.0".
            let everything = connector.is_route_based;
            match route_based.filter(|_| everything) {
                Some(first) => self.report.error(
                    &connector.name.spot,
                    format!(
                        "connectors {} and {} both have no network_ranges, so both would carry everything",
                        wording::quoted(&first.name.value),
                        wording::quoted(&connector.name.value)
                    ),
                    "network_ranges in all but one",
                ),
                None if everything => route_based = Some(connector),
                None => {}
            }
        }
    }

    fn roles(&self, connector: &ConnectorDraft) {
        let [primary, secondary] = &connector.roles;
        if primary.is_none() {
            let path = format!("[connector.{}.primary]", wording::plain(&connector.name.value));
            self.report.missing(&connector.spot, format!("missing {path}"), "a role with 1 to 3 tunnels");
        }
        let (Some(primary), Some(secondary)) = (primary, secondary) else { return };
        self.locations(primary, secondary);
        let mut of_primary: BTreeMap<&Destination, &Spot> = BTreeMap::new();
        for destination in primary.tunnels().iter().filter_map(|tunnel| tunnel.destination.get()) {
            of_primary.entry(&destination.value).or_insert(&destination.spot);
        }
        let mut told = Vec::new();
        for destination in secondary.tunnels().iter().filter_map(|tunnel| tunnel.destination.get()) {
            let Some(earlier) = of_primary.get(&destination.value) else { continue };
            // A destination of the whole role is told once, not for each of its tunnels.
            if !told.contains(&&destination.value) {
                told.push(&destination.value);
                self.report.error(
                    &destination.spot,
                    format!("both roles lead to {}, as at {earlier}", destination.value),
                    "the secondary role leads to another PoP",
                );
            }
        }
    }

    /// Seed: "If you select a specific location and are also configuring a secondary site, make sure
    /// you select different locations."
    fn locations(&self, primary: &RoleDraft, secondary: &RoleDraft) {
        let (Some(first), Some(second)) = (&primary.pop_location, &secondary.pop_location) else { return };
        let alike = first.value.to_lowercase() == second.value.to_lowercase();
        if alike && !first.value.eq_ignore_ascii_case("automatic") {
            self.report.warn(
                &second.spot,
                format!("both roles have the PoP location {}", wording::quoted(&second.value)),
                "different locations, or \"Automatic\"",
            );
        }
    }

    fn tunnels(&self, connector: &ConnectorDraft, role: &RoleDraft) {
        if role.tunnels.as_ref().is_some_and(Vec::is_empty) {
            let path = format!("[[connector.{}.{}.tunnel]]", wording::plain(&connector.name.value), role.role);
            self.report.missing(&role.spot, format!("the {} role has no tunnel", role.role), format!("1 to 3 {path}"));
        }
        if let Some(tunnel) = role.tunnels().get(TUNNELS_MAX) {
            self.report.error(
                &tunnel.spot,
                format!("the {} role has {} tunnels", role.role, role.tunnels().len()),
                format!("at most {TUNNELS_MAX} in a role"),
            );
        }
        for tunnel in role.tunnels() {
            self.probes(connector, tunnel);
        }
    }

    fn names(&self, role: &RoleDraft) {
        let mut seen: BTreeMap<&str, &Spot> = BTreeMap::new();
        for name in role.tunnels().iter().filter_map(|tunnel| tunnel.name.as_ref()) {
            match seen.entry(&name.value) {
                Entry::Occupied(earlier) => self.report.error(
                    &name.spot,
                    format!("tunnel {} is already at {}", wording::quoted(&name.value), earlier.get()),
                    "a name of its own for each tunnel of a role",
                ),
                Entry::Vacant(free) => {
                    free.insert(&name.spot);
                }
            }
        }
    }

    /// Seed: "Each tunnel must have a unique identifier".
    fn local_ids(&self, role: &RoleDraft) {
        let mut seen: BTreeMap<EffectiveId, &TunnelDraft> = BTreeMap::new();
        for tunnel in role.tunnels() {
            let Some(id) = tunnel.effective_local_id(&self.site.wan) else { continue };
            match seen.entry(id) {
                Entry::Occupied(earlier) => self.report.error(
                    local_id_spot(tunnel),
                    format!("local ID {} is also that of the tunnel at {}", earlier.key(), earlier.get().spot),
                    "a local_id of its own for each tunnel of a role",
                ),
                Entry::Vacant(free) => {
                    free.insert(tunnel);
                }
            }
        }
    }

    /// A link over an interface alone has its first address, which may well be the one that
    /// another link over this interface names.
    fn ids_by_interface(&self, role: &RoleDraft) {
        let wan = &self.site.wan;
        let defaulted = role.tunnels().iter().filter(|one| one.local_id.is_left_out() && one.public_ip.is_left_out());
        let sources: Vec<(&TunnelDraft, &str, SourceAddress)> = defaulted
            .filter_map(|tunnel| {
                let link = tunnel.link.as_ref()?.value;
                Some((tunnel, wan.interface(link)?, wan.source(link)?))
            })
            .collect();
        for (index, (tunnel, interface, source)) in sources.iter().enumerate() {
            let alike = |(_, other, its): &&(&TunnelDraft, &str, SourceAddress)| match (source, its) {
                (SourceAddress::Known(_), SourceAddress::OfInterface(_))
                | (SourceAddress::OfInterface(_), SourceAddress::Known(_)) => interface == other,
                (SourceAddress::Known(_), SourceAddress::Known(_))
                | (SourceAddress::OfInterface(_), SourceAddress::OfInterface(_)) => false,
            };
            if let Some((earlier, _, _)) = sources.iter().take(index).find(alike) {
                self.report.error(
                    local_id_spot(tunnel),
                    format!(
                        "the local ID is an address of {}, and may be that of the tunnel at {}",
                        wording::quoted(interface),
                        earlier.spot
                    ),
                    "a local_id of its own for each tunnel of a role",
                );
            }
        }
    }

    fn all_tunnels(&self) -> impl Iterator<Item = (&TunnelDraft, Place)> {
        self.site.connectors.iter().enumerate().flat_map(|(index, connector)| {
            let roles = connector.roles();
            roles.flat_map(move |role| role.tunnels().iter().map(move |tunnel| (tunnel, (index, role.role))))
        })
    }

    /// A peer, and we as responder, find the tunnel and its key by both identities.
    fn identities(&self) {
        let mut seen: BTreeMap<(EffectiveId, EffectiveId), (&TunnelDraft, Place)> = BTreeMap::new();
        for (tunnel, place) in self.all_tunnels() {
            let local = tunnel.effective_local_id(&self.site.wan);
            let Some(pair) = local.zip(tunnel.effective_remote_id()) else { continue };
            match seen.entry(pair) {
                Entry::Occupied(earlier) => {
                    let (local, remote) = earlier.key();
                    let (other, its_place) = earlier.get();
                    // Refused already: a local ID alone within a role, and one destination for
                    // both roles of a connector.
                    let same_destination = tunnel.remote_id.is_left_out() && other.remote_id.is_left_out();
                    if place != *its_place && !(same_destination && place.0 == its_place.0) {
                        self.report.error(
                            local_id_spot(tunnel),
                            format!("local ID {local} with remote ID {remote} is also the tunnel at {}", other.spot),
                            "two tunnels of a site differ in local_id or remote_id",
                        );
                    }
                }
                Entry::Vacant(free) => {
                    free.insert((tunnel, place));
                }
            }
        }
    }

    /// Seed: "The destination must be the same for all active tunnels for the HA role".
    fn destinations(&self, role: &RoleDraft) {
        let destinations: Vec<&At<Destination>> =
            role.tunnels().iter().filter_map(|tunnel| tunnel.destination.get()).collect();
        let Some(first) = destinations.first() else { return };
        let expected = role
            .destination_type
            .as_ref()
            .map_or_else(|| (DestinationType::of(&first.value), &first.spot), |written| (written.value, &written.spot));
        let mut told: Vec<&Destination> = Vec::new();
        for destination in destinations.iter().filter(|one| DestinationType::of(&one.value) != expected.0) {
            if !told.contains(&&destination.value) {
                told.push(&destination.value);
                self.report.error(
                    &destination.spot,
                    format!(
                        "{} is not of destination type {}, as at {}",
                        destination.value,
                        expected.0.name(),
                        expected.1
                    ),
                    "one destination type for all tunnels of a role",
                );
            }
        }
        let Destination::Ipv4(_) = first.value else { return };
        let another = destinations
            .iter()
            .find(|one| DestinationType::of(&one.value) == DestinationType::Ipv4 && one.value != first.value);
        if let Some(another) = another.filter(|_| !role.same_pop) {
            self.report.error(
                &another.spot,
                format!("{} and {} in one role", first.value, another.value),
                "one PoP for all tunnels of a role; same_pop = true where two addresses are one PoP",
            );
        }
    }

    /// Seed: with more than the link has, "the Socket QoS engine is ineffective".
    fn bandwidth(&self, role: &RoleDraft) {
        let mut claims: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for tunnel in role.tunnels() {
            let Some(link) = &tunnel.link else { continue };
            let claim = claims.entry(link.value).or_default();
            let mbps = |written: &Option<At<Mbps>>| written.as_ref().map_or(0, |at| u64::from(at.value.value()));
            claim.0 += mbps(&tunnel.downstream);
            claim.1 += mbps(&tunnel.upstream);
        }
        if let Some(license) = &self.site.license {
            let all = claims.values().fold((0, 0), |sum, claim| (sum.0 + claim.0, sum.1 + claim.1));
            for (claimed, direction) in [(all.0, "downstream"), (all.1, "upstream")] {
                if claimed > u64::from(license.value.value()) {
                    self.report.warn(
                        &role.spot,
                        format!("the {} role's tunnels claim {claimed} Mbps {direction}", role.role),
                        format!("the license at {} is {}", license.spot, license.value),
                    );
                }
            }
        }
        for (link, (downstream, upstream)) in claims {
            let Some((link_downstream, link_upstream)) = self.site.wan.bandwidth(link) else { continue };
            for (claimed, has, direction) in
                [(downstream, link_downstream, "downstream"), (upstream, link_upstream, "upstream")]
            {
                if claimed > u64::from(has.value()) {
                    self.report.warn(
                        &role.spot,
                        format!(
                            "the {} role's tunnels on {} claim {claimed} Mbps {direction}",
                            role.role,
                            self.site.wan.name(link)
                        ),
                        format!("the link has {has}"),
                    );
                }
            }
        }
    }

    /// A license that no link can use up, or that all but shuts them, is a slip of the pen.
    fn license(&self) {
        let Some(license) = &self.site.license else { return };
        let (licensed, links) = (u64::from(license.value.value()), self.site.wan.total_mbps());
        if self.report.error_count() > 0 {
            return;
        }
        let all_links = format!("all WAN links together have {links} Mbps in their faster direction");
        if licensed > links {
            self.report.warn(&license.spot, format!("the license is {}", license.value), all_links);
        } else if licensed.saturating_mul(LICENSE_PART_LEAST) < links {
            let what = format!("the license is {}, less than a {LICENSE_PART_LEAST}th of the links", license.value);
            self.report.warn(&license.spot, what, format!("license_mbps in Mbps: {all_links}"));
        }
    }

    /// A cap beyond the license never holds anything back.
    fn caps(&self) {
        let Some(license) = &self.site.license else { return };
        for (id, name) in self.site.wan.names() {
            let (cap, Some((downstream, upstream))) = (self.site.wan.cap(id), self.site.wan.bandwidth(id)) else {
                continue;
            };
            for (capped, mbps, direction) in
                [(cap.downstream, downstream, "downstream"), (cap.upstream, upstream, "upstream")]
            {
                if capped && mbps > license.value {
                    self.report.warn(
                        &name.spot,
                        format!("WAN link {} is capped at {mbps} {direction}", wording::quoted(&name.value)),
                        format!("the license at {} is {}", license.spot, license.value),
                    );
                }
            }
        }
    }

    fn unused_links(&self) {
        let used: BTreeSet<LinkId> =
            self.all_tunnels().filter_map(|(tunnel, _)| Some(tunnel.link.as_ref()?.value)).collect();
        for (id, name) in self.site.wan.names().filter(|(id, _)| !used.contains(id)) {
            self.report.warn(
                &name.spot,
                format!("WAN link {} has no tunnel", wording::quoted(self.site.wan.name(id))),
                "a tunnel over it, or no such link",
            );
        }
    }

    fn device(&self) {
        for interface in self.site.wan.interfaces().filter(|interface| interface.value == self.site.routes.device) {
            self.report.error(
                &interface.spot,
                format!("{} is the device of the tunnels as well", wording::quoted(&interface.value)),
                "another name for device in [routes]",
            );
        }
    }

    /// A private address tells its tunnel from all others.
    fn private_networks(&self) {
        let mut networks: Vec<(IpNet, &At<IpNet>)> = Vec::new();
        for (tunnel, _) in self.all_tunnels() {
            let local = tunnel.private_local.get();
            networks.extend(local.map(|at| (at.value.trunc(), at)));
            let Some(remote) = tunnel.private_remote.get() else { continue };
            match local {
                Some(local) if local.value.addr() == remote.value.addr() => self.report.error(
                    &remote.spot,
                    format!("private_remote {} is private_local as well", remote.value.addr()),
                    "the peer's address in the tunnel",
                ),
                Some(local) if local.value.addr().is_ipv4() != remote.value.addr().is_ipv4() => self.report.error(
                    &remote.spot,
                    "private_local and private_remote are of different families",
                    "both IPv4 or both IPv6",
                ),
                None if tunnel.private_local.is_left_out() => {
                    self.report.missing(&remote.spot, "private_remote without private_local", "both, or neither");
                }
                Some(_) | None => {}
            }
        }
        // Sorted by where they begin, a network that overlaps any earlier one overlaps the widest
        // that reaches this far, which is the last one kept.
        networks.sort_by_key(|(network, _)| (*network, network.prefix_len()));
        let mut widest: Option<(IpNet, &At<IpNet>)> = None;
        for (network, at) in networks {
            match widest {
                Some((earlier, first)) if earlier.contains(&network) => {
                    // Told at the later place, which is the one that was added.
                    let place = |at: &At<IpNet>| (at.spot.line(), at.spot.column());
                    let (here, there) = if place(at) > place(first) { (at, first) } else { (first, at) };
                    self.report.error(
                        &here.spot,
                        format!("private address {} overlaps {} at {}", here.value, there.value, there.spot),
                        "a network of its own for each tunnel",
                    );
                }
                _ => widest = Some((network, at)),
            }
        }
    }

    fn probes(&self, connector: &ConnectorDraft, tunnel: &TunnelDraft) {
        let Some(first) = tunnel.probes.targets().first() else { return };
        // Targets of the whole connector are told where they do not fit a tunnel.
        let place = |probe: &At<Target>| {
            if tunnel.has_own_targets { probe.spot.clone() } else { tunnel.spot.clone() }
        };
        if tunnel.private_local.is_left_out() {
            self.report.missing(
                &place(first),
                "probes without a private address to send them from",
                "such as private_local = \"169.254.10.2/30\"",
            );
        }
        let remote = tunnel.private_remote.get().map(|at| at.value.addr());
        let local = tunnel.private_local.get().map(|at| at.value.addr());
        let offered = connector.offered_peer_selectors(self.site);
        for probe in tunnel.probes.targets() {
            let Target { address, .. } = probe.value;
            if local.is_some_and(|local| local.is_ipv4() != address.is_ipv4()) {
                self.report.error(
                    &place(probe),
                    format!("probe target {address} is of another family than private_local"),
                    "both IPv4 or both IPv6",
                );
            } else if connector.selectors_are_whole
                && remote != Some(address)
                && !offered.iter().any(|one| one.covers(address, probe.value.protocol(), probe.value.port()))
            {
                self.report.error(
                    &place(probe),
                    format!("probe target {} is outside the peer traffic selectors", probe.value),
                    "a target within them, or private_remote",
                );
            }
        }
        let targets = tunnel.probes.targets().len();
        if let Some(need) = tunnel.probes.need.as_ref().filter(|need| usize::from(need.value) > targets) {
            self.report.error(
                &need.spot,
                format!("{} probe targets are needed, and the tunnel at {} has {targets}", need.value, tunnel.spot),
                "at most as many as there are",
            );
        }
    }

    fn selectors(&self, connector: &ConnectorDraft) {
        let by_ranges = connector.peer_selectors.is_empty() && connector.ranges.len() > SELECTORS_MAX;
        if let Some(spot) = connector.ranges_spot.as_ref().filter(|_| by_ranges) {
            self.report.error(
                spot,
                format!("{} network ranges make as many traffic selectors", connector.ranges.len()),
                format!("at most {SELECTORS_MAX}, or peer_traffic_selectors that sum them up"),
            );
        }
    }

    fn profiles(&self, connector: &ConnectorDraft) {
        let phase1 = self.profiles.phase1(connector.phase1_name());
        let phase2 = self.profiles.phase2(connector.phase2_name());
        if let Some(named) = connector.phase1.as_ref().filter(|_| phase1.is_none()) {
            self.missing_profile(named, "phase 1", &self.profiles.known(|profile| profile.phase1.is_some()));
        }
        if let Some(named) = connector.phase2.as_ref().filter(|_| phase2.is_none()) {
            self.missing_profile(named, "phase 2", &self.profiles.known(|profile| profile.phase2.is_some()));
        }
        self.cbc(connector, phase1.and_then(|(phase1, _)| phase1.cbc()));
        self.cbc(connector, phase2.and_then(|phase2| phase2.cbc()));
        let layers = phase1.map(|(_, keepalive)| connector.keepalive.over(keepalive));
        let layers = layers.unwrap_or_else(|| connector.keepalive.clone());
        if let Some((interval, dead_after)) = layers.interval_beyond_dead_after() {
            self.report.error(
                &interval.spot,
                "the keepalive interval leaves no time for an answer",
                format!("interval below dead_after, which is {}", words::duration_text(dead_after)),
            );
        }
    }

    fn missing_profile(&self, named: &At<String>, phase: &str, known: &str) {
        // A file of that name with syntax errors is reported as such.
        if !self.profiles.is_broken(&named.value) {
            self.report.error(&named.spot, format!("unknown {phase} profile {}", wording::quoted(&named.value)), known);
        }
    }

    /// Seed: "AES CBC algorithms are only used on sites with bandwidth less than 100Mbps".
    fn cbc(&self, connector: &ConnectorDraft, cbc: Option<&At<Encryption>>) {
        let site = self.site.bandwidth_mbps();
        let Some(cbc) = cbc.filter(|_| site >= CBC_BELOW_MBPS) else { return };
        self.report.error(
            &cbc.spot,
            format!(
                "{} for connector {} at {}, on a site of {site} Mbps",
                cbc.value.name(),
                wording::quoted(&connector.name.value),
                connector.name.spot
            ),
            format!("from {CBC_BELOW_MBPS} Mbps aes-gcm-256 or aes-gcm-128"),
        );
    }
}

fn local_id_spot(tunnel: &TunnelDraft) -> &Spot {
    let configured = tunnel.local_id.get().map(|at| &at.spot);
    configured.or_else(|| tunnel.public_ip.get().map(|at| &at.spot)).unwrap_or(&tunnel.spot)
}
